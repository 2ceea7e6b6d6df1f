"""One script for a machine with an NVIDIA card: checks, then times; see `benchmarks.gpu.run`."""
