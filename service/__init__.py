"""`rl-scaler serve`: places jobs onto servers over HTTP, by a heuristic or by the learned scheduler.

* `settings` and `command`: flags, checked, and the process.
* `cluster`: jobs and servers in memory; `strategies` choose, `reasons` say why.
* `store`: the same on disk; `engine` holds cluster, clock and store together.
* `app` and its routes: HTTP. `demo`: all strategies side by side on one generated stream.

It stands on `sim.scheduling` (the rules, compiled) and needs neither a cluster nor the training libraries.
"""
