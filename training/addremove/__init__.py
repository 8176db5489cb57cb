"""What `training/discrete.py` does: tune the threshold rule, and compare it with learned policies."""
