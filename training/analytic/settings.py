"""Settings of `algo: analytic`, a section of every preset; no torch here, so that `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import ConfigError


@dataclass(frozen=True)
class Analytic:
    """Hyperparameters of training through the differentiable twin."""

    unroll_steps: int = 96
    """Control steps between two updates; the gradient goes back to the first of them."""
    tail_steps: int = 20
    """Last steps of each unroll whose actions get no gradient: what they buy is not seen any more."""
    episode_unrolls: int = 8
    """Unrolls that a service lives through before it is replaced by another."""
    episodes: int = 768
    """Episodes kept at a time; rows draw from them."""
    fresh_episodes: int = 6
    """Episodes made anew after each update, over the oldest."""
    coarse_share: float = 0.4
    """Share of episodes as recordings show traffic: counts in bins of a minute to an hour, drawn by chance
    and joined by straight lines."""
    function_share: float = 0.08
    """Share of episodes with the invocations of single functions: timers, and events far apart."""
    extra_lag: float = 0.2
    """Share of services whose metrics come one more scrape late."""
    missing: float = 0.2
    """Share of services without a latency (or an objective for it). Requests in flight, errors, utilisation
    and ready replicas are each missing half as often."""
    minibatches: int = 4
    """Parts of the services that each unroll's gradients are applied in, one after the other."""
    learning_rate: float = 3e-3
    """Adam's step at the start; it falls to `final_learning_rate` as half a cosine."""
    final_learning_rate: float = 5e-5
    """Adam's step at the end."""
    average: float = 0.997
    """Decay a step of Adam of the running mean of weights, which is what is exported."""
    price_exponent: tuple[float, float] = (0.5, 2.9)
    """Logarithm (base 10) of the price of violations at preference 0 and at 100."""
    softness: float = 0.0
    """Share of a smooth overload measure in the violations that gradients see (see `twin.soft_share`)."""
    relative_cost: float = 1.0
    """1: a service's cost counts in units of what it usually costs; 0: in units of its ideal."""
    balance: float = 1.0
    """Power with which a service's loss is divided by the mean loss of its like (difficulty and price)."""
    clip_action: float = 300.0
    """Largest gradient of one action, in multiples of the mean one's size."""
    clip_norm: float = 2.0
    """Largest gradient of a minibatch, in multiples of the running mean of their norms: one with a rare surge
    can be eighty times as long, and undo what was learnt. 0: no limit."""
    hardness: tuple[float, float] = (-0.3, 0.7)
    """Powers with which the price of violations rises with what a plain rule costs on a service's traffic, at
    preference 0 and from `hard_from` on."""
    hard_from: float = 0.3
    """Preference (of 1) from which the second of those powers holds."""
    churn: float = 0.3
    """Price of a large change of replicas, in 15 s of the usual ideal; of a change of one, half of it."""
    least_gap: tuple[float, float] = (0.2, 0.8)
    """Least distance of the band's edges in logarithms (what load may fall by before replicas do), and how
    much more it is just after a scale-up; that fades."""
    gap_fades_s: float = 500.0
    """How fast: after that many seconds a third of it is left."""
    levels: tuple[str, ...] = ("move_q980_1h", "move_q995_1h", "move_q990_1d", "move_q999_1d")
    """Rises of which the network also sees where they would end if they began at no load at all: after bursts
    out of nothing that is how high they went. Their names as features: `level_` in place of `move_`."""
    anchors: tuple[tuple[str, ...], ...] = (
        ("load_max_60s", "level_q995_1h"),
        ("load_max_60s", "level_q999_1d"),
    )
    """Anchors beside those of `action`, which may name levels."""
    flap: float = 0.5
    """Price of a change that reverses the one before, in 15 s of the usual cost; less of a small one."""
    floor: tuple[str, ...] = ("load_max_300s", "move_q995_1h", "move_q999_1d")
    """Features whose largest is a floor under the lower edge in the safest part of the dial: the best formula
    forecast, for rare events that training sees too few of. Empty: no floor."""
    floor_from: float = 0.75
    """Preference (of 1) at which the floor begins."""
    floor_margins: tuple[float, float] = (-1.6, 3.0)
    """Log headroom of the floor over those features where it begins, and at preference 1."""
    floor_cap: tuple[str, ...] = ("level_q999_1d", "load_max_3600s")
    """The floor is not above the largest of these, which say how high the load has been: a rise out of
    nothing need not be expected on top of a peak. Empty: no cap."""
    cap_margins: tuple[float, float] = (-1.0, 0.7)
    """Log headroom of the cap over those features."""
    reserve: tuple[str, ...] = ("load_max_300s",)
    """Nor is it below the largest of these, for rises without precedent. Empty: no reserve."""
    reserve_margins: tuple[float, float] = (-3.0, 1.8)
    """Log headroom of the reserve over those features."""
    served_reserve: tuple[str, ...] = ("load_max_300s", "move_q995_1h", "move_q999_1d")
    """What the artifact has in place of `reserve`: the reserve can be chosen after training, since it does
    not go through the weights."""
    served_reserve_margins: tuple[float, float] = (-1.6, 0.6)
    """Log headroom of that."""
    served_bound: tuple[str, ...] = (
        "load_max_3600s",
        "season_1h",
        "season_1d",
        "level_q995_1h",
        "level_q999_1d",
    )
    """What says how high the load has been. In the artifact the network's own lower edge is not above a
    multiple of the largest of these, of the load now and of one replica: training has too few surges for the
    network to know where to stop, and maxReplicas so near the peak that going on costs nothing. It does not
    go through the weights either. Empty: no bound."""
    served_bound_times: float = 3.0
    """That multiple."""
    served_reserve_times: float = 10.0
    """The reserve may ask for more than that, but not for more than this multiple of the load now."""

    def __post_init__(self) -> None:
        """Refuse values that would fail later with a worse message."""
        for name in ("unroll_steps", "episode_unrolls", "episodes", "minibatches"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(self.gap_fades_s > 0, "gap_fades_s", self.gap_fades_s, "above 0")
        for name in (
            "tail_steps",
            "fresh_episodes",
            "churn",
            "flap",
            "clip_action",
            "clip_norm",
            "balance",
            "learning_rate",
        ):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(
            self.tail_steps < self.unroll_steps, "tail_steps", self.tail_steps, f"below {self.unroll_steps}"
        )
        shares = ("coarse_share", "function_share", "extra_lag", "missing", "average", "softness")
        for name in (*shares, "relative_cost"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in 0..1")
        for name in ("served_bound_times", "served_reserve_times"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(0 <= self.floor_from < 1, "floor_from", self.floor_from, "in 0..1, 1 excluded")
        low, high = self.price_exponent
        _require(low <= high, "price_exponent", self.price_exponent, "two ascending numbers")


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"analytic.{name}: {value} is not allowed; {allowed} is")
