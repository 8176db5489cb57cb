"""rl-scaler: a Kubernetes operator that scales workloads with a learned policy behind a guard."""

from __future__ import annotations

__version__ = "0.1.0"
