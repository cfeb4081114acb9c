"""Peers side by side, as ratios: run ``python -m benchmarks``, or one part by its name."""
