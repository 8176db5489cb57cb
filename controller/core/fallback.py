"""Who decides: the policy, the HPA formula on the metrics that there are, fixed replicas, or nobody.

The chain is policy -> `fallback.behavior` (HPA by default) -> hold. Every link that was passed over leaves
its reason. After a fallback the policy decides again at the `recovery_threshold`th good reading in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.core.decision import (
    BY_HOLD,
    BY_HPA,
    BY_POLICY,
    BY_STATIC,
    CAPACITY_UNKNOWN,
    INVALID_ACTION,
    METRICS_UNAVAILABLE,
    POLICY_UNAVAILABLE,
    RECOVERING,
)
from controller.core.policy import Policy, UnavailablePolicy
from controller.core.samples import BoolArray, FloatArray, IntArray
from controller.core.table import FALLBACK_HPA, FALLBACK_STATIC, Table
from controller.core.view import View


@dataclass(slots=True)
class Choice:
    """What goes to the guard, arrays `[N]`: replicas (NaN: hold), why not the policy's (index into
    FALLBACKS), who decided (index into DECIDERS), and good readings until the policy does again."""

    replicas: FloatArray
    fallback: IntArray
    decided_by: IntArray
    awaited: IntArray


def choose(table: Table, policies: Sequence[Policy], view: View, recommended: FloatArray) -> Choice:
    """The recommendation float `[N]` (NaN: nothing said), or what stands in for it.

    Counts good readings in `table.awaited`.
    """
    rows = view.rows
    code = _failed(table, policies, view, recommended)
    waiting = ~view.usable & (view.failures < table.failure_threshold[rows])
    code[~view.usable] = METRICS_UNAVAILABLE
    lasting = (table.awaited[rows] > 0) & (table.recovery_threshold[rows] > 1)
    # a gap while the fallback lasts is no new one: the fallback goes on deciding
    waiting &= ~lasting
    code[waiting] = 0
    code = _recover(table, rows, code, lasting)
    stand_in = _stand_in(table, view)
    replicas = np.where(waiting, np.nan, np.where(code > 0, stand_in, recommended))
    awaited = np.where(code > 0, np.maximum(table.awaited[rows], 1), 0)
    return Choice(replicas, code, _deciders(table, rows, code, replicas), awaited)


def _failed(table: Table, policies: Sequence[Policy], view: View, recommended: FloatArray) -> IntArray:
    """Why the policy cannot decide, whatever the metrics: index into FALLBACKS, 0 where it can."""
    owner = table.policy[view.rows]
    network = np.array([policy.type != "HPA" for policy in policies], dtype=bool)[owner]
    demanding = np.array([getattr(policy, "needs_capacity", True) for policy in policies], dtype=bool)[owner]
    absent = np.array([isinstance(policy, UnavailablePolicy) for policy in policies], dtype=bool)[owner]
    code = np.zeros(len(view), dtype=np.int64)
    code[~np.isfinite(recommended) & network] = INVALID_ACTION
    code[network & demanding & ~view.capacity_known] = CAPACITY_UNKNOWN
    code[absent] = POLICY_UNAVAILABLE
    return code


def _recover(table: Table, rows: IntArray, code: IntArray, lasting: BoolArray) -> IntArray:
    failed = code > 0
    if not (failed | lasting).any():
        return code
    threshold = table.recovery_threshold[rows]
    left = np.maximum(table.awaited[rows] - 1, 0)
    table.awaited[rows] = np.where(failed, np.where(threshold > 1, threshold, 0), left)
    return np.where(~failed & lasting & (left > 0), RECOVERING, code)


def _stand_in(table: Table, view: View) -> FloatArray:
    rows = view.rows
    behavior = table.fallback_code[rows]
    static = np.maximum(table.fallback_replicas[rows], np.where(view.usable, 0, view.current))
    result = np.where(behavior == FALLBACK_HPA, view.hpa_replicas, np.nan)
    return np.where(behavior == FALLBACK_STATIC, static, result)


def _deciders(table: Table, rows: IntArray, code: IntArray, replicas: FloatArray) -> IntArray:
    formula = np.where(table.fallback_code[rows] == FALLBACK_STATIC, BY_STATIC, BY_HPA)
    named = np.where(code > 0, formula, BY_POLICY)
    return np.where(np.isfinite(replicas), named, BY_HOLD)
