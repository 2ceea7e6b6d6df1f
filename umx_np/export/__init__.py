"""Networks in the formats of other programs."""

from __future__ import annotations

import lazy_loader

# The names are those of __init__.pyi, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
