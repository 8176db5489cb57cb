from __future__ import annotations

import numpy as np
import pytest

from sim.errors import ParameterError
from sim.workloads import (
    DAY_S,
    HOUR_S,
    Constant,
    Cron,
    Diurnal,
    FlashCrowds,
    Mmpp,
    Noise,
    Outages,
    Product,
    Ramp,
    Spiky,
    Step,
    Sum,
    WorkloadMix,
    sample_workload,
)

DAY = np.arange(0.0, DAY_S, 15.0)
FAMILIES = tuple(vars(WorkloadMix()))


def only(family: str) -> WorkloadMix:
    return WorkloadMix(**{name: float(name == family) for name in FAMILIES})


@pytest.mark.parametrize(
    "workload",
    [Constant(), Diurnal(), Ramp(), Step(), Mmpp(), FlashCrowds(), Spiky(), Cron(), Outages(), Noise()],
    ids=lambda workload: type(workload).__name__,
)
def test_a_generator_gives_finite_rates_that_its_seed_fixes(workload):
    rates = workload.rates(DAY, np.random.default_rng(3))
    assert rates.shape == DAY.shape
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()
    assert rates.max() > 0
    assert np.array_equal(rates, workload.rates(DAY, np.random.default_rng(3)))


def test_a_day_peaks_when_it_should_and_weekends_are_quieter():
    wave = Diurnal(mean=10.0, half_day_amplitude=0.0, peak_s=15 * HOUR_S, weekend_drop=0.5)
    week = np.arange(0.0, 7 * DAY_S, 60.0)
    rates = wave.rates(week, np.random.default_rng(0))
    assert week[np.argmax(rates)] % DAY_S == pytest.approx(15 * HOUR_S, abs=60)
    days = rates.reshape(7, -1).mean(axis=1)
    assert days[5] == pytest.approx(0.5 * days[0], rel=1e-6)
    assert days[0] == pytest.approx(10.0, rel=1e-3)


def test_ramps_and_steps_have_their_levels():
    rng = np.random.default_rng(0)
    assert Ramp(1.0, 3.0, 0.0, 100.0).rates(np.array([0.0, 50.0, 200.0]), rng).tolist() == [1.0, 2.0, 3.0]
    assert Step(1.0, 3.0, 60.0).rates(np.array([59.0, 60.0]), rng).tolist() == [1.0, 3.0]


def test_markov_modulation_visits_every_level_and_stays_about_as_long_as_told():
    week = np.arange(0.0, 7 * DAY_S, 15.0)
    rates = Mmpp((1.0, 2.0, 4.0), hold_s=600.0).rates(week, np.random.default_rng(1))
    assert set(rates) == {1.0, 2.0, 4.0}
    changes = np.count_nonzero(np.diff(rates))
    assert changes == pytest.approx(7 * DAY_S / 600.0, rel=0.15)


def test_spikes_come_out_of_nothing():
    rates = Spiky(idle_s=900.0, burst_s=120.0).rates(DAY, np.random.default_rng(2))
    assert 0.5 < np.mean(rates == 0.0) < 0.98
    assert np.count_nonzero(np.diff((rates > 0).astype(int)) == 1) > 20


def test_cron_spikes_repeat_exactly():
    rates = Cron(period_s=3600.0, width_s=60.0, magnitude=2.0).rates(DAY, np.random.default_rng(0))
    hours = rates.reshape(24, -1)
    assert np.array_equal(hours[0], hours[7])
    assert hours[0].max() == 3.0
    assert np.count_nonzero(hours[0] > 1) == 4


def test_flash_crowds_rise_fast_and_decay_slowly():
    surge = FlashCrowds(rise_s=60.0, hold_s=0.0, decay_s=600.0, magnitude_spread=0.0, magnitude=4.0)
    age = np.array([-10.0, 30.0, 60.0, 660.0])
    assert surge._surge(age) == pytest.approx([0.0, 0.5, 1.0, np.exp(-1.0)])


def test_outages_take_traffic_away_and_give_it_back():
    rates = Outages(per_day=10.0, depth=0.9, rebound=0.5).rates(DAY, np.random.default_rng(4))
    assert rates.min() == pytest.approx(0.1, abs=0.3)
    assert rates.max() > 1.3


def test_noise_has_the_deviation_asked_for_and_keeps_the_mean():
    month = np.arange(0.0, 30 * DAY_S, 60.0)
    rates = Noise(sigma=0.3, scales_s=(60.0, 600.0)).rates(month, np.random.default_rng(5))
    assert np.log(rates).std() == pytest.approx(0.3, rel=0.15)
    assert rates.mean() == pytest.approx(1.0, rel=0.05)


def test_products_and_sums_compose():
    rng = np.random.default_rng(0)
    times = np.arange(0.0, 60.0, 15.0)
    assert Product((Constant(2.0), Constant(3.0))).rates(times, rng).tolist() == [6.0] * 4
    assert Sum((Constant(2.0), Constant(3.0))).rates(times, rng).tolist() == [5.0] * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_samples_peaks_of_one_that_differ_between_draws(family):
    rng = np.random.default_rng(6)
    drawn = [sample_workload(rng, 4 * HOUR_S, 15.0, only(family)) for _ in range(20)]
    for rates in drawn:
        assert len(rates) == 4 * 240 + 1
        assert rates.max() == pytest.approx(1.0) or np.all(rates == 0.5)
        assert np.isfinite(rates).all()
        assert rates.min() >= 0
    assert len({round(float(rates.mean()), 6) for rates in drawn}) > 15


def test_samples_are_fixed_by_the_seed_and_are_varied():
    first = [sample_workload(np.random.default_rng(s), HOUR_S, 15.0) for s in range(60)]
    again = [sample_workload(np.random.default_rng(s), HOUR_S, 15.0) for s in range(60)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    means = [float(rates.mean()) for rates in first]
    assert min(means) < 0.1
    assert max(means) > 0.7
    assert any(np.mean(rates < 1e-9) > 0.3 for rates in first), "bursts from zero must be among them"


def test_a_mix_without_any_family_is_refused():
    with pytest.raises(ParameterError, match="positive for at least one family"):
        WorkloadMix(**dict.fromkeys(FAMILIES, 0.0))
    with pytest.raises(ParameterError, match="spiky: -1"):
        WorkloadMix(spiky=-1)
