"""Benchmarks that anyone can rerun; see README.md in this folder."""
