"""Where models are: in the package, or in the cache of what was downloaded."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from .._support.folders import user_cache
from ..errors import ModelNotFoundError
from .models import BUNDLED, PUBLISHED


def bundled_folder(name: str) -> Path:
    """Return the folder of a model that comes with this package.

    Parameters
    ----------
    name : str
        Name in the registry.

    Returns
    -------
    Path
        Treat it as read-only.

    Raises
    ------
    ModelNotFoundError
        If the folder or one of its files is not there.
    """
    if name not in BUNDLED:
        raise ModelNotFoundError(
            f"model={name!r} does not come with umx_np; {', '.join(BUNDLED)} does"
        )
    # The package has compiled modules, so it is never run from a zip file.
    folder = Path(str(importlib.resources.files("umx_np") / "assets" / name))
    files = [f"{target}.safetensors" for target in BUNDLED[name].targets]
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        others = ", ".join(PUBLISHED)
        raise ModelNotFoundError(
            f"model={name!r} comes with umx_np, but path={str(folder)!r} has no "
            f"{', '.join(missing)}: the installation is incomplete; install umx_np again, or name "
            f"another model ({others})"
        )
    return folder


def cache_dir() -> Path:
    """Return the folder that holds downloaded models, ``<cache>/<model>/<file>``.

    Returns
    -------
    Path
        ``$UMX_NP_HOME``, or the cache folder that the platform has for this package. It need not
        exist.
    """
    return user_cache()
