"""Kernels compiled by Numba, and the engine made of them. Nothing else may import Numba."""
