"""Measurements, a command each: `python -m benchmarks.NAME --json=FILE` prints a table and writes the numbers."""
