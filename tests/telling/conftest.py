"""The chart, rendered."""

from tests.charts.conftest import chart, render

__all__ = ["chart", "render"]
