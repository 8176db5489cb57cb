from __future__ import annotations

import math

import numba as nb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.envs import AutoscaleConfig
from sim.envs.rewards import (
    CONSTANT_ROWS,
    SETTINGS,
    TERM_ROWS,
    USUAL_VIOLATION,
    RewardWeights,
    reward_rows,
    step_reward,
)
from sim.errors import ParameterError
from training.actions import make_head
from training.config import load_preset, preset_names
from training.environment import environment_config

BANDED, WEIGHTED = RewardWeights(), RewardWeights(kind="weighted")
amounts, shares = st.floats(0.0, 1e6), st.floats(0.0, 1.0)
dials, references = st.floats(0.0, 100.0), st.floats(0.5, 20.0)


def allowed_at(dial: float) -> float:
    """As the reward itself reads it: a scalar's power may differ from an array's in the last bit."""
    return float(BANDED.constants(np.array([dial]), np.ones(1), np.zeros(1))[2, 0])


def reward(weights: RewardWeights, dial: float, reference: float = 1.5, **terms: float) -> float:
    whole = dict.fromkeys(TERM_ROWS, 0.0) | terms
    constants = weights.constants(np.array([dial]), np.array([reference]), np.array([0.01]))
    return float(weights.total({name: np.array([value]) for name, value in whole.items()}, constants)[0])


def test_the_banded_reward_is_the_default():
    assert RewardWeights().kind == "banded"
    assert AutoscaleConfig().reward.kind == "banded"
    assert BANDED.bounds == (-3.0, 0.0)
    assert WEIGHTED.bounds == (-math.inf, 0.0)


@settings(deadline=None)
@given(amounts, shares, amounts, amounts, dials, references)
def test_a_banded_reward_is_in_the_upper_band_when_the_step_holds_and_in_the_lower_when_not(
    cost, share, churn, route_churn, dial, reference
):
    got = reward(
        BANDED, dial, reference, cost=cost, violation_share=share, churn=churn, route_churn=route_churn
    )
    if share <= allowed_at(dial):
        assert -1.0 <= got <= 0.0
    else:
        assert -3.0 <= got <= -2.0


@settings(deadline=None)
@given(amounts, amounts, shares, dials)
def test_more_cost_never_pays(cost, more, share, dial):
    for weights in (BANDED, WEIGHTED):
        less = reward(weights, dial, cost=cost, violation_share=share, violation=share)
        dearer = reward(weights, dial, cost=cost + more, violation_share=share, violation=share)
        assert dearer <= less
        if more > 1e-6 and cost < 1e3:
            assert dearer < less


@settings(deadline=None)
@given(shares, shares, amounts, dials)
def test_more_violations_never_pay(one, other, cost, dial):
    few, many = sorted((one, other))
    for weights in (BANDED, WEIGHTED):
        fewer = reward(weights, dial, cost=cost, violation_share=few, violation=few)
        more = reward(weights, dial, cost=cost, violation_share=many, violation=many)
        assert more <= fewer
    allowed = allowed_at(dial)
    if few >= allowed and many > few * 1.001 and many <= 1.0:
        assert reward(BANDED, dial, violation_share=many) < reward(BANDED, dial, violation_share=few)


@settings(deadline=None)
@given(amounts, amounts, amounts, dials, st.floats(1e-9, 1.0))
def test_any_step_that_holds_beats_any_that_does_not(dear, cheap, churn, dial, over):
    allowed = allowed_at(dial)
    holds = reward(BANDED, dial, cost=dear, churn=churn, violation_share=allowed)
    fails = reward(BANDED, dial, cost=cheap, violation_share=min(allowed + over, 1.0))
    assert holds >= fails + 1.0


def test_the_dial_sets_which_share_of_violations_still_holds():
    assert BANDED.allowed([0.0, 50.0, 100.0]) == pytest.approx([0.05, 0.005, 0.0005])
    dials = np.linspace(0, 100, 21)
    assert (np.diff(BANDED.allowed(dials)) < 0).all()
    assert reward(BANDED, 0, cost=1.0, violation_share=0.04) > -1
    assert reward(BANDED, 100, cost=1.0, violation_share=0.04) <= -2
    assert reward(BANDED, 100, cost=1.0, violation_share=0.0005) > -1


def test_known_steps_are_worth_what_the_formulas_say():
    assert reward(BANDED, 50, reference=1.5, cost=1.5) == pytest.approx(-0.5), "a reactive rule's cost"
    assert reward(BANDED, 50, reference=1.0, cost=3.0) == pytest.approx(-0.75)
    assert reward(BANDED, 50, cost=0.0, violation_share=1.0) == pytest.approx(-2.9)
    half_way = math.sqrt(0.005)
    assert reward(BANDED, 50, reference=1.0, cost=1.0, violation_share=half_way) == pytest.approx(-2.5)
    scale = 1.5 + math.sqrt(10**0.5 * (0.01 + USUAL_VIOLATION))
    expected = -(1.2 + 10**0.5 * 0.3 + 0.05 * 2.0 + 0.05 * 0.5) / scale
    got = reward(WEIGHTED, 0, cost=1.2, violation=0.3, churn=2.0, route_churn=0.5)
    assert got == pytest.approx(expected)
    assert reward(WEIGHTED, 0, violation=5.0) == reward(WEIGHTED, 0, violation=50.0), "capped"


def test_without_normalisation_costs_count_as_they_are():
    assert RewardWeights(normalise=False).scale(50, np.ones(3) * 7, np.ones(3)).tolist() == [1.0] * 3
    assert reward(RewardWeights(normalise=False), 50, reference=9.0, cost=1.0) == pytest.approx(-0.5)


@nb.njit
def _another_kernel(settings, terms, constants, rewards):
    for row in range(len(rewards)):
        rewards[row] = step_reward(settings, terms[:, row], constants[:, row])


@pytest.mark.parametrize("weights", [BANDED, WEIGHTED], ids=["banded", "weighted"])
def test_numpy_callers_and_compiled_callers_get_the_same_bits(weights):
    rng = np.random.default_rng(0)
    services = 5000
    terms = rng.exponential(1.0, (len(TERM_ROWS), services))
    terms[TERM_ROWS.index("violation_share")] = rng.beta(0.1, 5.0, services)
    dials = rng.uniform(0, 100, services)
    constants = weights.constants(dials, rng.uniform(0.5, 4, services), rng.beta(0.3, 5.0, services))
    assert constants.shape == (len(CONSTANT_ROWS), services)
    assert weights.settings.shape == (len(SETTINGS),)
    by_name = weights.total(dict(zip(TERM_ROWS, terms, strict=True)), constants)
    rows, fused = np.empty(services), np.empty(services)
    reward_rows(weights.settings, terms, constants, rows)
    _another_kernel(weights.settings, terms, constants, fused)
    single = [
        weights.total(
            {name: terms[row, k : k + 1] for row, name in enumerate(TERM_ROWS)}, constants[:, k : k + 1]
        )[0]
        for k in range(200)
    ]
    assert np.array_equal(by_name, rows)
    assert np.array_equal(by_name, fused)
    assert np.array_equal(by_name[:200], single)
    assert np.isfinite(by_name).all()


def test_every_training_preset_says_which_kind_of_reward_it_was_tuned_for():
    for name in preset_names():
        preset = load_preset(name)
        if preset.algo == "ppo" and preset.env == "autoscale":
            assert preset.environment["reward"]["kind"] == "weighted"
            config = environment_config(preset, make_head(preset.action))
            assert config.reward.kind == "weighted"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "mean"}, "kind: 'mean'"),
        ({"cost": -1.0}, "cost: -1.0"),
        ({"cost": 0.0}, "cost: 0.0 is not allowed, must be above 0 in a banded"),
        ({"allowed_violation": (0.001, 0.1)}, "allowed_violation"),
        ({"allowed_violation": (0.1, 0.0)}, "allowed_violation"),
        ({"cost_in_violation": 1.0}, "cost_in_violation: 1.0"),
        ({"route_churn": -0.1}, "route_churn: -0.1"),
    ],
)
def test_bad_weights_are_refused_by_name(values, message):
    with pytest.raises(ParameterError, match=message):
        RewardWeights(**values)


def test_a_term_that_is_missing_is_named():
    terms = {"cost": np.ones(1), "violation": np.zeros(1), "churn": np.zeros(1)}
    with pytest.raises(ParameterError, match="violation_share for a banded reward"):
        BANDED.total(terms, np.ones((3, 1)))
    assert WEIGHTED.total(terms, np.ones((3, 1))) == pytest.approx([-1.0])
