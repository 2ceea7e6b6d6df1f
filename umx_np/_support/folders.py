"""Folders of the user."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def user_cache() -> Path:
    """Return ``$UMX_NP_HOME``, or the cache folder that the platform has for this package."""
    home = os.environ.get("UMX_NP_HOME")
    if home:
        return Path(os.path.expanduser(home))
    import platformdirs

    return Path(platformdirs.user_cache_dir("umx_np"))


def user_config() -> tuple[Path | None, bool]:
    """Say where the user's defaults are.

    Returns
    -------
    path : Path or None
        ``$UMX_NP_CONFIG``, or ``config.toml`` in the configuration folder that the platform has
        for this package; None if the variable is set to nothing.
    named : bool
        Whether the variable names it, so that it has to be there.
    """
    named = os.environ.get("UMX_NP_CONFIG")
    if named is not None:
        return (Path(os.path.expanduser(named)), True) if named else (None, True)
    import platformdirs

    return Path(platformdirs.user_config_dir("umx_np")) / "config.toml", False


def is_first_time(topic: str) -> bool:
    """Whether this user has not been told about something, which is remembered from now on.

    Where nothing can be written, every time is the first.
    """
    import platformdirs

    told = Path(platformdirs.user_state_dir("umx_np")) / f"told-{topic}"
    if told.exists():
        return False
    with suppress(OSError):
        told.parent.mkdir(parents=True, exist_ok=True)
        told.touch()
    return True
