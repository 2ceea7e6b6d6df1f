"""Contracts of what computes, and the two that need nothing but NumPy and the compiled kernels."""
