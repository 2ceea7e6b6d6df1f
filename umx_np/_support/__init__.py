"""Threads, atomic files, progress, console: what every part of the package builds on."""
