from __future__ import annotations

import math

import numpy as np
import pytest

from sim.elementary import fast_exp, fast_log
from sim.noise import normal, poisson, uniform


def test_uniform_numbers_are_spread_evenly_and_streams_do_not_follow_each_other():
    first = np.array([uniform(7, counter, 0) for counter in range(20_000)])
    second = np.array([uniform(7, counter, 1) for counter in range(20_000)])
    assert first.min() > 0
    assert first.max() < 1
    assert abs(first.mean() - 0.5) < 0.01
    assert abs(first.var() - 1 / 12) < 0.003
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 0.0), (0.975, 1.959964), (0.001, -3.090232), (0.99999, 4.264891)]
)
def test_normal_gives_the_tables_quantiles(share, value):
    assert normal(share) == pytest.approx(value, abs=1e-5)


def exact_poisson_quantile(mean: float, share: float) -> int:
    total = 0.0
    for count in range(10_000):
        total += math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
        if total >= share:
            return count
    raise AssertionError("the distribution function never got there")


@pytest.mark.parametrize("mean", [0.3, 2.0, 11.9, 12.1, 40.0, 1000.0])
@pytest.mark.parametrize("share", [0.003, 0.2, 0.5, 0.77, 0.995])
def test_poisson_gives_the_exact_quantile_or_its_neighbour(mean, share):
    assert abs(poisson(mean, share) - exact_poisson_quantile(mean, share)) <= (0 if mean < 12 else 1)


def test_poisson_never_falls_when_the_mean_rises():
    for share in (0.01, 0.4, 0.9, 0.999):
        drawn = [poisson(mean, share) for mean in np.linspace(0.0, 60.0, 2000)]
        assert np.all(np.diff(drawn) >= 0)


def test_the_fast_logarithm_and_exponential_are_exact_to_a_few_last_places():
    for power in np.linspace(-690.0, 690.0, 4001):
        assert fast_exp(power) == pytest.approx(math.exp(power), rel=2e-15)
        assert fast_log(math.exp(power)) == pytest.approx(math.log(math.exp(power)), rel=4e-16, abs=4e-16)
    assert fast_exp(0.0) == 1.0
    assert fast_log(1.0) == 0.0
    assert fast_exp(-1e6) == pytest.approx(math.exp(-700.0))
