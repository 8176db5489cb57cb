"""Pictures of an episode: a chart (matplotlib, imported when asked for) and lines of text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import ServiceSpec

SIZE_INCHES, DPI = (6.4, 4.0), 100
COLUMNS = 60
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Frame:
    """One control step: load in requests/s, replicas, p95 in ms, share of requests over the objective."""

    requests_per_s: float
    desired: float
    recommended: float
    ready: float
    p95_ms: float
    violation_share: float
    slo_ms: float
    max_replicas: int
    action: Any

    @staticmethod
    def of(info: dict[str, Any], action: Any, spec: ServiceSpec) -> Frame:
        """From the `info` of a step, the action that was taken in it, and the service's specification."""
        return Frame(
            info["requests_per_s"],
            info["desired_replicas"],
            info["recommended_replicas"],
            info["ready_replicas"],
            info["p95_ms"],
            info["violation_share"],
            spec.slo_latency_ms,
            spec.max_replicas,
            action,
        )


def draw_ansi(frames: list[Frame]) -> str:
    """The last steps as spark lines with the last step's numbers: load, replicas, latency, action."""
    if not frames:
        return "no steps yet"
    last, shown = frames[-1], frames[-COLUMNS:]
    objective = "" if math.isnan(last.slo_ms) else f" of {last.slo_ms:.0f} ms allowed"
    asked = "nothing" if math.isnan(last.recommended) else f"{last.recommended:.0f} replicas"
    lines = (
        ("load", spark([frame.requests_per_s for frame in shown]), f"{last.requests_per_s:.1f} requests/s"),
        (
            "replicas",
            spark([frame.ready for frame in shown]),
            f"{last.ready:.0f} ready of {last.desired:.0f}, at most {last.max_replicas}",
        ),
        ("p95", spark([frame.p95_ms for frame in shown]), f"{_number(last.p95_ms)} ms{objective}"),
        (
            "late",
            spark([frame.violation_share for frame in shown]),
            f"{last.violation_share:.1%} of the requests",
        ),
    )
    text = [f"{name:<9}{spark:>{COLUMNS}}  {said}" for name, spark, said in lines]
    action = np.array2string(np.asarray(last.action), precision=3)
    return "\n".join([*text, f"{'action':<9}{action}: asked for {asked}, got {last.desired:.0f}"])


def draw_rgb(frames: list[Frame]) -> npt.NDArray[np.uint8]:
    """Three charts over time, uint8 `[400, 640, 3]`."""

    def draw(load: Any, replicas: Any, latency: Any) -> None:
        steps = np.arange(len(frames))
        load.plot(steps, [frame.requests_per_s for frame in frames], color="tab:blue")
        load.set_ylabel("requests/s")
        for name, color in (("desired", "tab:grey"), ("ready", "tab:green")):
            counts = [getattr(frame, name) for frame in frames]
            replicas.step(steps, counts, where="post", color=color, label=name)
        replicas.set_ylabel("replicas")
        latency.plot(steps, [frame.p95_ms for frame in frames], color="tab:red")
        if frames and not math.isnan(frames[-1].slo_ms):
            latency.axhline(frames[-1].slo_ms, color="tab:grey", linestyle="--")
        latency.set_ylabel("p95 ms")

    return charts(3, draw)


def charts(count: int, draw: Callable[..., None]) -> npt.NDArray[np.uint8]:
    """Charts over control steps, one above the other, as pixels uint8 `[400, 640, 3]`.

    draw: is called with `count` axes of matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(count, 1, sharex=True)
    draw(*axes)
    axes[-1].set_xlabel("control step")
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(pixels)[..., :3].copy()


def spark(values: Sequence[float]) -> str:
    """A spark line: bars from 0 to the largest; a gap where there is no value."""
    known = [value for value in values if not math.isnan(value)]
    highest = max(known, default=0.0)
    scale = (len(_BARS) - 1) / highest if highest > 0 else 0.0
    return "".join(" " if math.isnan(value) else _BARS[round(value * scale)] for value in values)


def _number(value: float) -> str:
    return "no" if math.isnan(value) else f"{value:.0f}"
