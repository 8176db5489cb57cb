"""Web balancing: the twin's rules, the real servers, what both share, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import yaml
from aiohttp import web as aiohttp_web
from gymnasium.utils.env_checker import check_env

import sim.envs
from sim.errors import ParameterError, SimulationError
from sim.webbalancing.batch import TwinBatch, WebConfig, make_batch
from sim.webbalancing.book import WORST
from sim.webbalancing.episodes import DOWN, FAILING, SLOW, Episode, Fault, draw_episode
from sim.webbalancing.errorslog import ErrorsLog
from sim.webbalancing.layout import OK, REFUSED
from sim.webbalancing.policies import POLICIES
from sim.webbalancing.real import RealBatch
from sim.webbalancing.scoring import gini
from sim.webbalancing.scraping import read_metrics
from tests.metrics.servers import free_port, job, prometheus, wait_for
from tests.real_parts import real_part
from tests.training.conftest import ROOT, environment, run_script
from training.web_balancing import main
from training.webbalancing.evaluation import play, play_twin
from training.webbalancing.transfer import validate

MANIFESTS = ROOT / "manifests" / "webbalancing"


def quick(batches: int = 12, servers: int = 2, fault: Fault | None = None, load: float = 0.5) -> Episode:
    """A short episode of small, fast, equal servers, so that real time is short too."""
    drawn = draw_episode(np.random.default_rng(5), "equal", servers, batches)
    workers, service_s = np.full(servers, 3), np.full(servers, 0.05)
    span_s = drawn.counts[:-1].sum() / (load * float((workers / service_s).sum()))
    arrive_s = drawn.arrive_s * span_s / drawn.arrive_s[-1]
    return replace(drawn, workers=workers, service_s=service_s, arrive_s=arrive_s, fault=fault or Fault())


def to_the_end(batch: TwinBatch | RealBatch, server: int | None = None) -> dict[str, float]:
    """Play an episode: everything to one server, or round robin."""
    batch.reset()
    for turn in range(10_000):
        result = batch.step([turn % batch.config.servers if server is None else server])
        if result.episodes:
            return result.episodes[0]
    raise AssertionError("the episode did not end")


@pytest.fixture
def lone_server() -> Iterator[str]:
    """The address of one real server, a process of its own."""
    command = [
        sys.executable,
        "-m",
        "sim.webbalancing.server",
        "--workers",
        "1",
        "--service-ms",
        "20",
        "--control",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]
        process.terminate()


# --- the twin


def test_the_environment_keeps_gymnasiums_contract_and_its_figures_are_in_their_ranges() -> None:
    env = gymnasium.make(sim.envs.WEB_ENV_ID, config=WebConfig(batches=20), render_mode="ansi")
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=3)
    done = False
    while not done:
        observation, reward, _, done, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert reward <= 0
    summary = info["summary"]
    assert summary["steps"] == 20
    assert 0 <= summary["gini"] < 1
    assert 0 <= summary["accuracy"] <= 1
    assert "in flight" in str(env.render())


def test_a_server_serves_first_come_first_served_with_its_workers() -> None:
    one = quick(10)
    alone = replace(
        one, workers=np.array([1, 1]), arrive_s=np.arange(11) * 0.01, counts=np.ones(11, dtype=np.int64),
        sizes=np.ones(11), luck=np.ones(11), service_s=np.array([0.02, 0.02]),
    )  # fmt: skip
    batch = TwinBatch(WebConfig(work_over_s=0.0, http_over_s=0.0), 1, autoreset=False, given=[alone])
    to_the_end(batch, server=0)
    # one every 10 ms to a server that needs 20 ms: request k waits 10 ms more than request k - 1
    assert batch.book.latencies[0, :10] == pytest.approx(0.02 + 0.01 * np.arange(10))
    assert (batch.book.status[0, :10] == OK).all()


@pytest.mark.parametrize("kind", [SLOW, FAILING, DOWN])
def test_a_faulty_server_costs_who_sends_to_it_and_nobody_else(kind: int) -> None:
    fault = Fault(
        kind, 0, 0.0, np.inf, speed=0.1 if kind == SLOW else 1.0, error_share=1.0 if kind == FAILING else 0
    )
    well, ill = quick(30, load=0.2), quick(30, fault=fault, load=0.2)
    costs = {}
    for name, episode in (("well", well), ("ill", ill)):
        for server in (0, 1):
            batch = TwinBatch(WebConfig(), 1, autoreset=False, given=[episode])
            costs[name, server] = to_the_end(batch, server)["cost"]
    assert costs["ill", 1] == costs["well", 1]
    assert costs["ill", 0] == WORST if kind != SLOW else costs["ill", 0] > 3 * costs["well", 0]


def test_rewards_at_once_and_when_requests_end_add_up_to_the_same() -> None:
    episode = draw_episode(np.random.default_rng(2), "troubled", 4, 60)
    found = []
    for at_once in (True, False):
        batch = TwinBatch(WebConfig(at_once=at_once), 1, autoreset=False, given=[episode])
        found.append(to_the_end(batch)["return"])
    assert found[0] == pytest.approx(found[1])
    assert found[0] < -1


def test_a_row_of_a_batch_lives_as_it_would_alone_and_a_seed_fixes_it() -> None:
    many, lone = TwinBatch(WebConfig(batches=15), 3, seed=4), TwinBatch(WebConfig(batches=15), 1, seed=6)
    many.reset()
    lone.reset()
    for turn in range(40):
        choice = turn % 4
        together, alone = many.step([0, 1, choice]), lone.step([choice])
        assert (together.observations[2] == alone.observations[0]).all()
        assert together.rewards[2] == alone.rewards[0]


def test_every_formula_beats_random_where_servers_differ_and_truth_is_the_most_accurate() -> None:
    episodes = [draw_episode(np.random.default_rng(one), "troubled", 4, 200) for one in range(12)]
    found = {name: play_twin(kind(), episodes, WebConfig()) for name, kind in POLICIES.items()}
    cost = {name: float(np.mean([one["cost"] for one in each])) for name, each in found.items()}
    for name in ("measured-delay", "true-delay", "shortest-expected-delay", "least-connections"):
        assert cost[name] < 0.8 * cost["random"]
    assert cost["measured-delay"] < cost["shortest-expected-delay"]
    assert all(one["accuracy"] == 1 for one in found["true-delay"])
    assert float(np.mean([one["gini"] for one in found["weighted-round-robin"]])) < 0.1


def test_ginis_coefficient_is_that_of_the_textbook() -> None:
    assert gini(np.array([2.0, 2.0, 2.0])) == pytest.approx(0.0)
    assert gini(np.array([0.0, 0.0, 0.0, 5.0])) == pytest.approx(0.75)
    assert gini(np.array([1.0, 3.0])) == pytest.approx(0.25)
    assert gini(np.zeros(3)) == 0.0


def test_the_curriculum_goes_on_where_a_resumed_run_stands() -> None:
    config = WebConfig(phases=("equal", "different", "troubled"), episodes=(2, 3, 1))
    assert [config.phase(one) for one in range(7)] == ["equal"] * 2 + ["different"] * 3 + ["troubled"] * 2
    batch = TwinBatch(replace(config, begin_at=2, batches=10), 1)
    batch.reset()
    assert batch.playing[0] is not None
    assert batch.playing[0].phase == "different"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"face": "cloud"}, "face: 'cloud' is not allowed, must be twin or real"),
        ({"servers": 1}, "servers: 1 is not allowed"),
        ({"phases": ("calm",)}, "phases: 'calm' is not allowed"),
        ({"episodes": (1, 2)}, "episodes: "),
        ({"addresses": ("http://a",)}, "addresses: "),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        WebConfig(**settings)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_a_server_that_there_is_not_is_refused() -> None:
    batch = TwinBatch(WebConfig(batches=10), 1)
    batch.reset()
    with pytest.raises(ParameterError, match=r"action: 4 is not allowed, must be a server in 0\.\.3"):
        batch.step([4])


# --- real servers


def test_both_faces_send_the_same_requests_and_real_servers_take_as_long_as_the_twin_says() -> None:
    for _ in range(4):
        (found,) = validate([0.6], WebConfig(servers=2, batches=60))["loads"]
        # the bound is that of the docs; a machine that is busy with something else gets another chance
        if abs(found["real_ms"] / found["twin_ms"] - 1) < 0.25:
            return
    raise AssertionError(f"real {found['real_ms']:.1f} ms, twin {found['twin_ms']:.1f} ms")


def test_a_server_that_is_killed_in_the_middle_is_logged_counted_and_started_again(tmp_path: Path) -> None:
    batch = RealBatch(WebConfig(), autoreset=True, given=[quick(24), quick(24)])
    try:
        batch.log_errors_to(tmp_path / "errors.log")
        batch.reset()
        assert batch.fleet is not None
        victim = batch.fleet.processes[0]
        assert victim is not None
        for turn in range(24):
            if turn == 8:
                os.kill(victim.pid, signal.SIGKILL)
                victim.wait()
            result = batch.step([turn % 2])
        died = result.episodes[0]
        again = to_the_end(batch)
    finally:
        batch.close()
    assert died["steps"] == 24
    # half of the batches after the kill went to the dead server
    assert 0.1 < died["errors"] < 0.9
    # a stalled machine may let a request time out; a dead server fails half of them
    assert again["errors"] < 0.5 * died["errors"]
    lines = (tmp_path / "errors.log").read_text()
    assert "request web-1:" in lines
    assert "process web-1: has died" in lines
    assert died["logged"] >= 1
    assert again["logged"] == batch.errors.total
    assert not batch.fleet.dead() or len(batch.fleet.dead()) == 2


def test_a_fault_befalls_the_real_server_and_its_metrics_and_is_over_in_the_next_episode() -> None:
    fault = Fault(DOWN, 0, 0.0, np.inf)
    batch = RealBatch(WebConfig(), autoreset=False, given=[quick(20, fault=fault), quick(20)])
    try:
        ill, well = to_the_end(batch, server=0), to_the_end(batch, server=0)
    finally:
        batch.close()
    assert ill["errors"] > 0.5
    assert batch.errors.counts["request"] >= 1
    assert well["errors"] < 0.5 * ill["errors"]


async def test_malformed_metrics_and_servers_that_break_off_are_lines_in_the_log(tmp_path: Path) -> None:
    async def answer(request: aiohttp_web.Request) -> aiohttp_web.Response:
        if request.path == "/metrics":
            return aiohttp_web.Response(text="web_workers NaN\nweb_busy_workers one\n")
        return aiohttp_web.Response(status=200, text="{}")

    app = aiohttp_web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = aiohttp_web.AppRunner(app, access_log=None)
    await runner.setup()
    await aiohttp_web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    config = WebConfig(servers=2, batches=10, face="real", addresses=(address, address))

    def played() -> tuple[dict[str, float], ErrorsLog]:
        batch = RealBatch(config, given=[quick(10)], autoreset=False)
        try:
            batch.log_errors_to(tmp_path / "errors.log")
            return to_the_end(batch), batch.errors
        finally:
            batch.close()

    summary, errors = await asyncio.to_thread(played)
    await runner.cleanup()
    assert summary["errors"] < 0.5
    assert errors.counts["scrape"] >= 2
    assert "scrape" in (tmp_path / "errors.log").read_text()


def test_servers_that_cannot_be_controlled_are_refused_before_anything_is_played() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(SimulationError, match="start the server with --control"):
        RealBatch(WebConfig(servers=2, face="real", addresses=(address, address)))


def test_a_server_works_by_its_seed_refuses_nonsense_and_tells_prometheus(lone_server: str) -> None:
    import requests

    session = requests.Session()
    session.trust_env = False
    assert session.get(f"{lone_server}/work", params={"size": 1}).status_code == 200
    assert session.get(f"{lone_server}/work", params={"size": "big"}).status_code == 400
    assert session.get(f"{lone_server}/work", params={"size": -1}).status_code == 400
    refused = session.post(f"{lone_server}/control", json={"error_share": 2})
    assert (refused.status_code, refused.json()["error"]) == (
        422,
        "error_share: 2 is not allowed, must be in 0..1",
    )
    assert session.post(f"{lone_server}/control", json={"wokers": 2}).status_code == 422
    assert session.post(f"{lone_server}/control", json={"error_share": 1.0}).status_code == 200
    assert session.get(f"{lone_server}/work").status_code == 500
    text = session.get(f"{lone_server}/metrics").text
    assert read_metrics(text).count == 1
    assert 'web_requests_total{code="500"} 1.0' in text
    assert session.post(f"{lone_server}/control", json={"down": True}).status_code == 200
    with pytest.raises(requests.ConnectionError):
        session.get(f"{lone_server}/metrics")


def test_metrics_that_are_missing_negative_or_no_numbers_are_refused() -> None:
    counters = "".join(
        f"web_{name}_seconds_sum 1\nweb_{name}_seconds_count 9\n" for name in ("service", "request_duration")
    )
    good = f"web_workers 2\nweb_busy_workers 1\nweb_queue 0\n{counters}"
    assert read_metrics(good).busy == 0.5
    for bad in (
        good.replace("web_queue 0", "web_queue -1"),
        good.replace("web_queue 0\n", ""),
        "not metrics at all",
    ):
        with pytest.raises(ValueError):
            read_metrics(bad)


def test_the_errors_log_writes_one_line_a_second_of_a_kind_and_counts_all(tmp_path: Path) -> None:
    now = [0.0]
    log = ErrorsLog(clock=lambda: now[0])
    for _ in range(50):
        log.note("request", "web-1", ConnectionError("reset\nby peer"))
    log.write_to(tmp_path / "errors.log")
    now[0] = 1.5
    log.note("request", "web-1", "again")
    lines = (tmp_path / "errors.log").read_text().splitlines()
    assert log.counts["request"] == 51
    assert len(lines) == 2
    assert "ConnectionError: reset by peer" in lines[0]
    assert lines[1].endswith("again (49 more like the last)")
    log.write_to(tmp_path / "no" / "such" / "folder")
    now[0] = 3.0
    log.note("request", "web-1", "the disk is gone")
    assert log.total == 52


# --- training and the commands


TINY = """
name: tiny-web
env: web
algo: dqn
timesteps: 800
num_envs: 4
rows_every: 200
checkpoint_every: 400
network: {actor: [16]}
dqn:
  {learning_starts: 80, batch_size: 32, train_freq: 5, gradient_steps: 1,
   buffer_size: 2000, target_update_interval: 100}
environment: {servers: 3, batches: 50, phases: [equal, different, troubled], episodes: [4, 4, 8]}
"""


def command(*arguments: object) -> int:
    """The command's exit status, in this process: torch is imported once."""
    return main([str(one) for one in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the real command, with its evaluation."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "tiny.yaml").write_text(TINY)
    done = run_script("web_balancing.py", "train", "--preset", folder / "tiny.yaml", "--out", folder / "runs")
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    return run


def test_a_run_has_its_csv_checkpoints_plots_log_and_card(trained: Path) -> None:
    rows = (trained / "metrics.csv").read_text().splitlines()
    header = rows[0].split(",")
    assert {"reward", "gini", "accuracy", "cost", "errors", "phase"} <= set(header)
    phases = [float(row.split(",")[header.index("phase")]) for row in rows[1:]]
    assert phases == [0.0, 1.0, 2.0, 2.0]
    assert {path.name for path in (trained / "checkpoints").glob("*.zip")} == {
        "000000000400.zip",
        "000000000800.zip",
    }
    for name in ("plots/learning_curves.png", "policy.onnx", "versions.json", "command.txt", "config.yaml"):
        assert (trained / name).stat().st_size > 0
    assert (trained / "errors.log").read_text() == ""
    card = json.loads((trained / "card.json").read_text())
    assert set(card["evaluation"]["mean_cost"]) == {"equal", "different", "troubled"}


def test_a_run_is_resumed_where_its_checkpoint_is(trained: Path) -> None:
    assert command("train", "--resume", trained, "--timesteps", 1000, "--no-evaluate") == 0
    assert (trained / "checkpoints" / "000000001000.zip").is_file()
    assert len((trained / "metrics.csv").read_text().splitlines()) == 6
    assert "--resume" in (trained / "command.txt").read_text()


def test_evaluate_compares_on_the_same_episodes_and_writes_tables_and_pictures(
    trained: Path, tmp_path: Path
) -> None:
    status = command(
        "evaluate", trained, "--servers", 3, "--batches", 50, "--episodes", 6, "--policy",
        "measured-delay", "random", "--json", tmp_path / "a.json", "--markdown", tmp_path / "a.md",
        "--plots", tmp_path,
    )  # fmt: skip
    assert status == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert list(report["phases"]) == ["equal", "different", "troubled"]
    found = report["phases"]["different"]
    assert found["measured-delay"]["cost"] < found["random"]["cost"]
    low, high = found["dqn"]["interval"]
    assert low <= found["dqn"]["cost"] <= high
    assert "| `random` |" in (tmp_path / "a.md").read_text()
    for name in ("costs.png", "learning.png", "episode.png"):
        assert (tmp_path / name).stat().st_size > 5000


def test_transfer_plays_the_trained_policy_on_real_servers(trained: Path, tmp_path: Path) -> None:
    status = command(
        "transfer", trained, "--servers", 3, "--batches", 12, "--episodes", 1, "--policy",
        "least-connections", "--json", tmp_path / "t.json", "--errors", tmp_path / "errors.log",
        "--plots", tmp_path,
    )  # fmt: skip
    assert status == 0
    report = json.loads((tmp_path / "t.json").read_text())
    assert set(report["real"]) == set(report["twin"]) == {"dqn", "least-connections"}
    assert report["real"]["dqn"]["latency_ms"] > 0
    assert (tmp_path / "transfer.png").is_file()


def test_bad_input_to_the_command_is_said_without_a_traceback(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["evaluate", trained], "(4 servers) is expected"),
        (["evaluate", "--policy", "fastest"], "--policy: 'fastest' is not one of random"),
        (["evaluate", tmp_path / "none"], "no such run folder"),
        (["validate", "--load", "9"], "--load: 9.0 is not allowed"),
        (["train", "--env", "web", "--algo", "sac"], "algo: 'sac' is not allowed with env: web"),
    ):
        assert command(*arguments) == 2
        assert words in capsys.readouterr().err


def test_serve_servers_serves_and_starts_a_dead_one_again_until_ctrl_c() -> None:
    script = [sys.executable, str(ROOT / "training" / "web_balancing.py"), "serve-servers", "--port", "0"]
    command = [*script, "--workers", "1", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        os.kill(_servers_of(process.pid)[0], signal.SIGKILL)
        again = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert lines[0].startswith("web-1  http://127.0.0.1:")
    assert "2 workers" in lines[1]
    assert again[:6] in ("web-1 ", "web-2 ")
    assert not _servers_of(process.pid)


def test_ctrl_c_saves_a_run_on_real_servers_and_leaves_no_server_behind(tmp_path: Path) -> None:
    preset = yaml.safe_load(TINY) | {"num_envs": 1, "rows_every": 10, "timesteps": 100_000}
    preset["environment"] |= {"face": "real", "batches": 20}
    (tmp_path / "real.yaml").write_text(yaml.safe_dump(preset))
    script = [sys.executable, str(ROOT / "training" / "web_balancing.py"), "train"]
    command = [*script, "--preset", str(tmp_path / "real.yaml"), "--out", str(tmp_path / "runs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().removeprefix("run folder:").strip())
        wait_for(lambda: len((folder / "metrics.csv").read_text().splitlines()) > 2, "training", 120)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait(120) == 130
    assert "continue with" in said
    assert list((folder / "checkpoints").glob("*.zip"))
    assert (folder / "errors.log").is_file()
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s and _servers_of(process.pid):
        time.sleep(0.2)
    assert not _servers_of(process.pid)


def _servers_of(parent: int) -> list[int]:
    """Process ids of the servers that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode().replace("\0", " ")
        except OSError:
            continue
        if f"--parent {parent} " in text:
            found.append(int(path.parent.name))
    return found


# --- docker compose, Prometheus and Grafana


def test_compose_has_the_servers_prometheus_scrapes_and_grafana_shows() -> None:
    compose = yaml.safe_load((MANIFESTS / "compose.yaml").read_text())
    services = compose["services"]
    servers = [name for name in services if name.startswith("web-")]
    config = yaml.safe_load((MANIFESTS / "prometheus" / "prometheus.yml").read_text())
    targets = [one["targets"][0] for one in config["scrape_configs"][0]["static_configs"]]
    assert targets == [f"{name}:{services[name]['environment']['WEB_PORT']}" for name in servers]
    assert len({services[name]["environment"]["WEB_WORKERS"] for name in servers}) == len(servers)
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (MANIFESTS / source).exists(), volume
        assert "build" in service or ":" in service["image"]
    docker = (MANIFESTS / "Dockerfile").read_text()
    assert "COPY sim/webbalancing/server.py" in docker
    assert (ROOT / "sim" / "webbalancing" / "server.py").is_file()
    source = yaml.safe_load((MANIFESTS / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    panels = json.loads((MANIFESTS / "grafana/dashboards/web-balancing.json").read_text())["panels"]
    assert {one["datasource"]["uid"] for one in panels} == {source["datasources"][0]["uid"]}


def test_the_servers_file_runs_alone_as_the_image_has_it(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_bytes((ROOT / "sim" / "webbalancing" / "server.py").read_bytes())
    done = subprocess.run(
        [sys.executable, "server.py", "--help"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_panel_of_the_dashboard_shows_something_of_a_real_prometheus(
    lone_server: str, tmp_path: Path
) -> None:
    import requests

    real_part("prometheus")
    session = requests.Session()
    session.trust_env = False
    port = int(lone_server.rsplit(":", 1)[1])
    panels = json.loads((MANIFESTS / "grafana/dashboards/web-balancing.json").read_text())["panels"]
    queries = {one["expr"] for panel in panels for one in panel["targets"]}

    def seen(address: str, query: str) -> bool:
        found = session.get(f"{address}/api/v1/query", params={"query": query}, timeout=5).json()
        return bool(found["data"]["result"]) and found["data"]["result"][0]["value"][1] != "NaN"

    session.post(f"{lone_server}/control", json={"error_share": 0.5})
    with prometheus(tmp_path, [job("web", port, server="web-1")]) as address:

        def all_seen() -> bool:
            for _ in range(6):
                session.get(f"{lone_server}/work", params={"size": 0.2})
            return all(seen(address, query) for query in queries)

        wait_for(all_seen, "every panel's query", 60)


def test_make_batch_refuses_several_balancers_before_real_servers() -> None:
    with pytest.raises(ParameterError, match="num_envs: 2 is not allowed, must be 1 with face: real"):
        make_batch(WebConfig(face="real"), 2)


def test_playing_begins_each_episode_anew_for_the_policy() -> None:
    episodes = [quick(10), quick(10)]
    batch = TwinBatch(WebConfig(), 1, given=episodes)
    first, second = play(POLICIES["weighted-round-robin"](), batch, 2)
    assert first == second
    assert REFUSED not in batch.book.status[0]
