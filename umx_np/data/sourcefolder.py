"""Folders of sounds of one source each, mixed at random."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..config import check_int
from ..errors import ConfigError
from .augmentations import Augmentation
from .base import Sample, UnmixDataset, item_rng
from .files import Clip
from .folders import FileDataset, FileKeywords, mix
from .sources import check_inside, check_names, check_text, same_file, sound_files

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SourceFolderDataset(FileDataset):
    """A folder for each source, with any number of sounds that need not belong together.

    Each item draws one file of each folder, and an excerpt of it. ::

        train/vocals/track11.wav -----------------+
        train/drums/track202.wav  (interferer1) --+--> input
        train/bass/track007a.wav  (interferer2) --+

        train/vocals/track11.wav --------------------> output

    Parameters
    ----------
    root : str or path-like
        Folder with the folders ``train`` and ``valid``.
    split : str
        Which of them. The items of ``"valid"`` are the same in each epoch.
    target_dir : str
        Folder of the target.
    interferer_dirs : sequence of str
        Folders of what is mixed with it, but not that of the target. One that is named twice gives
        two files to each item.
    ext : str
        How the names of the files end, in upper or lower case.
    nb_samples : int
        Number of items.
    seq_duration : float or None
        Length of the excerpts in seconds. Files must be longer. None takes whole files, and items
        are as long as the shortest of theirs.
    random_chunks : bool
        Excerpts from a random position in place of the middle.
    sample_rate : float or None
        See `FileDataset`.
    source_augmentations : callable or None
        Applied to each source.
    seed : int
        Of the items of ``"valid"``.
    **files
        `cache` and `progress`, see `FileDataset`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        target_dir: str = "vocals",
        interferer_dirs: Sequence[str] = ("bass", "drums"),
        ext: str = ".wav",
        nb_samples: int = 1000,
        seq_duration: float | None = None,
        random_chunks: bool = True,
        sample_rate: float | None = None,
        source_augmentations: Augmentation | None = None,
        seed: int = 42,
        **files: Unpack[FileKeywords],
    ) -> None:
        super().__init__(
            root, split, seq_duration, random_chunks, source_augmentations, sample_rate, **files
        )
        check_inside("target_dir", target_dir)
        check_text("ext", ext)
        self.target = os.path.normpath(target_dir)
        self.target_dir = target_dir
        self.interferer_dirs = check_names("interferer_dirs", interferer_dirs)
        self.ext = ext
        self.nb_samples = check_int("nb_samples", nb_samples, 1)
        self.seed = check_int("seed", seed, 0)
        self._check_names()
        self.source_tracks = {
            name: self._find_tracks(name)
            for name in dict.fromkeys([*self.interferer_dirs, self.target_dir])
        }
        self.settle({clip for clips in self.source_tracks.values() for clip in clips})

    def _check_names(self) -> None:
        if not self.interferer_dirs:
            raise ConfigError(
                "interferer_dirs is empty: the mixture would be the target; name what is mixed "
                "with it"
            )
        for name in self.interferer_dirs:
            if same_file(self.folder / name, self.folder / self.target_dir):
                raise ConfigError(
                    f"interferer_dirs={self.interferer_dirs} has {name!r}, which is the folder of "
                    f"target_dir={self.target_dir!r}: nothing tells one from the other"
                )

    def _find_tracks(self, source: str) -> list[Clip]:
        folder = self.folder / source
        if not folder.is_dir():
            raise ConfigError(f"root={str(self.root)!r} has no folder {self.split}/{source}")
        found, others = sound_files(folder, self.ext)
        self.report_unused(
            [f"{source}/{path.name}" for path in others], f"ext={self.ext!r} passes over them"
        )
        clips = [Clip(path) for path in found]
        self.require(clips)
        by_name = {f"{source}/{clip.path.name}": (clip,) for clip in clips}
        keep = [by_name[name][0] for name in self.long_enough(by_name)]
        if not keep:
            raise self.no_tracks(
                f"no usable file in {source!r} has a name that ends in {self.ext!r}"
            )
        return keep

    def groups(self) -> list[tuple[Clip, ...]]:
        """Each file by itself: any goes with any."""
        return [(clip,) for clips in self.source_tracks.values() for clip in clips]

    def __len__(self) -> int:
        return self.nb_samples

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Mix excerpts of random files; see `UnmixDataset.sample`."""
        if self.split == "valid":
            rng = item_rng(self.seed, 0, index)
        # The target comes last; a folder that is named twice gives two sources.
        names = [*self.interferer_dirs, self.target_dir]
        sources = [self._draw(self.source_tracks[name], rng) for name in names]
        x = mix(sources)
        return x, sources[-1][:, : x.shape[1]]

    def _draw(self, clips: list[Clip], rng: np.random.Generator) -> np.ndarray:
        clip = clips[rng.integers(len(clips))]
        nb_available = self.files.info(clip).nb_timesteps
        first, count = self.place(nb_available, rng)
        if not self.random_chunks:
            first = (nb_available - count) // 2
        return self.load(clip, first, count, rng)

    def for_statistics(self) -> UnmixDataset:
        """Copy without augmentation that takes the middle of each file it draws.

        The items have no whole tracks to offer, so their number and length stay.
        """
        plain = super().for_statistics()
        assert isinstance(plain, SourceFolderDataset)
        plain.seq_duration = self.seq_duration
        return plain
