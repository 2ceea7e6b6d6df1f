"""From a sound file to the files of its stems, in bounded memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .._support.keywords import check_keywords, pick, shows
from .._support.progress import Progress, reporting
from ..audio import AudioReader, StemWriter, commit_together, finish_together, nb_resampled
from ..audio.given import GivenSound, SoundInput
from ..audio.rest import RestSink, WithoutSink
from ..audio.sink import nearest_rate
from ..audio.stem_files import Part, StemFileWriter, is_stem_file
from ..audio.tags import SongTags
from ..audio.writer import copy_tags
from ..config import Computing, SeparationOptions, is_file_name
from ..errors import AudioError, ConfigError, UmxError
from .naming import check_text, existing_or_expanded
from .options import Excerpt, FileKeywords, OutputPlan
from .plan import Plan, plan_separation, targets_needed
from .records import KnownFile, Record
from .records import remove as remove_record

if TYPE_CHECKING:
    from typing import Unpack

    from .separator import Separator

logger = logging.getLogger(__name__)

_KINDS = (SeparationOptions, Computing, Excerpt, OutputPlan)


@shows(*_KINDS)
def separate_file(
    path: SoundInput,
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
    path : str, path-like or binary file object
        Sound file, see `umx_np.audio.AudioReader` for the formats. An object is called after its
        attribute ``name``, and ``song`` if it has none.
    outdir : str or path-like or None
        Folder for the results, made if needed; None is the working directory.
    model : str or path-like or None
        Name of a pretrained model or folder of a trained one; None is ``"umxm"``. With a
        `separator`, only the ``{model}`` of `filename`, and None the name that it has.
    targets : sequence of str or None
        Stems to estimate; None takes all the model has, or with `two_stems`, ``niter=0`` and no
        `softmask` that one. Only their networks are loaded and run.
    niter, softmask, residual, wiener_win_len, filterbank, device, threads, precision
        As for `umx_np.Separator`. A string as `residual` is the name of that stem.
    aggregate : mapping of str to sequence of str, or None
        Names of files and the stems that are summed in them, as in
        ``{"vocals": ["vocals"], "accompaniment": ["drums", "bass", "other"]}``.
    two_stems : str or None
        Write this stem, the same as ever, and as ``no_<stem>`` the song minus it.
    only : sequence of str or None
        Names of those results that are written; None writes all of them.
    separator : Separator or None
        A separator to use, for example for many files; the arguments that describe one are then not
        looked at.
    start, duration : float
        Excerpt in seconds; None or a negative `duration` is up to the end.
    track : int or None
        Which stream of sound of a video, say, counted from 1; None is the first.
    downmix : {'standard', 'first'}
        Of more channels than two, a model of two gets their stereo by Recommendation ITU-R BS.775,
        or the first two as from Open-Unmix. The log says so.
    ext : str
        Extension of the results, which sets their format, for instance ``".flac"``. With
        ``".stem.mp4"`` one file holds the song and its stems, which must be vocals, drums, bass and
        other; it has no folder of its own.
    bits, clip_mode, quality, bitrate
        As for `umx_np.audio.StemWriter`. ``clip_mode='rescale'`` scales all stems by one gain.
    tags : bool
        Give the stems the tags and the cover of the song; the name of the stem is added to the
        title, but for a stem file. It needs ffmpeg; the log says what is not kept.
    rate : {'input', 'model'}
        Rate of the results: that of the file, with exactly its length, or that of the model. Where
        the format does not know it, the next rate that it has: Opus has 48000 Hz for 44100.
    filename : str or None
        Where to put a stem below `outdir`: text with the placeholders ``{track}`` (name of the file
        without extension), ``{name}`` (with it), ``{parent}`` (name of its folder), ``{model}``,
        ``{stem}`` and ``{ext}``. If it begins with ``{dir}/``, stems go beside the song, without an
        `outdir`. None is ``"{track}/{stem}{ext}"`` with `outdir` and
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
    A model of more than two channels separates that many, the first ones of a file. The samples of
    a downmix are not scaled to stay within full scale, see `umx_np.audio.downmix`.
    """
    check_keywords("separate_file", options, *_KINDS, hiding=("outdir",))
    output = replace(pick(OutputPlan, options), outdir=outdir)
    # Which says what is no file, before a model is loaded.
    is_object = callable(getattr(path, "read", None)) and not isinstance(path, os.PathLike)
    given = GivenSound(path if is_object else existing_or_expanded(cast("str", path)))
    with given:
        if output.rate not in ("input", "model"):
            raise ConfigError(f"rate={output.rate!r} must be 'input' or 'model'")
        if output.plot is not None:
            from ..plots import check_available

            check_available(f"plot={check_text('plot', output.plot)!r}")
        if separator is None:
            from ..pretrained import default_model, load_model
            from .separator import Separator

            how, computing = pick(SeparationOptions, options), pick(Computing, options)
            named = default_model() if model is None else check_text("model", model)
            bundle = load_model(
                os.path.expanduser(named),
                targets_needed(targets, output, how),
                offline=offline,
                dtype=computing.weights_dtype,
            )
            separator = Separator.from_bundle(bundle, **vars(how), **vars(computing))
            model = bundle.name
        excerpt = pick(Excerpt, options)
        plan = plan_separation(_song_of(given), separator, output, excerpt, model=model)
        if given.is_object:
            plan = replace(plan, source=given.path, name=given.label)
        existing = [str(result) for result in dict.fromkeys(plan.results) if os.path.exists(result)]
        if existing and not overwrite:
            raise AudioError(
                f"{', '.join(existing)} exist already; pass overwrite=True to replace them"
            )
        separate_as_planned(plan, separator, progress=progress, max_memory=max_memory)
    return plan.paths


def _song_of(given: GivenSound) -> Path:
    """What the results of a song are named after."""
    if not given.is_object:
        return given.path
    name = os.path.basename(given.label)
    return Path(name if is_file_name(name) and not name.startswith("<") else "song")


def separate_as_planned(
    plan: Plan,
    separator: Separator,
    *,
    progress: bool | Progress | None = None,
    max_memory: int | None = None,
) -> None:
    """Write the stems, then the record, then the picture.

    Parameters
    ----------
    plan : Plan
        From `umx_np.separation.plan.plan_separation`.
    separator : Separator
        That the plan was made with.
    progress, max_memory
        As for `separate_file`.

    Raises
    ------
    UmxError
        As `separate_file` does.
    """
    from .tracks import separate_stream

    writers: dict[str, StemWriter | StemFileWriter] = {}
    sound = GivenSound(plan.source, plan.name)
    with (
        _naming_the_song(plan),
        AudioReader(sound, rate=separator.sample_rate, **plan.excerpt) as reader,
        _removing_new_folders([*plan.paths.values(), plan.record]),
        commit_together(writers.values()),
        reporting(
            progress,
            label=os.path.basename(plan.label),
            seconds=reader.nb_source_timesteps / reader.source_rate,
        ) as report,
    ):
        before = os.stat(plan.source)
        rates = _open_writers(plan, separator, reader, writers)
        with ExitStack() as opened:
            originals = {
                name: opened.enter_context(AudioReader(sound, rate=rate, **plan.excerpt))
                for name, rate in rates.items()
            }
            sinks = _sinks(plan, reader, writers, originals)
            separate_stream(
                separator.engine(),
                reader,
                sinks,
                aggregate={name: plan.parts.get(name, [name]) for name in sinks},
                progress=report,
                max_memory=max_memory,
            )
            for sink in sinks.values():
                # Writers are finished together, as they may get one gain.
                if isinstance(sink, RestSink | WithoutSink):
                    sink.finish()
        gain = finish_together(writers.values(), plan.label)
        if plan.options["tags"]:
            # A stem file has got them already.
            files = {n: w for n, w in writers.items() if not isinstance(w, StemFileWriter)}
            if files:
                copy_tags(sound, files, plan.options["track"])
        # Before they have their names: another program may replace them from then on.
        outputs = {
            name: KnownFile.of(writer.temporary_path, plan.record.parent)
            for name, writer in writers.items()
        }
        # From the first stem that is replaced, the old record would describe a mixture of both.
        remove_record(plan.record)
    record = _write_record(plan, before, outputs, gain)
    if plan.picture is not None:
        _draw(plan, separator, plan.picture)
        if record is not None:
            with suppress(OSError):  # it is gone again, so the record has none
                picture = KnownFile.of(plan.picture, plan.record.parent)
                _try_to_write(replace(record, picture=picture), plan)


def _sinks(
    plan: Plan,
    reader: AudioReader,
    writers: Mapping[str, StemWriter | StemFileWriter],
    originals: Mapping[str, AudioReader],
) -> dict[str, StemWriter | Part | RestSink | WithoutSink]:
    """Say where each stem goes; some need the song again, at the rate of their file."""
    sinks: dict[str, StemWriter | Part | RestSink | WithoutSink] = {}
    for name, writer in writers.items():
        if isinstance(writer, StemFileWriter):
            part = writer.sinks[name]
            sinks[name] = RestSink(part, reader, originals[name]) if name in originals else part
        elif plan.rest is not None and name == plan.rest[1]:
            stem = plan.rest[0]
            whole = writers.get(stem)
            assert not isinstance(whole, StemFileWriter)
            sinks[stem] = WithoutSink(whole, writer, reader.rate, originals[name])
        elif name in originals:
            sinks[name] = RestSink(writer, reader, originals[name])
        else:
            sinks[name] = writer
    return sinks


def _open_writers(
    plan: Plan,
    separator: Separator,
    reader: AudioReader,
    writers: dict[str, StemWriter | StemFileWriter],
) -> dict[str, float]:
    """Open a writer for each stem; return the rates of those that also need the song itself."""
    # A model of one channel filters stereo too.
    nb_channels = min(reader.nb_channels, max(separator.nb_channels, 2))
    if reader.downmixed:
        logger.warning("%s: %s", plan.label, reader.downmixed)
    elif nb_channels < reader.nb_channels:
        logger.warning(
            "%s: only the first %d of %d channels are separated",
            plan.label,
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
            "%s: stems have %g Hz, as their format has no %g", plan.label, possible, file_rate
        )
        length = nb_resampled(length, file_rate, possible)
    holders: list[str] = []
    if possible != reader.rate:
        # What the model's rate cannot hold belongs to the residual.
        holders = separator.holding_residual(plan.parts)
    if plan.rest is not None:
        holders.append(plan.rest[1])
    rates = {name: possible if name in holders else reader.rate for name in plan.paths}
    form: dict[str, Any] = {
        "nb_channels": nb_channels,
        "file_rate": possible,
        "nb_timesteps": length,
        **{key: options[key] for key in ("bits", "clip_mode", "quality", "bitrate")},
    }
    if is_stem_file(options["ext"]):
        (target,) = set(plan.paths.values())
        if options["tags"] and (song_tags := SongTags.of(plan.source, options["track"])):
            form["tags"] = song_tags.tags
            if song_tags.covers:
                logger.warning("%s: a stem file gets its tags, but no cover", plan.label)
        whole = StemFileWriter(target, rates={"mixture": possible, **rates}, **form)
        writers.update(dict.fromkeys(plan.paths, whole))
        with AudioReader(GivenSound(plan.source, plan.name), rate=possible, **plan.excerpt) as song:
            for block in song.blocks(1 << 16):
                whole.sinks["mixture"].write(block[:nb_channels])
    else:
        for name, target in plan.paths.items():
            writers[name] = StemWriter(target, rate=rates[name], **form)
    return dict.fromkeys(holders, possible)


def _write_record(
    plan: Plan, before: os.stat_result, outputs: dict[str, KnownFile], gain: float
) -> Record | None:
    """Describe the stems that are in place; None where that is not possible."""
    folder = plan.record.parent
    try:
        source = KnownFile.of(plan.source, folder)
        source = replace(source, name=plan.name or source.name)
        after = os.stat(plan.source)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            logger.warning(
                "%s was changed while it was separated: its stems may be of parts of both versions",
                plan.label,
            )
            return None
        outputs = {name: outputs[name].renamed(path, folder) for name, path in plan.paths.items()}
    except OSError as error:
        logger.warning("%s: no record is written: %s", plan.label, error)
        return None
    return _try_to_write(Record(source, plan.model, plan.options, outputs, gain=gain), plan)


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

    title = (
        f"{os.path.basename(plan.label)}   ({plan.model['name']}, niter={separator.config.niter})"
    )
    try:
        plot_separation(plan.source, plan.paths, picture, title=title, **plan.excerpt)
    except OSError as error:
        raise AudioError(
            f"plot={str(picture)!r} cannot be written: {error.strerror or error}; the stems are "
            "complete"
        ) from error


@contextmanager
def _naming_the_song(plan: Plan) -> Iterator[None]:
    """Let errors say which song they are about, and not only which stem, network or device."""
    try:
        yield
    except UmxError as error:
        if repr(plan.label) in str(error):
            raise
        raise type(error)(f"path={plan.label!r} cannot be separated: {error}") from error


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
