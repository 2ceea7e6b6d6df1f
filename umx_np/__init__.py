"""Open-Unmix music source separation without a deep-learning framework.

    import umx_np
    stems = umx_np.separate(audio, rate=44100)           # {"vocals": ..., "drums": ..., ...}
    umx_np.separate_file("song.flac", "stems")           # files, in bounded memory

Public names are imported when they are first used: ``import umx_np`` alone imports nothing but the
standard library and `lazy_loader`.
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

# The names are those of __init__.pyi, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
