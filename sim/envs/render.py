"""Pictures of an episode: a chart (matplotlib, imported when asked for) and a line of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SIZE_INCHES, DPI = (6.4, 4.0), 100
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Frame:
    """One control step: load in requests/s, replicas, p95 in ms, share of requests over the objective."""

    requests_per_s: float
    desired: float
    ready: float
    p95_ms: float
    violation_share: float

    @staticmethod
    def of(info: dict[str, Any]) -> Frame:
        """From the `info` of a step."""
        return Frame(
            info["requests_per_s"],
            info["desired_replicas"],
            info["ready_replicas"],
            info["p95_ms"],
            info["violation_share"],
        )


def draw_ansi(frames: list[Frame]) -> str:
    """The last step in numbers, with a spark line of the load."""
    if not frames:
        return "no steps yet"
    last = frames[-1]
    loads = np.array([frame.requests_per_s for frame in frames[-40:]])
    heights = np.rint(loads / max(float(loads.max()), 1e-9) * (len(_BARS) - 1)).astype(int)
    spark = "".join(_BARS[height] for height in heights)
    return (
        f"{spark} {last.requests_per_s:8.1f} requests/s  {last.ready:.0f}/{last.desired:.0f} replicas  "
        f"p95 {last.p95_ms:.0f} ms  {last.violation_share:.1%} late"
    )


def draw_rgb(frames: list[Frame]) -> npt.NDArray[np.uint8]:
    """Three charts over time, uint8 `[400, 640, 3]`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    load, replicas, latency = figure.subplots(3, 1, sharex=True)
    steps = np.arange(len(frames))
    load.plot(steps, [frame.requests_per_s for frame in frames], color="tab:blue")
    load.set_ylabel("requests/s")
    replicas.step(steps, [frame.desired for frame in frames], where="post", color="tab:grey", label="desired")
    replicas.step(steps, [frame.ready for frame in frames], where="post", color="tab:green", label="ready")
    replicas.set_ylabel("replicas")
    latency.plot(steps, [frame.p95_ms for frame in frames], color="tab:red")
    latency.set_ylabel("p95 ms")
    latency.set_xlabel("control step")
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(pixels)[..., :3].copy()
