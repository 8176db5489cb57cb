"""The twin: a cluster, its services and their Prometheus, on a machine that has none of them.

`sim.twin.emulator.TwinCluster` is the API server, `sim.twin.service` the simulated traffic and pods' metrics,
`sim.twin.prometheus` a real Prometheus that scrapes them. `python -m sim.twin` starts all three.
"""
