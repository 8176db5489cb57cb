"""status.canary: from a roll-out's state to what is written, and back after a restart. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from controller.clock import Clock, rfc3339, rfc3339_micro, unix_seconds
from controller.core.rollout import PHASES, RolloutState

Json = dict[str, Any]
_DIGITS = re.compile(r"\d+(\.\d+)?")


def published(state: RolloutState, pool: str, clock: Clock, old: Mapping[str, Any] | None) -> Json:
    """status.canary of a state; `old` itself where only digits of its message would differ."""
    fresh: Json = {
        "pool": pool,
        "phase": state.phase,
        "weight": state.weight,
        "since": rfc3339(clock.to_unix(state.since_s)),
        "lastStepTime": rfc3339_micro(clock.to_unix(state.stepped_s)),
        "failedChecks": state.failed,
        "missingChecks": state.missing,
        "revision": state.revision,
        "restart": state.restart,
        "specHash": state.mark,
        "message": state.message,
    }
    if not math.isnan(state.waiting_s):
        fresh["waitingSince"] = rfc3339_micro(clock.to_unix(state.waiting_s))
    found = {key: value for key, value in fresh.items() if value != ""}
    if old is not None and _shape(old) == _shape(found):
        return dict(old)
    return found


def restored(held: Mapping[str, Any] | None, pool: str, clock: Clock) -> RolloutState | None:
    """The state that an earlier operator left; None where there is none, or it is about another pool."""
    if not held or held.get("phase") not in PHASES or held.get("pool") != pool:
        return None
    now_s = clock.now()

    def moment(name: str, otherwise: float) -> float:
        found = unix_seconds(str(held.get(name, "")))
        return otherwise if found is None else clock.to_control(found)

    stepped_s = moment("lastStepTime", now_s)
    return RolloutState(
        phase=str(held["phase"]),
        weight=min(max(int(held.get("weight") or 0), 0), 100),
        since_s=moment("since", now_s),
        stepped_s=stepped_s,
        carried_s=stepped_s,
        revision=str(held.get("revision", "")),
        failed=int(held.get("failedChecks") or 0),
        missing=int(held.get("missingChecks") or 0),
        waiting_s=moment("waitingSince", math.nan),
        restart=str(held.get("restart", "")),
        mark=str(held.get("specHash", "")),
        message=str(held.get("message", "")),
    )


def _shape(status: Mapping[str, Any]) -> Json:
    return {**status, "message": _DIGITS.sub("#", str(status.get("message", "")))}
