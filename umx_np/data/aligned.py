"""Folders that hold the input and the output of the model."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError
from .augmentations import Augmentation
from .base import Sample
from .files import Clip
from .folders import FileDataset, FileKeywords, visible
from .options import is_pattern
from .sources import check_inside, same_file

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AlignedDataset(FileDataset):
    """A folder for each track, with one file to hear and one to predict from it.

    The pair is read as it is: nothing is mixed. ::

        train/01/mixture.wav --> input
        train/01/vocals.wav ---> output

    Parameters
    ----------
    root : str or path-like
        Folder with the folders ``train`` and ``valid``.
    split : str
        Which of them.
    input_file, output_file : str
        Names of the files; with wildcards, the first that fits.
    seq_duration : float or None
        Length of the excerpts in seconds. Pairs must be longer. None takes whole tracks.
    random_chunks : bool
        Excerpts from a random position, the same in both files, in place of the beginning.
    sample_rate : float or None
        See `FileDataset`.
    source_augmentations : callable or None
        Applied to both files with the same random numbers, so that they still belong together.
    seed : int
        Accepted as upstream's; random numbers come from the generator handed to `sample`.
    **files
        `cache` and `progress`, see `FileDataset`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        input_file: str = "mixture.wav",
        output_file: str = "vocals.wav",
        seq_duration: float | None = None,
        random_chunks: bool = False,
        sample_rate: float | None = None,
        source_augmentations: Augmentation | None = None,
        seed: int = 42,
        **files: Unpack[FileKeywords],
    ) -> None:
        super().__init__(
            root, split, seq_duration, random_chunks, source_augmentations, sample_rate, **files
        )
        check_inside("input_file", input_file)
        check_inside("output_file", output_file)
        if os.path.normpath(input_file) == os.path.normpath(output_file):
            raise ConfigError(
                f"input_file={input_file!r} is output_file too: there is nothing to learn; name "
                "two files"
            )
        self.input_file = input_file
        self.output_file = output_file
        pairs = self._find_pairs()
        self.require(clip for pair in pairs for clip in pair)
        by_name = {pair[0].path.parent.name: pair for pair in pairs}
        self.tracks = [by_name[name] for name in self.long_enough(by_name)]
        if not self.tracks:
            raise self.no_tracks(
                f"each track is a folder with input_file={input_file!r} and "
                f"output_file={output_file!r}"
            )
        self.settle({clip for pair in self.tracks for clip in pair})
        self.target = Path(self.tracks[0][1].path if is_pattern(output_file) else output_file).stem

    def _find_pairs(self) -> list[tuple[Clip, Clip]]:
        pairs, incomplete, linked, several = [], [], [], []
        for folder in self.subfolders():
            inputs = visible(folder.glob(self.input_file))
            outputs = visible(folder.glob(self.output_file))
            several += [Clip(path) for path in {*inputs, *outputs} - {*inputs[:1], *outputs[:1]}]
            if not inputs or not outputs:
                incomplete.append(folder.name)
            elif same_file(inputs[0], outputs[0]):
                linked.append(folder.name)
            else:
                pairs.append((Clip(inputs[0]), Clip(outputs[0])))
        self.report_left_out(incomplete, f"no {self.input_file!r} or no {self.output_file!r}")
        if several:
            self.report(
                "%d more files fit input_file or output_file and are not used: %s", sorted(several)
            )
        self.report_left_out(linked, "input and output are the same file")
        return pairs

    def __len__(self) -> int:
        return len(self.tracks)

    def groups(self) -> list[tuple[Clip, ...]]:
        """Output and input of each track."""
        return [(output, given) for given, output in self.tracks]

    def describe(self, index: int) -> str:
        """Folder of the track."""
        return str(self.tracks[index][0].path.parent)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Read the same excerpt of both files; see `UnmixDataset.sample`."""
        pair = self.tracks[index]
        first, count = self.place(self.length(pair), rng)
        same = copy.deepcopy(rng)
        return self.load(pair[0], first, count, rng), self.load(pair[1], first, count, same)
