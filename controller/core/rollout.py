"""Progressive delivery of one pool: by how much of the traffic a new version is trusted, turn by turn.

After Flagger's canary loop (https://docs.flagger.app/usage/deployment-strategies): the weight goes up by
steps while the pool's own latency and errors hold, and to nothing at once when they do not. Unlike there,
every sync period is a check, and replicas are there before the weight is. Scalar and without I/O:
`controller.rollouts` sees and acts. Times are control seconds, weights parts of 100, replicas counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

PROGRESSING, PAUSED, SUCCEEDED, FAILED = "Progressing", "Paused", "Succeeded", "Failed"
PHASES: Final = (PROGRESSING, PAUSED, SUCCEEDED, FAILED)
HOLDS, BREACHED, MISSING, FEW = "Holds", "Breached", "Missing", "Few"
"""Verdicts of a check: all limits kept; one broken; not known though it should be; too few requests."""
DUE: Final = 2.0
"""Times minRequests that were due by the load, from which too few requests are no lull but a fault."""

LEFTOVER_WINDOWS: Final = 2.0
"""Windows for which requests from before it began may still be in the metrics of a pool without weight."""


@dataclass(frozen=True, slots=True)
class RolloutRules:
    """What a roll-out keeps to.

    max_latency_ms: at the objective's percentile, NaN for no limit. min_requests: of the pool, within a
    window of window_s, for a check to count. failure_threshold, missing_threshold: checks in a row.
    deadline_s: for replicas that were asked for to become ready.
    """

    max_weight: int = 50
    step_weight: int = 10
    interval_s: float = 60.0
    max_error_ratio: float = 0.01
    max_latency_ms: float = math.nan
    min_requests: float = 100.0
    failure_threshold: int = 1
    missing_threshold: int = 5
    deadline_s: float = 600.0
    window_s: float = 60.0


@dataclass(frozen=True, slots=True)
class RolloutState:
    """Where a roll-out is. revision: of the pods that it is about, "" while not known.

    since_s: when the phase began. stepped_s: when the weight last changed. carried_s: since when the routes
    carry it. failed, missing: checks in a row. waiting_s: since when replicas are awaited, NaN: they are not.
    restart: the word by which a user last began it anew. mark: of the rules that it failed by.
    """

    phase: str
    weight: int
    since_s: float
    stepped_s: float
    carried_s: float
    revision: str = ""
    failed: int = 0
    missing: int = 0
    waiting_s: float = math.nan
    restart: str = ""
    mark: str = ""
    message: str = ""

    @property
    def under_way(self) -> bool:
        """Whether the weight is still to go up."""
        return self.phase in (PROGRESSING, PAUSED)


@dataclass(frozen=True, slots=True)
class Sight:
    """What one turn sees of the canary's pool. NaN and "" are not known.

    needed: replicas for the next weight; asked: those that it may have of these; ready: those that it has.
    requests: of the pool within the window. due: those that the whole load and the weight would give.
    error_ratio: 0..1. latency_ms: at the objective's percentile. carried: whether the routes had the present
    weight already. objective: whether the service as a whole keeps its objective. others: whether another
    pool is ready. paused, abort, restart: what the user asks for. mark: of the rules. obstacle: what
    else keeps it from going up, in words.
    """

    now_s: float
    revision: str = ""
    needed: int = 1
    asked: int = 1
    ready: int = 0
    requests: float = math.nan
    due: float = math.nan
    error_ratio: float = math.nan
    latency_ms: float = math.nan
    carried: bool = True
    objective: bool = True
    others: bool = True
    paused: bool = False
    abort: bool = False
    restart: str = ""
    mark: str = ""
    obstacle: str = ""


def begin(sight: Sight, message: str) -> RolloutState:
    """A roll-out from nothing."""
    return RolloutState(
        PROGRESSING,
        0,
        sight.now_s,
        sight.now_s,
        sight.now_s,
        revision=sight.revision,
        restart=sight.restart,
        mark=sight.mark,
        message=message,
    )


def next_weight(state: RolloutState, rules: RolloutRules) -> int:
    """The weight that its replicas are to be ready for."""
    if not state.under_way:
        return state.weight
    return min(state.weight + rules.step_weight, rules.max_weight)


def replicas_for(weight: int, desired: int, ratio: float = 1.0) -> int:
    """Replicas that serve this part of what `desired` replicas of the whole service serve.

    ratio: requests/s of a replica of the whole over one of the pool.
    """
    return math.ceil(desired * weight / 100.0 * ratio - 1e-9)


def advance(state: RolloutState | None, rules: RolloutRules, sight: Sight) -> RolloutState:
    """The state after one turn. The weight never goes up but on a check that holds."""
    if state is None:
        return begin(sight, "begun: the weight goes up from 0")
    anew = _anew(state, sight)
    if anew:
        return begin(sight, f"begun anew: {anew}")
    state = _took_note(state, rules, sight)
    if state.phase == FAILED:
        return state
    if sight.abort:
        return _fail(state, sight, "rolled back by annotation")
    verdict, words = judge(state, rules, sight)
    state = _counted(state, verdict)
    if state.failed >= rules.failure_threshold and verdict == BREACHED:
        return _fail(state, sight, f"rolled back from weight {state.weight}: {words}")
    if state.under_way and verdict == MISSING and state.missing >= rules.missing_threshold:
        checks = f"{state.missing} check{'' if state.missing == 1 else 's'} in a row"
        return _fail(state, sight, f"rolled back from weight {state.weight} after {checks}: {words}")
    state = _phased(state, rules, sight)
    if state.phase != PROGRESSING:
        held = "paused by annotation" if state.phase == PAUSED else f"holds at weight {state.weight}"
        return replace(state, message=held if verdict in (HOLDS, FEW) else f"{held}; {words}")
    return _progressed(state, rules, sight, verdict, words)


def judge(state: RolloutState, rules: RolloutRules, sight: Sight) -> tuple[str, str]:
    """(verdict, words) of one check. A pool without weight has nothing to be judged by, and holds.

    An error ratio breaks its limit with fewer than min_requests too, if it would do so had all the rest of
    these been answered well.
    """
    if state.weight <= 0:
        return HOLDS, ""
    counted = max(sight.requests, rules.min_requests)
    if sight.error_ratio * sight.requests > rules.max_error_ratio * counted:
        return BREACHED, f"error ratio {sight.error_ratio:.4g}, at most {rules.max_error_ratio:g}"
    enough = sight.requests >= rules.min_requests
    if enough and sight.latency_ms > rules.max_latency_ms:
        return BREACHED, f"latency {sight.latency_ms:.0f} ms, at most {rules.max_latency_ms:.0f} ms"
    if sight.ready <= 0:
        return MISSING, "no replica of the pool is ready"
    if sight.now_s - state.stepped_s < rules.window_s and not enough:
        return FEW, "its metrics are awaited"
    if math.isnan(sight.requests):
        return MISSING, "the pool's requests could not be read"
    if not enough:
        words = f"{sight.requests:.0f} requests, at least {rules.min_requests:.0f} are needed"
        lull = not sight.due >= DUE * rules.min_requests
        return (FEW, words) if lull else (MISSING, f"{words}, and {sight.due:.0f} were due")
    if math.isnan(sight.error_ratio):
        return MISSING, "the pool's error ratio could not be read"
    if math.isnan(sight.latency_ms) and not math.isnan(rules.max_latency_ms):
        return MISSING, "the pool's latency could not be read"
    return HOLDS, ""


def _anew(state: RolloutState, sight: Sight) -> str:
    """Why it begins anew, if it does."""
    if sight.revision and state.revision and sight.revision != state.revision:
        return "the pool's pods are of another revision"
    if sight.restart and sight.restart != state.restart:
        return "asked for by annotation"
    if state.phase == FAILED and sight.mark != state.mark:
        return "spec.canary has changed"
    return ""


def _took_note(state: RolloutState, rules: RolloutRules, sight: Sight) -> RolloutState:
    return replace(
        state,
        weight=min(state.weight, rules.max_weight),
        revision=state.revision or sight.revision,
        restart=sight.restart,
        mark=state.mark if state.phase == FAILED else sight.mark,
        carried_s=state.carried_s if sight.carried else sight.now_s,
    )


def _counted(state: RolloutState, verdict: str) -> RolloutState:
    if verdict == BREACHED:
        return replace(state, failed=state.failed + 1, missing=0)
    if verdict == MISSING:
        return replace(state, missing=state.missing + 1)
    return replace(state, failed=0, missing=0) if verdict == HOLDS else state


def _fail(state: RolloutState, sight: Sight, why: str) -> RolloutState:
    now_s, nothing = sight.now_s, math.nan
    return replace(
        state, phase=FAILED, weight=0, since_s=now_s, stepped_s=now_s, waiting_s=nothing, message=why
    )


def _phased(state: RolloutState, rules: RolloutRules, sight: Sight) -> RolloutState:
    """Into a pause and out of it, and on where maxWeight was raised; each gives the interval anew."""
    phase = state.phase
    if phase == SUCCEEDED and state.weight < rules.max_weight:
        phase = PROGRESSING
    if phase in (PROGRESSING, PAUSED):
        phase = PAUSED if sight.paused else PROGRESSING
    if phase == state.phase:
        return state
    return replace(state, phase=phase, since_s=sight.now_s, carried_s=sight.now_s, waiting_s=math.nan)


def _progressed(
    state: RolloutState, rules: RolloutRules, sight: Sight, verdict: str, words: str
) -> RolloutState:
    """A step, or why there is none."""
    now_s, weight = sight.now_s, state.weight
    following = next_weight(state, rules)
    waits = _awaited(sight, following)
    late = bool(waits) and sight.ready < sight.asked
    state = replace(state, waiting_s=_since(state.waiting_s, now_s) if late else math.nan)
    if now_s - state.waiting_s >= rules.deadline_s:
        return _fail(state, sight, f"rolled back from weight {weight}: {waits} for {rules.deadline_s:.0f} s")
    held = words if verdict != HOLDS else _obstacle(state, rules, sight)
    if weight < rules.max_weight:
        held = held or waits
    if held:
        return replace(state, message=f"at weight {weight}: {held}")
    if weight >= rules.max_weight:
        message = f"all checks held up to weight {weight}, which it keeps"
        return replace(state, phase=SUCCEEDED, since_s=now_s, message=message)
    message = f"weight {weight} -> {following}"
    return replace(state, weight=following, stepped_s=now_s, carried_s=now_s, message=message)


def _obstacle(state: RolloutState, rules: RolloutRules, sight: Sight) -> str:
    if sight.obstacle:
        return sight.obstacle
    if not sight.revision:
        return "the revision of the pool's pods is not known"
    if not sight.others:
        return "no other pool is ready"
    if not sight.carried:
        return "the routes do not carry it yet"
    if not sight.objective:
        return "the service as a whole misses its objective"
    leftover = sight.now_s - state.stepped_s < LEFTOVER_WINDOWS * rules.window_s
    if state.weight == 0 and sight.requests > 0 and leftover:
        return "requests from before are still in its metrics"
    if state.weight > 0 and sight.now_s - state.carried_s < rules.interval_s:
        return "checks hold so far"
    return ""


def _awaited(sight: Sight, following: int) -> str:
    if sight.ready >= max(sight.needed, 1):
        return ""
    lacking = f"{sight.ready} of {max(sight.needed, 1)} replicas ready for weight {following}"
    return lacking if sight.asked >= sight.needed else f"{lacking}, and it may have only {sight.asked}"


def _since(before_s: float, now_s: float) -> float:
    return now_s if math.isnan(before_s) else before_s
