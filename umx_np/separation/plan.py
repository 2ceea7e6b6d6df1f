"""Files and options of a separation, settled before anything is computed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio.downmix import check_downmix
from ..audio.stem_files import is_stem_file
from ..config import SeparationOptions, check_int
from ..errors import ConfigError
from .naming import (
    check_text,
    existing_or_expanded,
    output_names,
    output_paths,
    plot_path,
    record_path,
)
from .options import Excerpt, OutputPlan
from .records import Record

if TYPE_CHECKING:
    from .separator import Separator


@dataclass(frozen=True)
class Plan:
    """Files and options of one separation.

    Attributes
    ----------
    source : Path
        The song.
    paths : dict of str to Path
        Files of the stems.
    record : Path
        File of the record.
    picture : Path or None
        File of the picture, if one is wanted.
    model, options : dict
        As `umx_np.separation.records.Record` holds them.
    parts : mapping of str to sequence of str
        Results and the stems that are summed in them.
    rest : tuple of str or None
        A stem, and the name of the result that is the song without it.
    name : str or None
        What the record calls a song that is in no file of the user's.
    """

    source: Path
    paths: dict[str, Path]
    record: Path
    picture: Path | None
    model: dict[str, Any]
    options: dict[str, Any]
    parts: Mapping[str, Sequence[str]]
    rest: tuple[str, str] | None = None
    name: str | None = None

    @property
    def label(self) -> str:
        """What messages call the song."""
        return self.name or str(self.source)

    @property
    def excerpt(self) -> dict[str, Any]:
        """Arguments of a reader that say what of the song is read."""
        return {name: self.options[name] for name in ("start", "duration", "track", "downmix")}

    @property
    def results(self) -> list[Path]:
        """Files that are to be written, but for the record."""
        return [*self.paths.values(), *([] if self.picture is None else [self.picture])]

    def differences(self) -> list[str]:
        """Say why the results that are there are not those of this plan; empty if they are."""
        if not any(map(os.path.lexists, self.results)):
            return ["there are no results"]
        record = Record.read(self.record)
        if record is None:
            return [f"there is no record at {self.record}, or of another version"]
        return record.differences(self.source, self.model, self.options, self.paths, self.picture)


def targets_needed(
    targets: Sequence[str] | None, output: OutputPlan, how: SeparationOptions
) -> Sequence[str] | None:
    """Say whose networks have to run.

    The filter shares the mixture out among all targets, so what is taken for a stem depends on the
    others; without iterations, and without ratio masks, it does not.

    Parameters
    ----------
    targets : sequence of str or None
        What was asked for.
    output : OutputPlan
        What is written.
    how : SeparationOptions
        How the networks are made use of.

    Returns
    -------
    sequence of str or None
        None if all of the model are needed.
    """
    if targets is None and output.two_stems is not None and not how.niter and not how.softmask:
        return [check_text("two_stems", output.two_stems)]
    return targets


def plan_separation(
    path: str | os.PathLike[str],
    separator: Separator,
    output: OutputPlan,
    excerpt: Excerpt,
    *,
    model: str | os.PathLike[str] | None = None,
    base: Path | None = None,
) -> Plan:
    """Settle what a separation reads and writes, before anything is computed.

    Parameters
    ----------
    path, separator, model
        As for `separate_file`.
    output : OutputPlan
        Where the stems go.
    excerpt : Excerpt
        Of the song.
    base : Path or None
        Folder that was searched, of which ``{relpath}`` is the rest; None is that of the song.

    Raises
    ------
    ConfigError, AudioError
        As `output_names`, `output_paths` and `plot_path` do.
    """
    source = existing_or_expanded(path)
    name = separator.name or "model"
    if model is not None:
        name = Path(check_text("model", model)).name
    aggregate, duration = output.aggregate, excerpt.duration
    check_downmix(excerpt.downmix)
    parts, rest = _results(separator, output)
    names = [*parts, *(rest[1:] if rest is not None else ())]
    if output.only is not None:
        names = _chosen(names, output.only)
        parts = {name: some for name, some in parts.items() if name in names}
        if rest is not None and rest[1] not in names:
            rest = None
    # `asdict` names all that is configurable, also what is yet to come.
    options = {
        **asdict(separator.config),
        "targets": separator.target_names,
        "stems": separator.stem_names,
        "device": separator.ops.name.partition(":")[0],
        "precision": separator.ops.precision,
        "aggregate": None if aggregate is None else {k: list(v) for k, v in aggregate.items()},
        "two_stems": output.two_stems,
        "start": float(excerpt.start),
        "duration": None if duration is None or not 0 <= duration < math.inf else float(duration),
        "track": None if excerpt.track is None else check_int("track", excerpt.track, 1),
        # A model of more channels gets all of them.
        "downmix": excerpt.downmix if separator.nb_channels <= 2 else None,
        "ext": check_text("ext", output.ext).lower().removeprefix("."),
        "bits": output.bits,
        "clip_mode": output.clip_mode,
        "quality": None if output.quality is None else float(output.quality),
        "bitrate": output.bitrate,
        "tags": bool(output.tags),
        "rate": output.rate,
    }
    if output.plot is not None and is_stem_file(output.ext):
        raise ConfigError(f"plot={os.fspath(output.plot)!r}: stems in a {output.ext} are not drawn")
    places: dict[str, Any] = {
        "model": name,
        "ext": output.ext,
        "filename": output.filename,
        "base": base,
    }
    return Plan(
        source,
        output_paths(source, names, output.outdir, **places),
        record_path(source, output.outdir, **places),
        None if output.plot is None else plot_path(source, output.plot, model=name, base=base),
        {"name": name, "sha256": separator.weights_digest},
        options,
        parts,
        rest,
    )


def _results(
    separator: Separator, output: OutputPlan
) -> tuple[dict[str, Sequence[str]], tuple[str, str] | None]:
    """Say which stems are summed in each result, and of which the song without it is another."""
    stem, aggregate = output.two_stems, output.aggregate
    if stem is None:
        names = output_names(separator.stem_names, aggregate)
        return dict(aggregate or {name: [name] for name in names}), None
    check_text("two_stems", stem)
    if aggregate is not None or separator.config.residual:
        other = "residual=True" if aggregate is None else "aggregate=..."
        raise ConfigError(f"two_stems={stem!r} already says what is written; leave out {other}")
    if stem not in separator.target_names:
        raise ConfigError(
            f"two_stems={stem!r} must be one of the targets: {', '.join(separator.target_names)}"
        )
    rest = f"no_{stem}"
    if rest in separator.target_names:
        raise ConfigError(f"two_stems={stem!r}: the model has a target {rest!r}, too")
    output_names([stem], None)
    return {stem: [stem]}, (stem, rest)


def _chosen(names: list[str], only: Sequence[str]) -> list[str]:
    """Names that are among those of `only`; raise `ConfigError` if it has others, or none."""
    unknown = [name for name in only if name not in names]
    if unknown or not only or isinstance(only, str):
        raise ConfigError(f"only={only!r} must name some of the results: {', '.join(names)}")
    return [name for name in names if name in only]
