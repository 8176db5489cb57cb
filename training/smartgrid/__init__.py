"""Evaluation, pictures and the data-centre example of the smart grid; `training/grid.py` is the command."""
