"""Settings of `algo: evolution`, a section of every preset; no torch here, so that `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import ConfigError


@dataclass(frozen=True)
class Evolution:
    """Hyperparameters of evolution strategies on pools (see `training.poolsets.learner`)."""

    width: int = 16
    """Of the Deep Set's hidden layers."""
    service_policy: str = "default"
    """Built-in policy for services whose hold band the network starts from; a part of the artifact."""
    noise: float = 1.0
    """Size of the perturbations, in units of each parameter's own scale (`learner.SCALES`)."""
    learning_rate: float = 0.15
    """Adam's step at the start, in the same units; it falls to `final_learning_rate` as half a cosine."""
    final_learning_rate: float = 0.015
    """Adam's step at the end."""
    schedule_steps: int = 0
    """Control steps over which the learning rate falls; 0: the whole run. A run that is to be continued later
    says here how long it may become, so that going on is the same as not having stopped."""
    average: float = 0.97
    """Decay a step of the running mean of parameters, which is what is exported."""
    price_exponent: tuple[float, float] = (0.4, 2.2)
    """Logarithm (base 10) of the price of lateness at preference 0 and at 100; that of ln(cost) is 1."""
    over_p99: float = 0.1
    """What a share of steps with a p99 above the objective counts beside the share of violating requests."""
    churn: float = 0.03
    """Price of a change of all replicas, or of all weights, in each step."""
    clip: float = 3.0
    """Largest difference of a pair, in multiples of what is usual at its preference."""
    ejects: bool = True
    """Whether the operator's outlier ejection stands behind the policy in training, as it does in service."""

    def __post_init__(self) -> None:
        """Refuse values that would fail later with a worse message."""
        _require(self.width >= 1, "width", self.width, "1 or more")
        for name in ("noise", "learning_rate", "final_learning_rate", "clip"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("over_p99", "churn", "schedule_steps"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(0 <= self.average < 1, "average", self.average, "in 0..1, 1 excluded")
        low, high = self.price_exponent
        _require(low <= high, "price_exponent", self.price_exponent, "two ascending numbers")


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"evolution.{name}: {value} is not allowed; {allowed} is")
