"""One query about many services instead of one for each: what is asked, and whose each part of the answer is.

Pure. `presets.py` writes families and plans; `grouped.py` asks the families and evaluates the plans. A plan
evaluated on a family's answer gives what the service's own query would have given at the same moment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

AMONG = "{{among}}"
"""Where a family's query takes the matchers that say whom it is about."""

POD_LABELS = ("namespace", "workload", "deep")
MOST_NAMES = 200
"""Longer lists of names are left out of a query: selecting all is cheaper than matching thousands."""
MOST_POD_NAMES = 20
"""The same for workloads whose pods are matched: those are no literals, which Prometheus looks up quickly."""

Key = tuple[str, ...]
Values = Mapping[Key, float]
NO_KEYS: Mapping[Key, Key] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """A query about many services: `text` has {{among}} for the matchers, `labels` tell the services apart.

    Equal only to itself, which makes it quick to look up; `filled` sees to it that equal ones are one.

    pods: the labels are POD_LABELS, made from the names of pods. `workload` is the name without its last
    part; where that part has five characters (`deep`), the pod may be of the workload without the last two,
    so its value counts, by "sum" or "min", for both, as it does under `presets.pods_pattern`.
    """

    text: str
    labels: tuple[str, ...]
    pods: Literal["", "sum", "min"] = ""

    def filled(self, values: Mapping[str, str]) -> Family:
        """With the placeholders that do not tell services apart filled in; one object for equal ones."""
        return _filled(self, tuple(sorted(values.items())))

    def query(self, keys: Iterable[Key]) -> str:
        """PromQL about (at least) these services."""
        namespaces, names = ({key[i] for key in keys} for i in (0, 1))
        namespace_label, name_label = ("namespace", "pod") if self.pods else self.labels
        suffix = "-[a-z0-9]+(-[a-z0-9]{5})?" if self.pods else ""
        most = MOST_POD_NAMES if self.pods else MOST_NAMES
        matchers = (
            _matcher(namespace_label, namespaces, MOST_NAMES),
            _matcher(name_label, names, most, suffix),
        )
        return self.text.replace(AMONG, ",".join(matchers))

    def values(self, result: Any, known: Mapping[Key, Key] = NO_KEYS) -> dict[Key, float]:
        """By service, from `data.result` of an instant query. Raises ValueError where it is none.

        known: keys by themselves; an answer about thousands of services uses these objects, and keeps none
        of its own.
        """
        pairs = self._pairs(result, _sample_value)
        if not self.pods:
            return _unique((known.get(key, key), value) for key, value in pairs)
        return self._by_owner(pairs, known, _JOIN[self.pods])

    @staticmethod
    def _by_owner(
        pairs: Iterable[tuple[Key, float]], known: Mapping[Key, Key], join: Callable[[float, float], float]
    ) -> dict[Key, float]:
        """Values by workload from values by POD_LABELS."""
        found: dict[Key, float] = {}
        for (namespace, workload, deep), value in pairs:
            owners = [workload, workload.rpartition("-")[0]] if deep else [workload]
            for owner in owners:
                key = (namespace, owner)
                if key in found:
                    found[key] = join(found[key], value)
                else:
                    found[known.get(key, key)] = value
        return found

    def _pairs(self, result: Any, value: Callable[[Mapping[str, Any]], Any]) -> Iterable[tuple[Key, Any]]:
        if not isinstance(result, list):
            raise ValueError("no list under data.result")
        labels = self.labels
        for series in result:
            metric = series["metric"]
            yield tuple([metric.get(label, "") for label in labels]), value(series)

    def series(self, result: Any, read: Callable[[Mapping[str, Any]], Any]) -> dict[Key, Any]:
        """By service, whatever `read` makes of each series of a range query."""
        return _unique(self._pairs(result, read))


@lru_cache(maxsize=1024)
def _filled(family: Family, values: tuple[tuple[str, str], ...]) -> Family:
    text = family.text
    for name, value in values:
        text = text.replace("{{" + name + "}}", value)
    return replace(family, text=text)


_JOIN: dict[str, Callable[[float, float], float]] = {"sum": lambda a, b: a + b, "min": min}


def _unique(pairs: Iterable[tuple[Key, Any]]) -> dict[Key, Any]:
    listed = list(pairs)
    found = dict(listed)
    if len(found) != len(listed):
        raise ValueError("several series of one service")
    return found


def _sample_value(series: Mapping[str, Any]) -> float:
    return float(series["value"][1])


def _matcher(label: str, names: set[str], most: int, suffix: str = "") -> str:
    if len(names) > most:
        return f'{label}!=""'
    choice = "|".join(sorted(_literal(name) for name in names))
    return f'{label}=~"({choice}){suffix}"' if suffix else f'{label}=~"{choice}"'


_SPECIAL = re.compile(r"[.+*?()|\[\]{}^$\\]")


def _literal(name: str) -> str:
    """A name as a regular expression (RE2) inside a PromQL string."""
    escaped = _SPECIAL.sub(lambda match: "\\" + match[0], name)
    return escaped.translate({ord("\\"): r"\\", ord("\n"): r"\n", ord('"'): r"\""})


@dataclass(frozen=True, slots=True)
class Share:
    """One service's part of a family; several keys for a service of several workloads."""

    family: Family
    keys: tuple[Key, ...]

    def of(self, values: Values, join: Callable[[float, float], float]) -> float | None:
        """Its value, or None where the family knows none."""
        if len(self.keys) == 1:
            return values.get(self.keys[0])
        found: float | None = None
        for key in self.keys:
            value = values.get(key)
            if value is not None:
                found = value if found is None else join(found, value)
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """How a service's value comes from families: the first that has one, the youngest age, or a ratio."""

    how: Literal["first", "youngest", "ratio"]
    shares: tuple[Share, ...]

    def value(self, values_of: Callable[[Family], Values]) -> float | None:
        """What the service's own query gives; None for no series."""
        if self.how == "ratio":
            used, asked = (share.of(values_of(share.family), _JOIN["sum"]) for share in self.shares)
            return None if used is None or asked is None else _divided(used, asked)
        youngest = self.how == "youngest"
        found: float | None = None
        for share in self.shares:
            value = share.of(values_of(share.family), min)
            if value is None:
                continue
            if not youngest:
                return value
            found = value if found is None else min(found, value)
        return found


def _divided(a: float, b: float) -> float:
    """As PromQL divides."""
    if b == 0.0:
        return math.nan if a == 0.0 or math.isnan(a) else math.copysign(math.inf, a)
    return a / b
