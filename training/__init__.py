"""Training of policies: PPO on the simulator, evaluation against the baselines, export to an artifact.

Nothing in `controller/` or `sim/` imports this package; the operator's image does not contain it.
"""
