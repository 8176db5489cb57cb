"""Where an explanation comes from: the operator that decided, or what an RLScaler's own status holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from controller.api.constants import PAUSED_ANNOTATION, PAUSED_VALUE
from controller.api.convert import to_service_spec
from controller.api.validation import parse_spec
from controller.clock import Clock
from controller.core import Engine, Policy
from controller.core.inquiry import Inquiry
from controller.core.policy import ActionPolicy
from controller.core.samples import FloatArray
from controller.decisions import DecisionLog, DecisionRecord
from controller.errors import SpecError
from controller.explain.explanation import Subject, explanation
from controller.explain.sensitivity import Ask, Sensitivity, asking, sensitivity
from controller.registry import Entry
from controller.status import stabilization_status

logger = logging.getLogger(__name__)

Json = dict[str, Any]

NOT_IN_STATUS: tuple[str, ...] = (
    "which features the recommendation hung on, and what other loads would give (the operator knows)",
    "readings that failed one by one (the operator's /v1/decisions has them)",
)


def from_operator(entry: Entry, log: DecisionLog, engine: Engine, clock: Clock) -> Json:
    """The explanation of an RLScaler's last decision. Asks its policy once; see `sensitivity`."""
    record = log.last(entry.namespace, entry.name)
    mattered, parameters, note = _asked_again(entry, record, engine)
    row = entry.work.row if entry.work is not None else None
    past = engine.stabilization_state(row) if row is not None and record is not None else None
    return explanation(
        Subject(
            namespace=entry.namespace,
            name=entry.name,
            source="operator",
            now_s=clock.to_unix(clock.now()),
            spec=entry.spec,
            status=entry.status,
            decision=record.as_json(features=True) if record is not None else None,
            paused_by_annotation=entry.paused_by_annotation,
            stabilization=stabilization_status(past, clock.to_unix) if past is not None else {},
            mattered=mattered,
            parameters=parameters,
            note=note,
            scale=clock.scale,
        )
    )


def from_object(body: Mapping[str, Any], now_s: float, reason: str) -> Json:
    """The explanation that an RLScaler's own status allows. reason: why it is not the operator's."""
    metadata, status = body["metadata"], body.get("status") or {}
    spec, missing = None, NOT_IN_STATUS
    try:
        found = parse_spec(dict(body.get("spec") or {}))
        to_service_spec(found)
        spec = found
    except SpecError as error:
        missing = (*missing, f"what its spec says: {error}")
    annotations = metadata.get("annotations") or {}
    return explanation(
        Subject(
            namespace=metadata["namespace"],
            name=metadata["name"],
            source="status",
            now_s=now_s,
            spec=spec,
            status=status,
            decision=status.get("lastDecision"),
            paused_by_annotation=annotations.get(PAUSED_ANNOTATION) == PAUSED_VALUE,
            stabilization=status.get("stabilization") or {},
            missing=(reason, *missing),
        )
    )


def _asked_again(
    entry: Entry, record: DecisionRecord | None, engine: Engine
) -> tuple[Sensitivity | None, Json, str]:
    """(what mattered, the parameters of a formula, a note where neither can be told)."""
    if record is None or entry.work is None:
        return None, {}, ""
    policy = engine.policy_of(entry.work.row)
    if record.fallback is not None or record.recommended_replicas is None:
        return None, {}, ""
    if record.policy is None or policy.name != record.policy.name or policy.digest != record.policy.digest:
        return None, {}, "the policy has changed since, so that it cannot be asked again"
    if record.pools:
        return None, {}, "a policy that decides for pools is not asked again; status.backends has its pools"
    if not len(record.features):
        return None, _parameters(policy), ""
    if isinstance(policy, ActionPolicy):
        ask = asking(policy, record.current_replicas)
    else:
        ask = _asking_formula(engine.explain(entry.work.row), record.current_replicas)
    try:
        return sensitivity(ask, record.features, record.load), _parameters(policy), ""
    except Exception as error:  # an explanation must not fail for a policy that does
        logger.warning("policy %s could not be asked again: %s", policy.name, error)
        return None, {}, f"the policy could not be asked again: {error}"


def _asking_formula(inquiry: Inquiry, current: int) -> Ask:
    """How to ask a formula again that goes by features: once for each load."""

    def ask(rows: FloatArray, loads: FloatArray) -> tuple[FloatArray, FloatArray]:
        said = np.full(len(rows), np.nan)
        for load in np.unique(loads):
            which = loads == load
            said[which] = replace(inquiry, current=current, load=float(load)).recommend(rows[which])
        return said, said[:, None]

    return ask


def _parameters(policy: Policy) -> Json:
    """A formula's parameters, which together with what was seen are all that it goes by."""
    if not is_dataclass(policy):
        return {}
    return {item.name: getattr(policy, item.name) for item in fields(policy)}
