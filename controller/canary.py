"""One RLScaler's canary: a second policy that is scored in shadow, promoted, and taken back if need be.

`controller.work` makes and renews it, `controller.canaries` takes it through each decision. What is to
survive a restart is in status.policy.canary, which is written when its phase changes, and else at most once a
minute and only when its scores have moved.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controller.api.canary import Canary as CanarySpec
from controller.api.constants import PROMOTE_ANNOTATION, PROMOTE_ANY
from controller.api.decimals import format_decimal, parse_decimal
from controller.clock import Clock, rfc3339, unix_seconds
from controller.policybook import Chosen
from controller.scores import DIGITS, Scores, Violations

if TYPE_CHECKING:
    from controller.registry import Entry

Json = dict[str, Any]

SHADOW, PROMOTED, ROLLED_BACK, UNAVAILABLE = "Shadow", "Promoted", "RolledBack", "Unavailable"
LEAST_PREFIX = 6
BUT = " -- "
"""Between why a phase began and what is wrong with the artifact since; a restart keeps the former."""
SCORES_EVERY_S = 60.0
"""Control seconds between two statuses that differ in scores alone."""
GROWN = 1.1
"""Scores of so many times as many decisions are worth a write even if they say the same."""
MOVED = 0.01
"""So much more or less of a ratio is worth a write."""
LONGEST_STEP_PERIODS = 2.0


@dataclass
class Canary:
    """One RLScaler's canary. `base` is what spec.policy names without it, `candidate` the canary's own."""

    spec: CanarySpec
    base: Chosen
    candidate: Chosen
    phase: str
    since_s: float
    scores: Scores = field(default_factory=Scores)
    violations: Violations = field(default_factory=lambda: Violations(600.0))
    digest: str = ""
    name: str = ""
    against: str = ""
    spec_hash: str = ""
    stale_annotation: str = ""
    before: float = math.nan
    """Share of the window over the objective when it was promoted."""
    why: str = ""
    silent: int = 0
    """Decisions in a row in which it was in charge and said nothing."""
    seen_s: float = math.nan
    stepped_s: float = 0.0
    """Seconds that the turn under way stands for."""
    heard: object = None
    """What `controller.canaries` asks in place of its policy."""
    published: Json = field(default_factory=dict)
    published_s: float = -math.inf

    @property
    def usable(self) -> bool:
        """Whether its policy is there, and is the one that phase and scores are about."""
        return self.candidate.trouble is None and self.candidate.policy.digest == self.digest

    @property
    def in_charge(self) -> Chosen:
        """What decides: the canary once it is promoted, for as long as it can be used."""
        return self.candidate if self.phase == PROMOTED and self.usable else self.base

    def elapsed(self, now_s: float, period_s: float) -> float:
        """Seconds that this turn stands for."""
        since = now_s - self.seen_s if self.seen_s == self.seen_s else period_s
        self.seen_s = now_s
        return min(max(since, 0.0), LONGEST_STEP_PERIODS * period_s)

    def enter(self, phase: str, now_s: float, why: str) -> None:
        """A phase begins."""
        self.phase, self.since_s, self.why = phase, now_s, why

    def promote(self, now_s: float, why: str) -> None:
        self.before = self.violations.ratio(now_s)
        self.violations.clear()
        self.silent = 0
        self.enter(PROMOTED, now_s, why)

    def unmet(self) -> list[str]:
        """What the gate still asks for; empty: it is met."""
        gate, scores = self.spec.gate, self.scores
        found = []
        if scores.seconds < gate.min_duration_seconds or not scores.judged:
            found.append(f"{scores.seconds:.0f} of {gate.min_duration_seconds} s scored")
        limits = (
            ("cost ratio", scores.cost_ratio, gate.max_cost_ratio),
            ("shortfall", scores.shortfall, gate.max_shortfall),
            ("flap ratio", scores.flap_ratio, gate.max_flap_ratio),
        )
        for what, value, most in limits:
            if not value <= parse_decimal(most):  # so written that NaN is unmet
                shown = format_decimal(value, DIGITS) if value == value else "not known"
                found.append(f"{what} {shown}, at most {most}")
        return found

    def breach(self, now_s: float, silences: int) -> str:
        """Why a promoted canary has to go, or nothing."""
        if self.silent >= silences:
            return f"it gave no action in {self.silent} decisions in a row"
        ratio, most = self.violations.ratio(now_s), parse_decimal(self.spec.rollback.violation_ratio)
        before = self.before if self.before == self.before else 0.0
        if ratio > most and ratio > before:
            return (
                f"{ratio:.1%} of {self.spec.rollback.window_seconds} s over the objective, "
                f"more than {most:.1%} and than {before:.1%} before it was promoted"
            )
        return ""

    def wanted_by(self, annotation: str) -> bool:
        """Whether the annotation is about this canary, and was set for it."""
        if annotation != self.stale_annotation:
            self.stale_annotation = ""
        if not annotation or self.stale_annotation:
            return False
        prefix = annotation.lower().removeprefix("sha256:")
        return annotation == PROMOTE_ANY or (
            len(prefix) >= LEAST_PREFIX and self.digest.removeprefix("sha256:").startswith(prefix)
        )

    def publish(self, clock: Clock, now_s: float, annotation: str) -> None:
        """Renew `published` if it has changed so that it should be written."""
        fresh = self._status(clock, now_s, annotation)
        old = self.published
        decisive = any(fresh.get(key) != old.get(key) for key in _DECISIVE) or _wrong(fresh) != _wrong(old)
        due = now_s - self.published_s >= SCORES_EVERY_S and moved(old, fresh)
        if decisive or due:
            self.published, self.published_s = fresh, now_s

    def _status(self, clock: Clock, now_s: float, annotation: str) -> Json:
        shown: Json = {
            "name": self.name,
            "digest": self.digest,
            "phase": self.phase,
            "since": rfc3339(clock.to_unix(self.since_s)),
            "against": self.against,
            "specHash": self.spec_hash,
            "staleAnnotation": self.stale_annotation,
            **(self.scores.as_status() if self.scores.decisions else {}),
            "violationRatioBefore": format_decimal(self.before, DIGITS) if self.before == self.before else "",
            "message": self._message(annotation),
        }
        if self.phase in (SHADOW, PROMOTED):
            shown["violationRatio"] = format_decimal(self.violations.ratio(now_s), DIGITS)
        return {key: value for key, value in shown.items() if value != ""}

    def _message(self, annotation: str) -> str:
        trouble = self.candidate.trouble or self.candidate.note
        told = f"{trouble.reason}: {trouble.message}" if trouble is not None else ""
        if self.phase in (PROMOTED, ROLLED_BACK):
            return BUT.join(filter(None, (self.why, told)))
        if told:
            return told
        unmet = self.unmet()
        said = f"gate: {'; '.join(unmet)}" if unmet else "the gate is met"
        if self.stale_annotation:
            said += f"; {PROMOTE_ANNOTATION} is from before this canary: set it anew, or to its digest"
        elif annotation:
            said += f"; {PROMOTE_ANNOTATION} is neither {PROMOTE_ANY} nor the first characters of its digest"
        elif self.spec.promotion == "Manual":
            said += f"; promoted by {PROMOTE_ANNOTATION} alone"
        return said


_DECISIVE = ("name", "digest", "phase", "since", "against", "specHash", "staleAnnotation")
_RATIOS = ("costRatio", "shortfall", "activeShortfall", "flapRatio", "violationRatio")


def moved(old: Json, fresh: Json) -> bool:
    """Whether scores say something else than before, or the same on much better grounds."""
    if fresh.get("decisions", 0) >= GROWN * old.get("decisions", 0) + 1 or _words(old) != _words(fresh):
        return True
    return any(
        (name in old) != (name in fresh)
        or abs(_ratio(old.get(name), 0.0) - _ratio(fresh.get(name), 0.0)) >= MOVED
        for name in _RATIOS
    )


def _wrong(status: Json) -> str:
    """The reason why its artifact cannot be used, if it cannot."""
    message = str(status.get("message", ""))
    told = message if status.get("phase") == UNAVAILABLE else message.partition(BUT)[2]
    return told.partition(":")[0]


def _words(status: Json) -> str:
    return "".join(letter for letter in status.get("message", "") if not letter.isdigit() and letter != ".")


@dataclass(frozen=True)
class Digests:
    """What an earlier operator had loaded by the same spec."""

    base: str = ""
    canary: str = ""


def digests(entry: Entry) -> Digests:
    """From the status that it left; nothing where that is about another spec."""
    if entry.status.get("observedGeneration") != entry.generation:
        return Digests()
    policy = entry.status.get("policy") or {}
    canary = policy.get("canary") or {}
    promoted = canary.get("phase") == PROMOTED
    base = canary.get("against", "") if promoted else policy.get("digest", "")
    return Digests(base if base.startswith("sha256:") else "", canary.get("digest", ""))


def renewed(entry: Entry, base: Chosen, candidate: Chosen, old: Canary | None, clock: Clock) -> Canary | None:
    """The canary of an RLScaler whose spec or artifacts were just read; None where there is none (any more).

    Phase and scores are those of `old`, or of the status that an earlier operator left, if they are about the
    same bytes; a change of the canary's spec ends RolledBack.
    """
    assert entry.spec is not None
    spec = entry.spec.policy.canary
    if spec is None or _is_permanent(entry, spec, base, candidate):
        return None
    now_s = clock.now()
    found = old or _restored(entry, spec, base, candidate, clock)
    digest = candidate.policy.digest if candidate.trouble is None else _known_digest(spec)
    annotation = entry.promote
    if found is not None and candidate.trouble is not None and found.spec.artifact != spec.artifact:
        found = None
    if found is None or (digest and found.digest and digest != found.digest):
        stale = PROMOTE_ANY if annotation == PROMOTE_ANY else ""
        found = Canary(spec, base, candidate, SHADOW, now_s, digest=digest, stale_annotation=stale)
    found.spec, found.base, found.candidate = spec, base, candidate
    found.digest = found.digest or digest
    found.violations.window_s = float(spec.rollback.window_seconds)
    _continue(found, _hash(spec), annotation, now_s)
    found.publish(clock, now_s, annotation)
    return found


def _continue(canary: Canary, spec_hash: str, annotation: str, now_s: float) -> None:
    """What another spec, another active policy, and an artifact that is there or not, mean for the phase."""
    if canary.phase == ROLLED_BACK and spec_hash != canary.spec_hash:
        canary.scores, canary.stale_annotation, canary.before = Scores(), annotation, math.nan
        canary.enter(SHADOW, now_s, "")
    canary.spec_hash = spec_hash
    against = canary.base.policy.digest or canary.base.policy.name
    if canary.base.trouble is None and against != canary.against:
        if canary.against and canary.phase in (SHADOW, UNAVAILABLE):
            canary.scores = Scores()
            canary.enter(canary.phase, now_s, "")
        canary.against = against
    if canary.usable:
        canary.name = canary.candidate.policy.name
        if canary.phase == UNAVAILABLE:
            canary.enter(SHADOW, now_s, "")
    elif canary.phase == SHADOW:
        canary.enter(UNAVAILABLE, now_s, "")


def _is_permanent(entry: Entry, spec: CanarySpec, base: Chosen, candidate: Chosen) -> bool:
    """Whether spec.policy names the canary's policy already."""
    assert entry.spec is not None
    named = entry.spec.policy
    if named.type == "RL" and named.artifact == spec.artifact:
        return True
    both = base.trouble is None and candidate.trouble is None
    return both and bool(base.policy.digest) and base.policy.digest == candidate.policy.digest


def _known_digest(spec: CanarySpec) -> str:
    return f"sha256:{spec.artifact.sha256}" if spec.artifact.sha256 else ""


def _hash(spec: CanarySpec) -> str:
    """Without defaults: an operator that knows more fields finds the same."""
    return hashlib.sha256(spec.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:12]


def _restored(entry: Entry, spec: CanarySpec, base: Chosen, candidate: Chosen, clock: Clock) -> Canary | None:
    """What an earlier operator left in status; None where that is nothing, or nothing that can be read."""
    held = (entry.status.get("policy") or {}).get("canary") or {}
    if held.get("phase") not in (SHADOW, PROMOTED, ROLLED_BACK, UNAVAILABLE):
        return None
    now_s = clock.now()
    since_s = _control_seconds(held.get("since", ""), clock, now_s)
    window_s = float(spec.rollback.window_seconds)
    found = Canary(spec, base, candidate, held["phase"], since_s, Scores.from_status(held))
    found.violations = Violations(window_s)
    # when in the window they were is not known: as if just now, so that none is forgotten too soon
    found.violations.note(now_s, window_s * _ratio(held.get("violationRatio"), 0.0))
    found.before = _ratio(held.get("violationRatioBefore"), math.nan)
    found.digest, found.name = held.get("digest", ""), held.get("name", "")
    found.against, found.spec_hash = held.get("against", ""), held.get("specHash", "")
    found.stale_annotation, found.why = (
        held.get("staleAnnotation", ""),
        held.get("message", "").partition(BUT)[0],
    )
    found.published, found.published_s = dict(held), now_s
    return found


def _control_seconds(text: str, clock: Clock, default_s: float) -> float:
    found = unix_seconds(text)
    return default_s if found is None else clock.to_control(found)


def _ratio(text: object, default: float) -> float:
    try:
        return parse_decimal(str(text))
    except ValueError:
        return default
