"""An explanation as a person would tell it. Pure: from what `controller.explain.explanation` made to text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

Json = dict[str, Any]
Part = Mapping[str, Any]

_LINKS: Final = {
    "Policy": "the policy",
    "HPA": "the HPA's formula",
    "Static": "spec.fallback.replicas",
    "Hold": "the fallback Hold",
}
GROUPS_SHOWN: Final = 5
SINGLES_SHOWN: Final = 5
_SIGNALS: Final = {
    "requestRate": ("request rate", "requestRate", "/s", 1.0),
    "latency": ("latency", "latencyMilliseconds", " ms", 1.0),
    "errorRatio": ("errors", "errorRatio", " %", 100.0),
    "cpuUtilization": ("CPU", "cpuUtilization", " % of its request", 100.0),
    "inFlight": ("requests under way", "inFlight", "", 1.0),
}
"""By signal: its name, its name in the observation, its unit, and how many of them 1 is."""


def as_text(found: Part) -> str:
    """The whole explanation."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Part) -> Iterator[str]:
    yield headline(found)
    if found["decision"] is None:
        yield from _troubles(found)
        yield from _missing(found)
        return
    for title, lines in sections(found):
        yield ""
        yield title
        yield from (f"  {line}" for line in lines)


def headline(found: Part) -> str:
    """The explanation in one line."""
    head, decision = f"{found['namespace']}/{found['name']}", found["decision"]
    if decision is None:
        return f"{head}: nothing has been decided yet"
    return f"{head} ({found['target']}): {_outcome(found, decision)}, {_ago(found)}"


def sections(found: Part) -> list[tuple[str, list[str]]]:
    """The explanation's parts that have something to say: title and lines."""
    decision = found["decision"]
    if decision is None:
        return [("What is not well", list(_troubles(found)))]
    parts = (
        ("What was seen", _seen(found, decision)),
        ("What the policy asked for", _asked(found, decision)),
        ("What the HPA would have done", _hpa(found, decision)),
        ("What the guard changed", _guard(found)),
        ("What happened", _happened(found, decision)),
        ("What else there is", iter(found["besides"])),
        ("What would change it", iter(f"- {line}" for line in found["wouldChange"])),
        ("What is not well", _not_well(found)),
        ("What is missing here", _missing(found, bare=True)),
    )
    told = [(title, list(lines)) for title, lines in parts]
    return [(title, lines) for title, lines in told if lines]


def _outcome(found: Part, decision: Part) -> str:
    before, after = decision.get("currentReplicas"), decision.get("desiredReplicas")
    moved = f"{before} -> {after} replicas" if before != after else f"stays at {_count(after)}"
    if decision.get("mode", found["mode"]) == "Shadow" and before != after:
        return f"would go {moved} (Shadow)"
    return moved


def _ago(found: Part) -> str:
    age = found.get("ageSeconds")
    when = found["decision"].get("time", "")
    if age is None:
        return f"at {when}"
    if age < 120:
        return f"{age:.0f} s ago"
    return f"{age / 60:.0f} min ago ({when})"


def _seen(found: Part, decision: Part) -> Iterator[str]:
    readings: Part = decision.get("readings") or {}
    observation: Part = decision.get("observation") or {}
    for signal, (words, name, unit, scale) in _SIGNALS.items():
        if name in observation:
            line = f"{words}: {_number(float(observation[name]) * scale)}{unit}"
            yield line + (_objective(found) if signal == "latency" else "")
        elif signal in readings:
            reading = readings[signal]
            why = f": {reading['message']}" if reading.get("message") else ""
            yield f"{words}: not known ({reading['outcome']}{why})"
    yield _replicas(decision, observation)
    if decision.get("metrics", "OK") != "OK":
        yield f"the load could not be read: {decision['metrics']}"
    if decision.get("outOfDistribution"):
        yield "this observation is unlike any in the policy's training"


def _objective(found: Part) -> str:
    latency = (found.get("objective") or {}).get("latency")
    return f", where the objective is {latency['milliseconds']} ms" if latency else ""


def _replicas(decision: Part, observation: Part) -> str:
    line = _count(decision.get("currentReplicas"))
    if "readyReplicas" in observation:
        line += f", {_number(float(observation['readyReplicas']))} of them ready"
    if "loadReplicas" in observation:
        line += f"; the load would keep {_number(float(observation['loadReplicas']))} fully busy"
    return line


def _asked(found: Part, decision: Part) -> Iterator[str]:
    policy, told = found["policy"] or {}, found["recommendation"]
    who = policy.get("name", "the policy")
    kind = {"RL": "a learned policy", "HPA": "the HPA's formula", "Forecast": "a forecast"}.get(
        policy.get("type", ""), "a formula"
    )
    digest = f", {policy['digest'][:19]}" if policy.get("digest") else ""
    for link in decision.get("passedOver") or []:
        yield f"{_LINKS.get(link['link'], link['link'])} did not decide: {link['reason']}"
    if told["fallback"]:
        if not decision.get("passedOver"):
            yield f"{who} was not followed ({told['fallback']}); spec.fallback decided"
        who = _LINKS.get(decision.get("decidedBy", ""), "the fallback")
    else:
        who = f"{who} ({kind}{digest})"
    if told["replicas"] is None and decision.get("decidedBy") == "Hold":
        yield "so replicas are held as they are"
    elif told["replicas"] is None:
        yield f"{who} said nothing"
    else:
        yield f"{who} asked for {_count(told['replicas'])}"
    if told["parameters"]:
        yield "by " + ", ".join(f"{name} {value}" for name, value in told["parameters"].items())
    if told["note"]:
        yield told["note"]
    yield from _mattered(told)


def _mattered(told: Part) -> Iterator[str]:
    if "groups" not in told:
        return
    due = [group for group in told["groups"] if group["replicas"]]
    if due:
        yield "what moved it (asked again as if it did not know each of these):"
        yield from (f"  {_signed(group['replicas']):>4}  {group['what']}" for group in due[:GROUPS_SHOWN])
    else:
        yield "it would have asked for as many without any one of the things that it looks at"
    moving = [feature for feature in told["features"] if feature["below"] or feature["above"]]
    if moving:
        yield "it would ask for more or fewer if one of these were different:"
        yield from (f"  {_feature(feature)}" for feature in moving[:SINGLES_SHOWN])
    elif told["features"]:
        names = ", ".join(feature["name"] for feature in told["features"][:3])
        yield f"no feature changes it by a fifth of its range; it leans most on {names}"


def _feature(feature: Part) -> str:
    value, step = feature["value"], feature["step"]
    moves = []
    if feature["below"]:
        moves.append(f"{_signed(feature['below'])} at {_value(value - step, feature['unit'])}")
    if feature["above"]:
        moves.append(f"{_signed(feature['above'])} at {_value(value + step, feature['unit'])}")
    shown = _value(value, feature["unit"])
    return f"{feature['description']} ({feature['name']}) is {shown}: {', '.join(moves)}"


def _value(value: float, unit: str) -> str:
    return f"x{math.exp(value):.3g}" if unit == "ln ratio" else f"{value:.3g}"


def _hpa(found: Part, decision: Part) -> Iterator[str]:
    hpa = found["hpa"]
    if hpa["replicas"] is None:
        yield "nothing: its formula has no use of ready replicas to go by"
        return
    line = f"its formula asks for {_count(hpa['replicas'])} (within the bounds)"
    if "use" in hpa:
        what = "of the CPU request" if hpa["by"] == "cpuUtilization" else "of the capacity"
        line += f": {hpa['use']:.0%} {what} is in use and {hpa['target']:.0%} is wanted"
    yield line
    if "use" in hpa:
        yield f"it leaves replicas alone between {hpa['downBelow']:.0%} and {hpa['upAbove']:.0%}"


def _guard(found: Part) -> Iterator[str]:
    if not found["guard"]:
        yield "nothing"
    for number, stage in enumerate(found["guard"], start=1):
        yield f"{number}. {stage['name']} ({stage['reason']}): {stage['message']}"


def _happened(found: Part, decision: Part) -> Iterator[str]:
    before, after = decision.get("currentReplicas"), decision.get("desiredReplicas")
    if decision.get("error"):
        yield f"replicas were not changed: {decision['error']}"
    elif before == after:
        yield "nothing had to be done"
    elif decision.get("mode", found["mode"]) == "Shadow":
        yield "nothing: mode Shadow only records"
    elif decision.get("acted", True):
        yield f"replicas were set to {after}"
    else:
        yield "nothing was written"
    if decision.get("message"):
        yield f"as its status says: {decision['message']}"


def _not_well(found: Part) -> Iterator[str]:
    ready = next((c for c in found["conditions"] if c["type"] == "Ready"), None)
    if ready is not None and ready["status"] != "True":
        yield f"Ready is {ready['status']} ({ready['reason']}): {ready['message']}"


def _troubles(found: Part) -> Iterator[str]:
    if found["pausedByAnnotation"] or found["mode"] == "Paused":
        yield "it is paused"
    yield from _not_well(found)


def _missing(found: Part, bare: bool = False) -> Iterator[str]:
    for line in found["missing"]:
        yield line if bare else f"(not known here: {line})"


def _count(replicas: Any) -> str:
    return f"{replicas:g} replica{'' if replicas == 1 else 's'}" if replicas is not None else "no number"


def _signed(change: float) -> str:
    return f"{change:+g}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
