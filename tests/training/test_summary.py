"""An evaluation's numbers from outcomes whose every figure is known, and their tables."""

from __future__ import annotations

import numpy as np
import pytest

from training.frontier import Outcomes
from training.pictures import looks_of, telling
from training.summary import Comparison, card, summarise
from training.tables import markdown

WINDOWS = ("a@0s", "a@1s", "b@0s", "c@0s")
TRACES = ("a", "a", "b", "c")


def family(name: str, settings: dict[str, tuple[list[float], list[float]]], seeds: int = 1) -> Outcomes:
    """Settings' costs and violations, one a window."""
    cost, violation = (
        np.repeat(np.array([each[part] for each in settings.values()])[:, :, None], seeds, axis=2)
        for part in (0, 1)
    )
    flaps = np.full_like(cost, 2.0)
    return Outcomes(name, tuple(settings), cost, violation, flaps, np.minimum(10 * violation, 1.0), 40 * cost)


@pytest.fixture
def comparison() -> Comparison:
    """At 1 %: the HPA costs 4, the bound 1, `mine` 2. The HPA never serves window c, nor does `mine`."""
    hpa = {
        "hpa-30%-300s": ([4.0] * 4, [0.0, 0.0, 0.0, 0.04]),
        "hpa-70%-300s": ([2.0] * 4, [0.2, 0.2, 0.2, 0.2]),
    }
    mine = {
        "mine-90": ([2.0] * 4, [0.0, 0.0, 0.0, 0.04]),
        "mine-10": ([1.0] * 4, [0.02, 0.02, 0.02, 0.2]),
    }
    bound = {"clairvoyant-100": ([1.0] * 4, [0.0] * 4)}
    made = {"HPA": hpa, "mine": mine, "clairvoyant": bound}
    return Comparison(
        {name: family(name, settings) for name, settings in made.items()},
        WINDOWS,
        TRACES,
        "HPA",
        "clairvoyant",
    )


def test_costs_and_the_share_of_the_gap_at_equal_violations(comparison: Comparison) -> None:
    at = summarise(comparison)["groups"]["all"]["levels"]["1.0%"]
    assert [at[name]["cost"] for name in at] == pytest.approx([4.0, 2.0, 1.0])
    assert [at[name]["gap_closed"] for name in at] == pytest.approx([0.0, 2 / 3, 1.0])
    assert at["mine"]["over_baseline"]["ratio"] == pytest.approx(0.5)
    assert at["mine"]["read_between"] == ["mine-90"]
    assert at["mine"]["coarse"] is False
    assert at["mine"]["setting"]["name"] == "mine-90"
    assert at["mine"]["setting"]["median_violation"] == 0.0
    assert at["mine"]["setting"]["worst_window_violation"] == pytest.approx(0.04)
    assert at["mine"]["setting"]["mean_worst_5_minutes"] == pytest.approx(0.1)
    assert at["mine"]["setting"]["median_p99_ms"] == pytest.approx(80.0)
    assert at["mine"]["setting"]["flaps_per_hour"] == pytest.approx(2.0)


def test_a_level_between_two_settings_is_interpolated_and_says_so(comparison: Comparison) -> None:
    at = summarise(comparison)["traces"]["b"]["levels"]["1.0%"]["mine"]
    assert at["read_between"] == ["mine-90", "mine-10"]
    assert at["coarse"] is True
    # from 1e-6 to 2e-2 in logarithms of violation, from 2 to 1 in those of cost
    part = np.log(0.01 / 1e-6) / np.log(0.02 / 1e-6)
    assert at["cost"] == pytest.approx(2.0 ** (1 - part))


def test_what_is_not_reached_is_null_and_counted(comparison: Comparison) -> None:
    found = summarise(comparison)
    strict = found["groups"]["all"]["levels"]["0.5%"]
    assert strict["HPA"]["cost"] is None
    assert strict["HPA"]["read_between"] == []
    assert strict["mine"]["gap_closed"] is None
    assert strict["HPA"]["setting"]["name"] == "hpa-30%-300s"
    tuned = strict["mine"]["tuned_per_window"]
    assert (tuned["windows_reached"], tuned["windows"], tuned["not_reached"]) == (3, 4, ["c@0s"])
    assert tuned["against_baseline"]["windows_both"] == 3
    assert tuned["against_baseline"]["windows_neither"] == 1
    assert found["traces"]["c"]["levels"]["1.0%"]["mine"]["cost"] is None


def test_windows_within_the_baselines_reach_are_a_group_of_their_own(comparison: Comparison) -> None:
    group = summarise(comparison)["groups"]["within_reach"]
    assert group["windows"] == ["a@0s", "a@1s", "b@0s"]
    assert group["levels"]["0.1%"]["HPA"]["cost"] is not None


def test_intervals_count_the_draws_that_do_not_reach(comparison: Comparison) -> None:
    at = summarise(comparison)["groups"]["all"]["levels"]["1.0%"]["HPA"]
    (interval,) = at["intervals"]
    # a draw with trace c twice or more has a mean violation of 1.6 % or more
    assert interval["high"] is None
    assert 0.6 < interval["reached"] < 0.9


def test_every_trace_has_its_own_figures(comparison: Comparison) -> None:
    found = summarise(comparison)
    assert list(found["traces"]) == ["a", "b", "c"]
    assert found["traces"]["a"]["windows"] == ["a@0s", "a@1s"]
    assert found["traces"]["a"]["intervals_over"] == ["windows"]
    assert found["groups"]["all"]["intervals_over"] == ["traces"]


def test_several_seeds_have_an_interval_of_their_own(comparison: Comparison) -> None:
    seeded = {
        name: Outcomes(
            name, one.settings, *(np.repeat(getattr(one, f), 3, axis=2) for f in
            ("cost", "violation", "flaps_per_hour", "worst_violation", "p99_ms"))
        )
        for name, one in comparison.families.items()
    }  # fmt: skip
    found = summarise(Comparison(seeded, WINDOWS, TRACES, "HPA", "clairvoyant"))["groups"]["all"]
    assert found["intervals_over"] == ["traces", "seeds"]
    spread, chance = found["levels"]["1.0%"]["mine"]["intervals"]
    assert spread["high"] is None
    # three equal seeds: nothing is left to chance
    assert (chance["low"], chance["high"]) == (pytest.approx(2.0), pytest.approx(2.0))


def test_violations_at_an_hpa_settings_cost(comparison: Comparison) -> None:
    found = summarise(comparison)["groups"]["all"]["at_equal_cost"]
    assert list(found) == ["hpa-70%-300s", "hpa-30%-300s"]
    policies = found["hpa-70%-300s"]["policies"]
    assert found["hpa-70%-300s"]["cost"] == pytest.approx(2.0)
    assert policies["HPA"]["mean_violation"] == pytest.approx(0.2)
    assert policies["mine"]["name"] == "mine-90"
    assert policies["mine"]["mean_violation"] == pytest.approx(0.01)
    assert policies["mine"]["read_mean_violation"] == pytest.approx(0.01)
    assert policies["hpa-70%-300s"]["name"] == "hpa-70%-300s"


def test_who_is_dearer_at_any_setting_is_said(comparison: Comparison) -> None:
    dear = family("dear", {"dear": ([9.0] * 4, [0.0] * 4)})
    families = comparison.families | {"dear": dear}
    found = summarise(Comparison(families, WINDOWS, TRACES, "HPA", "clairvoyant"))
    assert found["groups"]["all"]["at_equal_cost"]["hpa-70%-300s"]["policies"]["dear"]["name"] is None


def test_without_a_baseline_there_are_costs_but_no_comparison(comparison: Comparison) -> None:
    alone = {"mine": comparison.families["mine"]}
    found = summarise(Comparison(alone, WINDOWS, TRACES, "HPA", "clairvoyant"))
    assert list(found["groups"]) == ["all"]
    at = found["groups"]["all"]["levels"]["1.0%"]["mine"]
    assert at["cost"] == pytest.approx(2.0)
    assert at["over_baseline"] is at["gap_closed"] is at["tuned_per_window"]["against_baseline"] is None
    assert found["groups"]["all"]["at_equal_cost"] == {}


@pytest.fixture
def report(comparison: Comparison) -> dict:
    protocol = {
        "peak_replicas": 60.0, "start_up_s": 60.0, "sync_period_s": 15, "confidence": 0.95, "seeds": [7],
        "bootstrap_rounds": 1000, "baseline": "HPA", "bound": "clairvoyant",
    }  # fmt: skip
    windows = [
        {"name": name, "trace": trace, "hours": 24.0, "shorter_than_asked": trace == "b", "unit": f"u{trace}"}
        for name, trace in zip(WINDOWS, TRACES, strict=True)
    ]
    left = [{"name": "tiny", "reason": "too short: 5.0 min, at least 30 are needed"}]
    return {
        "command": "python training/evaluate.py", "protocol": protocol, "windows": windows, "left_out": left,
        **summarise(comparison),
    }  # fmt: skip


def test_markdown_shows_costs_gaps_and_what_is_not_reached(report: dict) -> None:
    lines = markdown(report).splitlines()
    assert any(line.startswith("| mine | – | – | 2.00 [") and line.endswith("(67%) |") for line in lines)
    assert "| b | 1 | 24 | ~2.37 | **~1.05** | 1.00 |" in lines
    assert "| c | 1 | 24 | – | – | 1.00 |" in lines
    assert "### Windows within the HPA's reach (3 of 4)" in lines


def test_markdown_names_what_was_left_out_or_short(report: dict) -> None:
    text = markdown(report)
    assert "- Left out: tiny: too short: 5.0 min, at least 30 are needed." in text
    assert "- Shorter than a window, used whole: b, 24 h." in text
    assert "- Not a request rate, but used as one: a, ua." in text


def test_every_row_of_a_markdown_table_is_as_wide_as_its_header(report: dict) -> None:
    lines = markdown(report).splitlines()
    tables = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    counted = [{row.count("|") for row in table.strip().splitlines()} for table in tables if table.strip()]
    assert len(counted) > 8
    assert all(len(widths) == 1 for widths in counted)


def test_the_card_has_everybodys_costs_and_the_policys_share(report: dict) -> None:
    found = card(report, "mine")
    assert found["windows"] == 4
    at = found["cost_over_ideal_at_mean_violation"]["1.0%"]
    assert at == {"HPA": 4.0, "mine": 2.0, "clairvoyant": 1.0, "gap_closed": pytest.approx(2 / 3)}
    assert found["at_equal_cost"]["hpa-70%-300s"]["policies"]["mine"]["mean_violation"] == pytest.approx(0.01)


def test_the_most_telling_windows_are_different_ones() -> None:
    hpa = family("HPA", {"h": ([4.0, 4.0, 4.0, 4.0], [0.1, 0.0, 0.0, 0.0])})
    mine = family("mine", {"m": ([4.0, 4.0, 1.0, 4.0], [0.0, 0.2, 0.0, 0.0])})
    both = Comparison({"HPA": hpa, "mine": mine}, WINDOWS, TRACES, "HPA", "clairvoyant")
    picked = telling(both, {"HPA": 0, "mine": 0}, ["mine", "HPA"])
    assert [index for index, _ in picked] == [2, 1, 0]
    assert [why.split()[0] for _, why in picked] == ["largest", "most", "fewest"]


def test_learned_policies_stand_out_in_pictures() -> None:
    looks = looks_of(["HPA", "KEDA", "Knative", "mine", "clairvoyant"])
    assert looks["mine"].width > looks["KEDA"].width
    assert looks["clairvoyant"].line == "--"
    assert len({look.colour for look in looks.values()}) == 5
