"""Benchmarks: interCEde beside the tools that people would use by hand, on the same host, in the same run.

`hatch run bench NAME` (`python -m bench NAME` in tests-contract). Sides take turns, results are verified after each turn and outside the
time that is taken, and what counts is the ratio of medians: seconds are those of one machine. docs/benchmarks.md has the tables.
"""
