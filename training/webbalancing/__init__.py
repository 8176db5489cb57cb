"""Web balancing with DQN: its network, evaluation, transfer to real servers, tables and pictures.

`training.tasks.web` (`train.py --env web`) and `training/web_balancing.py` are the callers.
"""
