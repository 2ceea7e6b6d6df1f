"""Each kernel by itself: its rate on every instruction-set level, and the share of a ceiling."""
