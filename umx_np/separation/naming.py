"""Where the results of a song go: templates with placeholders, filled in and checked."""

from __future__ import annotations

import os
import string
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..audio.stem_files import check_stems, is_stem_file
from ..config import DEFAULT_MODEL, check_aggregate, is_file_name
from ..errors import AudioError, ConfigError, shortened

# Open-Unmix's two layouts: with and without a folder for the results. The tree of a folder that was
# searched is kept.
FILENAME_IN_OUTDIR = "{relpath}/{track}/{stem}{ext}"
FILENAME_ALONE = "{relpath}/{track}_{model}/{stem}{ext}"
# At the beginning of a template: stems beside the song, and not below the folder for the results.
_BESIDE = "{dir}"

_PLACEHOLDERS = ("track", "name", "parent", "relpath", "model", "stem", "ext")
_SONG_PLACEHOLDERS = ("track", "name", "parent", "dir", "relpath", "model")


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
    base: Path | None = None,
) -> dict[str, Path]:
    """Where the stems of a file go.

    Parameters
    ----------
    path, outdir, model, ext, filename
        As for `separate_file`; `model` is a name.
    names : sequence of str
        Names of the stems.
    base : Path or None
        Folder that was searched, of which ``{relpath}`` is the rest; None is that of the song.

    Returns
    -------
    dict of str to Path
        One path a name; the same for all of them if it is that of a stem file.

    Raises
    ------
    ConfigError
        If `filename` has an unknown placeholder, gives two stems the same file, or leads out of
        the folder for the results or, with ``{dir}``, out of that of the song; or if a stem file
        cannot hold the stems.
    AudioError
        If a stem would replace the input.

    Examples
    --------
    >>> output_paths("songs/one.mp3", ["vocals"], "out")["vocals"].as_posix()
    'out/one/vocals.wav'
    >>> output_paths("songs/one.mp3", ["vocals"], model="umxhq")["vocals"].as_posix()
    'one_umxhq/vocals.wav'
    >>> beside = output_paths("songs/one.mp3", ["vocals"], filename="{dir}/{track}-{stem}{ext}")
    >>> beside["vocals"].as_posix()
    'songs/one-vocals.wav'
    """
    path = Path(path)
    filename, values, root = _layout(path, outdir, model, ext, filename, base)
    paths = {}
    for name in names:
        place = _filled("filename", filename, _PLACEHOLDERS, values | {"stem": name})
        paths[name] = root / _below("filename", filename, place)
    nb_places = len(set(map(name_on_disk, paths.values())))
    if is_stem_file(ext):
        check_stems(names)
        if nb_places > 1:
            raise ConfigError(f"filename={filename!r}: {ext} files hold all stems; omit {{stem}}")
    elif nb_places < len(names):
        raise ConfigError(
            f"filename={filename!r} gives several of the stems {', '.join(names)} one file; add "
            "{stem}, or name them differently"
        )
    for target in paths.values():
        # `os.path.exists` takes a name that is too long for one that does not exist.
        if os.path.exists(target) and os.path.exists(path) and target.samefile(path):
            raise AudioError(f"path={str(path)!r} would be replaced by a stem; choose other names")
    return paths


def record_path(
    path: str | os.PathLike[str],
    outdir: str | os.PathLike[str] | None = None,
    *,
    model: str = DEFAULT_MODEL,
    ext: str = ".wav",
    filename: str | None = None,
    base: Path | None = None,
) -> Path:
    """Where the record of a separation goes: beside the stems, as a hidden file.

    Songs whose stems are different files have different records: it has the name that a stem
    ``umx-np`` would have.

    Parameters
    ----------
    path, outdir, model, ext, filename, base
        As for `output_paths`.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        As for `output_paths`.

    Examples
    --------
    >>> record_path("songs/one.mp3", "out").as_posix()
    'out/one/.umx-np.wav.json'
    >>> record_path("songs/one.mp3", "out", filename="{track}-{stem}{ext}").as_posix()
    'out/.one-umx-np.wav.json'
    >>> record_path("songs/one.mp3", "out", filename="{track}{ext}").as_posix()
    'out/.one.wav.umx-np.json'
    """
    filename, values, root = _layout(Path(path), outdir, model, ext, filename, base)
    # No character, so neither stem nor song has it in its name: it shows where the stem's would be.
    mark = "\uffff"
    place = _filled("filename", filename, _PLACEHOLDERS, values | {"stem": mark})
    place = _below("filename", filename, place if mark in place else f"{place}.{mark}")
    parts = [part if mark not in part else f".{part}" for part in Path(place + ".json").parts]
    return root.joinpath(*(part.replace(mark, "umx-np") for part in parts))


def plot_path(
    path: str | os.PathLike[str],
    plot: str | os.PathLike[str],
    *,
    model: str = DEFAULT_MODEL,
    base: Path | None = None,
) -> Path:
    """Where the picture of a file goes.

    Parameters
    ----------
    path, plot, model
        As for `separate_file`; `model` is a name.
    base : Path or None
        As for `output_paths`.

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
    template = os.path.expanduser(check_text("plot", plot))
    if template.endswith(("/", os.sep)) or os.path.isdir(template):
        template = os.path.join(template, "{relpath}", "{track}.png")
    picture = song_path("plot", template, path, model, base)
    if picture.suffix.lower() != ".png":
        raise ConfigError(
            f"plot={os.fspath(plot)!r} must end in .png, or be a folder (a new one ends in /)"
        )
    return picture


def existing_or_expanded(path: str | os.PathLike[str]) -> Path:
    """Replace ``~`` by the home folder, unless there is a file of exactly that name."""
    text = check_text("path", path)
    return Path(text if os.path.lexists(text) else os.path.expanduser(text))


def check_text(argument: str, value: object) -> str:
    """Return a name or path as text; raise `ConfigError` if it is something else."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or "\0" in text:
        raise ConfigError(f"{argument}={shortened(value)} must be text or a path")
    return text


def song_path(
    argument: str,
    template: str,
    path: str | os.PathLike[str],
    model: str,
    base: Path | None = None,
) -> Path:
    """Fill in the placeholders that tell songs apart.

    Parameters
    ----------
    argument : str
        What the template was given as, for the message.
    template : str
        Text with ``{track}``, ``{name}``, ``{parent}``, ``{dir}``, ``{relpath}`` or ``{model}``.
    path : str or path-like
        The song.
    model : str
        Name of the model.
    base : Path or None
        As for `output_paths`.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        If the template has an unknown placeholder.
    """
    template = os.path.expanduser(template)
    return Path(_filled(argument, template, _SONG_PLACEHOLDERS, _values(Path(path), model, base)))


def name_on_disk(path: str | os.PathLike[str]) -> str:
    """Return a name that is equal for paths which some system takes for the same file.

    They may not tell upper from lower case, nor composed letters from those made of several
    characters; Windows takes no notice of dots and spaces at the end.
    """
    name = os.path.abspath(path)
    if os.name == "nt":
        name = "\\".join(part.rstrip(" .") for part in name.split("\\"))
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _layout(
    path: Path,
    outdir: str | os.PathLike[str] | None,
    model: str,
    ext: str,
    filename: str | None,
    base: Path | None,
) -> tuple[str, dict[str, str], Path]:
    """Template, what stands for its placeholders but the stem, and the folder for the results."""
    if filename is None:
        filename = FILENAME_ALONE if outdir is None else FILENAME_IN_OUTDIR
        if is_stem_file(check_text("ext", ext)):
            filename = filename.replace("/{stem}", "")
    ext, filename = check_text("ext", ext), check_text("filename", filename)
    ext = ext if ext.startswith(".") else f".{ext}"
    if not is_file_name(ext):
        raise ConfigError(f"ext={ext!r} must be the end of a file's name, like .wav")
    values = _values(path, model, base) | {"ext": ext}
    if _BESIDE in filename.replace("{{", ""):
        if outdir is not None:
            raise ConfigError(
                f"filename={filename!r} puts stems beside the song, outdir={os.fspath(outdir)!r} "
                "somewhere else; leave one of them out"
            )
        rest = filename.removeprefix(_BESIDE)
        if rest == filename or not rest.startswith(("/", os.sep)) or _BESIDE in rest:
            raise ConfigError(f"filename={filename!r}: {_BESIDE} can only be the first folder")
        return rest.lstrip("/" + os.sep), values, path.parent
    root = Path() if outdir is None else Path(os.path.expanduser(check_text("outdir", outdir)))
    return os.path.expanduser(filename), values, root


def _below(argument: str, template: str, place: str) -> str:
    """Return a place in its shortest form; raise `ConfigError` if it is not below a folder."""
    shortest = os.path.normpath(place)
    leads_out = os.path.isabs(shortest) or bool(Path(shortest).anchor)
    if leads_out or os.pardir in Path(shortest).parts or shortest == os.curdir:
        raise ConfigError(
            f"{argument}={template!r} leads to {place!r}, out of the folder for the results; name "
            "another folder with outdir, and only what is below it here"
        )
    return shortest


def _values(path: Path, model: str, base: Path | None) -> dict[str, str]:
    """Values of the placeholders that tell songs apart."""
    folder = os.path.abspath(path.parent)
    return {
        # The stem of "..wav" is ".", which names a folder that is there already.
        "track": path.stem if path.stem.strip(".") else path.name,
        "name": path.name,
        # Without "..", and without the empty name of the root, which would make the place absolute.
        "parent": Path(os.path.abspath(path)).parent.name or ".",
        "dir": str(path.parent),
        "relpath": "." if base is None else os.path.relpath(folder, os.path.abspath(base)),
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
