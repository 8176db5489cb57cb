"""A trace drawn: in the terminal (blocks, any width) and as a PNG (rate, day, memory, dispersion)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from sim.traceinfo import DAY_S, HOUR_S, SEASONS, TraceInfo, autocorrelations, day_profile, regular
from sim.traces import FloatArray, Trace

BLOCKS = " ▁▂▃▄▅▆▇█"
MEAN_STYLE, PEAK_STYLE, AXIS_STYLE = "rgb(38,139,210)", "rgb(170,205,232)", "dim"
MEAN_COLOUR, PEAK_COLOUR, ACCENT_COLOUR = "#1f6fb2", "#a9cbe6", "#d1495b"
LABEL_WIDTH = 7
TICKS = {
    "minutes": (1, 2, 5, 10, 15, 30, 60, 1e9),
    "hours": (1, 2, 3, 4, 6, 12, 24, 1e9),
    "days": (1, 2, 4, 7, 14, 28, 56, 112, 365, 3650, 1e9),
}


def chart(trace: Trace, width: int = 100, height: int = 12, colour: bool = True) -> Any:
    """A rich Text: the mean of each column in full blocks, its highest value in pale ones above.

    Without `colour` the pale ones are shaded instead.
    """
    from rich.text import Text

    columns = max(width - LABEL_WIDTH - 2, 10)
    means, peaks = envelope(trace, columns)
    top = nice_ceiling(float(np.nanmax(peaks)))
    labels = {0: short(top), height // 2: short(top / 2), height - 1: "0"}
    text = Text(no_wrap=True)
    for row in range(height):
        low = (height - 1 - row) / height * top
        text.append(f"{labels.get(row, ''):>{LABEL_WIDTH}} {'┤' if row in labels else '│'}", AXIS_STYLE)
        for mean, peak in zip(means, peaks, strict=True):
            if math.isnan(mean):
                text.append("·" if row == height - 1 else " ", AXIS_STYLE)
            else:
                eighths = [_eighths(each, low, top / height) for each in (mean, peak)]
                text.append(*_cell(eighths[0], eighths[1], colour))
        text.append("\n")
    text.append_text(Text(_time_axis(trace.duration_s, columns), AXIS_STYLE))
    return text


def _cell(mean: int, peak: int, colour: bool) -> tuple[str, str]:
    """(mark, style) of a cell that mean and highest value fill to so many eighths."""
    if not colour and mean == 0 and peak >= 4:
        return "░", PEAK_STYLE
    if mean == 0 and peak > 0:
        return (BLOCKS[peak] if colour else " "), PEAK_STYLE
    if peak == 8 and mean < 8 and colour:
        return BLOCKS[mean], f"{MEAN_STYLE} on {PEAK_STYLE}"
    return BLOCKS[mean], MEAN_STYLE


def envelope(trace: Trace, columns: int) -> tuple[FloatArray, FloatArray]:
    """(mean, highest rate) in each of so many equal spans; NaN where a gap leaves no point."""
    start, length = trace.times_s[0], trace.duration_s
    if len(trace) < columns:
        grid = start + (np.arange(columns) + 0.5) / columns * length
        rates = trace.rate_rps[np.clip(np.searchsorted(trace.times_s, grid, side="right") - 1, 0, None)]
        for left, right in trace.gaps:
            rates = np.where((grid >= left) & (grid < right), np.nan, rates)
        return rates, rates
    index = np.minimum(((trace.times_s - start) / length * columns).astype(int), columns - 1)
    counts = np.bincount(index, minlength=columns)
    sums = np.bincount(index, trace.rate_rps, columns)
    peaks = np.full(columns, -np.inf)
    np.maximum.at(peaks, index, trace.rate_rps)
    empty = counts == 0
    means = np.where(empty, np.nan, sums / np.maximum(counts, 1))
    return means, np.where(empty, np.nan, peaks)


def sparkline(values: FloatArray) -> str:
    """One line of blocks from 0 to the highest value; a blank for NaN."""
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    marks = []
    for value in values:
        known = math.isfinite(value) and top > 0
        marks.append(BLOCKS[max(round(value / top * 8), 1 if value > 0 else 0)] if known else " ")
    return "".join(marks)


def nice_ceiling(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        (m * power for m in (1, 1.5, 2, 3, 4, 5, 6, 8) if m * power >= value * (1 - 1e-9)), 10 * power
    )


def short(value: float) -> str:
    """A number in at most six characters: 0.0583, 12.4, 3.55k."""
    if not math.isfinite(value):
        return "-"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}"


def duration(seconds: float) -> str:
    """A length of time in its two largest units: 14 d, 2 h 30 min, 58 min, 15 s."""
    if not math.isfinite(seconds):
        return "-"
    left: float = round(seconds) if seconds >= 60 else seconds
    parts: list[str] = []
    for size, unit in ((DAY_S, "d"), (HOUR_S, "h"), (60.0, "min")):
        if left >= size * (1 - 1e-9):
            count = math.floor(left / size + 1e-9)
            parts.append(f"{count} {unit}")
            left -= count * size
        elif parts:
            break
    if not parts or (len(parts) == 1 and seconds < HOUR_S and left >= 1):
        parts.append(f"{left:.0f} s" if parts else f"{left:.3g} s")
    return " ".join(parts[:2])


def plot(trace: Trace, info: TraceInfo, path: str | Path) -> None:
    """Write a picture (its format by the name's ending): four panels."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    with plt.rc_context(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "axes.axisbelow": True,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
        }
    ):
        figure = plt.figure(figsize=(11, 6.6), layout="constrained")
        grid = figure.add_gridspec(2, 3, height_ratios=(1.15, 1))
        _rate_panel(figure.add_subplot(grid[0, :]), trace, info)
        _day_panel(figure.add_subplot(grid[1, 0]), trace)
        _memory_panel(figure.add_subplot(grid[1, 1]), trace, info)
        _dispersion_panel(figure.add_subplot(grid[1, 2]), info)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _rate_panel(axes: Any, trace: Trace, info: TraceInfo) -> None:
    unit_s, unit = _time_unit(trace.duration_s)
    means, peaks = envelope(trace, min(len(trace), 1200))
    width = trace.duration_s / len(means)
    times = (np.arange(len(means)) + 0.5) * width / unit_s
    if len(trace) > 1200:
        axes.fill_between(
            times, 0, peaks, color=PEAK_COLOUR, linewidth=0, step="mid", label=f"highest in {duration(width)}"
        )
    axes.plot(times, means, color=MEAN_COLOUR, linewidth=1.0, label="mean" if len(trace) > 1200 else None)
    axes.axhline(info.mean, color="#777777", linewidth=0.8, linestyle=(0, (4, 3)))
    for left, right in trace.gaps:
        begin = (left - trace.times_s[0]) / unit_s
        axes.axvspan(begin, begin + (right - left) / unit_s, color=ACCENT_COLOUR, alpha=0.18, linewidth=0)
    axes.set_xlim(0, trace.duration_s / unit_s)
    axes.set_ylim(0, nice_ceiling(info.highest))
    axes.set_xlabel(f"time ({unit})")
    axes.set_ylabel(trace.unit)
    axes.set_title(f"{trace.name}: mean {short(info.mean)} (dashed), peak {short(info.highest)} {trace.unit}")
    if len(trace) > 1200:
        axes.legend(loc="upper right", frameon=False, fontsize=8, ncols=2)


def _day_panel(axes: Any, trace: Trace) -> None:
    if trace.duration_s >= DAY_S * 0.999:
        hours, quantiles = day_profile(trace)
        axes.fill_between(hours, quantiles[0], quantiles[2], color=PEAK_COLOUR, linewidth=0, label="10..90 %")
        axes.plot(hours, quantiles[1], color=MEAN_COLOUR, linewidth=1.4, label="median")
        axes.set_xlim(0, 24)
        axes.set_xticks(range(0, 25, 4))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(
            "hour of the day" + (" (UTC)" if trace.origin_s is not None else " (of the recording)")
        )
        axes.set_ylabel(trace.unit)
        axes.set_title("a day")
        axes.legend(loc="upper left", frameon=False, fontsize=8)
        return
    axes.hist(trace.rate_rps, bins=_edges(trace.rate_rps), color=MEAN_COLOUR)
    axes.set_xlabel(trace.unit)
    axes.set_ylabel("bins")
    axes.set_title("distribution (shorter than a day)")


def _edges(rates: FloatArray) -> FloatArray:
    """Edges of at most 40 bars, none narrower than the distance between neighbouring values (counts)."""
    distances = np.diff(np.unique(rates))
    least = float(np.median(distances)) if 0 < len(distances) < 60 else 0.0
    width = max((float(rates.max()) - float(rates.min())) / 40, least, 1e-9)
    return np.arange(rates.min() - width / 2, rates.max() + width, width)


def _memory_panel(axes: Any, trace: Trace, info: TraceInfo) -> None:
    step, values = regular(trace)
    longest = min(len(values) // 2, round(8 * DAY_S / step))
    found = autocorrelations(values, longest)
    unit_s, unit = _time_unit(longest * step)
    axes.plot(np.arange(longest + 1) * step / unit_s, found, color=MEAN_COLOUR, linewidth=1.2)
    axes.axhline(0, color="#777777", linewidth=0.8)
    for name, period in SEASONS.items():
        lag = round(period / step)
        # an hour within days would only be a line at the edge
        if 2 <= lag <= longest and lag >= longest / 50:
            axes.axvline(period / unit_s, color=ACCENT_COLOUR, linewidth=0.9, linestyle=(0, (2, 2)))
            axes.annotate(
                f" {name}", (period / unit_s, 1.0), color=ACCENT_COLOUR, fontsize=8, va="top", ha="left"
            )
    axes.set_xlim(0, longest * step / unit_s)
    axes.set_ylim(min(-0.1, float(found.min()) - 0.05), 1.02)
    axes.set_xlabel(f"lag ({unit})")
    drift = ", drifts" if info.hurst > 1 else ""
    memory = f"Hurst {info.hurst:.2f}{drift}" if math.isfinite(info.hurst) else "Hurst unknown"
    axes.set_title(f"autocorrelation ({memory})")


def _dispersion_panel(axes: Any, info: TraceInfo) -> None:
    axes.set_title("burstiness by scale")
    if not info.dispersions:
        axes.text(0.5, 0.5, "too short", ha="center", va="center", transform=axes.transAxes, color="#777777")
        return
    scales = [each.scale_s for each in info.dispersions]
    axes.plot(
        scales, [each.index for each in info.dispersions], "o-", color=MEAN_COLOUR, label="variance / mean"
    )
    axes.plot(
        scales,
        [each.allan for each in info.dispersions],
        "s--",
        color=ACCENT_COLOUR,
        label="Allan factor",
    )
    axes.axhline(1, color="#777777", linewidth=0.8)
    axes.annotate("Poisson", (scales[-1], 1), fontsize=8, color="#777777", va="bottom", ha="right")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(scales, [duration(scale) for scale in scales], rotation=40, ha="right")
    axes.minorticks_off()
    axes.set_xlabel("window")
    axes.legend(loc="best", frameon=False, fontsize=8)


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds > 2.5 * DAY_S:
        return DAY_S, "days"
    return (HOUR_S, "hours") if seconds > 2.5 * HOUR_S else (60.0, "minutes")


def _eighths(value: float, low: float, height: float) -> int:
    return int(np.clip(round((value - low) / height * 8), 0, 8))


def _time_axis(length_s: float, columns: int) -> str:
    """A ruler with numbers under it; their unit stands left."""
    unit_s, unit = _time_unit(length_s)
    span = length_s / unit_s
    step = next(s for s in TICKS[unit] if span / s <= columns / 9)
    line, labels = ["─"] * columns, [" "] * columns
    for tick in np.arange(0, span, step):
        at = int(tick / span * columns)
        line[at] = "┬"
        text = f"{tick:g}"
        if at + len(text) <= columns:
            labels[at : at + len(text)] = text
    return f"{'':{LABEL_WIDTH}} └{''.join(line)}\n{unit:>{LABEL_WIDTH}}  {''.join(labels).rstrip()}"
