"""Measurements, not tests: nothing here fails for being slow.

Each benchmark is one file with one function, `run(setting) -> list[Table]`. `python -m benchmarks`
runs them, prints their tables and keeps them in `record.json` with machine and date.
"""
