"""The scaling formulas of other systems, as policies: batched over N services, pure, without state.

The operator runs them for `policy: {type: Formula, formula: {name: ...}}`, `sim.baselines` compares
learned policies with them. Each computes what it needs from the view's history, so a restart forgets
nothing and one object may serve any number of services, engines and runs. docs/baselines.md tells
them apart.
"""

from controller.core.formulas.base import FormulaPolicy
from controller.core.formulas.erlang import ErlangCPolicy
from controller.core.formulas.holtwinters import HoltWintersPolicy
from controller.core.formulas.keda import KedaPolicy
from controller.core.formulas.knative import KnativePolicy
from controller.core.formulas.maximum import MovingMaximumPolicy
from controller.core.formulas.seasonal import SeasonalNaivePolicy

FORMULAS: dict[str, type[FormulaPolicy]] = {
    policy.name: policy
    for policy in (
        KedaPolicy,
        KnativePolicy,
        HoltWintersPolicy,
        SeasonalNaivePolicy,
        MovingMaximumPolicy,
        ErlangCPolicy,
    )
}
"""Formula name, as in `spec.policy.formula.name`, to its policy."""

__all__ = [
    "FORMULAS",
    "ErlangCPolicy",
    "FormulaPolicy",
    "HoltWintersPolicy",
    "KedaPolicy",
    "KnativePolicy",
    "MovingMaximumPolicy",
    "SeasonalNaivePolicy",
]
