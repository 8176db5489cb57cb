"""What a trace is like, in numbers: level, burstiness, memory, seasonality, rises, gaps.

`describe` is what `rl-scaler trace info` prints and `sim.traceplot` draws. Every statistic is a function of
arrays with its formula's source, so that generated workloads are tested by the same ruler as recordings.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sim.errors import TraceError
from sim.traces import FloatArray, Trace

HOUR_S = 3600.0
DAY_S = 86400.0
WEEK_S = 7 * DAY_S
SEASONS = {"hour": HOUR_S, "day": DAY_S, "week": WEEK_S}
SCALES_S = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
RISES_S = (60.0, 300.0)
MAX_POINTS = 2_000_000
"""A regular grid longer than this is taken coarser: days of seconds need no finer one."""
LEAST_WINDOWS = 8
"""Windows of a scale below which its dispersion is not told."""
D4 = np.array([1 + math.sqrt(3), 3 + math.sqrt(3), 3 - math.sqrt(3), 1 - math.sqrt(3)]) / (4 * math.sqrt(2))
"""Daubechies' scaling filter of four coefficients: two vanishing moments, blind to a straight trend."""


@dataclass(frozen=True)
class Dispersion:
    """Burstiness at one scale. 1 is a Poisson process's."""

    scale_s: float
    index: float
    """Variance over mean of the counts in windows of that length (index of dispersion for counts)."""
    allan: float
    """The same from one window to the next (Allan factor): blind to slow change, so without seasons."""


@dataclass(frozen=True)
class Season:
    """How strongly a period shapes the trace."""

    period_s: float
    strength: float
    """Share of the variance that the phase in the period explains, 0..1, corrected for chance; a day's
    without a week's, a week's beyond the day's."""
    autocorrelation: float
    """Of the trace with itself one period later."""


@dataclass(frozen=True)
class Rise:
    """The largest rise within a time."""

    within_s: float
    by: float
    """Requests/s (or the trace's unit)."""
    at_s: float
    """When it began, s."""
    start: float
    """Level where it began."""


@dataclass(frozen=True)
class TraceInfo:
    """The description of a trace; NaN is what the trace is too short or too coarse for."""

    name: str
    unit: str
    length_s: float
    bins: int
    bin_s: float
    mean: float
    p50: float
    p95: float
    p99: float
    highest: float
    peak_to_mean: float
    total: float
    """Sum of rate times bin: requests in all."""
    idle_share: float
    """Share of the bins with nothing at all."""
    gaps: int
    gap_s: float
    """Seconds without points, in all."""
    variation: float
    """Coefficient of variation of the rates."""
    autocorrelation: float
    """From one bin to the next."""
    hurst: float
    """0.5: no memory; towards 1: bursts on every scale; above 1: drifts. Fitted on `hurst_scales_s`, at most
    six hours, after the mean of each time of day is taken off."""
    hurst_scales_s: tuple[float, float]
    best_period_s: float
    """The period with the highest autocorrelation; NaN if none has 0.1."""
    dispersions: tuple[Dispersion, ...]
    seasons: dict[str, Season]
    rises: tuple[Rise, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain types, None for what is not known."""
        return _plain(asdict(self))  # type: ignore[no-any-return]


def describe(trace: Trace) -> TraceInfo:
    """All of it. Statistics of order in time take the trace on a regular grid, gaps interpolated."""
    rates = trace.rate_rps
    step, values = regular(trace)
    mean = float(rates.mean())
    gaps = trace.gaps
    seasons = {name: season(values, step, period) for name, period in SEASONS.items()}
    found, scales = hurst(without_day(values, step), step, longest_s=DAY_S / 4)
    return TraceInfo(
        name=trace.name,
        unit=trace.unit,
        length_s=trace.duration_s,
        bins=len(trace),
        bin_s=trace.bin_s,
        mean=mean,
        p50=float(np.percentile(rates, 50)),
        p95=float(np.percentile(rates, 95)),
        p99=float(np.percentile(rates, 99)),
        highest=float(rates.max()),
        peak_to_mean=float(rates.max()) / mean if mean > 0 else math.nan,
        total=mean * trace.bin_s * len(trace),
        idle_share=float(np.mean(rates <= 0)),
        gaps=len(gaps),
        gap_s=float(sum(end - start for start, end in gaps)),
        variation=float(rates.std()) / mean if mean > 0 else math.nan,
        autocorrelation=autocorrelation(values, 1),
        hurst=found,
        hurst_scales_s=scales,
        best_period_s=best_period(values, step),
        dispersions=dispersions(values, step),
        seasons=seasons,
        rises=tuple(rise for within in RISES_S if (rise := largest_rise(values, step, within))),
        notes=trace.notes,
    )


def regular(trace: Trace) -> tuple[float, FloatArray]:
    """(step in seconds, mean rates on a regular grid `[K]`), interpolated across gaps."""
    step, points = trace.bin_s, trace.duration_s / trace.bin_s
    if points > MAX_POINTS:
        step *= math.ceil(points / MAX_POINTS)
    if np.allclose(np.diff(trace.times_s), trace.bin_s) and step == trace.bin_s:
        return step, trace.rate_rps
    return step, trace.resample(step).rate_rps


def autocorrelation(values: FloatArray, lag: int) -> float:
    """Of a series with itself `lag` steps later; NaN without variance or with fewer than 2 pairs."""
    if not 0 < lag <= len(values) - 2:
        return math.nan
    centred = values - values.mean()
    variance = float(np.dot(centred, centred))
    return float(np.dot(centred[:-lag], centred[lag:])) / variance if variance > 0 else math.nan


def autocorrelations(values: FloatArray, longest: int) -> FloatArray:
    """`[longest + 1]` at lags 0, 1, ...: by Fourier transform, with the usual (biased) divisor."""
    centred = values - values.mean()
    size = 1 << (2 * len(values) - 1).bit_length()
    transform = np.fft.rfft(centred, size)
    product = np.fft.irfft(transform * np.conj(transform), size)[: longest + 1]
    return np.asarray(product / product[0]) if product[0] > 0 else np.zeros(longest + 1)


def dispersions(values: FloatArray, step_s: float) -> tuple[Dispersion, ...]:
    """At each of `SCALES_S` that the trace resolves; rates become counts.

    Sources: Cox and Lewis 1966 (index of dispersion for counts); Allan 1966, Proc. IEEE 54 (the factor).
    """
    found = []
    for scale in SCALES_S:
        size = round(scale / step_s)
        if size < 1 or abs(size * step_s - scale) > 0.01 * scale or len(values) // size < LEAST_WINDOWS:
            continue
        counts = values[: len(values) // size * size].reshape(-1, size).sum(axis=1) * step_s
        mean = float(counts.mean())
        if mean > 0:
            allan = float(np.mean(np.diff(counts) ** 2)) / (2 * mean)
            found.append(Dispersion(scale, float(counts.var(ddof=1)) / mean, allan))
    return tuple(found)


def hurst(
    values: FloatArray, step_s: float, longest_s: float = math.inf, shortest_s: float = 0.0
) -> tuple[float, tuple[float, float]]:
    """(Hurst parameter, (shortest, longest scale in seconds) of the fit); NaN if the trace is too short.

    The slope of the wavelet coefficients' energy over the octaves is 2H - 1, fitted with the coefficients'
    number as weight (Abry and Veitch 1998, IEEE Trans. Information Theory 44(1)). Octaves from the third
    on, where at least 8 coefficients remain, from `shortest_s` to `longest_s`, so that seasons do not pass
    for memory. Above 1 the trace is not stationary on these scales: it drifts.
    """
    details, smooth = [], np.asarray(values, float)
    while len(smooth) >= 16:
        detail, smooth = _wavelet_step(smooth)
        details.append(detail)
    octaves = [j for j, d in enumerate(details, start=1) if len(d) >= 8 and 2**j * step_s <= longest_s]
    octaves = [j for j in octaves if j >= 3] if len(octaves) >= 6 else octaves[1:]
    octaves = [j for j in octaves if 2**j * step_s >= shortest_s]
    energies = np.array([float(np.mean(details[j - 1] ** 2)) for j in octaves])
    if len(octaves) < 3 or (energies <= 0).any():
        return math.nan, (math.nan, math.nan)
    counts = np.array([len(details[j - 1]) for j in octaves], float)
    # E log2 of a chi-squared mean over n is short of log2 of its mean by about 1 / (n ln 2)
    levels = np.log2(energies) + 1 / (counts * math.log(2))
    slope = np.polyfit(octaves, levels, 1, w=np.sqrt(counts))[0]
    return float((slope + 1) / 2), (2 ** octaves[0] * step_s, 2 ** octaves[-1] * step_s)


def without_day(values: FloatArray, step_s: float) -> FloatArray:
    """The series less its mean by the time of day, where it has two days at least; else as it is."""
    size = round(DAY_S / step_s)
    if size < 4 or len(values) < 2 * size:
        return values
    return np.asarray(values - _by_phase(values, np.arange(len(values)) % size))


def _wavelet_step(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(details, smooth): one level of Mallat's pyramid, without the coefficients that touch an end."""
    windows = np.lib.stride_tricks.sliding_window_view(values, 4)[::2]
    return windows @ (D4[::-1] * np.array([1, -1, 1, -1])), windows @ D4


def season(values: FloatArray, step_s: float, period_s: float) -> Season:
    """A period's strength; NaN for fewer than 2 periods or fewer than 4 steps in one.

    1 - var(remainder) / var(remainder + season), never below 0 (Hyndman and Athanasopoulos, Forecasting:
    Principles and Practice, 4.3), by classical decomposition: the trend is a moving mean over one period, the
    season the mean by phase. Adjusted for the degrees of freedom, since a few periods always fit something.
    """
    size = round(period_s / step_s)
    lagged = autocorrelation(values, size)
    if size < 4 or len(values) < 2 * size:
        return Season(period_s, math.nan, lagged)
    detrended = values - _moving_mean(values, size)
    phase = np.arange(len(values)) % size
    if period_s == WEEK_S and DAY_S / step_s >= 2:  # what the day tells is not the week's
        day = round(DAY_S / step_s)
        detrended = detrended - _by_phase(detrended, np.arange(len(values)) % day)
    seasonal = _by_phase(detrended, phase)
    before, after = float(detrended.var()), float((detrended - seasonal).var())
    if before <= 0:
        return Season(period_s, 0.0, lagged)
    freedom = (len(values) - 1) / max(len(values) - size, 1)
    return Season(period_s, min(max(1 - after / before * freedom, 0.0), 1.0), lagged)


def best_period(values: FloatArray, step_s: float) -> float:
    """The shortest period whose autocorrelation is a peak nearly (95 %) as high as the highest; NaN: none.

    A peak within 2 % of an hour, a day or a week is taken for it: noise moves a flat summit by so much.
    """
    longest = len(values) // 2
    if longest < 8:
        return math.nan
    found = autocorrelations(values, longest)
    # the biased divisor pulls far lags down: undo it, or no long period could win
    found = found * len(values) / (len(values) - np.arange(longest + 1))
    below = np.flatnonzero(found < 0.5 * found[1]) if found[1] > 0 else np.array([1])
    if not len(below):
        return math.nan
    first = max(int(below[0]), 2)
    reach = np.maximum(np.arange(longest + 1) // 8, 2)
    peaks = [
        lag
        for lag in _summits(found, first)
        if found[lag] >= 0.1
        and found[lag] >= found[max(lag - reach[lag], first) : lag + reach[lag] + 1].max()
    ]
    if not peaks:
        return math.nan
    highest = max(found[lag] for lag in peaks)
    period = float(next(lag for lag in peaks if found[lag] >= 0.95 * highest) * step_s)
    near = [named for named in SEASONS.values() if abs(period - named) <= 0.02 * named]
    return near[0] if near else period


def largest_rise(values: FloatArray, step_s: float, within_s: float) -> Rise | None:
    """The largest difference between two moments `within_s` apart; None if the steps are longer."""
    size = round(within_s / step_s)
    if size < 1 or size * step_s > 1.01 * within_s or len(values) <= size:
        return None
    differences = values[size:] - values[:-size]
    at = int(np.argmax(differences))
    return Rise(within_s, float(max(differences[at], 0.0)), at * step_s, float(values[at]))


def day_profile(trace: Trace, bins: int = 96) -> tuple[FloatArray, FloatArray]:
    """(hours `[B]`, quantiles `[3, B]`: 10, 50, 90 %) of the rate by the hour of the day; UTC if it is known.

    Raises TraceError for a trace shorter than a day.
    """
    if trace.duration_s < DAY_S * 0.999:
        raise TraceError(f"{trace.name}: is shorter than a day, so that it has no day's profile")
    bins = max(2, min(bins, int(DAY_S // trace.bin_s)))
    clock = np.mod(trace.times_s + (trace.origin_s or 0.0), DAY_S)
    index = np.minimum((clock / DAY_S * bins).astype(int), bins - 1)
    quantiles = np.full((3, bins), np.nan)
    for each in range(bins):
        inside = trace.rate_rps[index == each]
        if len(inside):
            quantiles[:, each] = np.percentile(inside, (10, 50, 90))
    return (np.arange(bins) + 0.5) * 24 / bins, quantiles


def _summits(values: FloatArray, first: int) -> list[int]:
    inner = np.arange(max(first, 1), len(values) - 1)
    higher = (values[inner] >= values[inner - 1]) & (values[inner] >= values[inner + 1])
    return [int(lag) for lag in inner[higher]]


def _moving_mean(values: FloatArray, size: int) -> FloatArray:
    """Centred mean over `size` steps; at the ends over what there is."""
    grown = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - size // 2, 0), np.minimum(index - size // 2 + size, len(values))
    return np.asarray((grown[high] - grown[low]) / (high - low))


def _by_phase(values: FloatArray, phase: np.ndarray) -> FloatArray:
    sums, counts = np.bincount(phase, values), np.bincount(phase)
    return np.asarray((sums / counts)[phase])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
