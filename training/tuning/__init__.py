"""Hyperparameter search over presets: `training/tune.py` is the command."""
