"""The singers of a song: whose voice it is, in what range, and how the studio treats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..studio import effects
from ..studio.plan import SAMPLE_RATE, Plan
from ..studio.sources import Library
from . import bodies, singing, speakers, takes, vocoder
from .melody import Phrase, Tone

LEADS = "everythingisfree/*/vocals_lead.ogg"
SINGERS = "vocadito/**/*.ogg"
# Phrases of a performance that lend their words to a song.
_NB_PHRASES = 6
_LOWEST, _HIGHEST = 38, 81
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

    voice: vocoder.Frames
    words: list[vocoder.Syllable]
    timbre: bodies.Timbre
    middle: float
    spoken: float = 0.0
    next_word: int = 0

    def words_for(self, phrase: Phrase) -> list[vocoder.Syllable]:
        """The next words of the song."""
        needed = sum(not tone.tied for tone in phrase) or 1
        if self.next_word + needed > len(self.words):
            self.next_word = 0
        found = self.words[self.next_word : self.next_word + needed]
        self.next_word += needed
        return found

    def another(self, rng: np.random.Generator) -> Singer:
        """Somebody else with the same words."""
        return replace(self, timbre=bodies.another(self.timbre, rng))

    def sing(
        self,
        phrase: Phrase,
        words: Sequence[vocoder.Syllable],
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


def from_speech(plan: Plan, library: Library, rng: np.random.Generator, rap: bool) -> Singer:
    """A speaker of whom WORLD makes a singer, or a rapper."""
    name = speakers.choose(rng)
    register = "chest" if rap else bodies.choose_register(rng, plan.style)
    timbre = bodies.choose_timbre(rng, _length(rng, register), plan.style, register)
    timbre = replace(timbre, top=speakers.top(name))
    height = float(rng.uniform(-1.0, 3.0)) if rap else bodies.draw_height(rng, register)
    singer = _singer(speakers.words(library, name, rng), timbre, height)
    singer.spoken = 0.75 if rap else 0.0
    return singer


def _length(rng: np.random.Generator, register: str) -> float:
    """Factor of the formants; deep voices have large bodies."""
    length = bodies.draw_length(rng)
    return min(length, 2.0 - length) if register == "low" else length


def from_performance(
    plan: Plan, library: Library, rng: np.random.Generator, pattern: str
) -> Singer:
    """A recorded singer, whose words are sung to another melody."""
    paths = library.files(pattern)
    path = paths[rng.integers(len(paths))]
    found = [take for take in takes.phrases(library, path) if takes.voiced(library, take) > 0.3]
    voice = vocoder.frames(library, path)
    chosen = rng.permutation(len(found))[:_NB_PHRASES]
    parts = [
        voice.cut(int(found[i].start / vocoder.HOP), int(found[i].stop / vocoder.HOP))
        for i in chosen
    ] or [voice.cut(0, 4000)]
    register = bodies.choose_register(rng, plan.style)
    timbre = bodies.choose_timbre(rng, _length(rng, register), plan.style, register)
    # What was sung is bright already, and high.
    timbre = replace(timbre, lift=0.4 * timbre.lift, tilt=0.4 * timbre.tilt)
    return _singer(parts, timbre, bodies.draw_height(rng, register) - 4.0)


def _singer(parts: Sequence[vocoder.Frames], timbre: bodies.Timbre, height: float) -> Singer:
    words: list[vocoder.Syllable] = []
    offset = 0
    for part in parts:
        words += [
            vocoder.Syllable(*(offset + place for place in (w.begin, w.vowel, w.close, w.end)))
            for w in vocoder.syllables(part)
        ]
        offset += len(part.f0)
    voice = vocoder.joined(parts)
    spoken = voice.f0[voice.f0 > 0]
    usual = 69.0 + 12.0 * np.log2(np.median(spoken) / 440.0) if len(spoken) else 57.0
    body = 12.0 * np.log2(timbre.formants)
    middle = float(np.clip(usual + 1.3 * body + height, _LOWEST + 7, _HIGHEST - 7))
    if not words:
        words = [vocoder.Syllable(0, len(voice.f0) // 3, len(voice.f0) // 2, len(voice.f0) - 1)]
    return Singer(voice, words, timbre, middle)


def recorded(
    library: Library, rng: np.random.Generator, path: Path, voice_share: float = 0.25
) -> list[takes.Take]:
    """Phrases of a recording that contain voice, from a random one on, in their order."""
    found = takes.phrases(library, path)
    kept = [take for take in found if takes.voiced(library, take) >= voice_share] or found
    first = int(rng.integers(len(kept))) if kept else 0
    return kept[first:] + kept[:first]


def played(
    plan: Plan, library: Library, rng: np.random.Generator, found: Sequence[takes.Take]
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
    formants = bodies.draw_length(rng)
    timbre = bodies.choose_timbre(rng, formants, plan.style)
    timbre = replace(timbre, lift=0.4 * timbre.lift, tilt=0.4 * timbre.tilt)
    f0 = np.concatenate([takes.pitches(library, take) for take in found[:12]] or [np.zeros(1)])
    shift = takes.shift_into(plan, f0, 2.0)
    shift += float(rng.choice((-3.0, 0.0, 0.0, 2.0, 4.0, 6.0))) + 12.0 * np.log2(formants)
    stretch = float(rng.uniform(0.9, 1.25))
    strength = float(rng.choice((0.0, 0.6, 0.9, 1.0)))
    out, total = [], 0
    for take in found:
        voice = vocoder.frames(library, take.path)
        voice = voice.cut(int(take.start / vocoder.HOP), int(take.stop / vocoder.HOP))
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
    name = str(rng.choice(speakers.complete()))
    paths = library.files(f"{name}/*.ogg")
    factor = float(rng.uniform(0.86, 1.16))
    out = []
    for index in rng.choice(len(paths), 14):
        sound = effects.respeed(library.load(paths[index]), factor)
        sound = effects.faded(effects.normalise(sound, _LEVEL), 0.01, 0.03)
        out.append((takes.first_stress(sound), sound))
    return out
