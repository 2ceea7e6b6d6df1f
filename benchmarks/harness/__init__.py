"""Parts of all benchmarks: environment, timing, comparison of outputs, results.

Nothing is imported here, so that a measured child process can use one module without the others.
"""
