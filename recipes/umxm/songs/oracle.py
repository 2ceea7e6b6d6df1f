"""How separable songs are: ``python -m recipes.umxm.songs.oracle SONGS/test --out ESTIMATES/test``.

Writes what ideal ratio masks make of the mixtures: ratios of the stems' true magnitudes, the IRM1
of F.-R. Stöter, A. Liutkus and N. Ito, "The 2018 Signal Separation Evaluation Campaign", LVA/ICA
2018. Its scores tell songs whose stems lie on top of each other from songs in which they make room
for each other, whatever model is to separate them::

    python -m umx_np.evaluate --dataset folder --root SONGS --estimates ESTIMATES

README.md has those of MUSDB18. Songs that are there already are passed over.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from scipy import signal
from tqdm import tqdm

from ..studio.plan import SAMPLE_RATE, STEMS
from .render import write_song

# Samples of a frame of the campaign's masks.
_FRAME = 2048


def masked(stems: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Separate the sum of stems with the ratios of their magnitudes.

    Parameters
    ----------
    stems : dict of str to ndarray [shape=(nb_channels, nb_timesteps)], float32
        What the mixture is the sum of.

    Returns
    -------
    dict of str to ndarray [shape=(nb_channels, nb_timesteps)], float32
        Estimates, whose sum is the mixture.
    """
    length = next(iter(stems.values())).shape[-1]
    # SciPy would take shorter frames for shorter songs.
    padding = ((0, 0), (0, max(0, _FRAME - length)))
    spectra = {
        name: signal.stft(np.pad(audio, padding), nperseg=_FRAME)[-1]
        for name, audio in stems.items()
    }
    mixture = np.sum(list(spectra.values()), axis=0)
    # Where nothing sounds, no stem gets anything.
    total = np.sum([np.abs(spectrum) for spectrum in spectra.values()], axis=0) + 1e-12
    estimates = {}
    for name, spectrum in spectra.items():
        audio = signal.istft(mixture * (np.abs(spectrum) / total), nperseg=_FRAME)[1]
        estimates[name] = audio[:, :length].astype(np.float32)
    return estimates


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and separate all songs of a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.umxm.songs.oracle", description=__doc__
    )
    parser.add_argument("songs", type=Path, help="folder with a folder of stems for each song")
    parser.add_argument("--out", type=Path, required=True, help="folder for the estimates")
    options = parser.parse_args(argv)
    files = sorted(options.songs.glob(f"[!.]*/{STEMS[0]}.wav"))
    if not files:
        parser.error(f"{options.songs} has no song with a {STEMS[0]}.wav")
    for folder in tqdm([file.parent for file in files], unit="song"):
        if not (options.out / folder.name).exists():
            try:
                stems = _read(folder)
            except (OSError, ValueError, soundfile.SoundFileError) as error:
                parser.error(str(error))
            write_song(options.out / folder.name, masked(stems), subtype="FLOAT")


def _read(folder: Path) -> dict[str, np.ndarray]:
    """Stems of a song."""
    stems = {}
    for name in STEMS:
        audio, rate = soundfile.read(folder / f"{name}.wav", dtype="float32", always_2d=True)
        if rate != SAMPLE_RATE:
            raise ValueError(f"{folder / name}.wav has rate={rate}, songs have {SAMPLE_RATE}")
        stems[name] = audio.T
    return stems


if __name__ == "__main__":
    main()
