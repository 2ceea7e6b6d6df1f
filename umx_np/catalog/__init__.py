"""Catalogues: many songs on many machines, each published exactly once.

A plan (`make_plan`) fixes what is separated or scored, how, and where the results go. Any number of
processes work on it (`run`), by themselves or on Dask; a ledger beside the plan says what is done.
docs/catalog.md describes the files.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
