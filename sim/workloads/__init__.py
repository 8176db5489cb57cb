"""Generated request rates: parameters in dataclasses, composable, deterministic by their random generator.

A workload is a shape: `rates(times_s, rng)` gives non-negative rates `[T]` in requests/s (or, for the
factors that multiply others, in shares). `sample_workload` draws one at random for training; `WORKLOADS`,
`workload_from` and `to_mapping` name them for scenario files and the command line. docs/traces.md has the
table of generators.
"""

from __future__ import annotations

from sim.workloads.applications import LlmInference, Serverless
from sim.workloads.base import DAY_S, HOUR_S, WEEK_S, FloatArray, Workload
from sim.workloads.bursts import AnnouncedEvents, DeployDips, FlashCrowds, Mmpp, Outages, Spiky
from sim.workloads.compose import Concatenation, Overlay, Product, Recording, Scale, Sum, TimeShift
from sim.workloads.naming import WORKLOADS, to_mapping, workload_from
from sim.workloads.noise import Noise, OnOff, SelfSimilar, fractional_noise
from sim.workloads.sampling import WorkloadMix, sample_shape, sample_workload
from sim.workloads.shapes import Constant, Cron, Diurnal, Ramp, Staircase, Step, Weekly

__all__ = [
    "DAY_S",
    "HOUR_S",
    "WEEK_S",
    "WORKLOADS",
    "AnnouncedEvents",
    "Concatenation",
    "Constant",
    "Cron",
    "DeployDips",
    "Diurnal",
    "FlashCrowds",
    "FloatArray",
    "LlmInference",
    "Mmpp",
    "Noise",
    "OnOff",
    "Outages",
    "Overlay",
    "Product",
    "Ramp",
    "Recording",
    "Scale",
    "SelfSimilar",
    "Serverless",
    "Spiky",
    "Staircase",
    "Step",
    "Sum",
    "TimeShift",
    "Weekly",
    "Workload",
    "WorkloadMix",
    "fractional_noise",
    "sample_shape",
    "sample_workload",
    "to_mapping",
    "workload_from",
]
