"""Compiled extensions; their sources are in src_ext/."""
