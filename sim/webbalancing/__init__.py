"""Batches of web requests onto servers of different capacity: real HTTP servers, and their simulated twin.

`episodes` draws what happens (servers, requests, faults); `book` is what a balancer knows of it, from its own
requests and from the servers' metrics; `features` makes the agent's observation of the book. These are the
same code for both faces of the environment `rlscaler/WebBalancing-v0` (`environment`): `batch` plays the twin
(`twin`, compiled, N at once), `real` sends HTTP requests to the servers of `server`, started by `fleet`.
`policies` are the formulas that an agent is compared with. `training.webbalancing` and
`python training/web_balancing.py` are the callers.

Nothing is imported here, so that a server (`python -m sim.webbalancing.server`) starts in no time.
"""
