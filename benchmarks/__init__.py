"""Measured speeds; `python -m benchmarks`."""
