"""Benchmarks: what Holdfast does in a second, against something else in the same run."""
