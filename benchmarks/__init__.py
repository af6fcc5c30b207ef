"""Benchmarks: each module is a command, ``python -m benchmarks.NAME``, and writes ``benchmarks/results/NAME.json``."""
