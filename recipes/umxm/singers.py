"""The singers of a song: whose voice it is, in what range, and how the studio treats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from . import effects, singing, takes
from .melody import Phrase, Tone
from .plan import SAMPLE_RATE, Plan
from .sources import Library

# Where speech comes from, and up to which frequency it reaches.
SPEECH = {
    "speech_kathleen": 20000.0,
    "speech_kerstin": 6100.0,
    "speech_nathalie": 20000.0,
    "speech_flemishguy": 10000.0,
}
_SPEECH_SHARES = (0.27, 0.2, 0.26, 0.27)
# Speech that is used as it is must have its top.
_TALKING = 10000.0
LEADS = "everythingisfree/*/vocals_lead.ogg"
SINGERS = "vocadito/**/*.ogg"
# Recordings of speech that lend their words to a song.
_NB_RECORDINGS = 6
_LOWEST, _HIGHEST = 43, 79
# What a phrase is scaled to before the mix.
_LEVEL = -20.0


@dataclass
class Singer:
    """Somebody who can sing any phrase.

    Attributes
    ----------
    voice : Frames
        What the words are taken from.
    words : list of Syllable
        Found in the voice.
    timbre : Timbre
        How it sounds.
    middle : float
        MIDI pitch in the middle of the range.
    spoken : float
        Share of the speaker's own intonation.
    """

    voice: singing.Frames
    words: list[singing.Syllable]
    timbre: singing.Timbre
    middle: float
    spoken: float = 0.0
    next_word: int = 0

    def words_for(self, phrase: Phrase) -> list[singing.Syllable]:
        """The next words of the song."""
        needed = sum(not tone.tied for tone in phrase) or 1
        if self.next_word + needed > len(self.words):
            self.next_word = 0
        found = self.words[self.next_word : self.next_word + needed]
        self.next_word += needed
        return found

    def sing(
        self,
        phrase: Phrase,
        words: Sequence[singing.Syllable],
        rng: np.random.Generator,
        breath: bool = False,
        body: float = 1.0,
        late: float = 0.0,
    ) -> tuple[float, np.ndarray]:
        """Sing a phrase: second at which the sound begins, and the sound at an even level.

        Parameters
        ----------
        body : float
            Factor of the formants: another singer of the same words.
        late : float
            Spread in seconds of the single tones.
        """
        if late > 0:
            phrase = _loosened(phrase, rng, late)
        timbre = replace(self.timbre, formants=self.timbre.formants * body)
        start, sound = singing.sing(
            self.voice, words, phrase, timbre, rng, breath, spoken=self.spoken
        )
        return start, effects.normalise(sound, _LEVEL)


def _loosened(phrase: Phrase, rng: np.random.Generator, spread: float) -> Phrase:
    """Tones a little early or late, as another performance has them."""
    shifts = np.clip(rng.normal(0.0, spread, len(phrase) + 1), -0.06, 0.06)
    out = []
    for place, tone in enumerate(phrase):
        begin = tone.start + shifts[place]
        end = tone.start + tone.duration + shifts[place + 1]
        out.append(Tone(begin, max(end - begin, 0.06), tone.pitch, tone.tied))
    return tuple(out)


def choose_timbre(rng: np.random.Generator, formants: float, style: str) -> singing.Timbre:
    """How a singer sounds, by the style of the song."""
    corrected = rng.random() < {"electronic": 0.3, "hiphop": 0.35, "pop": 0.15}.get(style, 0.03)
    plain = rng.random() < 0.15
    return singing.Timbre(
        formants=formants,
        ring=float(rng.uniform(3.0, 9.0)) if rng.random() < 0.35 else 0.0,
        tilt=float(rng.uniform(0.5, 4.5)),
        breath=float(rng.uniform(0.4, 0.75)) if rng.random() < 0.08 else 0.0,
        clarity=float(rng.uniform(1.0, 2.2)),
        vibrato=0.0 if plain else float(rng.uniform(18.0, 60.0)),
        rate=float(rng.uniform(4.9, 6.3)),
        glide=0.0 if corrected else float(rng.uniform(0.05, 0.11)),
        evenness=float(rng.uniform(0.45, 0.8)),
    )


def from_speech(plan: Plan, library: Library, rng: np.random.Generator, rap: bool) -> Singer:
    """A speaker of whom WORLD makes a singer, or a rapper."""
    name = str(rng.choice(list(SPEECH), p=_SPEECH_SHARES))
    paths = library.files(f"{name}/*.ogg")
    chosen = rng.choice(len(paths), min(_NB_RECORDINGS, len(paths)), replace=False)
    parts = [singing.frames(library, paths[index]) for index in chosen]
    formants = float(np.exp(rng.uniform(np.log(0.82), np.log(1.15))))
    timbre = replace(choose_timbre(rng, formants, plan.style), top=SPEECH[name])
    return _singer(parts, timbre, rng, rap)


def from_performance(
    plan: Plan, library: Library, rng: np.random.Generator, pattern: str
) -> Singer:
    """A recorded singer, whose words are sung to another melody."""
    paths = library.files(pattern)
    path = paths[rng.integers(len(paths))]
    found = [take for take in takes.phrases(library, path) if takes.voiced(library, take) > 0.3]
    voice = singing.frames(library, path)
    chosen = rng.permutation(len(found))[:_NB_RECORDINGS]
    parts = [
        voice.cut(int(found[i].start / singing.HOP), int(found[i].stop / singing.HOP))
        for i in chosen
    ] or [voice.cut(0, 4000)]
    formants = float(np.exp(rng.uniform(np.log(0.84), np.log(1.17))))
    return _singer(parts, choose_timbre(rng, formants, plan.style), rng, rap=False)


def _singer(
    parts: Sequence[singing.Frames],
    timbre: singing.Timbre,
    rng: np.random.Generator,
    rap: bool,
) -> Singer:
    words: list[singing.Syllable] = []
    offset = 0
    for part in parts:
        words += [
            singing.Syllable(*(offset + place for place in (w.begin, w.vowel, w.close, w.end)))
            for w in singing.syllables(part)
        ]
        offset += len(part.f0)
    voice = singing.joined(parts)
    spoken = voice.f0[voice.f0 > 0]
    usual = 69.0 + 12.0 * np.log2(np.median(spoken) / 440.0) if len(spoken) else 57.0
    body = 12.0 * np.log2(timbre.formants)
    middle = usual + 1.3 * body + (rng.uniform(-1.0, 3.0) if rap else rng.uniform(3.0, 10.0))
    middle = float(np.clip(middle, _LOWEST + 7, _HIGHEST - 7))
    if not words:
        words = [singing.Syllable(0, len(voice.f0) // 3, len(voice.f0) // 2, len(voice.f0) - 1)]
    return Singer(voice, words, timbre, middle, spoken=0.75 if rap else 0.0)


def recorded(
    library: Library, rng: np.random.Generator, path: Path, voice_share: float = 0.25
) -> list[takes.Take]:
    """Phrases of a recording that contain voice, from a random one on, in their order."""
    found = takes.phrases(library, path)
    kept = [take for take in found if takes.voiced(library, take) >= voice_share] or found
    first = int(rng.integers(len(kept))) if kept else 0
    return kept[first:] + kept[:first]


def played(
    plan: Plan,
    library: Library,
    rng: np.random.Generator,
    found: Sequence[takes.Take],
) -> list[tuple[float, np.ndarray]]:
    """Phrases at another speed, mostly one that fits the key: seconds to the stress, and sound."""
    f0 = np.concatenate([takes.pitches(library, take) for take in found[:12]] or [np.zeros(1)])
    shift = takes.shift_into(plan, f0)
    if rng.random() < 0.4:
        shift = float(rng.uniform(-3.0, 3.0))
    factor = 2.0 ** (shift / 12.0)
    out = []
    for take in found:
        sound = effects.normalise(effects.respeed(take.sound(library), factor), _LEVEL)
        out.append((takes.first_stress(sound), sound))
        if sum(s.shape[-1] for _, s in out) > plan.nb_timesteps:
            break
    return out


def resung(
    plan: Plan, library: Library, rng: np.random.Generator, found: Sequence[takes.Take]
) -> list[tuple[float, np.ndarray]]:
    """Performances by another body at another pitch, corrected towards the key."""
    formants = float(np.exp(rng.uniform(np.log(0.82), np.log(1.18))))
    timbre = choose_timbre(rng, formants, plan.style)
    f0 = np.concatenate([takes.pitches(library, take) for take in found[:12]] or [np.zeros(1)])
    shift = takes.shift_into(plan, f0, 2.0)
    shift += float(rng.choice((-5.0, -3.0, 0.0, 0.0, 2.0, 4.0))) + 12.0 * np.log2(formants)
    stretch = float(rng.uniform(0.9, 1.25))
    strength = float(rng.choice((0.0, 0.6, 0.9, 1.0)))
    out, total = [], 0
    for take in found:
        voice = singing.frames(library, take.path)
        voice = voice.cut(int(take.start / singing.HOP), int(take.stop / singing.HOP))
        sound = singing.retuned(voice, shift, stretch, timbre, plan.scale, strength)
        sound = effects.faded(effects.normalise(sound, _LEVEL), 0.01, 0.03)
        out.append((takes.first_stress(sound), sound))
        total += sound.shape[-1]
        if total > 0.8 * plan.nb_timesteps:
            break
    return out


def growled(library: Library, rng: np.random.Generator) -> list[tuple[float, np.ndarray]]:
    """Growled words one after another at one speed."""
    paths = [
        p for p in library.files("merry_orks/samples/*/*.ogg") if p.parent.name != "consonants"
    ]
    paths = [path for path in paths if "inhale" not in path.name]
    factor = float(rng.uniform(0.72, 1.12))
    out = []
    for index in rng.choice(len(paths), 30):
        sound = library.load(paths[index])
        if sound.shape[-1] < 0.15 * SAMPLE_RATE:
            continue
        sound = effects.faded(effects.respeed(sound[:, : 6 * SAMPLE_RATE], factor), 0.005, 0.03)
        sound = effects.normalise(sound, _LEVEL)
        out.append((takes.first_stress(sound), sound))
    return out


def talked(library: Library, rng: np.random.Generator) -> list[tuple[float, np.ndarray]]:
    """Plain speech at another speed."""
    name = str(rng.choice([name for name, top in SPEECH.items() if top >= _TALKING]))
    paths = library.files(f"{name}/*.ogg")
    factor = float(rng.uniform(0.86, 1.16))
    out = []
    for index in rng.choice(len(paths), 14):
        sound = effects.respeed(library.load(paths[index]), factor)
        sound = effects.faded(effects.normalise(sound, _LEVEL), 0.01, 0.03)
        out.append((takes.first_stress(sound), sound))
    return out
