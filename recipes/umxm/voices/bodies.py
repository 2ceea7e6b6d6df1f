"""Bodies of singers: length and shape of the throat, register, breath, vibrato."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import interpolate

# Hz between which the formants of a body move independently, and by how much at most.
_ANCHORS = (150.0, 350.0, 700.0, 1300.0, 2300.0, 3600.0, 5500.0, 9000.0)
_SHIFT = 0.08
# Lengths of the throat: factors of all formants.
_SHORTEST, _LONGEST = 0.78, 1.22
# Ways of using a voice, and how often.
REGISTERS = ("chest", "belt", "airy", "falsetto", "low")
_SHARES = (0.36, 0.26, 0.2, 0.1, 0.08)
_STYLE_SHARES = {
    "metal": (0.27, 0.5, 0.05, 0.1, 0.08),
    "rock": (0.36, 0.4, 0.1, 0.06, 0.08),
    "ballad": (0.36, 0.18, 0.3, 0.08, 0.08),
    "hiphop": (0.5, 0.15, 0.15, 0.05, 0.15),
}


@dataclass(frozen=True)
class Timbre:
    """What makes a singer of a speaker.

    Attributes
    ----------
    formants : float
        Factor of all frequencies of the envelope; a small one makes a large body.
    shifts : tuple of float
        Factors by which single regions of formants are moved further; none moves nothing.
    lift : float
        dB by which voiced sound is raised from 0.5 to 4 kHz: the effort of a voice.
    ring : float
        dB of the "singer's formant" near 3 kHz.
    nasal : float
        dB of the dip near 1 kHz that the nose makes.
    tilt : float
        dB by which voiced sound rises per octave over 1 kHz.
    breath : float
        0 is as spoken, 1 is a whisper.
    rasp : float
        Share by which every second pulse is weaker, at most 1.
    clarity : float
        Factor of the harmonics' distance to the noise, in dB: singers are clearer than speakers.
    vibrato : float
        Depth in cents.
    rate : float
        Of the vibrato in Hz.
    onset : float
        Seconds of a tone before its vibrato.
    glide : float
        Seconds between two pitches; under 0.03 the pitch was corrected by a machine.
    top : float
        Frequency up to which the recording reaches.
    evenness : float
        Share of the level's movement that is taken out of voiced sound.
    """

    formants: float = 1.0
    shifts: tuple[float, ...] = ()
    lift: float = 0.0
    ring: float = 0.0
    nasal: float = 0.0
    tilt: float = 0.0
    breath: float = 0.0
    rasp: float = 0.0
    clarity: float = 1.5
    vibrato: float = 35.0
    rate: float = 5.5
    onset: float = 0.25
    glide: float = 0.075
    top: float = 20000.0
    evenness: float = 0.6

    def source(self, frequencies: np.ndarray) -> np.ndarray:
        """Frequency of the speaker's envelope that sounds at each of the singer's, rising."""
        if not self.shifts:
            return np.asarray(frequencies / self.formants)
        anchors = np.log(np.array([20.0, *_ANCHORS, 22050.0]))
        moved = np.log(np.array([1.0, *self.shifts, 1.0]))
        here = np.log(np.maximum(frequencies, 20.0))
        factor = np.exp(interpolate.PchipInterpolator(anchors, moved)(here))
        return np.asarray(frequencies / (self.formants * factor))

    def curve(self, frequencies: np.ndarray) -> np.ndarray:
        """Gain of voiced sound at each frequency, in dB."""
        octaves = np.log2(np.maximum(frequencies, 20.0) / 1000.0)
        curve = self.tilt * np.clip(octaves, 0.0, 2.5)
        # Effort lifts what is over the lowest formant.
        rise = 1.0 / (1.0 + np.exp(-3.5 * (octaves + 1.0)))
        curve += self.lift * rise * np.exp(-0.5 * (np.maximum(octaves - 1.2, 0.0) / 1.2) ** 2)
        curve += self.ring * np.exp(-0.5 * ((octaves - 1.58) / 0.22) ** 2)
        nose = np.exp(-0.5 * ((octaves + 0.05) / 0.22) ** 2)
        hum = np.exp(-0.5 * ((octaves + 1.9) / 0.3) ** 2)
        return np.asarray(curve - self.nasal * (nose - 0.4 * hum))


def draw_shifts(rng: np.random.Generator) -> tuple[float, ...]:
    """Factors for the single regions of formants."""
    return tuple(float(x) for x in np.exp(rng.uniform(-_SHIFT, _SHIFT, len(_ANCHORS))))


def draw_length(rng: np.random.Generator) -> float:
    """Factor of all formants."""
    return float(np.exp(rng.uniform(np.log(_SHORTEST), np.log(_LONGEST))))


def choose_register(rng: np.random.Generator, style: str) -> str:
    """One of `REGISTERS`."""
    return REGISTERS[rng.choice(len(REGISTERS), p=_STYLE_SHARES.get(style, _SHARES))]


def draw_height(rng: np.random.Generator, register: str) -> float:
    """Semitones from a speaker's usual pitch to the middle of a singer's range."""
    lowest, highest = {
        "chest": (5.0, 12.0),
        "belt": (9.5, 16.0),
        "airy": (5.0, 12.0),
        "falsetto": (13.0, 19.0),
        "low": (-1.0, 4.0),
    }[register]
    return float(rng.uniform(lowest, highest))


def choose_timbre(
    rng: np.random.Generator, formants: float, style: str, register: str = "chest"
) -> Timbre:
    """How a singer sounds, by the style of the song."""
    corrected = rng.random() < {"electronic": 0.15, "hiphop": 0.2, "pop": 0.08}.get(style, 0.01)
    plain = rng.random() < 0.08
    rough = {"metal": 0.4, "rock": 0.25, "indie": 0.15}.get(style, 0.08)
    rough *= {"belt": 2.0, "chest": 1.0, "low": 1.0}.get(register, 0.0)
    lift, tilt, breath, clarity = {
        "chest": ((2.0, 9.0), (0.0, 4.0), (0.0, 0.1), (1.2, 2.4)),
        "belt": ((7.0, 14.0), (0.5, 4.0), (0.0, 0.05), (1.8, 4.0)),
        "airy": ((1.0, 7.0), (1.0, 4.5), (0.2, 0.6), (0.8, 1.4)),
        "falsetto": ((-2.0, 4.0), (-2.5, 2.0), (0.0, 0.4), (1.2, 2.4)),
        "low": ((3.0, 10.0), (0.0, 4.0), (0.0, 0.15), (1.2, 2.4)),
    }[register]
    return Timbre(
        formants=formants,
        shifts=draw_shifts(rng),
        lift=float(rng.uniform(*lift)),
        ring=float(rng.uniform(2.0, 9.0)) if rng.random() < 0.4 else 0.0,
        nasal=float(rng.uniform(3.0, 9.0)) if rng.random() < 0.3 else 0.0,
        tilt=float(rng.uniform(*tilt)),
        breath=float(rng.uniform(*breath)),
        rasp=float(rng.uniform(0.1, 0.6)) if rng.random() < rough else 0.0,
        clarity=float(rng.uniform(*clarity)),
        vibrato=0.0 if plain else float(np.exp(rng.uniform(np.log(20.0), np.log(90.0)))),
        rate=float(rng.uniform(4.5, 6.8)),
        onset=float(rng.uniform(0.08, 0.45)),
        glide=float(rng.uniform(0.01, 0.02)) if corrected else float(rng.uniform(0.04, 0.12)),
        evenness=float(rng.uniform(0.45, 0.85)),
    )


def another(timbre: Timbre, rng: np.random.Generator) -> Timbre:
    """Somebody else of the same choir."""
    return replace(
        timbre,
        formants=timbre.formants * float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12)),
        shifts=draw_shifts(rng),
        lift=timbre.lift * float(rng.uniform(0.5, 1.0)),
        breath=max(timbre.breath, float(rng.uniform(0.0, 0.3))),
        rate=float(rng.uniform(4.5, 6.8)),
        onset=float(rng.uniform(0.08, 0.45)),
    )
