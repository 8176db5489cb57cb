"""Azure's public traces: invocations of functions a minute (2019), requests for LLM inference (2023, 2024).

Formats: AzureFunctionsDataset2019.md, AzureLLMInferenceDataset2023.md and ...2024.md of the repository
Azure/AzurePublicDataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from sim.errors import TraceError
from sim.loaders.base import Bins, Head, Source, Wanted, from_epoch, iso_seconds
from sim.traces import FloatArray, Trace

MINUTES = 1440
IDS = ("hashowner", "hashapp", "hashfunction", "trigger")
LLM_HEADER = ["timestamp", "contexttokens", "generatedtokens"]


class AzureFunctions2019:
    """`invocations_per_function_md.anon.d??.csv`: HashOwner,HashApp,HashFunction,Trigger,1,..,1440.

    One file is a day; a folder of them is one day after another. All functions are added, or those that the
    options choose.
    """

    name = "azure-functions-2019"
    title = "Azure Functions 2019, invocations per function per minute"
    gives: Literal["rates", "jobs"] = "rates"
    options: Mapping[str, str] = {
        "owner": "only functions whose HashOwner begins with this",
        "app": "only functions whose HashApp begins with this",
        "function": "only functions whose HashFunction begins with this",
        "trigger": "only functions with this trigger: http, timer, event, queue, storage and so on",
    }

    def sniff(self, head: Head) -> bool:
        return tuple(head.header()[:4]) == IDS

    def load(self, source: Source, wanted: Wanted) -> Trace:
        chosen = [wanted.text(name).lower() for name in ("owner", "app", "function", "trigger")]
        days: list[FloatArray] = []
        found = 0
        for row in source.rows():
            if source.line == 1:
                self._check_header(source, row)
                days.append(np.zeros(MINUTES))
                continue
            source.columns(row, MINUTES + 4, "HashOwner,HashApp,HashFunction,Trigger,1..1440")
            ids = [cell.lower() for cell in row[:4]]
            same = [have.startswith(want) for have, want in zip(ids, chosen, strict=True)]
            if not all(same):
                continue
            found += 1
            days[-1] += self._counts(source, row)
        if not found:
            asked = ", ".join(
                f"{n}={v}" for n, v in zip(("owner", "app", "function", "trigger"), chosen, strict=True) if v
            )
            raise TraceError(f"{source.path}: has no function{' with ' + asked if asked else ''}")
        counts = np.concatenate(days)
        return Trace(np.arange(len(counts)) * 60.0, counts / 60.0, source.name)

    def _check_header(self, source: Source, row: list[str]) -> None:
        names = [cell.strip().lower() for cell in row]
        if tuple(names[:4]) != IDS or names[4:] != [str(minute) for minute in range(1, MINUTES + 1)]:
            shown = ",".join(row[:6])
            raise source.refuse("header", f"{shown},..", "HashOwner,HashApp,HashFunction,Trigger,1,..,1440")

    def _counts(self, source: Source, row: list[str]) -> FloatArray:
        try:
            counts = np.array(row[4:], dtype=float)
        except ValueError:
            counts = np.array([np.nan])
        if not (np.isfinite(counts).all() and (counts >= 0).all()):
            for minute, cell in enumerate(row[4:], start=1):
                source.number(f"minute {minute}", cell, least=0.0)
        return counts


class AzureLlm:
    """`AzureLLMInferenceTrace_*.csv`: TIMESTAMP,ContextTokens,GeneratedTokens, one row a request.

    Stamps are ISO 8601 with seven digits of a second in 2023, with an offset in 2024; UTC without one.
    """

    name = "azure-llm"
    title = "Azure LLM inference 2023 and 2024"
    gives: Literal["rates", "jobs"] = "rates"
    options: Mapping[str, str] = {
        "count": "what is counted: requests (default), context (tokens), generated (tokens)",
    }

    def sniff(self, head: Head) -> bool:
        return head.header() == LLM_HEADER

    def load(self, source: Source, wanted: Wanted) -> Trace:
        column = ("requests", "context", "generated").index(
            wanted.choice("count", ("requests", "context", "generated"))
        )
        bins = Bins(wanted.bin_s, str(source.path))
        for row in source.rows():
            if source.line == 1:
                if [cell.strip().lower() for cell in row] != LLM_HEADER:
                    raise source.refuse("header", ",".join(row), "TIMESTAMP,ContextTokens,GeneratedTokens")
                continue
            source.columns(row, 3, "TIMESTAMP,ContextTokens,GeneratedTokens")
            try:
                time_s = iso_seconds(row[0])
            except ValueError:
                raise source.refuse("TIMESTAMP", row[0], "like 2023-11-16 18:17:03.9799600") from None
            tokens = [source.number(LLM_HEADER[k], row[k], least=0.0) for k in (1, 2)]
            bins.add(time_s, 1.0 if column == 0 else tokens[column - 1])
        trace = from_epoch(source.name, bins)
        if column == 0:
            return trace
        return Trace(trace.times_s, trace.rate_rps, trace.name, "tokens/s", trace.origin_s)
