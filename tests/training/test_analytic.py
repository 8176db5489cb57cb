"""The differentiable twin agrees with core and simulator, its gradient is right, and training works."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from controller.core import OBSERVATION_SCHEMA, ActionPolicy, Engine, HpaPolicy, Samples, ServiceSpec
from controller.policies.loader import load_policy
from sim.baselines import Setting, with_scale_down_window
from sim.physics import ServiceParams
from sim.replay import Protocol, Window, replay
from sim.traces import Trace
from sim.workloads import sample_workload
from training.analytic import traffic, twin
from training.analytic.judge import judge, window_pool
from training.analytic.learner import Learner
from training.analytic.policy import BandNetwork
from training.analytic.run import scenario_of
from training.config import Preset, load_preset, read_preset
from training.errors import ConfigError
from training.export import main as export_main
from training.runs import RunFolder, read_metrics
from training.train import main as train_main

TINY = """
name: tiny-analytic
algo: analytic
timesteps: 3072
num_envs: 16
checkpoint_every: 1024
network: {actor: [16]}
analytic: {unroll_steps: 32, tail_steps: 4, episode_unrolls: 2, episodes: 8, fresh_episodes: 1}
"""
PROTOCOL = Protocol(window_s=3600.0)


def train(*args: object) -> int:
    """The exit status of `train.py args`, in this process."""
    return train_main([*(str(arg) for arg in args), "--no-evaluate"])


@pytest.fixture(scope="module")
def small() -> Preset:
    """The shipped preset with a small pool, for tests that train in seconds."""
    preset = load_preset("default", num_envs=32)
    analytic = dataclasses.replace(
        preset.analytic, unroll_steps=48, tail_steps=8, episode_unrolls=2, episodes=48, fresh_episodes=0
    )
    return dataclasses.replace(
        preset, analytic=analytic, network=dataclasses.replace(preset.network, actor=(32,))
    )


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    """Four hours of traffic with an hour each to play, the rest history."""
    made = []
    for seed in range(4):
        rates = sample_workload(np.random.default_rng([3, seed]), 4 * 3600.0, 15.0)
        times = np.arange(len(rates)) * 15.0 - 3 * 3600.0
        now = times >= 0
        scaled = rates * 60.0 * 25.0 / max(float(rates[now].max()), 1e-6)
        made.append(
            Window(Trace(times[now], scaled[now], f"w{seed}"), Trace(times[~now], scaled[~now], "past"))
        )
    return made


@pytest.fixture(scope="module")
def tiny_analytic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the script."""
    base = tmp_path_factory.mktemp("analytic")
    (base / "tiny.yaml").write_text(TINY)
    assert train("--preset", base / "tiny.yaml", "--out", base / "runs", "--seed", 2) == 0
    (folder,) = (base / "runs").iterdir()
    return folder


@pytest.mark.parametrize("period_s", [5.0, 10.0, 15.0, 30.0, 60.0])
@pytest.mark.parametrize("known_s", [0.0, 5400.0, 90_000.0])
def test_features_of_the_traffic_are_those_of_the_engine(known_s: float, period_s: float) -> None:
    rng = np.random.default_rng(int(known_s))
    steps, capacity = 50, 25.0
    spec = ServiceSpec(
        max_replicas=100, capacity_rps=capacity, start_up_s=70.0, slo_latency_ms=250.0, sync_period_s=period_s
    )
    course = np.exp(np.cumsum(0.1 * rng.standard_normal(traffic.PAST_NODES + steps))) * 10.0
    past, seen = course[: traffic.PAST_NODES], course[traffic.PAST_NODES :]
    past[: traffic.PAST_NODES - max(round(known_s / 15.0), 8)] = np.nan
    start_s = 3 * 86400.0
    ours = traffic._given(past, seen, capacity, spec, start_s, 0.0)

    engine = Engine(spec, HpaPolicy())
    times = start_s + (np.arange(len(past)) - len(past)) * 15.0
    begun = np.isfinite(past)
    engine.backfill(times[begun], past[begun][:, None] * capacity)
    columns = [OBSERVATION_SCHEMA.names.index(name) for name in traffic.GIVEN_FEATURES]
    for step in range(steps):
        sample = Samples(request_rate=[seen[step] * capacity], ready=[3.0], current=[3.0])
        theirs = engine.observe(start_s + period_s * step, sample).features[0, columns]
        wrong = np.flatnonzero(np.abs(ours[step] - theirs) > 1e-3)
        assert not len(wrong), [(traffic.GIVEN_FEATURES[k], ours[step, k], theirs[k]) for k in wrong]


class Bands(ActionPolicy):
    """The same network in the simulator and in the twin."""

    name = "bands"
    action_schema = "hold-band/v1"

    def __init__(self, network: BandNetwork, shift: float) -> None:
        self.network, self.shift = network, shift

    def act(self, features: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return (self.network(torch.from_numpy(features)) + self.shift).numpy()


@pytest.mark.parametrize("period_s", [5, 10, 15, 30, 60])
def test_the_twin_agrees_with_the_simulator(small: Preset, windows: list[Window], period_s: int) -> None:
    torch.manual_seed(0)
    network = BandNetwork(small)
    protocol = Protocol(window_s=3600.0, sync_period_s=period_s)
    pool = window_pool(windows, protocol)
    spec = with_scale_down_window(protocol.spec(50.0), 300)
    for shift in (-0.2, 0.3):
        real = replay(windows, [Setting("bands", Bands(network, shift), spec)], protocol, 0)
        ours = judge(lambda features, by=shift: network(features) + by, pool, [50.0])
        assert ours.cost[0] == pytest.approx(real.cost[0], rel=0.08)
        assert ours.violation[0] == pytest.approx(real.violation[0], abs=0.02)
        assert ours.violation[0].mean() == pytest.approx(real.violation[0].mean(), abs=0.01)


def test_the_gradient_is_the_slope(small: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    # without rounding the costs are a continuous function of the actions
    monkeypatch.setattr(twin, "round_up", lambda values: values)
    # what the metrics make of it jumps
    monkeypatch.setattr(twin.Twin, "_judge", lambda *_: None)
    rng = np.random.default_rng(7)
    scenario = scenario_of(small)
    pool = traffic.Pool([traffic.draw_episode(rng, scenario, 32) for _ in range(48)])
    pool.constants[:, traffic.CONSTANTS.index("min_replicas")] = 0.0

    def losses(height: torch.Tensor) -> torch.Tensor:
        services = twin.Twin(pool, torch.arange(48))
        state, total = services.fresh(), torch.zeros(48)
        for step in range(32):
            at = torch.full((48,), step)
            _, shown = services.observe(state, at, torch.zeros(48))
            shown["latency"] = torch.zeros(48)  # the guard's floor jumps
            action = torch.stack([height, height + 0.1], dim=1)
            state, outcome = services.step(state, at, action, shown)
            mean_load = services.constant("mean_load")
            total = total + (outcome.billed + 5.0 * outcome.late + outcome.soft) / mean_load
        return total

    for height in (0.1, 0.6):
        leaf = torch.full((48,), height, requires_grad=True)
        losses(leaf).sum().backward()
        with torch.no_grad():
            above, below = losses(torch.full((48,), height + 2e-3)), losses(torch.full((48,), height - 2e-3))
        slope = (above - below) / 4e-3
        assert leaf.grad is not None
        wrong = (leaf.grad - slope).abs() / (1.0 + slope.abs())
        # some services stand at a kink, where the slope is another on each side
        assert float((wrong < 0.05).float().mean()) > 0.75
        assert float(wrong.median()) < 0.01


def test_replicas_are_conserved_and_removed_before_they_start() -> None:
    episode = traffic.draw_episode(np.random.default_rng(1), scenario_of(load_preset("default")), 8)
    services = twin.Twin(traffic.Pool([episode]), torch.zeros(1, dtype=torch.int64))
    state = dataclasses.replace(services.fresh(), ready=torch.tensor([10.0]))
    ready, pending, removed, _ = services._scale(state, torch.tensor([10.0]), torch.tensor([17.0]))
    assert float(ready + pending.sum()) == pytest.approx(17.0, rel=1e-5)
    grown = dataclasses.replace(state, ready=ready, pending=pending)
    ready, pending, removed, _ = services._scale(grown, torch.tensor([17.0]), torch.tensor([12.0]))
    assert float(removed) == pytest.approx(0.0, abs=1e-4)
    assert float(pending.sum()) == pytest.approx(2.0, rel=1e-4)
    ready, pending, removed, _ = services._scale(grown, torch.tensor([17.0]), torch.tensor([4.0]))
    assert float(ready + pending.sum()) == pytest.approx(4.0, rel=1e-4)
    assert float(removed) == pytest.approx(6.0, rel=1e-4)


def test_scale_down_waits_for_the_stabilisation_window(windows: list[Window]) -> None:
    pool = window_pool(windows[:1], PROTOCOL)
    services = twin.Twin(pool, torch.zeros(1, dtype=torch.int64))
    assert float(services.constant("window_s")) == 300.0
    state = services.fresh()
    first = state.ready.clone()
    wanted, replicas = torch.tensor([1.0]), []
    for _ in range(25):
        desired = services._guarded(state, state.ready, wanted)
        state = dataclasses.replace(state, ready=desired, past=torch.cat([wanted[None], state.past[:-1]]))
        replicas.append(float(desired))
    assert replicas[:19] == [float(first)] * 19
    assert replicas[19] == 1.0


def test_rate_rules_look_back_fifteen_seconds() -> None:
    scenario = dataclasses.replace(scenario_of(load_preset("default")), sync_periods_s=(5,))
    episode = traffic.draw_episode(np.random.default_rng(2), scenario, 8)
    services = twin.Twin(traffic.Pool([episode]), torch.zeros(1, dtype=torch.int64))
    services.constant("max_replicas")[:] = 1000.0
    state, replicas = services.fresh(), [100.0]
    for _ in range(4):
        current = torch.tensor([replicas[-1]])
        desired = services._guarded(state, current, torch.tensor([1000.0]))
        state = dataclasses.replace(state, grown=[desired - current, state.grown[0]])
        replicas.append(float(desired))
    # doubled at once, and again when the first doubling is 15 s old
    assert replicas == [100.0, 200.0, 200.0, 200.0, 400.0]


def test_a_reversal_counts_by_its_size_and_only_against_the_last_direction() -> None:
    episode = traffic.draw_episode(np.random.default_rng(3), scenario_of(load_preset("default")), 8)
    services = twin.Twin(traffic.Pool([episode]), torch.zeros(4, dtype=torch.int64))
    services.constant("window_s")[:] = 0.0
    services.constant("min_replicas")[:] = 1.0
    services.constant("max_replicas")[:] = 1000.0
    services._counts[1:] = -torch.inf
    state = services.fresh()
    state = dataclasses.replace(
        state,
        ready=torch.full((4,), 10.0),
        past=torch.full_like(state.past, -torch.inf),
        direction=torch.tensor([1.0, 1.0, -1.0, 0.0]),
    )
    at = torch.zeros(4, dtype=torch.int64)
    _, shown = services.observe(state, at, torch.zeros(4))
    shown["latency"] = torch.zeros(4)
    shown["load"] = torch.ones(4)
    wanted = torch.log(torch.tensor([9.0, 5.0, 9.0, 9.0]))
    band = torch.stack([wanted - 0.01, wanted], dim=1).requires_grad_(True)
    _, outcome = services.step(state, at, band, shown)
    assert outcome.flap.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert 0.5 < outcome.reversed[0].item() < outcome.reversed[1].item() < 1.0
    (slope,) = torch.autograd.grad(outcome.reversed.sum(), band)
    # a higher upper edge would have meant a smaller step down
    assert (slope[:2, 1] < 0).all()
    assert (slope[2:] == 0).all()


@pytest.mark.parametrize("period_s", traffic.SYNC_PERIODS_S)
def test_new_replicas_begin_to_serve_after_their_start_up_time(period_s: int) -> None:
    scenario = dataclasses.replace(scenario_of(load_preset("default")), sync_periods_s=(period_s,))
    for seed in range(8):
        episode = traffic.draw_episode(np.random.default_rng(seed), scenario, 4)
        assert episode.start_up.sum() == pytest.approx(1.0, abs=1e-5)
        # the last slot takes what is left over
        assert episode.start_up[-1] < 0.02
        mean_s = float((episode.start_up * (np.arange(traffic.START_UP_SLOTS) + 1)).sum()) * period_s / 3.0
        assert 15.0 - period_s < mean_s < min(1.3 * 180.0, 1.3 * 18.0 * period_s) + period_s


def test_episodes_are_cut_from_recordings_in_their_share() -> None:
    class Flat:
        share = 1.0

        def sample(self, rng: np.random.Generator, duration_s: float, dt_s: float) -> np.ndarray:
            return np.full(round(np.ceil(duration_s / dt_s)) + 1, 1.0)

    scenario = scenario_of(load_preset("default"))
    episode = traffic.draw_episode(np.random.default_rng(5), scenario, 16, recordings=Flat())  # type: ignore[arg-type]
    assert np.ptp(episode.rates) < 1e-4
    assert np.ptp(traffic.draw_episode(np.random.default_rng(5), scenario, 16).rates) > 1e-3


def test_training_lowers_cost_and_violations_at_their_price(small: Preset) -> None:
    # of so few services the one with a surge is most of what a minibatch has to say
    settings = dataclasses.replace(
        small.analytic, price_exponent=(1.5, 1.5), learning_rate=0.02, clip_norm=0.0
    )
    preset = dataclasses.replace(small, analytic=settings)
    learner = Learner(preset, scenario_of(preset), 0, 20)
    learner.prepare()

    def loss() -> float:
        seen = judge(learner.network, learner.pool, [50.0])
        return float(np.log(seen.cost).mean() + 10.0**1.5 * seen.violation.mean())

    before = loss()
    rows = [learner.update() for _ in range(20)]
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert loss() < before - 0.05


def test_the_safest_part_of_the_dial_stands_on_the_forecast(small: Preset) -> None:
    network = BandNetwork(small)
    names = OBSERVATION_SCHEMA.names
    observation = torch.zeros(3, OBSERVATION_SCHEMA.size)
    observation[:, names.index("move_q999_1d")] = 5.0
    observation[:, names.index("granularity")] = 1.0  # no load: the rises' level is as far off as they went
    observation[:, names.index("preference")] = torch.tensor([0.7, 0.8, 1.0])
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias[0] = 50.0  # the first anchor alone, which is 0 here
        idle = network(observation)[:, 0]
        observation[:, names.index("granularity")] = 1.0 / 201.0  # a load of 200, far above where they ended
        loaded = network(observation)[:, 0]
    begin, end = small.analytic.floor_margins
    assert float(idle[0]) == pytest.approx(0.3)
    assert float(idle[1]) == pytest.approx(5.0 + begin + 0.2 * (end - begin), abs=1e-4)
    assert float(idle[2]) == pytest.approx(5.0 + small.analytic.cap_margins[1], abs=1e-4)
    # a cap of about the load itself; the reserve is above it in the end
    assert loaded[:2].tolist() == pytest.approx([0.3, 0.3])
    assert float(loaded[2]) == pytest.approx(small.analytic.reserve_margins[1], abs=1e-4)
    served = BandNetwork(small, serving=True)
    served.load_state_dict(network.state_dict())
    with torch.no_grad():
        low = served(observation)[:, 0]
    # its rises ask for 5.6, but for ten times the load at most
    assert float(low[2]) == pytest.approx(np.log(small.analytic.served_reserve_times), abs=1e-4)


def test_the_band_is_wider_just_after_a_scale_up(small: Preset) -> None:
    settings = dataclasses.replace(small.analytic, least_gap=(0.1, 0.5), gap_fades_s=600.0)
    network = BandNetwork(dataclasses.replace(small, analytic=settings))
    observation = torch.zeros(3, OBSERVATION_SCHEMA.size)
    observation[1:, OBSERVATION_SCHEMA.names.index("since_scale_up")] = torch.tensor([1.0, np.exp(-2.0)])
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias[-1] = -50.0  # nothing of its own
        band = network(observation)
    assert (band[:, 1] - band[:, 0]).tolist() == pytest.approx([0.1, 0.6, 0.1 + 0.5 * np.exp(-1.0)])


@pytest.mark.parametrize(("times", "left"), [(2.0, 20.0), (0.0, 500.0)])
def test_a_gradient_many_times_the_usual_is_bounded(small: Preset, times: float, left: float) -> None:
    settings = dataclasses.replace(small.analytic, clip_norm=times)
    learner = Learner(dataclasses.replace(small, analytic=settings), scenario_of(small), 0, 10)
    sizes = []
    for size in [*[10.0] * 5, 500.0]:
        for weights in learner.network.parameters():
            weights.grad = torch.zeros_like(weights)
        learner.network.head.weight.grad[0, 0] = size
        assert learner.clip() == pytest.approx(size)
        sizes.append(float(learner.network.head.weight.grad[0, 0]))
    assert sizes == pytest.approx([*[10.0] * 5, left], rel=1e-4)
    assert learner.norm == pytest.approx(10.0 + 0.02 * (left - 10.0))


def test_one_seed_gives_one_result(small: Preset) -> None:
    def weights() -> torch.Tensor:
        learner = Learner(small, scenario_of(small), 4, 10)
        learner.prepare()
        for _ in range(2):
            learner.update()
        return torch.cat([one.flatten() for one in learner.average.parameters()]).detach()

    assert torch.equal(weights(), weights())


def test_the_run_folder_is_that_of_any_algorithm(tiny_analytic: Path) -> None:
    rows = read_metrics(tiny_analytic / "metrics.csv")
    assert [row["timesteps"] for row in rows] == [512.0 * (k + 1) for k in range(6)]
    assert all(row["cost"] > 0 and row["violation"] >= 0 for row in rows)
    card = json.loads((tiny_analytic / "card.json").read_text())
    assert card["name"] == "tiny-analytic"
    assert card["provenance"]["seed"] == 2
    assert card["provenance"]["timesteps"] == 3072
    assert card["parity"] <= 1e-5
    assert (tiny_analytic / "plots" / "learning_curves.png").stat().st_size > 5_000
    assert list((tiny_analytic / "tensorboard").iterdir())
    assert [path.name for path in sorted((tiny_analytic / "checkpoints").glob("*.zip"))] == [
        "000000001024.zip",
        "000000002048.zip",
        "000000003072.zip",
    ]


def test_the_operator_loads_the_artifact(tiny_analytic: Path) -> None:
    policy = load_policy({"file": str(tiny_analytic / "policy.onnx")})
    assert policy.action_schema == "hold-band/v1"
    action = policy.act(np.zeros((5, OBSERVATION_SCHEMA.size), dtype=np.float32))
    assert action.shape == (5, 2)
    assert (action[:, 1] >= action[:, 0]).all()


def test_the_artifact_says_what_training_saw(tiny_analytic: Path) -> None:
    metadata = load_policy({"file": str(tiny_analytic / "policy.onnx")}).metadata
    assert metadata.observation_range is not None
    low, high = np.array(metadata.observation_range.low), np.array(metadata.observation_range.high)
    assert (low >= OBSERVATION_SCHEMA.low - 1e-4).all()
    assert (high <= OBSERVATION_SCHEMA.high + 1e-4).all()
    seen = dict(zip(OBSERVATION_SCHEMA.names, zip(low, high, strict=True), strict=True))
    assert seen["sync_period"] == pytest.approx((0.0, 0.0))  # this preset decides every 15 s
    assert seen["preference"][0] < 0.3 < 0.7 < seen["preference"][1]
    assert seen["load_max_3600s"][1] > 0.1


def test_a_resumed_run_goes_on_where_it_stopped(tiny_analytic: Path, tmp_path: Path) -> None:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(TINY)
    assert train("--preset", preset, "--out", tmp_path / "runs", "--timesteps", 1024) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert train("--resume", folder, "--timesteps", 2048) == 0
    run = RunFolder.open(folder)
    assert run.latest_checkpoint().timesteps == 2048
    assert [row["timesteps"] for row in read_metrics(run.metrics)] == [512, 1024, 1536, 2048]
    assert len(run.commands()) == 2


def test_export_py_makes_the_artifact_again(tiny_analytic: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.onnx"
    assert export_main([str(tiny_analytic), "--out", str(out), "--name", "mine"]) == 0
    observations = np.random.default_rng(0).normal(size=(64, OBSERVATION_SCHEMA.size)).astype(np.float32)
    ours, theirs = (load_policy({"file": str(path)}) for path in (out, tiny_analytic / "policy.onnx"))
    assert ours.name == "mine"
    assert np.array_equal(ours.act(observations), theirs.act(observations))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("analytic: {unrol_steps: 3}", ["unrol_steps", "unroll_steps"], id="typo"),
        pytest.param("analytic: {unroll_steps: 0}", ["analytic.unroll_steps", "0"], id="no steps"),
        pytest.param(
            "analytic: {unroll_steps: 8, tail_steps: 8}", ["analytic.tail_steps", "8"], id="no head"
        ),
        pytest.param("analytic: {softness: 2}", ["analytic.softness", "2"], id="share above one"),
    ],
)
def test_a_bad_setting_is_refused_by_name(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("algo: analytic\n" + text)
    with pytest.raises(ConfigError) as caught:
        read_preset(path)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("scenario", "word"),
    [
        pytest.param({"sync_periods_s": [15, 20]}, "sync_periods_s", id="other periods"),
        pytest.param({"scale_down_windows_s": [600]}, "scale_down_windows_s", id="a longer window"),
    ],
)
def test_the_twin_says_what_it_cannot_do(scenario: dict[str, list[int]], word: str) -> None:
    preset = Preset(algo="analytic", environment={"scenario": scenario})
    with pytest.raises(ConfigError, match=word):
        scenario_of(preset)


def test_counts_in_coarse_bins_are_scaled_to_a_peak_of_one() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rates = traffic.coarse_workload(rng, 7200.0, load_scenario_mix())
        assert len(rates) == 481
        assert rates.min() >= 0
        assert rates.max() == pytest.approx(1.0) or np.all(rates == 0.5)


def load_scenario_mix() -> object:
    """The mix of workloads of the shipped preset."""
    return scenario_of(load_preset("default")).mix


def test_exact_arrivals_are_the_rates() -> None:
    protocol = Protocol(window_s=600.0, params=ServiceParams(capacity_rps=25.0, poisson=0.0))
    times = np.arange(0.0, 615.0, 15.0)
    window = Window(Trace(times, 100.0 + times, "ramp"))
    episode = traffic.window_episode(window, protocol, 40, 0)
    assert np.array_equal(episode.rates, episode.arrivals)
    assert episode.rates[0, 0] == pytest.approx((100.0 + 2.5) / 25.0)
