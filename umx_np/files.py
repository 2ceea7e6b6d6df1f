"""From a sound file to the files of its stems, in bounded memory."""

from __future__ import annotations

import logging
import os
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .audio import AudioReader, StemWriter, commit_together, nb_resampled
from .audio.rest import RestSink
from .audio.writer import nearest_rate
from .config import DEFAULT_MODEL, check_aggregate, is_file_name
from .errors import AudioError, ConfigError
from .progress import Progress, reporting

if TYPE_CHECKING:
    from .separator import Separator

logger = logging.getLogger(__name__)

# Open-Unmix's two layouts: with and without a folder for the results.
FILENAME_IN_OUTDIR = "{track}/{stem}{ext}"
FILENAME_ALONE = "{track}_{model}/{stem}{ext}"

_PLACEHOLDERS = ("track", "name", "parent", "model", "stem", "ext")
_SONG_PLACEHOLDERS = ("track", "name", "parent", "model")


def separate_file(
    path: str | os.PathLike[str],
    outdir: str | os.PathLike[str] | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    targets: Sequence[str] | None = None,
    niter: int = 1,
    softmask: bool = False,
    residual: bool | str = False,
    wiener_win_len: int | None = 300,
    aggregate: Mapping[str, Sequence[str]] | None = None,
    filterbank: str = "torch",
    device: str = "auto",
    threads: int | None = None,
    precision: str = "full",
    separator: Separator | None = None,
    start: float = 0.0,
    duration: float | None = None,
    ext: str = ".wav",
    bits: str = "16",
    clip_mode: str = "clamp",
    quality: float | None = None,
    rate: str = "input",
    filename: str | None = None,
    overwrite: bool = True,
    progress: bool | Progress | None = None,
    offline: bool = False,
    max_memory: int | None = None,
    plot: str | os.PathLike[str] | None = None,
) -> dict[str, Path]:
    """Separate a sound file into files of its stems.

    The song is read, separated and written block by block, so its length does not matter. The files
    of the stems appear together when all are complete; on an error nothing is left behind, but for
    one of the picture, which is drawn when they are there.

    Parameters
    ----------
    path : str or path-like
        Sound file, see `umx_np.audio.AudioReader` for the formats.
    outdir : str or path-like or None
        Folder for the results, made if needed; None is the working directory.
    model : str or path-like or None
        Name of a pretrained model or folder of a trained one; None is ``"umxm"``. With a
        `separator`, only the ``{model}`` of `filename`, and None the name that it has.
    targets : sequence of str or None
        Stems to estimate; None takes all the model has. Only their networks are loaded and run.
    niter, softmask, residual, wiener_win_len, filterbank, device, threads, precision
        As for `umx_np.Separator`. A string as `residual` is the name of that stem.
    aggregate : mapping of str to sequence of str, or None
        Names of files and the stems that are summed in them, as in
        ``{"vocals": ["vocals"], "accompaniment": ["drums", "bass", "other"]}``.
    separator : Separator or None
        A separator to use, for example for many files; the arguments that describe one are then not
        looked at.
    start, duration : float
        Excerpt in seconds; None or a negative `duration` is up to the end.
    ext : str
        Extension of the results, which sets their format, for instance ``".flac"``.
    bits, clip_mode, quality
        As for `umx_np.audio.StemWriter`.
    rate : {'input', 'model'}
        Rate of the results: that of the file, with exactly its length, or that of the model. Where
        the format does not know it, the next rate that it has: Opus has 48000 Hz for 44100.
    filename : str or None
        Where to put a stem below `outdir`: text with the placeholders ``{track}`` (name of the file
        without extension), ``{name}`` (with it), ``{parent}`` (name of its folder), ``{model}``,
        ``{stem}`` and ``{ext}``. None is ``"{track}/{stem}{ext}"`` with `outdir` and
        ``"{track}_{model}/{stem}{ext}"`` without.
    overwrite : bool
        Replace existing files; otherwise they are an error.
    progress : bool or callable or None
        True shows a bar; a callable gets the fraction that is done, from 0 to 1.
    offline : bool
        Never download a model.
    max_memory : int or None
        Bytes for what grows with the length of the song (about 0.1 MB a second and stem); beyond,
        a temporary file is used. None sets no limit.
    plot : str or path-like or None
        PNG file for spectrograms of the mixture and its stems, or a folder for ``{track}.png``; the
        placeholders are ``{track}``, ``{name}``, ``{parent}`` and ``{model}``. It needs matplotlib
        (the extra ``plot``), and is drawn from the files of the stems when these are complete.

    Returns
    -------
    dict of str to Path
        The file of each stem.

    Raises
    ------
    AudioError
        If the file cannot be read, or a stem, the picture or the temporary file of `max_memory`
        cannot be written.
    ConfigError
        If an argument is not usable.
    ModelNotFoundError, DownloadError, WeightsError, DeviceError
        If the model cannot be loaded.

    Notes
    -----
    Of files with more channels than the model has, the first ones are separated: at least two.
    """
    if rate not in ("input", "model"):
        raise ConfigError(f"rate={rate!r} must be 'input' or 'model'")
    if plot is not None:
        from .plots import check_available

        check_available(f"plot={os.fspath(plot)!r}")
    if separator is None:
        from .pretrained import default_model, load_model
        from .separator import Separator

        bundle = load_model(
            os.fspath(model) if model is not None else default_model(), targets, offline=offline
        )
        separator = Separator.from_bundle(
            bundle,
            niter=niter,
            softmask=softmask,
            residual=residual,
            wiener_win_len=wiener_win_len,
            filterbank=filterbank,
            device=device,
            threads=threads,
            precision=precision,
        )
        model_name = bundle.name
    else:
        model_name = Path(model).name if model is not None else separator.name or "model"
    names = output_names(separator.stem_names, aggregate)
    paths = output_paths(path, names, outdir, model=model_name, ext=ext, filename=filename)
    picture = None if plot is None else plot_path(path, plot, model=model_name)
    results = [*paths.values(), *([] if picture is None else [picture])]
    existing = [str(result) for result in results if os.path.exists(result)]
    if existing and not overwrite:
        raise AudioError(
            f"{', '.join(existing)} exist already; pass overwrite=True to replace them"
        )

    from .streaming import separate_stream

    writers: dict[str, StemWriter] = {}
    with (
        AudioReader(path, start=start, duration=duration, rate=separator.sample_rate) as reader,
        _removing_new_folders(paths.values()),
        commit_together(writers.values()),
        reporting(
            progress,
            label=Path(path).name,
            seconds=reader.nb_source_timesteps / reader.source_rate,
        ) as report,
    ):
        # A model of one channel filters stereo too.
        nb_channels = min(reader.nb_channels, max(separator.nb_channels, 2))
        if nb_channels < reader.nb_channels:
            logger.warning(
                "%s: only the first %d of %d channels are separated",
                path,
                nb_channels,
                reader.nb_channels,
            )
        keep_rate = rate == "input"
        file_rate = reader.source_rate if keep_rate else reader.rate
        length = reader.nb_source_timesteps if keep_rate else reader.nb_timesteps
        possible = nearest_rate(next(iter(paths.values())).suffix, file_rate)
        if possible != file_rate:
            logger.info(
                "%s: stems have %g Hz, as their format has no %g", path, possible, file_rate
            )
            length = nb_resampled(length, file_rate, possible)
        holders = [] if possible == reader.rate else separator.holding_residual(aggregate)
        for name, target in paths.items():
            writers[name] = StemWriter(
                target,
                nb_channels=nb_channels,
                rate=possible if name in holders else reader.rate,
                file_rate=possible,
                nb_timesteps=length,
                bits=bits,
                clip_mode=clip_mode,
                quality=quality,
            )
        with ExitStack() as opened:
            rests: dict[str, RestSink] = {}
            for name in holders:
                original = AudioReader(path, start=start, duration=duration, rate=possible)
                rests[name] = RestSink(writers[name], reader, opened.enter_context(original))
            separate_stream(
                separator,
                reader,
                {**writers, **rests},
                aggregate=aggregate,
                progress=report,
                max_memory=max_memory,
            )
            for rest in rests.values():
                rest.finish()
    if picture is not None:
        from .plots import plot_separation

        title = f"{Path(path).name}   ({model_name}, niter={separator.config.niter})"
        try:
            plot_separation(path, paths, picture, title=title, start=start, duration=duration)
        except OSError as error:
            raise AudioError(
                f"plot={str(picture)!r} cannot be written: {error.strerror or error}; the stems "
                "are complete"
            ) from error
    return paths


def output_names(
    stem_names: Sequence[str], aggregate: Mapping[str, Sequence[str]] | None
) -> list[str]:
    """Names of the results: the stems, or the sums that `aggregate` describes.

    Parameters
    ----------
    stem_names : sequence of str
        Stems that the separator estimates.
    aggregate : mapping of str to sequence of str, or None
        Names of results and the stems summed in them.

    Returns
    -------
    list of str

    Raises
    ------
    ConfigError
        If `aggregate` is malformed or names an unknown stem, or a name cannot be that of a file.
    """
    if aggregate is not None:
        check_aggregate(aggregate, stem_names)
    names = list(stem_names if aggregate is None else aggregate)
    for name in names:
        if not is_file_name(name):
            raise ConfigError(f"stem={name!r} cannot be the name of a file")
    return names


def output_paths(
    path: str | os.PathLike[str],
    names: Sequence[str],
    outdir: str | os.PathLike[str] | None = None,
    *,
    model: str = DEFAULT_MODEL,
    ext: str = ".wav",
    filename: str | None = None,
) -> dict[str, Path]:
    """Where the stems of a file go.

    Parameters
    ----------
    path, outdir, model, ext, filename
        As for `separate_file`; `model` is a name.
    names : sequence of str
        Names of the stems.

    Returns
    -------
    dict of str to Path
        One path a name.

    Raises
    ------
    ConfigError
        If `filename` has an unknown placeholder or gives two stems the same file.
    AudioError
        If a stem would replace the input.

    Examples
    --------
    >>> output_paths("songs/one.mp3", ["vocals"], "out")["vocals"].as_posix()
    'out/one/vocals.wav'
    >>> output_paths("songs/one.mp3", ["vocals"], model="umxhq")["vocals"].as_posix()
    'one_umxhq/vocals.wav'
    """
    path = Path(path)
    if filename is None:
        filename = FILENAME_ALONE if outdir is None else FILENAME_IN_OUTDIR
    values = _values(path, model) | {"ext": ext if ext.startswith(".") else f".{ext}"}
    root = Path(outdir) if outdir is not None else Path()
    paths = {
        name: root / _filled("filename", filename, _PLACEHOLDERS, values | {"stem": name})
        for name in names
    }
    # Some file systems do not tell upper from lower case.
    if len({str(target).casefold() for target in paths.values()}) < len(names):
        raise ConfigError(
            f"filename={filename!r} gives several of the stems {', '.join(names)} one file; add "
            "{stem}, or name them differently"
        )
    for target in paths.values():
        # `os.path.exists` takes a name that is too long for one that does not exist.
        if os.path.exists(target) and os.path.exists(path) and target.samefile(path):
            raise AudioError(f"path={str(path)!r} would be replaced by a stem; choose other names")
    return paths


def plot_path(
    path: str | os.PathLike[str], plot: str | os.PathLike[str], *, model: str = DEFAULT_MODEL
) -> Path:
    """Where the picture of a file goes.

    Parameters
    ----------
    path, plot, model
        As for `separate_file`; `model` is a name.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        If `plot` has an unknown placeholder, or is no name of a PNG file or folder.

    Examples
    --------
    >>> plot_path("songs/one.mp3", "pictures/").as_posix()
    'pictures/one.png'
    >>> plot_path("songs/one.mp3", "{parent}-{track}.png").as_posix()
    'songs-one.png'
    """
    template = os.fspath(plot)
    if template.endswith(("/", os.sep)) or os.path.isdir(template):
        template = os.path.join(template, "{track}.png")
    picture = song_path("plot", template, path, model)
    if picture.suffix.lower() != ".png":
        raise ConfigError(
            f"plot={os.fspath(plot)!r} must end in .png, or be a folder (a new one ends in /)"
        )
    return picture


def song_path(argument: str, template: str, path: str | os.PathLike[str], model: str) -> Path:
    """Fill in the placeholders that tell songs apart.

    Parameters
    ----------
    argument : str
        What the template was given as, for the message.
    template : str
        Text with ``{track}``, ``{name}``, ``{parent}`` or ``{model}``.
    path : str or path-like
        The song.
    model : str
        Name of the model.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        If the template has an unknown placeholder.
    """
    return Path(_filled(argument, template, _SONG_PLACEHOLDERS, _values(Path(path), model)))


def _values(path: Path, model: str) -> dict[str, str]:
    """What the placeholders stand for that tell songs apart."""
    return {
        # The stem of "..wav" is ".", which names a folder that is there already.
        "track": path.stem if path.stem.strip(".") else path.name,
        "name": path.name,
        # Without "..", and without the empty name of the root, which would make the place absolute.
        "parent": Path(os.path.abspath(path)).parent.name or ".",
        "model": model,
    }


def _filled(
    argument: str, template: str, placeholders: Sequence[str], values: Mapping[str, str]
) -> str:
    try:
        unknown = {field for _, field, _, _ in string.Formatter().parse(template) if field}
        unknown -= set(placeholders)
        if unknown:
            raise ValueError(f"unknown placeholder {', '.join(sorted(unknown))}")
        return template.format(**values)
    except (ValueError, IndexError, KeyError) as error:
        raise ConfigError(
            f"{argument}={template!r} is not usable ({error}); the placeholders are "
            f"{' '.join('{' + name + '}' for name in placeholders)}"
        ) from error


@contextmanager
def _removing_new_folders(paths: Iterable[Path]) -> Iterator[None]:
    """Take back folders that were made for the results if there are no results."""
    folders = {folder for path in paths for folder in path.parents}
    new = [folder for folder in folders if not os.path.exists(folder)]
    try:
        yield
    except BaseException:
        for folder in sorted(new, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):  # never made, or somebody else's files are in it
                folder.rmdir()
        raise
