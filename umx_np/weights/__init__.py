"""Weights: reading, writing and checking them, in PyTorch's formats and as safetensors.

Nothing here needs PyTorch, and no file can make it run code.
"""

from __future__ import annotations

import lazy_loader

# The names are those of __init__.pyi, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
