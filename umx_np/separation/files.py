"""From a sound file to the files of its stems, in bounded memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .._support.keywords import check_keywords, pick, shows
from .._support.progress import Progress, reporting
from ..audio import AudioReader, StemWriter, commit_together, nb_resampled
from ..audio.rest import RestSink
from ..audio.sink import nearest_rate
from ..config import Computing, SeparationOptions
from ..errors import AudioError, ConfigError, UmxError
from .naming import check_text, existing_or_expanded
from .options import Excerpt, FileKeywords, OutputPlan
from .plan import Plan, plan_separation
from .records import KnownFile, Record
from .records import remove as remove_record

if TYPE_CHECKING:
    from typing import Unpack

    from .separator import Separator

logger = logging.getLogger(__name__)

_KINDS = (SeparationOptions, Computing, Excerpt, OutputPlan)


@shows(*_KINDS)
def separate_file(
    path: str | os.PathLike[str],
    outdir: str | os.PathLike[str] | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    targets: Sequence[str] | None = None,
    separator: Separator | None = None,
    overwrite: bool = True,
    progress: bool | Progress | None = None,
    offline: bool = False,
    max_memory: int | None = None,
    **options: Unpack[FileKeywords],
) -> dict[str, Path]:
    """Separate a sound file into files of its stems.

    The song is read, separated and written block by block, so its length does not matter. The files
    of the stems appear together when all are complete; on an error nothing is left behind, but for
    one of the picture, which is drawn when they are there. A hidden record beside the stems says
    how they came to be, see docs/guide.md.

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
    check_keywords("separate_file", options, *_KINDS, hiding=("outdir",))
    output = replace(pick(OutputPlan, options), outdir=outdir)
    existing_or_expanded(path)  # which says what is no path, before a model is loaded
    if output.rate not in ("input", "model"):
        raise ConfigError(f"rate={output.rate!r} must be 'input' or 'model'")
    if output.plot is not None:
        from ..plots import check_available

        check_available(f"plot={check_text('plot', output.plot)!r}")
    if separator is None:
        from ..pretrained import default_model, load_model
        from .separator import Separator

        how, computing = pick(SeparationOptions, options), pick(Computing, options)
        bundle = load_model(
            default_model() if model is None else os.path.expanduser(check_text("model", model)),
            targets,
            offline=offline,
            dtype=computing.weights_dtype,
        )
        separator = Separator.from_bundle(bundle, **vars(how), **vars(computing))
        model = bundle.name
    plan = plan_separation(path, separator, output, pick(Excerpt, options), model=model)
    existing = [str(result) for result in plan.results if os.path.exists(result)]
    if existing and not overwrite:
        raise AudioError(
            f"{', '.join(existing)} exist already; pass overwrite=True to replace them"
        )
    _separate(plan, separator, progress, max_memory)
    return plan.paths


def _separate(
    plan: Plan, separator: Separator, progress: bool | Progress | None, max_memory: int | None
) -> None:
    """Write the stems, then the record, then the picture."""
    from .tracks import separate_stream

    options = plan.options
    writers: dict[str, StemWriter] = {}
    with (
        _naming_the_song(plan.source),
        AudioReader(
            plan.source,
            start=options["start"],
            duration=options["duration"],
            rate=separator.sample_rate,
        ) as reader,
        _removing_new_folders([*plan.paths.values(), plan.record]),
        commit_together(writers.values()),
        reporting(
            progress,
            label=plan.source.name,
            seconds=reader.nb_source_timesteps / reader.source_rate,
        ) as report,
    ):
        before = os.stat(plan.source)
        holders = _open_writers(plan, separator, reader, writers)
        with ExitStack() as opened:
            rests: dict[str, RestSink] = {}
            for name, rate in holders.items():
                original = AudioReader(
                    plan.source,
                    start=plan.options["start"],
                    duration=plan.options["duration"],
                    rate=rate,
                )
                rests[name] = RestSink(writers[name], reader, opened.enter_context(original))
            separate_stream(
                separator.engine(),
                reader,
                {**writers, **rests},
                aggregate=plan.aggregate,
                progress=report,
                max_memory=max_memory,
            )
            for rest in rests.values():
                rest.finish()
        outputs = {}
        for name, writer in writers.items():
            writer.finish()
            # Before they have their names: another program may replace them from then on.
            outputs[name] = KnownFile.of(writer.temporary_path, plan.record.parent)
        # From the first stem that is replaced, the old record would describe a mixture of both.
        remove_record(plan.record)
    record = _write_record(plan, before, outputs)
    if plan.picture is not None:
        _draw(plan, separator, plan.picture)
        if record is not None:
            with suppress(OSError):  # it is gone again, so the record has none
                picture = KnownFile.of(plan.picture, plan.record.parent)
                _try_to_write(replace(record, picture=picture), plan)


def _open_writers(
    plan: Plan, separator: Separator, reader: AudioReader, writers: dict[str, StemWriter]
) -> dict[str, float]:
    """Open a writer for each stem; return the rates of those that also get the rest of the song."""
    # A model of one channel filters stereo too.
    nb_channels = min(reader.nb_channels, max(separator.nb_channels, 2))
    if nb_channels < reader.nb_channels:
        logger.warning(
            "%s: only the first %d of %d channels are separated",
            plan.source,
            nb_channels,
            reader.nb_channels,
        )
    options = plan.options
    keep_rate = options["rate"] == "input"
    file_rate = reader.source_rate if keep_rate else reader.rate
    length = reader.nb_source_timesteps if keep_rate else reader.nb_timesteps
    possible = nearest_rate(next(iter(plan.paths.values())).suffix, file_rate)
    if possible != file_rate:
        logger.info(
            "%s: stems have %g Hz, as their format has no %g", plan.source, possible, file_rate
        )
        length = nb_resampled(length, file_rate, possible)
    holders: list[str] = []
    if possible != reader.rate:
        # What the model's rate cannot hold belongs to the residual.
        holders = separator.holding_residual(plan.aggregate)
    for name, target in plan.paths.items():
        writers[name] = StemWriter(
            target,
            nb_channels=nb_channels,
            rate=possible if name in holders else reader.rate,
            file_rate=possible,
            nb_timesteps=length,
            bits=options["bits"],
            clip_mode=options["clip_mode"],
            quality=options["quality"],
        )
    return dict.fromkeys(holders, possible)


def _write_record(
    plan: Plan, before: os.stat_result, outputs: dict[str, KnownFile]
) -> Record | None:
    """Describe the stems that are in place; None where that is not possible."""
    folder = plan.record.parent
    try:
        source = KnownFile.of(plan.source, folder)
        after = os.stat(plan.source)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            logger.warning(
                "%s was changed while it was separated: its stems may be of parts of both versions",
                plan.source,
            )
            return None
        outputs = {name: outputs[name].renamed(path, folder) for name, path in plan.paths.items()}
    except OSError as error:
        logger.warning("%s: no record is written: %s", plan.source, error)
        return None
    return _try_to_write(Record(source, plan.model, plan.options, outputs), plan)


def _try_to_write(record: Record, plan: Plan) -> Record | None:
    try:
        plan.record.parent.mkdir(parents=True, exist_ok=True)
        record.write(plan.record)
    except OSError as error:
        # The stems are complete, and will only be separated again where they need not.
        logger.warning("%s: the record cannot be written: %s", plan.record, error)
        return None
    return record


def _draw(plan: Plan, separator: Separator, picture: Path) -> None:
    from ..plots import plot_separation

    options = plan.options
    title = f"{plan.source.name}   ({plan.model['name']}, niter={separator.config.niter})"
    try:
        plot_separation(
            plan.source,
            plan.paths,
            picture,
            title=title,
            start=options["start"],
            duration=options["duration"],
        )
    except OSError as error:
        raise AudioError(
            f"plot={str(picture)!r} cannot be written: {error.strerror or error}; the stems are "
            "complete"
        ) from error


@contextmanager
def _naming_the_song(path: Path) -> Iterator[None]:
    """Let errors say which song they are about, and not only which stem, network or device."""
    try:
        yield
    except UmxError as error:
        if repr(str(path)) in str(error):
            raise
        raise type(error)(f"path={str(path)!r} cannot be separated: {error}") from error


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
