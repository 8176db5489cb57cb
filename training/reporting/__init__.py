"""The HTML page about a run or an artifact: `training/report.py` is the command."""
