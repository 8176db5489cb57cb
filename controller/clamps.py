"""Words for clamps: what the operator knows of them and the core does not, a schedule's name say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controller.core import Decision


def worded(decision: Decision, known: Mapping[str, str]) -> Decision:
    """The decision with the clamps of these names explained in these words."""
    if not any(clamp.name in known for clamp in decision.clamps):
        return decision
    message, clamps = decision.message, []
    for clamp in decision.clamps:
        said = clamp.message
        if clamp.name in known:
            said = f"{clamp.before} -> {clamp.after}: {known[clamp.name]}"
            message = message.replace(clamp.message, said)
        clamps.append(replace(clamp, message=said))
    return replace(decision, clamps=tuple(clamps), message=message)
