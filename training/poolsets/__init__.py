"""The policy for pools behind one route: its network, its training by evolution, and its artifact.

`training.train` and `training.export` call `run`; docs/pools.md says how the built-in one was made.
"""
