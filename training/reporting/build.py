"""One report, from a run folder or an artifact to HTML. `training/report.py` is the caller."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.errors import ConfigError
from training.reporting import curves
from training.reporting.markup import Section, code, facts, figure, folded, page, paragraph, table
from training.reporting.subject import Subject, read_subject

SHOWN_CURVES = 9
LONGEST_VALUE = 200
BEFORE, AFTER = ("HPA", "Forecast"), ("clairvoyant",)
"""Who the policy is compared with, in the order of tables."""


def report(args: argparse.Namespace) -> Path:
    """Write the page; its path. Raises TrainingError for what cannot be reported on."""
    subject = read_subject(args.source)
    out: Path = args.out or _beside(args.source)
    sections = [_about(subject)]
    figures: list[tuple[str, str]] = []
    if subject.rows:
        sections.append(_curves(subject))
    if subject.card.get("evaluation"):
        sections.append(_card(subject))
    reason = _not_evaluated(subject, args)
    if not reason:
        figures, found = _evaluate(subject, args)
        sections += found
    else:
        sections.append(Section("frontier", "Evaluation", paragraph(reason)))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(subject.name, _subtitle(subject), figures, sections))
    return out


def _not_evaluated(subject: Subject, args: argparse.Namespace) -> str:
    """Why the policy is not evaluated; "" if it is."""
    if not args.evaluate:
        return "Left out (--no-evaluate)."
    if subject.unservable:
        return f"Not replayed here: {subject.unservable}"
    if subject.policy is None:
        return "There is no artifact to evaluate in this folder: the run is not over, or its task makes none."
    if subject.env != "autoscale":
        return f"Policies of the environment {subject.env} are evaluated by its own command (docs)."
    return ""


def _evaluate(subject: Subject, args: argparse.Namespace) -> tuple[list[tuple[str, str]], list[Section]]:
    # the simulator takes seconds to import
    from training import evaluate
    from training.comparison import measure
    from training.reporting import evaluated, inquiry

    assert subject.policy is not None
    artifact = str(subject.artifact)
    arguments = _arguments(args, artifact)
    parsed = evaluate.build_parser().parse_args(arguments)
    parsed.argv = arguments
    about = evaluated.evaluated(subject.name, subject.policy, artifact, measure(parsed))
    found = [
        evaluated.frontier(about),
        evaluated.timelines(about),
        inquiry.behaviour(about),
        inquiry.failure_cases(about),
    ]
    return evaluated.key_figures(about), found


def _arguments(args: argparse.Namespace, artifact: str) -> list[str]:
    """The command line of `evaluate.py` that makes the same evaluation."""
    found = ["--policy", *BEFORE, artifact, *AFTER]
    if args.trace:
        found += ["--trace", *map(str, args.trace)]
    else:
        found += ["--windows", str(args.windows)]
    found += ["--hours", f"{args.hours:g}", "--seed", str(args.seed), "--jobs", str(args.jobs)]
    if args.cache is not None:
        found += ["--cache", str(args.cache)]
    if args.no_cache:
        found.append("--no-cache")
    if args.progress is not None:
        found.append("--progress" if args.progress else "--no-progress")
    return found


def _about(subject: Subject) -> Section:
    body = ""
    if subject.run is not None:
        commands = subject.run.commands()
        again = " The first started it, the others went on with it." if len(commands) > 1 else ""
        body += paragraph(f"Made by:{again}") + code("\n".join(commands))
    body += facts(subject.facts())
    if subject.run is not None:
        body += folded("config.yaml: every setting as used", code(subject.run.config.read_text()))
    return Section("what", "What it is", body)


def _curves(subject: Subject) -> Section:
    names = curves.names_of(subject.rows)
    if not names:
        return Section("curves", "Learning curves", paragraph("metrics.csv has no column with two values."))
    titles = _titles(subject.env)
    shown, rest = names[:SHOWN_CURVES], names[SHOWN_CURVES:]
    updates = f"{len(subject.rows)} rows of metrics.csv, over control steps"
    body = figure(
        curves.learning_curves(subject.rows, shown, titles),
        f"{updates}. Grey: each row; blue: their running mean.",
    )
    if rest:
        more = figure(curves.learning_curves(subject.rows, rest, titles))
        body += folded(f"{len(rest)} more columns", more)
    body += folded("The same as numbers", _as_numbers(subject, names, titles))
    return Section("curves", "Learning curves", body)


def _card(subject: Subject) -> Section:
    """What the run found of itself at its end, whatever its task is."""
    found = subject.card["evaluation"]
    pairs = [(name, value) for name, value in _scalars(found) if len(value) < LONGEST_VALUE]
    body = facts(pairs) + folded("All of it", code(json.dumps(found, indent=1)))
    return Section("card", "Its own evaluation", paragraph("As card.json has it.", "note") + body)


def _scalars(content: Mapping[str, Any], parent: str = "") -> list[tuple[str, str]]:
    """(dotted name, value) of what is no list, however deep."""
    found: list[tuple[str, str]] = []
    for name, value in content.items():
        path = f"{parent} {name}".strip()
        if isinstance(value, Mapping):
            found += _scalars(value, path)
        elif not isinstance(value, list):
            shown = (
                f"{value:.4g}" if isinstance(value, float) else "not reached" if value is None else str(value)
            )
            found.append((path, shown))
    return found


def _as_numbers(subject: Subject, names: Sequence[str], titles: dict[str, str]) -> str:
    rows = [
        [titles.get(name, name), f"{first:.4g}", f"{last:.4g}"]
        for name, first, last in curves.first_and_last(subject.rows, names)
    ]
    return table(["column", "first tenth", "last tenth"], rows, "Means over the run's first and last tenth")


def _titles(env: str) -> dict[str, str]:
    """Titles of columns, as the task has them."""
    from training.tasks import load_task

    try:
        columns = load_task(env).shown
    except (ConfigError, ImportError):
        return {}
    return {column.name: column.title for column in columns}


def _subtitle(subject: Subject) -> str:
    if subject.run is None:
        assert subject.policy is not None
        return f"The artifact {subject.path.name}"
    algo = subject.preset.get("algo", "?")
    return f"A run of {algo} on {subject.env}: {subject.path.resolve().name}"


def _beside(source: Path) -> Path:
    return source.with_suffix(".html") if source.suffix == ".onnx" else source / "report.html"
