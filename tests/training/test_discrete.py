"""The threshold rule, its search, and the table that compares it with learned policies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from controller.core import OBSERVATION_SCHEMA, Samples
from controller.policies.loader import builtin_names
from sim.errors import ParameterError
from sim.replay import Protocol, replay
from sim.threshold import Threshold, ThresholdPolicy, threshold
from training.addremove.picture import save_picture
from training.addremove.rules import read_rules, settings_of
from training.addremove.table import (
    ALLOWED,
    Family,
    Played,
    contestants,
    markdown,
    overload_events,
    play,
)
from training.config import load_preset
from training.contestants import generated_windows
from training.discrete import main
from training.errors import ConfigError

RULE = Threshold(
    add_above=0.7, remove_below=0.4, add_share=0.5, remove_share=0.25, cooldown_up_s=60, cooldown_down_s=300
)


def view(utilisation: list[float], current: int = 8, up_s: float = np.inf, down_s: float = np.inf) -> Any:
    """What the rule looks at: `up_s` and `down_s` seconds after the last changes."""
    features = np.zeros((len(utilisation), OBSERVATION_SCHEMA.size), dtype=np.float32)
    features[:, OBSERVATION_SCHEMA.names.index("since_scale_up")] = np.exp(-up_s / 300.0)
    features[:, OBSERVATION_SCHEMA.names.index("since_scale_down")] = np.exp(-down_s / 300.0)
    samples = Samples(request_rate=np.ones(len(utilisation)), utilisation=np.array(utilisation))
    return SimpleNamespace(
        samples=samples,
        features=features,
        current=np.full(len(utilisation), current),
        load=samples.utilisation,
    )


def test_the_rule_adds_above_removes_below_and_holds_in_between() -> None:
    recommended = ThresholdPolicy(RULE).recommend(view([0.9, 0.7, 0.5, 0.4, 0.1]))
    assert recommended.tolist() == [12, 8, 8, 8, 6]


def test_the_rule_changes_one_server_at_least() -> None:
    policy = ThresholdPolicy(replace(RULE, add_share=0.01, remove_share=0.01))
    assert policy.recommend(view([0.9, 0.1], current=3)).tolist() == [4, 2]


def test_the_rule_says_nothing_without_a_utilisation() -> None:
    assert np.isnan(ThresholdPolicy(RULE).recommend(view([np.nan]))).all()


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ({"up_s": 45}, [8, 8]),
        ({"up_s": 60}, [12, 8]),
        ({"down_s": 45}, [8, 8]),
        ({"down_s": 285}, [12, 8]),
        ({"up_s": 300, "down_s": 900}, [12, 6]),
    ],
)
def test_the_rule_waits_after_any_change(since: dict[str, float], expected: list[int]) -> None:
    assert ThresholdPolicy(RULE).recommend(view([0.9, 0.1], **since)).tolist() == expected


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"remove_below": 0.8}, "remove_below"),
        ({"add_share": 0.0}, "add_share"),
        ({"remove_share": float("nan")}, "remove_share"),
        ({"cooldown_up_s": -1}, "cooldown_up_s"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_name(content: dict[str, float], name: str) -> None:
    with pytest.raises(ParameterError, match=name):
        Threshold(**content)


def test_the_rule_plays_under_both_engines_alike() -> None:
    protocol = Protocol(window_s=3600.0)
    windows = generated_windows(2, 3, protocol)
    settings = settings_of([RULE, replace(RULE, add_above=0.5, remove_below=0.2)], protocol)
    core, fused = (replay(windows, settings, protocol, 1, True, engine) for engine in ("core", "fused"))
    np.testing.assert_array_equal(core.timeline["desired"], fused.timeline["desired"])
    assert (np.diff(core.timeline["desired"], axis=2) != 0).any()
    # a longer cooldown changes less often
    slow = threshold(protocol.spec(), replace(RULE, cooldown_up_s=600, cooldown_down_s=900))
    changed = [
        (np.diff(replay(windows, [one], protocol, 1, True).timeline["desired"], axis=2) != 0).sum()
        for one in (settings[0], slow)
    ]
    assert changed[1] < changed[0]


def test_an_overload_event_is_a_spell_and_near_ones_are_one() -> None:
    load = np.array([0, 2, 2, 0, 2, 0, 0, 0, 0, 0, 2, 0], dtype=float) * 100.0
    timeline = {"requests_per_s": load[None, None], "ready": np.ones((1, 1, 12))}
    # 12 steps of 15 s are three minutes: two events, for the gap of one step joins the first two spells
    assert overload_events(timeline, 100.0, 15.0)[0, 0] == pytest.approx(2 * 86400 / 180)
    timeline["ready"] = np.full((1, 1, 12), 2.0)
    assert overload_events(timeline, 100.0, 15.0)[0, 0] == 0.0


def test_steps_after_a_windows_end_are_no_events_and_no_time() -> None:
    load, ready = np.full((1, 1, 8), 200.0), np.ones((1, 1, 8))
    load[..., 4:] = ready[..., 4:] = np.nan
    found = overload_events({"requests_per_s": load, "ready": ready}, 100.0, 15.0)
    assert found[0, 0] == pytest.approx(86400 / 60)


def played(cost: list[float], violation: list[float]) -> Played:
    names = tuple(str(k) for k in range(len(cost)))
    return Played(names, np.array(cost), np.array(violation), np.array(cost) * 10, np.array(cost) * 2)


def test_the_cheapest_setting_within_the_allowed_violations_is_shown_else_the_safest() -> None:
    assert played([1.0, 2.0, 3.0], [0.1, ALLOWED, 0.001]).chosen == 1
    assert played([1.0, 2.0], [0.1, 0.05]).chosen == 1


def test_the_table_has_means_and_deviations_over_training_seeds() -> None:
    family = Family("learned", (played([1.0, 2.0], [0.1, 0.001]), played([1.0, 3.0], [0.1, 0.001])))
    figures = family.figures()
    assert figures["cost"] == pytest.approx((2.5, np.sqrt(0.5)))
    assert figures["overloads"][0] == pytest.approx(25.0)
    alone = Family("formula", (played([1.0, 2.0], [0.1, 0.02]),))
    text = markdown([family, alone], "python training/discrete.py compare", 3, 24)
    assert "| learned | 2 |" in text
    assert "2.50 ± 0.71" in text
    # the formula reaches neither level, and has one seed
    assert "| formula | 1 | – | – | 2.00 | 2.00 | 20.0 | 4.0 |" in text


def test_a_picture_has_a_line_for_each_seed(tmp_path: Path) -> None:
    family = Family("learned", (played([1.0, 2.0], [0.1, 0.001]), played([1.0, 3.0], [0.1, 0.001])))
    assert save_picture([family], tmp_path / "out.png").stat().st_size > 10_000


def test_the_search_keeps_the_rules_that_no_other_beats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rules.json"
    arguments = [
        "tune",
        "--trials",
        "18",
        "--windows",
        "1",
        "--hours",
        "0.5",
        "--out",
        str(out),
        "--no-progress",
    ]
    assert main(arguments) == 0
    content = json.loads(out.read_text())
    assert "--trials 18" in content["command"]
    costs = [one["cost"] for one in content["rules"]]
    violations = [one["violation"] for one in content["rules"]]
    assert len(costs) >= 1
    assert violations == sorted(violations)
    assert costs == sorted(costs, reverse=True)
    assert [rule.name for rule in read_rules(out)] == [
        Threshold(**one["rule"]).name for one in content["rules"]
    ]
    assert "of 18 rules are on the frontier" in capsys.readouterr().out


def test_the_command_compares_rules_formulas_and_artifacts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, table = tmp_path / "rules.json", tmp_path / "table.md"
    rules.write_text(json.dumps({"rules": [{"rule": vars(RULE)}]}))
    arguments = ["compare", "--rules", str(rules), "--policy", "HPA", builtin_names()[0], "--windows", "1"]
    arguments += ["--hours", "0.5", "--no-progress", "--markdown", str(table)]
    arguments += ["--plot", str(tmp_path / "out.png")]
    assert main(arguments) == 0
    assert "threshold rule" in capsys.readouterr().out
    lines = table.read_text().splitlines()
    assert lines[0].startswith("`python training/discrete.py compare --rules")
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:] == [
        "threshold rule", "HPA", builtin_names()[0],
    ]  # fmt: skip
    assert (tmp_path / "out.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--policy", "ppo=missing.onnx"], "missing.onnx: neither an .onnx file nor a run folder"),
        (["compare", "--policy", "HPA", "HPA"], "HPA is there twice"),
        (["compare", "--policy", "nobody"], "--policy nobody"),
        (["compare", "--policy", "HPA", "--windows", "0"], "--windows: 0 is not allowed"),
        (["compare", "--policy", "HPA", "--rules", "none.json"], "--rules: none.json"),
        (["tune", "--trials", "0"], "--trials: 0 is not allowed"),
        (["tune", "--seed", "-1"], "--seed: -1 is not allowed"),
    ],
)
def test_bad_input_ends_with_a_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--no-progress"]) == 2
    assert message in capsys.readouterr().err


def test_windows_in_parts_give_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.addremove import table

    protocol = Protocol(window_s=1800.0)
    windows = generated_windows(3, 3, protocol)
    ((_, (settings,)),) = contestants(["Forecast"], None, protocol)
    whole = play(settings[:3], windows, protocol, 5)
    monkeypatch.setattr(table, "WINDOWS_AT_ONCE", 2)
    parts = play(settings[:3], windows, protocol, 5)
    for name in ("cost", "violation", "overloads", "changes"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name))


@pytest.mark.parametrize(("name", "algorithm"), [("discrete", "ppo"), ("discrete-dqn", "dqn")])
def test_the_presets_add_and_remove_the_same_servers(name: str, algorithm: str) -> None:
    preset, other = load_preset(name), load_preset("qlearning")
    assert preset.algo == algorithm
    assert preset.action.kind == other.action.kind == "discrete"
    assert preset.action.changes == other.action.changes


def test_rules_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"rules": [{"rule": {"add_above": 0.3, "remove_below": 0.5}}]}))
    with pytest.raises(ConfigError, match="not the rules of"):
        read_rules(path)
