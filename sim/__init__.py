"""Simulated services, workloads and environments over the operator's own decision core.

`sim.envs` are the reinforcement-learning environments, `sim.replay` runs any policy over a trace,
`sim.physics` is the service underneath both (and under the cluster twin). Nothing here imports the
operator.
"""

from sim.codecache import keep_code_by_sources

keep_code_by_sources()
