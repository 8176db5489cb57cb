"""`rl-scaler explain`: the last decision about an RLScaler as a person would tell it, and what it hung on."""

from __future__ import annotations

from controller.explain.explanation import Subject, explanation
from controller.explain.sensitivity import Sensitivity, asking, sensitivity
from controller.explain.words import as_text, headline, sections

__all__ = [
    "Sensitivity",
    "Subject",
    "as_text",
    "asking",
    "explanation",
    "headline",
    "sections",
    "sensitivity",
]
