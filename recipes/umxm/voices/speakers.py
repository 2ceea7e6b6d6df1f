"""Speakers whose words are sung: recordings of people, and flite, which speaks any text.

The lines that flite speaks are made up from a list of words with open vowels, each line from its
number. What is spoken is analysed once; see `vocoder.frames`.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..studio.plan import SAMPLE_RATE
from ..studio.sources import Library
from . import vocoder

# Where speech comes from, and up to which frequency it reaches.
RECORDED = {
    "speech_kathleen": 20000.0,
    "speech_kerstin": 5600.0,
    "speech_nathalie": 20000.0,
    "speech_flemishguy": 10000.0,
}
# Voices of flite; they end at 8 kHz.
SPOKEN = {"awb": 7000.0, "rms": 6900.0, "slt": 6900.0, "kal16": 7200.0}
_SHARES = {
    "speech_kathleen": 0.17,
    "speech_kerstin": 0.12,
    "speech_nathalie": 0.16,
    "speech_flemishguy": 0.17,
    "awb": 0.12,
    "rms": 0.11,
    "slt": 0.1,
    "kal16": 0.05,
}
# Speech that is used as it is must have its top.
_TALKING = 10000.0
# Recordings of speech that lend their words to a song; lines that each voice of flite can say.
_NB_RECORDINGS, _NB_LINES = 6, 28

# What a line is made of, from its first words to its last.
_PARTS = (
    "oh,ah,now,and I,but you,when we,if they,so I,hey,all I,why do you,how could I",
    "follow,know,love,need,call,hold,remember,show,leave,throw away,carry,burn,wait for,fall for,"
    "go with,run to,dream of,live for,see,believe,hear,want,fly over,come by",
    "the river,your shadow,a better day,the morning light,my only one,the yellow moon,"
    "a long way home,the radio,our summer,the open sea,the fire,an ocean of stars,every road,"
    "the window,tomorrow,the silent snow,your eyes,the city lights,a photograph,my heart,the rain,"
    "an hour,the avenue",
    "again,all night,away,below,forever,for you,in the dark,alone,over and over,tonight,with me,"
    "so low,in my arms,before I go,somehow,far away,today,in the sky,by the sea,and more",
)


def choose(rng: np.random.Generator) -> str:
    """Name of a speaker."""
    return str(rng.choice(list(_SHARES), p=np.array(list(_SHARES.values()))))


def top(name: str) -> float:
    """Frequency up to which a speaker's recordings reach."""
    return RECORDED[name] if name in RECORDED else SPOKEN[name]


def complete() -> list[str]:
    """Names of the speakers whose recordings can be used as they are."""
    return [name for name, reach in RECORDED.items() if reach >= _TALKING]


def words(library: Library, name: str, rng: np.random.Generator) -> list[vocoder.Frames]:
    """Some analysed lines of a speaker."""
    if name in RECORDED:
        paths = library.files(f"{name}/*.ogg")
        chosen = rng.choice(len(paths), min(_NB_RECORDINGS, len(paths)), replace=False)
        return [vocoder.frames(library, paths[index]) for index in chosen]
    chosen = rng.choice(_NB_LINES, _NB_RECORDINGS, replace=False)
    return [spoken(library, name, int(number)) for number in chosen]


def line(number: int) -> str:
    """Two lines of a song that nobody has written."""
    rng = np.random.default_rng([number, 4711])
    parts = [part.split(",") for part in _PARTS]
    return ", ".join(" ".join(str(rng.choice(part)) for part in parts) for _ in range(2))


def spoken(library: Library, name: str, number: int) -> vocoder.Frames:
    """The analysis of what a voice of flite says, from the cache if it is there."""

    def make() -> np.ndarray:
        # Each voice has its own lines.
        text = line(_NB_LINES * list(SPOKEN).index(name) + number)
        return vocoder.analyse(_spoken(name, text))

    return vocoder.decoded(library.made(f"flite 1 {name} {number}", make))


def _spoken(name: str, text: str) -> np.ndarray:
    """What flite says, slower than usual, at 44.1 kHz, shape ``(nb_timesteps,)``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "line.wav")
        slow = ["--setf", "duration_stretch=1.25"]
        try:
            command = ["flite", "-voice", name, *slow, "-t", text, "-o", str(path)]
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                "flite is missing; recipes/umxm/README.md lists the Debian packages to install"
            ) from error
        audio, rate = soundfile.read(path, dtype="float32")
    return np.asarray(soxr.resample(audio, rate, SAMPLE_RATE))
