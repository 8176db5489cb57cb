from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from sim.errors import ParameterError
from sim.latency import BALANCERS
from sim.scenario_files import (
    SCENARIOS,
    ScenarioError,
    load_scenario,
    parse_scenario,
    run_fluid,
    run_requests,
    scenario_files,
)
from training.fidelity import (
    GridPoint,
    Row,
    build_parser,
    calibration_grid,
    compare_scenario,
    main,
    markdown,
    measure,
    predict,
)

PUBLISHED = [path.stem for path in scenario_files()]
SMALL = {
    "description": "small",
    "service": {"capacity_rps": 50, "base_latency_ms": 40, "capacity_spread": 0.0},
    "balancer": "central",
    "workload": {"kind": "Constant", "level": 100},
    "replicas": 4,
    "duration_s": 120,
    "warm_up_s": 30,
}
TWO = [{"name": "a", "replicas": 1}, {"name": "b", "replicas": 1}]


def changed(**changes):
    """SMALL with other entries; None takes one away."""
    document = {**SMALL, **changes}
    return {name: value for name, value in document.items() if value is not None}


# agreement


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_fidelities_agree_on_every_published_scenario_or_the_file_says_why_not(name):
    row, fluid, requests = compare_scenario(load_scenario(name))
    shown = f"p95 {row.p95_difference:+.1%}, violations {100 * row.violation_difference:+.2f} points"
    assert row.verdict != "DIFFERS", shown
    # where requests fail, retries and so attempts differ a little; where pools share a route, the split does
    assert fluid.arrived == pytest.approx(requests.arrived, rel=0.03)
    assert fluid.replica_hours == pytest.approx(requests.replica_hours, rel=0.03)
    assert all(len(values) == len(fluid.timeline["ready"]) for values in requests.timeline.values())


def test_the_published_scenarios_are_many_and_varied():
    scenarios = [load_scenario(name) for name in PUBLISHED]
    assert len(scenarios) >= 20
    assert {one.balancer for one in scenarios} == set(BALANCERS[1:])
    assert any(one.policy for one in scenarios)
    assert any(len(one.pools) > 1 for one in scenarios)
    assert sum(bool(one.expected_difference) for one in scenarios) <= len(scenarios) // 4
    for name in PUBLISHED:
        first = (SCENARIOS / f"{name}.yaml").read_text().splitlines()[0]
        assert first.startswith("# "), f"{name} begins without a comment"


def test_a_row_without_an_explanation_that_is_off_differs():
    figures = {"p95_ms": 100.0, "violation_share": 0.01}
    row = Row("x", (1,), {**figures, "p95_ms": 116.0}, figures, {}, 1.0, "")
    assert row.verdict == "DIFFERS"
    assert Row("x", (1,), {**figures, "p95_ms": 116.0}, figures, {}, 1.0, "why").verdict == (
        "differs as explained"
    )
    assert Row("x", (1,), {**figures, "violation_share": 0.0152}, figures, {}, 1.0, "").verdict == "DIFFERS"
    assert Row("x", (1,), {**figures, "p95_ms": 114.0}, figures, {}, 1.0, "").verdict == "agrees"


@pytest.mark.parametrize("balancer", BALANCERS[1:])
def test_the_formulas_are_within_fifteen_percent_of_a_steady_state(balancer):
    for point in (GridPoint(balancer, 1, 10, 1, 0.75, 0.0), GridPoint(balancer, 1, 10, 2, 0.9, 1.0)):
        measured, predicted = measure(point, 100_000), predict(point, balancer)
        assert predicted[0] == pytest.approx(measured[0], rel=0.15)


def test_the_plain_formula_is_between_a_random_split_and_several_proxies():
    def ratio(balancer: str, proxies: int) -> float:
        points = [GridPoint(balancer, proxies, 10, 1, rho, 0.0) for rho in (0.6, 0.75, 0.9)]
        return float(np.mean([predict(one, "pooled")[0] / measure(one, 60_000)[0] for one in points]))

    assert ratio("random", 1) < 1 < ratio("power-of-two", 4)


# running


def test_a_run_is_the_same_for_a_seed_and_another_for_another():
    scenario = parse_scenario(changed(workload={"kind": "Constant", "level": 190}), "small")
    for run in (run_fluid, run_requests):
        one, again, other = run(scenario), run(scenario, 1), run(scenario, 2)
        assert (one.p95_ms, one.violation_share, one.arrived) == (
            again.p95_ms,
            again.violation_share,
            again.arrived,
        )
        assert one.arrived != other.arrived


def test_replicas_follow_their_schedule_and_the_warm_up_is_not_counted():
    document = changed(replicas=[{"at_s": 0, "count": 4}, {"at_s": 60, "count": 2}])
    scenario = parse_scenario(document, "small")
    for run in (run_fluid, run_requests):
        outcome = run(scenario)
        assert outcome.timeline["desired"].tolist() == [4] * 4 + [2] * 4
        assert outcome.replica_hours == pytest.approx((4 * 60 + 2 * 60 + 2 * 10) / 3600)
        assert outcome.arrived == pytest.approx(100 * 120, rel=0.05)


def test_the_hpa_closes_the_loop_in_both_fidelities():
    policy = {"kind": "HPA", "target_utilisation": 0.5, "max_replicas": 20}
    document = changed(
        policy=policy,
        duration_s=600,
        workload={"kind": "Step", "before": 100, "after": 300, "at_s": 120},
        service={**SMALL["service"], "start_up_s": 20},
    )
    scenario = parse_scenario(document, "small")
    for run in (run_fluid, run_requests):
        assert run(scenario).timeline["desired"][-1] == pytest.approx(12, abs=2)


def test_weights_take_effect_after_the_propagation_delay():
    pools = [{"name": "a", "replicas": 4}, {"name": "b", "replicas": 4}]
    weights = [{"at_s": 0, "shares": {"a": 1}}, {"at_s": 60, "shares": {"a": 1, "b": 3}}]
    document = changed(pools=pools, replicas=None, weights=weights, propagation_s=20)
    shares = parse_scenario(document, "small").shares()
    assert shares[30 + 79].tolist() == [1, 0]
    assert shares[30 + 80].tolist() == [0.25, 0.75]
    assert run_requests(parse_scenario(document, "small")).violation_share < 0.01


# files


def test_a_file_can_be_named_by_its_path_or_by_its_name(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    assert load_scenario(path).name == "mine"
    assert load_scenario("light-load").pools[0].replicas == ((0, 10),)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"duration_s": None}, "duration_s", "given"),
        ({"duration": 5}, "duration", "nearest is duration_s"),
        ({"duration_s": 100}, "duration_s", "multiple of 15"),
        ({"balancer": "least-requests"}, "balancer", "nearest is least-request"),
        ({"proxies": 0}, "proxies", "1..1000"),
        ({"service": {"capacity": 5}}, "service.capacity", "nearest is capacity_rps"),
        ({"service": {"capacity_rps": "many"}}, "service.capacity_rps", "a number"),
        ({"service": {"capacity_rps": 50, "timeout_s": -1}}, "service.timeout_s", "0.01"),
        ({"service": {"burstiness": 2}}, "service.burstiness", "absent"),
        ({"service": {"capacity_rps": 5}}, "service.base_latency_ms", "at least 1000 / capacity_rps"),
        ({"workload": {"kind": "Constan"}}, "workload.kind", "Constant"),
        ({"workload": {"kind": "Constant", "lvl": 1}}, "workload.lvl", "level"),
        ({"replicas": "four"}, "replicas", "whole number"),
        ({"replicas": [{"at_s": 60, "count": 2}]}, "replicas.at_s", "ascending, from 0"),
        ({"replicas": [{"at_s": 0, "cont": 2}]}, r"replicas\[0\].cont", "count"),
        ({"policy": {"kind": "RL"}}, "policy.kind", "HPA, Forecast"),
        ({"policy": {"kind": "HPA", "target_utilisation": 2}}, "policy.target_utilisation", "at most 1"),
        ({"policy": {"kind": "HPA", "min_replicas": 9, "max_replicas": 3}}, "policy.min_replicas", "1..max"),
        ({"weights": {"a": 1}}, "weights", "no pools"),
        ({"pools": TWO}, "replicas", "with each pool"),
        ({"pools": TWO[:1], "replicas": None}, "pools", "at least two"),
        ({"pools": TWO, "replicas": None}, "weights", "a mapping"),
        (
            {"pools": TWO, "replicas": None, "weights": {"c": 1}},
            r"weights\[0\].shares.c",
            "known are a, b",
        ),
        (
            {"pools": TWO, "replicas": None, "weights": {"a": 1, "b": 2}},
            r"weights\[0\].shares",
            "whole percents",
        ),
        (
            {"pools": [TWO[0], {**TWO[1], "reclaims_per_hour": -1}], "replicas": None, "weights": {"a": 1}},
            r"pools\[1\].reclaims_per_hour",
            "0..inf",
        ),
        ({"description": 7}, "description", "text"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_what_is_allowed(tmp_path: Path, changes, field, said):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(changed(**changes)))
    with pytest.raises(ScenarioError, match=rf"wrong\.yaml: {field}: .*{said}"):
        load_scenario(path)


def test_files_that_are_none_are_refused(tmp_path: Path):
    with pytest.raises(ScenarioError, match="light-load"):
        load_scenario("no-such-scenario")
    path = tmp_path / "broken.yaml"
    path.write_text("a: [1,\n")
    with pytest.raises(ScenarioError, match="is no YAML"):
        load_scenario(path)
    with pytest.raises(ParameterError, match="a mapping"):
        parse_scenario([1], "list")


# the command


def test_the_command_prints_a_table_and_writes_numbers_and_plots(tmp_path: Path, capsys):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(changed(expected_difference="none is expected")))
    out, plots = tmp_path / "out.json", tmp_path / "plots"
    done = main(["--scenarios", str(path), "--seeds", "2", "--json", str(out), "--plot", str(plots)])
    printed = capsys.readouterr().out
    assert done == 0
    assert "| small | " in printed
    assert "- **small**: none is expected" in printed
    assert "1 of 1 agree" in printed
    (row,) = json.loads(out.read_text())
    assert row["seeds"] == [1, 2]
    assert row["verdict"] == "agrees"
    assert (plots / "small.png").stat().st_size > 10_000


def test_the_command_fails_where_a_difference_is_not_explained(tmp_path: Path, capsys):
    document = yaml.safe_load((SCENARIOS / "uneven-replicas.yaml").read_text())
    path = tmp_path / "silent.yaml"
    path.write_text(yaml.safe_dump({**document, "expected_difference": "", "duration_s": 600}))
    assert main(["--scenarios", str(path), "--seeds", "1"]) == 1
    assert "DIFFERS" in capsys.readouterr().out
    assert main(["--scenarios", "nothing"]) == 2
    assert main(["--seeds", "0"]) == 2
    assert "--seeds" in capsys.readouterr().err


def test_the_command_line_says_what_it_can_do():
    text = build_parser().format_help()
    assert all(option in text for option in ("--scenarios", "--seeds", "--json", "--plot", "--calibrate"))
    assert {point.balancer for point in calibration_grid()} == set(BALANCERS[1:])
    assert markdown([]).startswith("| scenario |")
