"""The sorted window of a service's rises, its moving sums and its maxima, kept up to date bin by bin.

A rise is the log load `lead` bins after a bin, less the log load at that bin; loads below MIN_LOAD count as
MIN_LOAD. One new bin takes out one rise and puts in another, so that quantiles, deviations and maxima of the
last hour cost a few comparisons and not a sort. What depends on the floor is made anew only when the capacity
(and with it the floor, in requests/s) changed while a bin at or below the floor is in the window.
"""

from __future__ import annotations

import numpy as np

from controller.core import observation as obs
from sim.compiled import inlined, inner
from sim.fused.layout import (
    C_FINE_BIN,
    FINE_RING,
    K_BIN,
    K_END,
    K_FLOOR,
    K_KNOWN,
    K_LEAD,
    K_LOWEST,
    K_PEAK,
    K_PEAK_BIN,
    K_SHORT_KNOWN,
    K_SHORT_SQUARE,
    K_SHORT_SUM,
    K_SORTED,
    K_SQUARE,
    K_SUM,
    LOG_ONE,
    LOG_UNKNOWN,
    SHORT_WINDOW,
    WINDOW,
)

MASK = FINE_RING - 1
PEAKS = len(obs.MAXIMA_S)
PEAK_ENDS = np.array([round(span / obs.FINE_STEP_S) for span in obs.MAXIMA_S])
MOST_BEHIND = FINE_RING - 1 - WINDOW
"""More bins than that after the last one taken in, and bins that must be taken out are no longer there."""
_CENTRE, _LOWEST_KEY, _HIGHEST_KEY = 4 * LOG_ONE, -6 * LOG_ONE, 6 * LOG_ONE
NOTHING = -(1 << 31)
SIGN = -(1 << 31)
NO_KEY = (1 << 31) - 1
SEARCH = (128, 64, 32, 16, 8, 4, 2, 1)
_HIGH_FLOOR = (1 << 31) - 1


@inlined
def follow(row, lead, floor, engine):  # type: ignore[no-untyped-def]
    """Bring the window of a row up to its newest bin, at `lead` bins and a floor in units of log rate."""
    moves, sums, logs = engine.moves[row], engine.sums[row], engine.fine_log[row]
    newest, taken = int(engine.table[row, C_FINE_BIN]), moves[K_BIN]
    if taken < 0 or moves[K_LEAD] != lead or newest - taken > MOST_BEHIND:
        rebuild(newest, lead, floor, moves, sums, logs, engine.scratch)
        return
    if logs[taken & MASK] != moves[K_END]:
        _change_end(taken, lead, moves, sums, logs)
    if moves[K_FLOOR] != floor:
        if moves[K_LOWEST] < max(moves[K_FLOOR], floor):
            _refloor(taken, lead, floor, moves, sums, logs)
        moves[K_FLOOR] = floor
    for bin_now in range(taken + 1, newest + 1):
        _push(bin_now, lead, floor, moves, sums, logs)
    moves[K_BIN] = newest
    moves[K_END] = logs[newest & MASK]


@inlined
def quantile(moves, share):  # type: ignore[no-untyped-def]
    """Lower empirical quantile of the window's rises, in natural logarithms (limited to -2..10)."""
    rank = int(np.rint(share * (moves[K_KNOWN] - 1)))
    return ((moves[K_SORTED + rank] >> 8) + _CENTRE) / LOG_ONE


@inlined
def rise(start_log, end_log, floor):  # type: ignore[no-untyped-def]
    """The rise between two bins' logarithms, NOTHING if one of them is unknown."""
    if start_log == LOG_UNKNOWN or end_log == LOG_UNKNOWN:
        return NOTHING
    return max(end_log, floor) - max(start_log, floor)


@inlined
def _key(move, slot):  # type: ignore[no-untyped-def]
    """Sorts by move, then by the slot of its first bin, so that no two are equal."""
    centred = min(max(move - _CENTRE, _LOWEST_KEY), _HIGHEST_KEY)
    return (centred << 8) | slot


@inner
def rebuild(newest, lead, floor, moves, sums, logs, scratch):  # type: ignore[no-untyped-def]
    """The window from nothing but the ring of logarithms."""
    known, lowest = 0, _HIGH_FLOOR
    for start in range(newest - WINDOW, newest + 1):
        slot = start & MASK
        if logs[slot] != LOG_UNKNOWN:
            lowest = min(lowest, logs[slot])
            if start + lead <= newest:
                move = rise(logs[slot], logs[(start + lead) & MASK], floor)
                if move != NOTHING:
                    moves[K_SORTED + known] = _key(move, slot)
                    known += 1
    _sort(moves[K_SORTED:], known, scratch)
    moves[K_SORTED + known :] = NO_KEY
    moves[K_BIN], moves[K_LEAD], moves[K_FLOOR], moves[K_END] = newest, lead, floor, logs[newest & MASK]
    moves[K_LOWEST], moves[K_KNOWN] = lowest, known
    _sum_up(newest, lead, floor, moves, sums, logs)
    moves[K_PEAK] = LOG_UNKNOWN
    for peak in range(PEAKS):
        _rescan(newest, peak, moves, logs)


@inner
def _sort(values, known, scratch):  # type: ignore[no-untyped-def]
    """Sort the first `known` (at most 256), byte by byte from the least: twice as fast as by comparison."""
    counts = scratch[FINE_RING : FINE_RING + 257]
    for shift in range(0, 32, 8):
        counts[:] = 0
        for each in range(known):
            # the topmost bit is the sign: turned round, negative numbers come first
            counts[(((values[each] ^ SIGN) >> shift) & 255) + 1] += 1
        for byte in range(256):
            counts[byte + 1] += counts[byte]
        for each in range(known):
            byte = ((values[each] ^ SIGN) >> shift) & 255
            scratch[counts[byte]] = values[each]
            counts[byte] += 1
        for each in range(known):
            values[each] = scratch[each]


@inner
def _refloor(newest, lead, floor, moves, sums, logs):  # type: ignore[no-untyped-def]
    """The same rises over another floor: they stay nearly sorted, so they are sorted by insertion."""
    ordered = moves[K_SORTED : K_SORTED + moves[K_KNOWN]]
    for place in range(len(ordered)):
        slot = ordered[place] & 255
        key = _key(rise(logs[slot], logs[(slot + lead) & MASK], floor), slot)
        hole = place
        while hole > 0 and ordered[hole - 1] > key:
            ordered[hole] = ordered[hole - 1]
            hole -= 1
        ordered[hole] = key
    lowest = _HIGH_FLOOR
    for start in range(newest - WINDOW, newest + 1):
        if logs[start & MASK] != LOG_UNKNOWN:
            lowest = min(lowest, logs[start & MASK])
    moves[K_LOWEST] = lowest
    _sum_up(newest, lead, floor, moves, sums, logs)


@inlined
def _sum_up(newest, lead, floor, moves, sums, logs):  # type: ignore[no-untyped-def]
    sums[:] = 0
    moves[K_SHORT_KNOWN] = 0
    for start in range(newest - WINDOW, newest - lead + 1):
        move = rise(logs[start & MASK], logs[(start + lead) & MASK], floor)
        if move != NOTHING:
            sums[K_SUM] += move
            sums[K_SQUARE] += np.int64(move) * np.int64(move)
            if start >= newest - SHORT_WINDOW:
                _count_short(move, 1, moves, sums)


@inlined
def _count_short(move, sign, moves, sums):  # type: ignore[no-untyped-def]
    sums[K_SHORT_SUM] += sign * move
    sums[K_SHORT_SQUARE] += sign * (np.int64(move) * np.int64(move))
    moves[K_SHORT_KNOWN] += sign


@inlined
def _push(bin_now, lead, floor, moves, sums, logs):  # type: ignore[no-untyped-def]
    """One bin more: the rise that ends in it comes, the one that began before the window goes."""
    new_log = logs[bin_now & MASK]
    first = bin_now - lead
    came = rise(logs[first & MASK], new_log, floor)
    old = bin_now - 1 - WINDOW
    went = rise(logs[old & MASK], logs[(old + lead) & MASK], floor)
    _exchange(went, old & MASK, came, first & MASK, moves, sums)
    if lead <= SHORT_WINDOW:
        old = bin_now - 1 - SHORT_WINDOW
        went = rise(logs[old & MASK], logs[(old + lead) & MASK], floor)
        if went != NOTHING:
            _count_short(went, -1, moves, sums)
        if came != NOTHING:
            _count_short(came, 1, moves, sums)
    if new_log != LOG_UNKNOWN:
        moves[K_LOWEST] = min(moves[K_LOWEST], new_log)
    _raise_peaks(bin_now, new_log, moves, logs)


@inlined
def _change_end(newest, lead, moves, sums, logs):  # type: ignore[no-untyped-def]
    """The newest bin's mean has moved since it was taken in."""
    floor, slot = moves[K_FLOOR], (newest - lead) & MASK
    went = rise(logs[slot], moves[K_END], floor)
    came = rise(logs[slot], logs[newest & MASK], floor)
    _exchange(went, slot, came, slot, moves, sums)
    if lead <= SHORT_WINDOW:
        if went != NOTHING:
            _count_short(went, -1, moves, sums)
        if came != NOTHING:
            _count_short(came, 1, moves, sums)
    new_log = logs[newest & MASK]
    if new_log != LOG_UNKNOWN:
        moves[K_LOWEST] = min(moves[K_LOWEST], new_log)
    _raise_peaks(newest, new_log, moves, logs)
    moves[K_END] = new_log


@inlined
def _exchange(went, went_slot, came, came_slot, moves, sums):  # type: ignore[no-untyped-def]
    """Take one rise out of the sorted window and put one in; either may be NOTHING."""
    known = moves[K_KNOWN]
    ordered = moves[K_SORTED:]
    if went != NOTHING:
        sums[K_SUM] -= went
        sums[K_SQUARE] -= np.int64(went) * np.int64(went)
    if came != NOTHING:
        sums[K_SUM] += came
        sums[K_SQUARE] += np.int64(came) * np.int64(came)
    if went == NOTHING and came == NOTHING:
        return
    if went == NOTHING:
        hole = known
        moves[K_KNOWN] = known + 1
    else:
        hole = _place(ordered, _key(went, went_slot))
        if came == NOTHING:
            for place in range(hole, known):
                ordered[place] = ordered[place + 1]
            moves[K_KNOWN] = known - 1
            return
    key = _key(came, came_slot)
    goal = _place(ordered, key)
    # over views, whose places the compiler knows to be in range, these become moves of whole blocks
    if goal > hole:
        between = ordered[hole:goal]
        for place in range(len(between) - 1):
            between[place] = between[place + 1]
        ordered[goal - 1] = key
    else:
        between = ordered[goal : hole + 1]
        for place in range(len(between) - 1, 0, -1):
            between[place] = between[place - 1]
        ordered[goal] = key


@inlined
def _place(ordered, key):  # type: ignore[no-untyped-def]
    """How many are below `key`: a search without branches, which here would be guessed wrong half of the
    time.

    Behind those that are known all are above any key.
    """
    low = 0
    for step in SEARCH:
        low += step * (ordered[low + step - 1] < key)
    return low


@inlined
def _raise_peaks(bin_now, new_log, moves, logs):  # type: ignore[no-untyped-def]
    """Maxima over the newest bin and those before it, a window each."""
    for peak in range(PEAKS):
        best, where = moves[K_PEAK + peak], moves[K_PEAK_BIN + peak]
        if new_log >= best:
            moves[K_PEAK + peak], moves[K_PEAK_BIN + peak] = new_log, bin_now
        elif where < bin_now - PEAK_ENDS[peak] or where == bin_now:
            _rescan(bin_now, peak, moves, logs)


@inlined
def _rescan(newest, peak, moves, logs):  # type: ignore[no-untyped-def]
    """One window's maximum, from the next shorter one's and the bins that it has more."""
    if peak == 0:
        best, where, begin = logs[newest & MASK], newest, newest - 1
    else:
        best, where = moves[K_PEAK + peak - 1], moves[K_PEAK_BIN + peak - 1]
        begin = newest - PEAK_ENDS[peak - 1] - 1
    for each in range(begin, newest - PEAK_ENDS[peak] - 1, -1):
        if logs[each & MASK] > best:
            best, where = logs[each & MASK], each
    moves[K_PEAK + peak], moves[K_PEAK_BIN + peak] = best, where
