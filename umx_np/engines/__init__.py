"""Engines that separate a track on the processor, and their contract."""
