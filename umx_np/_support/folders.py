"""Folders of the user."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Return ``$UMX_NP_HOME``, or the cache folder that the platform has for this package."""
    home = os.environ.get("UMX_NP_HOME")
    if home:
        return Path(os.path.expanduser(home))
    import platformdirs

    return Path(platformdirs.user_cache_dir("umx_np"))
