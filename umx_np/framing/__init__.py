"""Frames of signals: where they lie, their spectra, blocks of them, and their levels."""
