"""The real command over a run folder and an artifact: what the page holds, what it needs, and bad input."""

from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from controller.core.observation import COLUMN, OBSERVATION_SCHEMA
from sim.replay import Protocol, ReplayResult
from training.config import load_preset
from training.report import main
from training.reporting import curves, failures, slices
from training.reporting.markup import Section, page, table
from training.reporting.subject import read_subject
from training.reporting.theme import inline, styled
from training.reporting.witness import Seen, edges
from training.runs import MetricsFile, RunFolder, read_metrics, this_command

BUILTIN = Path(__file__).parents[2] / "controller" / "policies" / "builtin" / "default.onnx"
SMALL = ["--windows", "2", "--hours", "1", "--jobs", "1", "--no-cache", "--no-progress"]
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(HTMLParser):
    """Tags with their attributes; fails where one is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as train.py writes it, its artifact the built-in one."""
    preset = load_preset("ppo", timesteps=20_000)
    command = this_command("train.py", ["--preset", "ppo", "--seed", "3", "--trace", "a & b.csv"])
    run = RunFolder.create(tmp_path_factory.mktemp("runs"), preset, 3, command)
    metrics = MetricsFile(run.metrics)
    for update in range(20):
        found = {"cost_at_05": 3.0 - update / 20 if update % 5 == 0 else float("nan")}
        row = {"timesteps": 1000.0 * (update + 1), "elapsed_s": 2.0 * update, "reward": -5.0 / (update + 1)}
        metrics.write({**row, "cost": 2.0 + update % 3, "violation": 0.1 / (update + 1), **found})
    shutil.copy(BUILTIN, run.artifact)
    return run.path


@pytest.fixture(scope="module")
def plain(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of what the folder has."""
    out = tmp_path_factory.mktemp("report") / "plain.html"
    assert main([str(tiny_run), "--no-evaluate", "--out", str(out)]) == 0
    return out.read_text()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of a bare artifact, evaluated on two short windows."""
    folder = tmp_path_factory.mktemp("artifact")
    shutil.copy(BUILTIN, folder / "mine.onnx")
    assert main([str(folder / "mine.onnx"), *SMALL]) == 0
    return (folder / "mine.html").read_text()


def sections(text: str) -> list[str | None]:
    return [attributes["id"] for attributes in Outline(text).all("section")]


def test_a_run_shows_what_it_is_and_its_curves(plain: str, tiny_run: Path) -> None:
    assert sections(plain) == ["what", "curves", "frontier"]
    command = (tiny_run / "command.txt").read_text().strip()
    assert html.escape(command) in plain
    assert "&amp;" in html.escape(command)
    for part in ("<dt>seed</dt><dd>3</dd>", "<dt>algorithm</dt><dd>ppo</dd>", "torch 2.", "n_epochs: 6"):
        assert part in plain, part
    last = read_metrics(tiny_run / "metrics.csv")[-1]
    assert f"{int(last['timesteps']):,}" in plain
    assert "Left out (--no-evaluate)" in plain


@pytest.mark.parametrize("name", ["plain", "evaluated"])
def test_the_page_needs_nothing_from_outside(name: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(name)
    outline = Outline(text)
    assert outline.all("script") == []
    for tag, attributes in outline.found:
        for key in ("src", "href", "xlink:href", "data", "poster", "srcset"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:")), (tag, key, value)
    assert re.findall(r"url\((?!#)[^)]*\)|@import", text) == []


@pytest.mark.parametrize("name", ["plain", "evaluated"])
def test_the_page_can_be_read_to_people(name: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(name)
    outline = Outline(text)
    assert outline.all("html")[0]["lang"] == "en"
    charts = outline.all("svg")
    assert charts
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert len(outline.all("caption")) == len(outline.all("table")) > 0
    assert all(head.get("scope") in ("col", "row") for head in outline.all("th"))
    ids = [attributes["id"] for _, attributes in outline.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {str(attributes["href"])[1:] for attributes in outline.all("a")}
    assert links <= set(ids)


def test_the_page_has_a_light_and_a_dark_look(plain: str) -> None:
    style = plain.split("<style>")[1].split("</style>")[0]
    light, dark = style.split("prefers-color-scheme: dark")
    defined = set(re.findall(r"(--[a-z0-9-]+):", light))
    assert set(re.findall(r"(--[a-z0-9-]+):", dark)) <= defined
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", plain)) <= defined
    assert "black" not in re.findall(r"fill: (\w+)", plain)


def test_an_artifact_alone_has_everything_but_curves(evaluated: str) -> None:
    assert sections(evaluated) == ["what", "frontier", "timelines", "behaviour", "failures"]
    assert "<h1>default</h1>" in evaluated
    for rival in ("HPA", "Forecast", "clairvoyant"):
        assert f'<th scope="row">{rival}</th>' in evaluated
    assert "default (this run)" not in evaluated
    assert "2 windows of 2 traces" in evaluated
    assert "--hours 1 --seed 1000" in evaluated, "the command that repeats it"


def test_every_slice_is_told_in_words(evaluated: str) -> None:
    for name in ("load", "trend", "backlog", "history", "preference"):
        assert re.search(rf"<dt>{name}</dt><dd>[^<]* the lower edge (rises|falls|stays)", evaluated), name


def test_titles_of_the_task_name_the_curves(plain: str) -> None:
    assert "cost / fluid ideal" in plain


def test_runs_of_other_tasks_show_what_they_have(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "policy.onnx").unlink()
    (run / "config.yaml").write_text("name: <b>mine</b>\nenv: pools\nalgo: ppo\n")
    assert main([str(run), "--no-progress"]) == 0
    text = (run / "report.html").read_text()
    assert sections(text) == ["what", "curves", "frontier"]
    assert "There is no artifact to evaluate" in text
    assert "<h1>&lt;b&gt;mine&lt;/b&gt;</h1>" in text


def test_an_artifact_of_another_task_is_shown_and_not_replayed(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "policy.onnx").write_bytes(b"another task's")
    card = {
        "note": "has a schema of its own",
        "evaluation": {"reward": {"mean": 1.25, "worst": None}, "n": 3},
    }
    (run / "card.json").write_text(json.dumps(card))
    assert main([str(run), "--no-progress"]) == 0
    text = (run / "report.html").read_text()
    assert sections(text) == ["what", "curves", "card", "frontier"]
    assert "Not replayed here: has a schema of its own" in text
    assert "<dt>reward mean</dt><dd>1.25</dd>" in text
    assert "<dt>reward worst</dt><dd>not reached</dd>" in text


def test_a_run_that_has_just_begun_has_a_page(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "20260101-000000-ppo-7"
    run.mkdir()
    for name in ("config.yaml", "command.txt"):
        shutil.copy(tiny_run / name, run)
    assert main([str(run)]) == 0
    text = (run / "report.html").read_text()
    assert sections(text) == ["what", "frontier"]
    assert "<dt>seed</dt><dd>7</dd>" in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none", "no such run folder"),
        (lambda folder: folder, "not a run folder: config.yaml is missing"),
        (lambda folder: folder / "broken.onnx", "ONNX Runtime cannot load it"),
    ],
    ids=["nothing there", "another folder", "a broken artifact"],
)
def test_what_cannot_be_reported_on_is_refused(
    make: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nonsense")
    assert main([str(make(tmp_path))]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_is_no_output(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny_run), "--no-evaluate", "--out", str(tmp_path)]) == 2
    assert "is a folder; a file is expected" in capsys.readouterr().err


def test_an_artifacts_facts_come_from_its_metadata() -> None:
    facts = dict(read_subject(BUILTIN).facts())
    assert facts["command"].startswith("python training/train.py")
    assert facts["artifact"].startswith("default.onnx")


def test_any_column_with_two_numbers_is_a_curve() -> None:
    rows = [
        {"timesteps": float(i), "reward": -1.0 / (i + 1), "odd": np.nan if i % 2 else i, "same": 3.0}
        for i in range(8)
    ]
    assert curves.names_of(rows) == ["reward", "odd"]
    svg = curves.learning_curves(rows, ["reward", "odd"], {"odd": "an odd one"})
    assert "an odd one" in svg
    assert "reward" in svg
    assert curves.first_and_last(rows, ["odd"]) == [("odd", 0.0, 6.0)]


def test_charts_take_their_colours_from_the_page() -> None:
    with styled():
        figure, axis = plt.subplots()
        axis.plot([0, 1], [0, 1], color="C3")
        axis.set_title("grey & red", color="0.5")
        svg = inline(figure, "A <chart>", "of two")
    assert "stroke: var(--red)" in svg
    assert "fill: var(--grey-10)" in svg
    assert re.findall(r"#[0-9a-f]{6}\b", svg) == []
    assert svg.startswith("<svg ")
    assert 'aria-label="A &lt;chart&gt;. of two"' in svg
    assert "<title>A &lt;chart&gt;</title>" in svg
    assert "font-family" not in svg.split("<title>")[0]
    assert "width=" not in svg.split(">")[0]


def test_the_page_escapes_what_it_is_given() -> None:
    text = page("<a>", "b & c", [("1", "<i>")], [Section("s", "t", table(["<x>"], [["<y>"]], "<z>"))])
    assert not re.search(r"<(a|i|x|y|z)>", text)


class Linear:
    """A policy whose lower edge is a headroom and what a feature adds to it; the upper one is a bit more."""

    action_schema = "hold-band/v1"

    def __init__(self, feature: str = "preference", weight: float = 1.0) -> None:
        self.column, self.weight = COLUMN[feature], weight

    def act(self, features: Any) -> Any:
        low = 0.1 + self.weight * features[:, self.column]
        return np.stack([low, low + 0.1], axis=1).astype(np.float32)


def base(load: float = 20.0) -> slices.Base:
    size = OBSERVATION_SCHEMA.size
    middle = np.zeros(size, dtype=np.float32)
    middle[COLUMN["preference"]] = 0.5
    return slices.Base(middle, load, 30.0, middle - 0.5, middle + 0.5)


def test_edges_are_those_of_the_band() -> None:
    features = np.zeros((1, OBSERVATION_SCHEMA.size), dtype=np.float32)
    low, high = edges(Linear(), features, np.array([20.0]), 30.0)  # type: ignore[arg-type]
    assert low[0] == np.ceil(20 * np.exp(0.1))
    assert high[0] == np.ceil(20 * np.exp(0.2))


def test_the_edges_of_a_relative_change_are_what_it_asks_for() -> None:
    policy = SimpleNamespace(
        action_schema="relative-change/v1", act=lambda rows: np.full((len(rows), 1), 0.5)
    )
    found = edges(policy, np.zeros((1, 3)), np.array([20.0]), 30.0)  # type: ignore[arg-type]
    assert found.ravel().tolist() == [45.0, 45.0]


def test_the_load_slice_is_a_steady_load_at_another_level() -> None:
    (load,) = [one for one in slices.slices_of(base(), Protocol()) if one.name == "load"]
    middle = int(np.argmin(np.abs(load.load - 15.0)))
    row = load.observations[middle]
    assert row[COLUMN["ready_over_load"]] == pytest.approx(np.log(30.0 / load.load[middle]), rel=1e-5)
    assert row[COLUMN["granularity"]] == pytest.approx(1 / (1 + load.load[middle]), rel=1e-5)
    assert row[COLUMN["load_change_300s"]] == 0.0


def test_the_trend_slice_is_a_steady_change() -> None:
    (trend,) = [one for one in slices.slices_of(base(), Protocol()) if one.name == "trend"]
    doubled, halved = trend.observations[-1], trend.observations[0]
    assert doubled[COLUMN["load_change_300s"]] == pytest.approx(np.log(2), rel=1e-4)
    assert doubled[COLUMN["load_change_60s"]] == pytest.approx(np.log(2) / 5, rel=1e-4)
    assert doubled[COLUMN["load_max_300s"]] == 0.0, "a rising load has its maximum now"
    assert halved[COLUMN["load_max_300s"]] == pytest.approx(np.log(2), rel=1e-4)


def test_slices_stay_within_what_an_observation_can_be() -> None:
    for one in slices.slices_of(base(0.2), Protocol()):
        assert (one.observations >= OBSERVATION_SCHEMA.low).all(), one.name
        assert (one.observations <= OBSERVATION_SCHEMA.high).all(), one.name


def test_a_sentence_says_where_the_edge_goes() -> None:
    found = slices.slices_of(base(), Protocol())
    told = dict(slices.sentences(Linear(), base(), found))  # type: ignore[arg-type]
    assert "the lower edge rises from 23 to 61 replicas" in told["preference"]
    assert "the lower edge stays at 37 replicas" in told["backlog"]


def test_the_strongest_feature_is_found() -> None:
    found = slices.strongest(Linear("season_1d"), base())  # type: ignore[arg-type]
    assert found[0].name == "season_1d"
    assert found[0].edge_at_low < found[0].edge_at_high
    assert found[0].edge_at_high == np.ceil(20 * np.exp(0.1 + 0.5))


STEPS = 240
PROTOCOL = Protocol()
JUMP = 120


def replayed(asked_after: int, peak: float = 60.0) -> tuple[ReplayResult, Seen]:
    """Load 10, from step JUMP on `peak`, with 20 ready; enough asked for `asked_after` steps later."""
    load = np.where(np.arange(STEPS) < JUMP, 10.0, peak)
    desired = np.where(np.arange(STEPS) < JUMP + asked_after, 20.0, 2 * peak)
    ready = np.concatenate([np.full(4, 20.0), desired[:-4]])
    late = np.where(load > ready, 0.9, 0.0)
    quiet = np.zeros(STEPS)
    line = {
        "requests_per_s": load * 25.0,
        "desired": desired,
        "ready": ready,
        "p95_ms": np.where(late > 0, 5000.0, 50.0),
        "p99_ms": quiet,
        "violation_share": late,
        "recommended": desired,
    }
    figures = {name: np.zeros((1, 1)) for name in ReplayResult.__dataclass_fields__}
    figures.update(settings=("mine",), windows=("w",))  # type: ignore[arg-type]
    figures["timeline"] = {name: values[None, None] for name, values in line.items()}  # type: ignore[assignment]
    features = np.zeros((STEPS, OBSERVATION_SCHEMA.size), dtype=np.float32)
    # a reading is of the interval before
    seen = Seen(
        features,
        np.zeros((STEPS, 2)),
        np.concatenate([load[:1], load[:-1]]),
        desired,
        np.zeros(STEPS, dtype=int),
        np.arange(STEPS),
    )
    return ReplayResult(**figures), seen  # type: ignore[arg-type]


def story(asked_after: int, known: dict[str, float] | None = None, peak: float = 60.0) -> str:
    result, seen = replayed(asked_after, peak)
    for name, value in (known or {}).items():
        seen.features[:, COLUMN[name]] = value
    (span,) = failures.worst_spans(result, PROTOCOL)
    return failures.sentence(failures.incident_of(span, result, seen, PROTOCOL), seen, PROTOCOL)


def test_the_worst_span_begins_with_its_first_late_request() -> None:
    result, seen = replayed(1)
    (span,) = failures.worst_spans(result, PROTOCOL)
    assert span.first == JUMP
    assert span.late == pytest.approx(0.9 * 5 * 15 * 60 * 25)
    found = failures.incident_of(span, result, seen, PROTOCOL)
    assert (found.onset, found.before, found.peak, found.ready, found.short) == (JUMP, 10.0, 60.0, 20.0, 5)
    assert (found.first_short, found.asked, found.capped) == (JUMP, JUMP + 1, False)


def test_a_prompt_answer_leaves_the_start_up_time() -> None:
    told = story(1)
    assert "At 00:30:00 the load was 10 replicas with 20 ready" in told
    assert "It reached 60 replicas at once, 6.0 times as much" in told
    assert "Enough was asked for within 15 s of the shortage" in told


def test_a_late_answer_is_called_late() -> None:
    assert "Enough was asked for too late: 2 min after the load had passed what was ready" in story(8)


def test_no_answer_is_called_none() -> None:
    assert "Enough for that peak was never asked for" in story(STEPS)


def test_max_replicas_are_the_cause_where_they_were_not_enough() -> None:
    result, seen = replayed(-JUMP, peak=200.0)
    result.timeline["desired"][:] = result.timeline["ready"][:] = PROTOCOL.max_replicas
    result.timeline["violation_share"][0, 0, JUMP : JUMP + 20] = 0.9
    (span,) = failures.worst_spans(result, PROTOCOL)
    told = failures.sentence(failures.incident_of(span, result, seen, PROTOCOL), seen, PROTOCOL)
    assert "It stood at maxReplicas (120), and was short for 5 min" in told


def test_the_sentence_says_whether_history_had_shown_it() -> None:
    assert "The same time a day before had shown it (60 replicas)" in story(
        1, {"season_1d": 1.8, "season_1d_known": 1.0}
    )
    assert "A rise as large was among the rarest of the last day (74 replicas" in story(
        1, {"move_q999_1d": 2.0}
    )
    assert "Its history showed no such rise" in story(1, {"move_q999_1d": 0.1})


def test_others_are_judged_in_the_same_minutes() -> None:
    ours, _ = replayed(8)
    theirs, _ = replayed(0)
    (span,) = failures.worst_spans(ours, PROTOCOL)
    shares = failures.others(span, {"HPA": theirs}, PROTOCOL)
    assert 0 < shares["HPA"] < span.share


def test_a_window_without_late_requests_has_no_span() -> None:
    result, _ = replayed(1, peak=10.0)
    assert failures.worst_spans(result, PROTOCOL) == []
