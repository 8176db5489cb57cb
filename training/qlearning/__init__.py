"""Tabular Q-learning: `python training/train.py --preset qlearning`. docs/qlearning.md is its page."""
