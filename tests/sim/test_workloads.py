from __future__ import annotations

import numpy as np
import pytest

from sim.errors import ParameterError
from sim.traceinfo import autocorrelations, dispersions, hurst
from sim.traces import Trace
from sim.workloads import (
    DAY_S,
    HOUR_S,
    WEEK_S,
    WORKLOADS,
    AnnouncedEvents,
    Concatenation,
    Constant,
    Cron,
    DeployDips,
    Diurnal,
    FlashCrowds,
    LlmInference,
    Mmpp,
    Noise,
    OnOff,
    Outages,
    Overlay,
    Product,
    Ramp,
    Recording,
    Scale,
    SelfSimilar,
    Serverless,
    Spiky,
    Staircase,
    Step,
    Sum,
    TimeShift,
    Weekly,
    WorkloadMix,
    fractional_noise,
    sample_workload,
    to_mapping,
    workload_from,
)
from sim.workloads.base import gamma_renewal

DAY = np.arange(0.0, DAY_S, 15.0)
FAMILIES = tuple(vars(WorkloadMix()))


def only(family: str) -> WorkloadMix:
    return WorkloadMix(**{name: float(name == family) for name in FAMILIES})


@pytest.mark.parametrize(
    "workload",
    [
        kind()
        for name, kind in WORKLOADS.items()
        if name not in {"Sum", "Product", "Overlay", "Concatenation", "TimeShift", "Scale", "Recording"}
    ],
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


# What the first release drew: (sum, rate 100, rate 777) of 4 h by the default mix, and (sum, rate 500, the
# generator's next number) of 6 h by the shipped preset's mix, for each seed. The built-in policy was trained
# on these draws.
FIRST_DRAWS = [
    [111.6401529052637, 0.05797274413310768, 0.05637411857959698],
    [170.45412593706868, 0.15998055761612842, 0.4485765321172709],
    [430.0283078357728, 0.5033642750457539, 0.345956640347985],
    [591.5545123779552, 0.8398631653845229, 0.45164061496725244],
    [242.01532008907174, 0.7296914700081971, 0.13656542016207693],
    [556.5332137916714, 0.7515937560134264, 0.5135512318491479],
    [477.80253033000594, 0.4440314501705933, 0.4479731332811612],
    [349.10876542320676, 0.2511134697378148, 0.304714231546649],
    [78.63955549156293, 0.1094292070306894, 0.03825436302469783],
    [292.18759166006777, 0.20247939025148284, 0.6663337386590634],
    [178.02406741886017, 0.06441592086710306, 0.20600144044628582],
    [317.13025464998907, 0.10390469969991548, 0.7343162792715741],
]
PRESET_DRAWS = [
    [643.7173435539178, 0.41629856127761344, 0.5138925295983868],
    [164.69227090671978, 0.21446538194383105, 0.47009988959961324],
    [452.5464877992596, 0.4063581293113244, 0.9132229414208429],
    [902.8211555687103, 0.6580005815066, 0.48286503207164455],
    [64.33971391238566, 0.0, 0.5335733685447976],
    [507.9135262639135, 0.253688822432283, 0.25855464429737873],
    [872.7601172903219, 0.31087858254435985, 0.20327663921317218],
    [373.8882127658194, 0.28949451331940446, 0.4375565727648233],
]


@pytest.mark.parametrize(("seed", "expected"), list(enumerate(FIRST_DRAWS)))
def test_the_draws_of_the_first_release_are_still_the_same(seed, expected):
    rates = sample_workload(np.random.default_rng(seed), 4 * HOUR_S, 15.0)
    assert [rates.sum(), rates[100], rates[777]] == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("seed", "expected"), list(enumerate(PRESET_DRAWS, start=100)))
def test_the_draws_of_the_shipped_preset_are_still_the_same(seed, expected):
    mix = WorkloadMix(smooth=3.0, surges=2.5, steps=1.5, cron=1.0, spiky=1.5, outages=1.0, anything=1.5)
    rng = np.random.default_rng(seed)
    rates = sample_workload(rng, 6 * HOUR_S, 15.0, mix)
    assert [rates.sum(), rates[500], rng.random()] == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_new_families_are_off_by_default_and_all_on_in_the_wide_mix():
    default, wide = vars(WorkloadMix()), vars(WorkloadMix.wide())
    first = {"smooth", "surges", "steps", "cron", "spiky", "outages", "anything"}
    assert {name for name, weight in default.items() if weight > 0} == first
    assert all(weight > 0 for weight in wide.values())
    assert {name: wide[name] for name in first} == {name: default[name] for name in first}


def test_a_week_has_its_mean_and_its_profiles():
    hours = tuple(1.0 + (h == 12) for h in range(24))
    week = Weekly(mean=10.0, hours=hours, days=(1, 1, 1, 1, 1, 0.5, 0.5))
    times = np.arange(0.0, WEEK_S, 60.0)
    rates = week.rates(times, np.random.default_rng(0))
    assert rates.mean() == pytest.approx(10.0, rel=1e-3)
    days = rates.reshape(7, -1)
    assert days[5].mean() / days[1].mean() == pytest.approx(0.5, abs=0.03)
    assert np.argmax(days[2]) * 60.0 == pytest.approx(12.5 * HOUR_S, abs=60)
    assert np.abs(np.diff(rates)).max() < 0.5, "midnight must not be a jump"


def test_a_staircase_holds_and_joins_its_levels():
    jumps = Staircase((1.0, 3.0), hold_s=100.0)
    ramps = Staircase((1.0, 3.0), hold_s=100.0, ramp_s=50.0)
    rng = np.random.default_rng(0)
    assert jumps.rates(np.array([0.0, 99.0, 100.0, 199.0, 200.0]), rng).tolist() == [1, 1, 3, 3, 1]
    assert ramps.rates(np.array([0.0, 100.0, 125.0, 150.0, 275.0, 300.0]), rng).tolist() == [1, 1, 2, 3, 2, 1]


def test_an_announced_event_builds_up_peaks_sharply_at_its_end_and_decays():
    event = AnnouncedEvents(at_s=(7200.0,), magnitude=2.0, magnitude_spread=0.0)
    times = np.arange(0.0, 6 * HOUR_S, 60.0)
    rates = event.rates(times, np.random.default_rng(0))
    before = rates[times < 7200.0]
    assert (np.diff(before) > 0).all()
    assert rates[times == 7200.0 - 1800.0] == pytest.approx(1 + 2 * np.exp(-1))
    assert rates[(times > 7200) & (times < 7200 + 5600)] == pytest.approx(3.0)
    assert times[np.argmax(rates)] == 7200.0 + 6300.0
    assert rates.max() == pytest.approx(1 + 2 * 1.4)
    after = rates[times >= 7200.0 + 6300.0 + 2400.0][0]
    assert after == pytest.approx(1 + 2 * np.exp(-1), rel=0.02)


def test_events_that_are_not_named_come_as_often_as_told():
    month = np.arange(0.0, 60 * DAY_S, 300.0)
    events = AnnouncedEvents(per_day=1.0, magnitude_spread=0.0, finale=0.0, build_up_s=60.0, decay_s=60.0)
    rates = events.rates(month, np.random.default_rng(1))
    share = (rates.mean() - 1) / events.magnitude
    assert share == pytest.approx(6300.0 / DAY_S, rel=0.4)


def test_deployments_dip_in_working_hours_only_and_lose_no_traffic():
    times = np.arange(0.0, 4 * WEEK_S, 15.0)
    rates = DeployDips(per_day=4.0, batch_s=60.0, depth=0.25).rates(times, np.random.default_rng(2))
    touched = rates != 1.0
    hour, day = times % DAY_S / HOUR_S, times // DAY_S % 7
    assert touched.any()
    assert (day[touched] < 5).all()
    assert hour[touched].min() >= 9
    assert hour[touched].max() < 18.2
    assert set(np.round(rates, 9)) <= {0.75, 1.0, 1.25}
    assert rates.mean() == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize("parameter", [0.5, 0.7, 0.9])
def test_fractional_noise_has_its_covariance_and_its_hurst_parameter(parameter):
    rng = np.random.default_rng(3)
    many = np.array([fractional_noise(64, parameter, rng) for _ in range(4000)])
    assert many.std() == pytest.approx(1.0, abs=0.02)
    for lag in (1, 5, 20):
        exact = 0.5 * (
            (lag + 1) ** (2 * parameter) - 2 * lag ** (2 * parameter) + (lag - 1) ** (2 * parameter)
        )
        assert np.mean(many[:, 0] * many[:, lag]) == pytest.approx(exact, abs=0.05)
    long = [hurst(fractional_noise(16384, parameter, rng), 1.0)[0] for _ in range(8)]
    assert np.mean(long) == pytest.approx(parameter, abs=0.03)


def test_self_similar_rates_keep_the_hurst_parameter_and_the_mean():
    times = np.arange(0.0, 3 * DAY_S, 15.0)
    rates = [SelfSimilar(0.8, 0.3).rates(times, np.random.default_rng(s)) for s in range(8)]
    assert np.mean([hurst(each, 15.0)[0] for each in rates]) == pytest.approx(0.8, abs=0.05)
    assert np.mean(rates) == pytest.approx(1.0, abs=0.05)
    assert np.mean([np.log(each).std() for each in rates]) == pytest.approx(0.3, rel=0.1)


def test_heavy_tailed_callers_add_up_to_long_memory_and_their_mean():
    times = np.arange(0.0, 6 * DAY_S, 10.0)
    callers = OnOff(mean=5.0, sources=30, on_s=5.0, off_s=15.0, shape=1.4)
    rates = [callers.rates(times, np.random.default_rng(s)) for s in range(6)]
    assert np.mean(rates) == pytest.approx(5.0, rel=0.1)
    # the exponent is a limit at scales far above a call's length
    found = np.mean([hurst(each, 10.0, shortest_s=1200.0)[0] for each in rates])
    assert found == pytest.approx((3 - 1.4) / 2, abs=0.1)
    assert min(each.min() for each in rates) >= 0


@pytest.mark.parametrize("variation", [1.0, 2.5])
def test_renewal_arrivals_have_the_variation_of_gaps_asked_for_and_no_arrival_where_there_is_no_rate(
    variation,
):
    edges = np.arange(0.0, 20_001.0, 10.0)
    expected = np.where((edges[:-1] % 4000) < 3000, 20.0, 0.0)
    moments = gamma_renewal(np.random.default_rng(4), edges, expected, variation)
    assert (np.diff(moments) >= 0).all()
    assert len(moments) == pytest.approx(expected.sum(), rel=0.1)
    assert not ((moments % 4000) > 3000.001).any()
    gaps = np.diff(moments[(moments > 0) & (moments < 3000)])
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.1)


def test_a_language_model_gets_conversations_in_bursts():
    edges = np.arange(0.0, 4 * DAY_S + 1, 15.0)
    model = LlmInference(mean=0.5, variation=3.0, turns=4.0, think_s=60.0, day_amplitude=0.0)
    requests = model.arrivals(edges, np.random.default_rng(5))
    assert len(requests) / edges[-1] == pytest.approx(0.5, rel=0.1)
    alone = LlmInference(mean=0.5, variation=3.0, turns=1.0, day_amplitude=0.0)
    starts = alone.arrivals(edges, np.random.default_rng(5))
    assert np.diff(starts).std() / np.diff(starts).mean() == pytest.approx(3.0, rel=0.1)
    # a conversation's turns follow one another within minutes: correlation that single requests lack
    minutes = [np.histogram(each, edges[::4])[0].astype(float) for each in (requests, starts)]
    assert autocorrelations(minutes[0], 2)[1] > autocorrelations(minutes[1], 2)[1] + 0.1
    assert dispersions(minutes[0], 1.0)[0].index > 4.0
    rates = model.rates(edges[:-1], np.random.default_rng(5))
    assert rates.sum() * 15.0 == len(requests)


def test_a_small_language_model_is_silent_for_the_share_asked_for():
    times = np.arange(0.0, 60 * DAY_S, 60.0)
    model = LlmInference(mean=1.0, turns=1.0, idle_share=0.6, active_s=1800.0, day_amplitude=0.0)
    rates = model.rates(times, np.random.default_rng(6))
    assert np.mean(rates == 0) == pytest.approx(0.6, abs=0.06)
    assert rates.mean() == pytest.approx(1.0, rel=0.12)


def test_functions_share_their_mean_unevenly_and_timers_run_at_full_minutes():
    times = np.arange(0.0, 2 * DAY_S, 15.0)
    drawn = [Serverless(mean=2.0).rates(times, np.random.default_rng(s)) for s in range(30)]
    assert np.mean(drawn) == pytest.approx(2.0, rel=0.1)
    timers = Serverless(mean=2.0, timer_share=1.0).rates(times, np.random.default_rng(7))
    assert (timers[times % 60 != 0] == 0).all()
    assert timers.max() > 4 * timers.mean()
    bursty = Serverless(functions=1, timer_share=0.0, variation=3.0, mean=2.0, day_amplitude=0.0)
    index = dispersions(bursty.rates(times, np.random.default_rng(8)), 15.0)
    assert next(d.allan for d in index if d.scale_s == 300.0) == pytest.approx(9.0, rel=0.25)


def test_busy_functions_are_drawn_without_drawing_each_arrival():
    times = np.arange(0.0, DAY_S, 60.0)
    rates = Serverless(mean=50_000.0, timer_share=0.0, day_amplitude=0.0).rates(
        times, np.random.default_rng(9)
    )
    assert rates.mean() == pytest.approx(50_000.0, rel=0.02)


def test_an_overlay_lies_over_its_time_only():
    times = np.arange(0.0, 50.0, 10.0)
    rng = np.random.default_rng(0)
    for how, inside in (("add", 5.0), ("replace", 3.0), ("maximum", 3.0), ("multiply", 6.0)):
        laid = Overlay(Constant(2.0), Constant(3.0), start_s=10.0, length_s=20.0, how=how)
        assert laid.rates(times, rng).tolist() == [2.0, inside, inside, 2.0, 2.0]
    with pytest.raises(ParameterError, match=r"Overlay\.how: 'over' is not allowed, must be one of add"):
        Overlay(Constant(), Constant(), how="over")


def test_workloads_follow_one_another_each_on_its_own_clock():
    rng = np.random.default_rng(0)
    parts = Concatenation((Constant(1.0), Ramp(0.0, 10.0, 0.0, 10.0)), (10.0, 10.0), start_s=100.0)
    times = np.array([0.0, 105.0, 110.0, 115.0, 119.0, 500.0])
    assert parts.rates(times, rng).tolist() == [1, 1, 0, 5, 9, 10]
    again = Concatenation(parts.parts, (10.0, 10.0), repeat=True)
    assert again.rates(np.array([5.0, 15.0, 25.0, 35.0]), rng).tolist() == [1, 5, 1, 5]


def test_shifting_scaling_and_clipping_do_what_they_say():
    rng = np.random.default_rng(0)
    ramp, times = Ramp(0.0, 10.0, 0.0, 10.0), np.array([0.0, 5.0, 10.0, 20.0])
    assert TimeShift(ramp, 5.0).rates(times, rng).tolist() == [0, 0, 5, 10]
    assert Scale(ramp, factor=2.0, speed=2.0).rates(times, rng).tolist() == [0, 20, 20, 20]
    assert Scale(ramp, peak=4.0, low=1.0).rates(times, rng).tolist() == [1, 2, 4, 4]
    assert Scale(ramp, high=6.0).rates(times, rng).tolist() == [0, 5, 6, 6]


def test_a_recording_is_played_from_where_it_is_asked_and_again(tmp_path):
    path = tmp_path / "short.csv"
    Trace(np.arange(4) * 60.0, np.array([1.0, 2.0, 3.0, 4.0])).save(path)
    rng, times = np.random.default_rng(0), np.array([0.0, 60.0, 180.0, 240.0])
    assert Recording(str(path), factor=2.0).rates(times, rng).tolist() == [2, 4, 8, 2]
    assert Recording(str(path), start_s=60.0, repeat=False).rates(times, rng).tolist() == [2, 3, 4, 4]


NESTED = {
    "kind": "Sum",
    "parts": [
        {"kind": "Diurnal", "mean": 100},
        {"kind": "Product", "parts": [{"kind": "Mmpp", "levels": [1, 5]}, {"kind": "Noise", "sigma": 0.2}]},
        {"kind": "Overlay", "base": {"kind": "Constant"}, "over": {"kind": "Step"}, "start_s": 60},
    ],
}


def test_a_mapping_makes_a_workload_and_is_made_of_it_again():
    made = workload_from(NESTED)
    assert isinstance(made, Sum)
    assert made.parts[0] == Diurnal(mean=100.0)
    assert made.parts[1] == Product((Mmpp((1.0, 5.0)), Noise(0.2)))
    assert workload_from(to_mapping(made)) == made
    assert workload_from({"kind": "OnOff", "sources": 7}).sources == 7


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name not in {"Recording"}])
def test_every_kind_goes_to_a_mapping_of_plain_types_and_back(name):
    import json

    needs = {
        "Sum": {"parts": [{"kind": "Constant"}]},
        "Product": {"parts": [{"kind": "Spiky"}, {"kind": "Cron"}]},
        "Overlay": {"base": {"kind": "Constant"}, "over": {"kind": "Ramp"}, "length_s": 5},
        "Concatenation": {"parts": [{"kind": "Constant"}], "lengths_s": [60]},
        "TimeShift": {"part": {"kind": "Weekly"}},
        "Scale": {"part": {"kind": "Weekly"}, "high": 9},
    }
    made = workload_from({"kind": name, **needs.get(name, {})})
    assert workload_from(json.loads(json.dumps(to_mapping(made)))) == made


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"kind": "Diurnl"},
            "workload.kind: 'Diurnl' is not allowed, must be one of Constant, .*nearest: Diurnal",
        ),
        ({"mean": 1}, "workload.kind: None is not allowed"),
        ("Diurnal", "workload: 'Diurnal' is not allowed, must be a mapping with a kind"),
        ({"kind": "Diurnal", "meen": 1}, "workload.meen: 1 is not allowed, .* of Diurnal.*nearest: mean"),
        ({"kind": "Diurnal", "mean": "1"}, "workload.mean: '1' is not allowed, must be a number"),
        ({"kind": "Diurnal", "mean": True}, "workload.mean: True is not allowed, must be a number"),
        (
            {"kind": "Diurnal", "mean": -1},
            "workload.mean: -1.0 is not allowed, must be a finite number, 0 or more",
        ),
        ({"kind": "OnOff", "sources": 1.5}, "workload.sources: 1.5 is not allowed, must be a whole number"),
        ({"kind": "Mmpp", "levels": 3}, "workload.levels: 3 is not allowed, must be a list"),
        ({"kind": "Mmpp", "levels": [1, "x"]}, r"workload.levels\[1\]: 'x' is not allowed"),
        ({"kind": "Sum"}, "workload.parts: None is not allowed, must be given"),
        ({"kind": "Sum", "parts": []}, r"workload.parts: \(\) is not allowed"),
        (
            {"kind": "Sum", "parts": [{"kind": "Constant"}, {"kind": "Ramp", "end": -2}]},
            r"workload.parts\[1\].end: -2.0 is not allowed",
        ),
    ],
)
def test_a_wrong_mapping_is_refused_with_field_value_and_what_is_allowed(mapping, message):
    with pytest.raises(ParameterError, match=message):
        workload_from(mapping)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Diurnal(period_s=0.0), r"Diurnal\.period_s: 0\.0"),
        (lambda: Spiky(idle_s=float("nan")), r"Spiky\.idle_s: nan"),
        (lambda: Outages(depth=1.5), r"Outages\.depth: 1\.5 is not allowed, must be in 0\.\.1"),
        (lambda: Mmpp(()), r"Mmpp\.levels"),
        (lambda: SelfSimilar(hurst=1.0), r"SelfSimilar\.hurst: 1\.0"),
        (lambda: OnOff(shape=2.5), r"OnOff\.shape: 2\.5"),
        (lambda: Weekly(hours=(1.0,)), r"Weekly\.hours"),
        (lambda: Concatenation((Constant(),), (1.0, 2.0)), r"Concatenation\.lengths_s"),
        (lambda: Product((1.0,)), r"Product\.parts"),
        (lambda: LlmInference(turns=0.5), r"LlmInference\.turns: 0\.5"),
    ],
)
def test_a_parameter_out_of_its_range_is_refused_by_name(make, message):
    with pytest.raises(ParameterError, match=message):
        make()
