"""The stems to be scored: separated by a model, or read from files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import audio
from ..config import Computing, SeparationOptions, check_aggregate
from ..errors import AudioError, ConfigError
from ..separation.naming import output_names
from .stems import stem_files
from .tracks import Track, TrackAudio

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ..weights.bundle import ModelBundle


class Estimates(Protocol):
    """Where estimates come from."""

    model_name: str
    """Name of the model, or of the folder with the files."""
    settings: dict[str, Any]
    """Settings that the estimates depend on; can be written as JSON."""

    def names(self, track: Track) -> list[str]:
        """Names of the stems there are for a track."""

    def of(
        self, track: Track, sound: TrackAudio, wanted: Sequence[str] | None
    ) -> dict[str, np.ndarray]:
        """Return these stems (None for all), each [shape=(nb_channels, nb_timesteps)]."""

    def changed(self, track: Track) -> float:
        """When the estimates of a track last changed, in seconds of the clock of files."""


@dataclass(frozen=True)
class Separation:
    """How a model separates.

    Attributes
    ----------
    model, targets, aggregate, offline
        As for `umx_np.separate`.
    options : SeparationOptions
        What is made of the networks.
    computing : Computing
        Where; its threads are those of all processes together.
    """

    model: str
    targets: tuple[str, ...] | None
    aggregate: Mapping[str, Sequence[str]] | None
    offline: bool
    options: SeparationOptions
    computing: Computing


class SeparatedEstimates:
    """Separates the mixtures.

    Parameters
    ----------
    how : Separation
        The model and its options. The model is loaded at once, for all tracks.
    threads : int or None
        Threads to compute on; None means all cores.
    progress : bool
        Show a bar if the model has to be downloaded.
    """

    def __init__(
        self, how: Separation, threads: int | None = None, *, progress: bool = False
    ) -> None:
        from ..pretrained import load_model
        from ..separation.separator import Separator

        bundle = load_model(
            how.model,
            how.targets,
            offline=how.offline,
            progress=progress,
            dtype=how.computing.weights_dtype,
        )
        self._aggregate = how.aggregate
        computing = replace(how.computing, threads=threads)
        self._separator = Separator.from_bundle(bundle, **vars(how.options), **vars(computing))
        self._names = output_names(self._separator.stem_names, how.aggregate)
        config = self._separator.config
        self.model_name = bundle.name
        self.settings: dict[str, Any] = {
            "model": bundle.name,
            "weights": digest(bundle),
            "targets": self._separator.target_names,
            "niter": config.niter,
            "wiener_win_len": config.wiener_win_len,
            "softmask": config.softmask,
            "residual": self._separator.residual_name if config.residual else None,
            "aggregate": how.aggregate and {k: list(v) for k, v in how.aggregate.items()},
            "precision": computing.precision,
        }

    def names(self, track: Track) -> list[str]:
        """Names of the stems, the same for all tracks."""
        return self._names

    def of(
        self, track: Track, sound: TrackAudio, wanted: Sequence[str] | None
    ) -> dict[str, np.ndarray]:
        """Separate the mixture of a track at its own rate."""
        from ..separation.arrays import separate

        if sound.nb_channels > 2:
            raise AudioError(
                f"track={track.name!r} has nb_channels={sound.nb_channels}; mono and stereo can be "
                "separated and scored"
            )
        stems = separate(
            sound.mixture(),
            sound.rate,
            separator=self._separator,
            aggregate=self._aggregate,
            channels_first=True,
        )
        return {name: stem for name, stem in stems.items() if wanted is None or name in wanted}

    def changed(self, track: Track) -> float:
        """Return 0: the settings tell what the stems depend on."""
        return 0.0


class StoredEstimates:
    """Reads ``<folder>/<subset>/<track>/<stem>.wav``, or the same without the subset.

    Other formats of `audio.suffixes.SOUND_SUFFIXES` are read too.

    Parameters
    ----------
    folder : str or path-like
        Where the stems are.
    targets : sequence of str or None
        Stems to look at; None takes all.
    aggregate : mapping of str to sequence of str, or None
        Names of results and the stems that are summed in them.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        targets: Sequence[str] | None = None,
        aggregate: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.folder = Path(os.path.expanduser(folder))
        if not self.folder.is_dir():
            raise ConfigError(f"estimates={str(folder)!r} is no folder")
        self._targets = targets
        self._aggregate = aggregate
        self.model_name = self.folder.resolve().name
        self.settings: dict[str, Any] = {
            "estimates": str(self.folder.resolve()),
            "targets": targets and list(targets),
            "aggregate": aggregate and {k: list(v) for k, v in aggregate.items()},
        }

    def names(self, track: Track) -> list[str]:
        """Names of the stems that there are files of, or of their sums."""
        files = self._files(track)
        if self._aggregate is None:
            return list(files)
        check_aggregate(self._aggregate, list(files))
        return list(self._aggregate)

    def of(
        self, track: Track, sound: TrackAudio, wanted: Sequence[str] | None
    ) -> dict[str, np.ndarray]:
        """Read the stems of a track."""
        files = self._files(track)
        parts = self._aggregate or {name: [name] for name in files}
        stems = {}
        for name in parts if wanted is None else wanted:
            samples = [self._read(files[part], sound) for part in parts[name]]
            if len({stem.shape for stem in samples}) > 1:
                raise AudioError(
                    f"aggregate={name!r} of track={track.name!r} is the sum of files of different "
                    f"shapes: {', '.join(str(stem.shape) for stem in samples)}"
                )
            stems[name] = samples[0] if len(samples) == 1 else np.sum(samples, axis=0)
        return stems

    def changed(self, track: Track) -> float:
        """When the newest of the files was written."""
        return max(path.stat().st_mtime for path in self._files(track).values())

    def _files(self, track: Track) -> dict[str, Path]:
        places = [self.folder / track.subset / track.name, self.folder / track.name]
        place = next((place for place in places if place.is_dir()), None)
        if place is None:
            raise ConfigError(
                f"track={track.name!r} has no estimates: neither {places[0]} nor {places[1]} is "
                "a folder"
            )
        files = stem_files(place)
        if self._targets is not None:
            missing = [name for name in self._targets if name not in files]
            if missing:
                raise ConfigError(f"path={str(place)!r} has no file of {', '.join(missing)}")
            files = {name: files[name] for name in self._targets}
        if not files:
            raise ConfigError(f"path={str(place)!r} has no sound files of stems")
        return files

    def _read(self, path: Path, sound: TrackAudio) -> np.ndarray:
        samples, rate = audio.read(path)
        if rate != sound.rate:
            raise AudioError(
                f"path={str(path)!r} has rate={rate:g}, the references have rate={sound.rate}; "
                "write the estimates at the rate of the track"
            )
        if samples.shape[0] != sound.nb_channels:
            raise AudioError(
                f"path={str(path)!r} has nb_channels={samples.shape[0]}, the references have "
                f"nb_channels={sound.nb_channels}; write the estimates with those of the track"
            )
        length, wanted = samples.shape[1], sound.nb_timesteps
        if length != wanted:
            rest = "the rest counts as silence" if length < wanted else "the rest is not scored"
            text = "path=%r has %d samples, the references have %d; %s, as museval does"
            logger.warning(text, str(path), length, wanted, rest)
        return samples


def digest(bundle: ModelBundle) -> str:
    """Return a few digits that tell weights from others.

    Parameters
    ----------
    bundle : ModelBundle
        Loaded weights.
    """
    hashed = hashlib.blake2b(digest_size=8)
    for target, weights in sorted(bundle.targets.items()):
        for key, array in sorted(weights.state.items()):
            hashed.update(f"{target} {key} {array.dtype.str} {array.shape}".encode())
            hashed.update(np.ascontiguousarray(array).data.cast("B"))
    return hashed.hexdigest()
