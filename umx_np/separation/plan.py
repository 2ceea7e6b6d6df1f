"""Files and options of a separation, settled before anything is computed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio.stem_files import is_stem_file
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
    aggregate : mapping of str to sequence of str, or None
        As for `separate_file`.
    """

    source: Path
    paths: dict[str, Path]
    record: Path
    picture: Path | None
    model: dict[str, Any]
    options: dict[str, Any]
    aggregate: Mapping[str, Sequence[str]] | None

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


def plan_separation(
    path: str | os.PathLike[str],
    separator: Separator,
    output: OutputPlan,
    excerpt: Excerpt,
    *,
    model: str | os.PathLike[str] | None = None,
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
    names = output_names(separator.stem_names, aggregate)
    # `asdict` names all that is configurable, also what is yet to come.
    options = {
        **asdict(separator.config),
        "targets": separator.target_names,
        "stems": separator.stem_names,
        "device": separator.ops.name.partition(":")[0],
        "precision": separator.ops.precision,
        "aggregate": None if aggregate is None else {k: list(v) for k, v in aggregate.items()},
        "start": float(excerpt.start),
        "duration": None if duration is None or not 0 <= duration < math.inf else float(duration),
        "ext": check_text("ext", output.ext).lower().removeprefix("."),
        "bits": output.bits,
        "clip_mode": output.clip_mode,
        "quality": None if output.quality is None else float(output.quality),
        "rate": output.rate,
    }
    if output.plot is not None and is_stem_file(output.ext):
        raise ConfigError(f"plot={os.fspath(output.plot)!r}: stems in a {output.ext} are not drawn")
    places: dict[str, Any] = {"model": name, "ext": output.ext, "filename": output.filename}
    return Plan(
        source,
        output_paths(source, names, output.outdir, **places),
        record_path(source, output.outdir, **places),
        None if output.plot is None else plot_path(source, output.plot, model=name),
        {"name": name, "sha256": separator.weights_digest},
        options,
        aggregate,
    )
