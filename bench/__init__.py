"""Benchmarks: one command each (`emograph bench NAME`), peers beside us on the same work in the same run.

Not tests: figures are of the machine that ran them, so ratios are what to read. Results are dated files in
bench/results; README and docs/performance.md quote them.
"""
