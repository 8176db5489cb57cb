"""Learned schedulers: the network that scores servers, and how schedulers are compared on jobs' recordings.

`training.tasks.scheduling` trains with it, `training/scheduling.py` is the comparison's command.
"""
