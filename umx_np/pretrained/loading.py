"""The files of models that have names: where they are kept, and how they get there.

``umxm`` is part of this package. Files of the others are looked for in this package's cache and
then in that of ``torch.hub``, and downloaded if they are in neither. None of them is used before
all of its known hashes have matched.

Environment
-----------
UMX_NP_HOME
    Folder of the cache, instead of the user's cache folder.
UMX_NP_MIRROR
    Addresses, separated by commas, to try before the original one. A mirror serves a file under
    its name: ``<address>/vocals-b62c91ce.pth``.
UMX_NP_OFFLINE
    ``1`` to never use the network.

Notes
-----
Hashing the four files of the largest model takes about half a second. A file is therefore hashed
when it is first loaded, and a small stamp in the cache remembers which file that was; later it is
hashed again only if it is another one or was touched, or on request (``verify=True``). A stamp
counts only where it and the file belong to this user or the administrator and nobody else can write
them; in a folder that is shared otherwise, and on Windows, files are hashed whenever they are
loaded. Of umxl 32 bits of the hashes are published, which the log says.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from .._support.atomic import is_kept
from .._support.inputs import why_unreadable
from ..errors import ConfigError, DownloadError, ModelNotFoundError, WeightsError, shortened
from ..weights import (
    ModelBundle,
    TargetWeights,
    check_state,
    documents,
    is_model_folder,
    load_folder,
    load_torch,
)
from ..weights.folder import check_targets
from ..weights.quantization import check_quantized
from .folders import bundled_folder, cache_dir
from .hashes import check_hashes, is_stamped
from .models import (
    BUNDLED,
    ModelInfo,
    PublishedFile,
    get_model_info,
    model_names,
    registry,
)
from .transfer import Report, fetch, file_lock

logger = logging.getLogger(__name__)

# progress(file name, bytes there, size of the file or None)
DownloadProgress = Callable[[str, int, "int | None"], None]


def download(
    name: str,
    targets: Iterable[str] | str | None = None,
    *,
    offline: bool = False,
    progress: bool | DownloadProgress | None = None,
    base_url: str | None = None,
    retries: int = 4,
    verify: bool = False,
) -> dict[str, Path]:
    """Make sure that the files of a model are here.

    Parameters
    ----------
    name : str
        Name in the registry.
    targets : iterable of str, optional
        Which networks; all if not given.
    offline : bool
        Never download. ``UMX_NP_OFFLINE=1`` has the same effect.
    progress : bool or callable, optional
        True shows a bar for each file; a callable is called with the name of the file, the bytes
        that are there, and its size or None.
    base_url : str, optional
        Address to get the files from instead of the mirrors and the original one.
    retries : int
        How often to try again when a connection breaks or a server is busy.
    verify : bool
        Hash files again even if they have been verified before.

    Returns
    -------
    dict of str to Path
        One verified file per target. Treat them as read-only: they may belong to another program.

    Raises
    ------
    ModelNotFoundError
        If there is no such model, or one that comes with the package is not there.
    ConfigError
        If a target is not one of the model's, or is asked for twice.
    DownloadError
        If a file is not here and could not be had. The message says where it is published, what
        its hash must be and where to put it.

    Notes
    -----
    The files of a model that comes with the package are those of the installation. An interrupted
    download is continued by the next call. Two processes may ask for the same file at once; one
    downloads, the other waits.
    """
    info = get_model_info(name)
    chosen = check_targets(targets, info.targets, name)
    if info.is_bundled:
        folder = bundled_folder(name)
        return {target: folder / f"{target}.safetensors" for target in chosen}
    offline = offline or _is_offline()
    paths: dict[str, Path] = {}
    announced = False
    for target in chosen:
        file = info.files[target]
        found, problems = _find_verified(info, file, verify)
        if found is None:
            if offline:
                state = "; ".join(problems) or "is not here"
                raise DownloadError(
                    f"{file.filename} of model={name!r} {state}, and offline mode forbids to "
                    f"download it. {_advice(info, file)}"
                )
            if not announced:
                _announce(info)
                announced = True
            found = _obtain(info, file, _addresses(file, base_url), retries, progress)
        paths[target] = found
    return paths


def load_model(
    name_or_folder: str | os.PathLike[str],
    targets: Iterable[str] | str | None = None,
    *,
    offline: bool = False,
    progress: bool | DownloadProgress | None = None,
    dtype: str | type | np.dtype = np.float32,
) -> ModelBundle:
    """Load a model by its name, or one from a folder.

    Parameters
    ----------
    name_or_folder : str or path-like
        A folder counts only if it holds a model (see `umx_np.weights.is_model_folder`). A string
        without a path separator that is no such folder is a name in the registry, so that a folder
        that happens to be called ``umxhq`` does not hide the model.
    targets : iterable of str, optional
        Targets to load, in this order; all if not given.
    offline, progress
        As in `download`.
    dtype : dtype
        float32, or int8 for ``precision='int8'``: matrices of eight bits with scales, as in
        `umx_np.weights.load_folder`.

    Returns
    -------
    ModelBundle
        Weights in this dtype, checked against the architecture.

    Raises
    ------
    ModelNotFoundError
        If there is neither such a folder nor such a model.
    ConfigError
        If a target is not one of the model's, or is asked for twice.
    DownloadError
        If a file is not here and could not be had.
    WeightsError
        If a file is damaged or does not fit.
    """
    name = os.fspath(name_or_folder) if isinstance(name_or_folder, os.PathLike) else name_or_folder
    if not isinstance(name, str):
        raise ConfigError(f"model={shortened(name)} must be the name of a model or a folder")
    # An empty string would be the current folder.
    if name and is_model_folder(name):
        if name in registry():
            logger.warning(
                "using the folder %s instead of the model of that name", Path(name).resolve()
            )
        return load_folder(name, targets, dtype=dtype)
    if not isinstance(name_or_folder, str) or _looks_like_path(name):
        folder = os.path.expanduser(name)
        if os.path.isdir(folder):
            problem = "holds no <target>.json with <target>.pth"
        elif os.path.isfile(folder):
            problem = "is not a folder"
        else:
            problem = f"cannot be used: {why_unreadable(folder)}"
        raise ModelNotFoundError(
            f"path={name!r} {problem}; give a folder with a model or one of "
            f"{', '.join(model_names())}"
        )
    info = get_model_info(name)
    if info.is_bundled:
        chosen = check_targets(targets, info.targets, name)
        bundle = load_folder(bundled_folder(name), chosen, dtype=dtype)
        return replace(bundle, name=name, license=info.license)
    paths = download(name, targets, offline=offline, progress=progress)
    weights: dict[str, TargetWeights] = {}
    check = check_quantized if np.dtype(dtype) == np.int8 else check_state
    for target, path in paths.items():
        try:
            state = check(load_torch(path), info.config)
        except WeightsError as error:
            raise WeightsError(f"target={target!r} of model={name!r}: {error}") from error
        weights[target] = TargetWeights(info.config, state)
    return ModelBundle(
        name=name,
        targets=weights,
        sample_rate=info.sample_rate,
        n_fft=info.n_fft,
        n_hop=info.n_hop,
        nb_channels=info.nb_channels,
        license=info.license,
    )


def recommended_precision(name_or_folder: str | os.PathLike[str]) -> str | None:
    """Return the precision that a model recommends, without loading it.

    Parameters
    ----------
    name_or_folder : str or path-like
        As for `load_model`.

    Returns
    -------
    {'full', 'fast', 'int8'} or None
        None if it recommends none, as the models of Open-Unmix do, or cannot be found.

    Raises
    ------
    WeightsError
        If a folder's ``separator.json`` is damaged.
    """
    if is_model_folder(name_or_folder):
        return documents.recommended_precision(Path(os.path.expanduser(name_or_folder)))
    info = registry().get(str(name_or_folder))
    if info is None or not info.is_bundled:
        return None
    return documents.recommended_precision(bundled_folder(info.name))


def _looks_like_path(name: str) -> bool:
    return name.startswith(("~", ".")) or "/" in name or os.sep in name


def _is_offline() -> bool:
    value = os.environ.get("UMX_NP_OFFLINE", "").strip().lower()
    return value not in ("", "0", "false", "no", "off")


# Finding


def _cached_path(info: ModelInfo, file: PublishedFile) -> Path:
    return cache_dir() / info.name / file.filename


def _torch_hub_path(file: PublishedFile) -> Path:
    """Where ``torch.hub`` keeps a file that Open-Unmix has downloaded."""
    home = os.environ.get("TORCH_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints" / file.filename


def _stamp_path(info: ModelInfo, file: PublishedFile) -> Path:
    return _cached_path(info, file).with_name(f".{file.filename}.verified.json")


def _find_verified(
    info: ModelInfo, file: PublishedFile, always: bool
) -> tuple[Path | None, list[str]]:
    """Return a file that is here and right, and what is wrong with the others.

    With `always` a file is hashed although it has been before.
    """
    stamp = _stamp_path(info, file)
    problems: list[str] = []
    for path in (_cached_path(info, file), _torch_hub_path(file)):
        if not os.path.lexists(path):
            continue
        if not always and is_stamped(path, file, stamp):
            return path, problems
        try:
            problem = check_hashes(path, file, stamp)
        except DownloadError as error:
            logger.warning("%s", error)
            problems.append(str(error))
            continue
        if problem is None:
            return path, problems
        logger.warning("%s is not used: %s", path, problem)
        problems.append(f"at {path} has {problem}")
    return None, problems


# Downloading


def _announce(info: ModelInfo) -> None:
    """Name the licence of what is about to be downloaded."""
    if info.non_commercial:
        logger.warning(
            "the weights of %s are licensed for non-commercial use only (%s); see %s",
            info.name,
            info.license,
            info.page,
        )
    else:
        terms = info.license or "not stated here"
        logger.info("licence of the weights of %s: %s; see %s", info.name, terms, info.page)


def _addresses(file: PublishedFile, base_url: str | None) -> list[str]:
    """Where to try to get a file, in order."""
    if base_url is not None:
        if not base_url.strip():
            raise ConfigError(f"base_url={base_url!r} must be a web address")
        return [f"{base_url.strip().rstrip('/')}/{file.filename}"]
    mirrors = [base.strip() for base in os.environ.get("UMX_NP_MIRROR", "").split(",")]
    return [f"{base.rstrip('/')}/{file.filename}" for base in mirrors if base] + [file.url]


def _advice(info: ModelInfo, file: PublishedFile) -> str:
    kind = "is" if len(file.sha256) == 64 else "begins with"
    # Models for the same stems that are here in any case.
    here = [name for name, other in BUNDLED.items() if set(other.targets) >= set(info.targets)]
    instead = f". model={here[0]!r} comes with the package, and separates less well" if here else ""
    return (
        f"Get it from {file.url} (its SHA-256 {kind} {file.sha256}) and put it at "
        f"{_cached_path(info, file)}{instead}"
    )


def _obtain(
    info: ModelInfo,
    file: PublishedFile,
    urls: list[str],
    retries: int,
    progress: bool | DownloadProgress | None,
) -> Path:
    path = _cached_path(info, file)
    part = path.with_name(f"{file.filename}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_name(f".{file.filename}.lock")):
            # Another process may have finished while this one waited.
            found, _ = _find_verified(info, file, always=False)
            if found is not None:
                return found
            problems = []
            for url in urls:
                with _reporting(file, progress) as report:
                    problem = _try_address(info, file, url, part, retries, report)
                if problem is None:
                    # Whatever the umask: of a file that others can write no stamp counts.
                    os.chmod(part, part.stat().st_mode & ~(stat.S_IWGRP | stat.S_IWOTH))
                    os.replace(part, path)
                    part.with_name(part.name + ".json").unlink(missing_ok=True)
                    logger.info("downloaded %s", path)
                    # Once more under its name, and remembered.
                    check_hashes(path, file, _stamp_path(info, file))
                    return path
                problems.append(problem)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{path} could not be written: {error}. Free space there, or set UMX_NP_HOME to "
            "another folder"
        ) from error
    raise DownloadError(
        f"{file.filename} of model={info.name!r} could not be downloaded: {'; '.join(problems)}. "
        f"{_advice(info, file)}"
    )


def _try_address(
    info: ModelInfo, file: PublishedFile, url: str, part: Path, retries: int, report: Report | None
) -> str | None:
    """Download from one address; return what went wrong, or None if `part` is the right file."""
    # What is there may come from another address or be damaged; then a second, whole download.
    for is_continued in (is_kept(part), False):
        try:
            if not (is_continued and check_hashes(part, file) is None):
                limit = file.size or info.max_file_size
                if is_continued and part.stat().st_size >= limit:
                    part.unlink()
                fetch(url, part, max_bytes=limit, retries=retries, report=report)
        except DownloadError as error:
            return str(error)
        problem = check_hashes(part, file)
        if problem is None:
            return None
        part.unlink()
        if not is_continued:
            break
        logger.info("%s: %s; downloading it again from the beginning", file.filename, problem)
    return f"url={url!r} gives another file: {problem}"


@contextmanager
def _reporting(
    file: PublishedFile, progress: bool | DownloadProgress | None
) -> Iterator[Report | None]:
    """Turn the caller's wish for progress into a function of bytes and size."""
    if callable(progress):
        tell = progress
        yield lambda done, total: tell(file.filename, done, total)
    elif not progress or sys.stderr is None:  # None in programs without a console
        yield None
    else:
        from tqdm import tqdm

        with tqdm(desc=file.filename, unit="B", unit_scale=True, unit_divisor=1024) as bar:

            def update(done: int, total: int | None) -> None:
                bar.total = total
                # A transfer that starts again goes backwards, which `update` cannot show.
                bar.n = done
                bar.refresh() if done == total else bar.update(0)

            yield update
