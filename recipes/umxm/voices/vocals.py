"""The *vocals* stem: lead singers, their doubles and harmonies, backing voices, choirs, chops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..studio import effects
from ..studio.plan import SAMPLE_RATE, Plan, Section
from ..studio.sources import Library
from . import singers, singing, takes, vocal_studio, vocoder
from .melody import Composer, Phrase, harmony
from .singers import Singer
from .vocal_studio import LEVEL

# Who leads, and how often: recorded singers of produced songs (as they are; as other bodies; with
# other melodies), speech made sung, rhythmic and plain speech, real amateurs, growls.
_KINDS = ("stems", "stems resung", "stems singing", "speech", "rap", "talk", "amateur", "growl")
_SHARES = (0.1, 0.13, 0.15, 0.48, 0.04, 0.01, 0.08, 0.01)
_METAL = (0.08, 0.12, 0.14, 0.47, 0.01, 0.01, 0.07, 0.1)
_HIPHOP = (0.1, 0.1, 0.12, 0.28, 0.28, 0.04, 0.07, 0.01)
_MELODIC = ("stems singing", "speech", "rap")
# Backing stems that are voices; in the others they are buried in effects.
_BACKING = ("1.Hydrogen", "4.Potassium", "5.Rubidium", "6.Caesium")
# Seconds before and after its sections in which the voice may be heard.
_BEFORE, _AFTER = 0.35, 0.9


@dataclass
class _Tracks:
    """What is on the tape: stereo tracks of the whole song, not yet treated."""

    lead: np.ndarray
    doubles: np.ndarray
    backing: np.ndarray
    pads: np.ndarray


def render(plan: Plan, library: Library) -> np.ndarray:
    """Sing a song.

    Parameters
    ----------
    plan : Plan
        The song.
    library : Library
        Recorded sounds.

    Returns
    -------
    ndarray [shape=(2, nb_timesteps)], float32
    """
    sections = [section for section in plan.sections if "vocals" in section.stems]
    if not sections:
        return plan.silence()
    rng = plan.rng("vocals")
    tracks = _Tracks(*(plan.silence() for _ in range(4)))
    kind = _choose_kind(plan, rng)
    guest = _choose_kind(plan, rng) if rng.random() < 0.3 else kind
    names = sorted({section.name for section in sections})
    guest_in = str(rng.choice(names))
    for voice, turn in ((kind, 0), (guest, 1)):
        sung = [s for s in sections if (s.name == guest_in and guest != kind) == bool(turn)]
        if not sung:
            continue
        if voice in _MELODIC:
            singer = _melodic(plan, library, rng, voice)
            _sing(plan, sung, singer, tracks, rng)
        else:
            _perform(plan, library, sung, voice, tracks, rng)
    if rng.random() < 0.35:
        _add_backing(plan, library, sections, tracks, rng)
    if rng.random() < {"electronic": 0.3, "ballad": 0.3, "metal": 0.1}.get(plan.style, 0.2):
        _add_pads(plan, library, sections, tracks, rng)
    if rng.random() < {"electronic": 0.25, "pop": 0.08, "hiphop": 0.08}.get(plan.style, 0.02):
        _add_chops(plan, library, sections, tracks, rng)
    return _mixed(plan, sections, tracks, rng)


def _choose_kind(plan: Plan, rng: np.random.Generator) -> str:
    shares = {"metal": _METAL, "hiphop": _HIPHOP}.get(plan.style, _SHARES)
    return _KINDS[rng.choice(len(_KINDS), p=np.array(shares) / np.sum(shares))]


def _melodic(plan: Plan, library: Library, rng: np.random.Generator, kind: str) -> Singer:
    if kind == "stems singing":
        pattern = singers.SINGERS if rng.random() < 0.35 else singers.LEADS
        return singers.from_performance(plan, library, rng, pattern)
    return singers.from_speech(plan, library, rng, rap=kind == "rap")


def _sing(
    plan: Plan, sections: list[Section], singer: Singer, tracks: _Tracks, rng: np.random.Generator
) -> None:
    """Sing written melodies, in choruses often with doubles and harmonies."""
    composer = Composer(plan, rng, singer.middle - 7.0, singer.middle + 7.0)
    rap = singer.spoken > 0
    doubled = {name: rng.random() < share for name, share in _shares(0.2, 0.55).items()}
    octave = rng.random() < 0.15
    voices = rng.choice((-4, -3, -2, 2, 2, 3, 4), int(rng.choice((0, 1, 1, 2))), replace=False)
    harmonised = {name: rng.random() < share for name, share in _shares(0.08, 0.5).items()}
    # The choir: the singer again, or other people.
    choir = [singer] * 2
    if rng.random() < 0.6:
        choir = [singer.another(rng) for _ in choir]
    answers = rng.random() < 0.25
    # Choruses of one or two syllables: oh oh, la la.
    hook = _clear_vowels(singer, 6)[: int(rng.integers(1, 3))] if rng.random() < 0.15 else []
    breaths = float(rng.choice((0.0, 0.5, 0.9)))
    for section in sections:
        chorus = section.name == "chorus"
        for phrase in composer.phrases(section, rap):
            words = hook if hook and chorus else singer.words_for(phrase)
            start, sound = singer.sing(phrase, words, rng, breath=rng.random() < breaths)
            sound *= np.float32(effects.decibels(rng.normal(0.0, 1.0) + 2.0 * section.energy))
            effects.place(tracks.lead, effects.stereo(sound), start)
            if doubled.get(section.name, False):
                for side in (-1.0, 1.0):
                    body = float(rng.normal(1.0, 0.012))
                    start, sound = singer.sing(phrase, words, rng, body=body, late=0.015)
                    sound = effects.pan(sound, side * float(rng.uniform(0.5, 1.0)))
                    effects.place(tracks.doubles, sound, start, 0.7)
            if harmonised.get(section.name, False) and not rap:
                lines = [harmony(plan, phrase, int(steps)) for steps in voices]
                if octave and chorus:
                    lines.append(harmony(plan, phrase, -7 if singer.middle > 60 else 7))
                for place, line in enumerate(lines):
                    _harmonise(line, words, choir[place % 2], tracks, rng)
            if answers and rng.random() < 0.5:
                _answer(plan, section, phrase, words, choir[0], tracks, rng)


def _shares(verse: float, chorus: float) -> dict[str, float]:
    return {"verse": verse, "chorus": chorus, "bridge": 0.5 * (verse + chorus), "intro": verse}


def _harmonise(
    line: Phrase,
    words: list[vocoder.Syllable],
    singer: Singer,
    tracks: _Tracks,
    rng: np.random.Generator,
) -> None:
    body = float(np.clip(rng.normal(1.0, 0.04), 0.9, 1.1))
    start, sound = singer.sing(line, words, rng, body=body, late=0.018)
    side = float(rng.choice((-1.0, 1.0)) * rng.uniform(0.2, 1.0))
    effects.place(tracks.backing, effects.pan(sound, side), start)
    if rng.random() < 0.5:
        # A second pass of the same line on the other side, from a slightly other speed.
        again = effects.respeed(sound, 2.0 ** (float(rng.normal(0.0, 0.06)) / 12.0))
        delay = start + float(rng.uniform(0.008, 0.028))
        effects.place(tracks.backing, effects.pan(again, -side), delay, 0.9)


def _answer(
    plan: Plan,
    section: Section,
    phrase: Phrase,
    words: list[vocoder.Syllable],
    singer: Singer,
    tracks: _Tracks,
    rng: np.random.Generator,
) -> None:
    """Repeat the end of a phrase in the pause after it, softly, by other voices."""
    tail = phrase[-min(len(phrase), int(rng.integers(1, 4))) :]
    end = phrase[-1].start + phrase[-1].duration
    delay = np.ceil((end - tail[0].start) / plan.beat) * plan.beat
    over = plan.seconds(section.first_bar + section.nb_bars)
    moved = tuple(
        type(tone)(tone.start + delay, tone.duration, tone.pitch, tone.tied)
        for tone in tail
        if tone.start + delay + tone.duration < over
    )
    if not moved:
        return
    for steps in rng.choice((0, 2, 4), int(rng.integers(1, 3)), replace=False):
        _harmonise(harmony(plan, moved, int(steps)), words[-len(moved) :], singer, tracks, rng)


def _perform(
    plan: Plan,
    library: Library,
    sections: list[Section],
    kind: str,
    tracks: _Tracks,
    rng: np.random.Generator,
) -> None:
    """Set recorded phrases on the beats."""
    if kind == "growl":
        sounds = singers.growled(library, rng)
    elif kind == "talk":
        sounds = singers.talked(library, rng)
    else:
        paths = library.files(singers.SINGERS if kind == "amateur" else singers.LEADS)
        found = singers.recorded(library, rng, paths[rng.integers(len(paths))])
        if kind == "stems resung" or (kind == "amateur" and rng.random() < 0.6):
            sounds = singers.resung(plan, library, rng, found)
        else:
            sounds = singers.played(plan, library, rng, found)
    doubled = {name: rng.random() < share for name, share in _shares(0.15, 0.5).items()}
    turn = 0
    for section in sections:
        rest = 0.4 if kind == "growl" else 1.0
        placed = takes.setting(plan, section, sounds[turn:] + sounds[:turn], rng, rest)
        turn = (turn + len(placed)) % max(len(sounds), 1)
        for start, sound in placed:
            sound = effects.faded(effects.stereo(sound), 0.005, 0.05)
            effects.place(tracks.lead, sound, start)
            if doubled.get(section.name, False):
                for side in (-1.0, 1.0):
                    again = effects.respeed(sound, 2.0 ** (float(rng.normal(0.0, 0.08)) / 12.0))
                    late = start + float(rng.uniform(0.008, 0.03))
                    middle = again.mean(axis=0, keepdims=True)
                    effects.place(tracks.doubles, effects.pan(middle, side), late, 0.7)


def _add_backing(
    plan: Plan, library: Library, sections: list[Section], tracks: _Tracks, rng: np.random.Generator
) -> None:
    """Choirs of produced songs behind some sections."""
    name = str(rng.choice(_BACKING, p=(0.4, 0.25, 0.2, 0.15)))
    found = takes.phrases(library, library.files(f"everythingisfree/{name}/vocals_bg.ogg")[0], 26.0)
    if not found:
        return
    first = int(rng.integers(len(found)))
    factor = 2.0 ** (rng.uniform(-3.0, 3.0) / 12.0)
    sounds = []
    for take in found[first : first + 16]:
        sound = effects.respeed(take.sound(library), factor)
        sounds.append((takes.first_stress(sound), sound))
    for section in sections:
        if rng.random() < (0.8 if section.name in ("chorus", "break") else 0.35):
            for start, sound in takes.setting(plan, section, sounds, rng, rest=1.5):
                sound = effects.highpass(effects.stereo(sound), 140.0)
                effects.place(tracks.pads, effects.faded(sound, 0.005, 0.06), start, 0.9)


def _any_singer(plan: Plan, library: Library, rng: np.random.Generator) -> Singer:
    if rng.random() < 0.3:
        return singers.from_performance(plan, library, rng, singers.SINGERS)
    return singers.from_speech(plan, library, rng, rap=False)


def _clear_vowels(singer: Singer, count: int) -> list[vocoder.Syllable]:
    """The longest steady vowels among the words."""
    return sorted(singer.words, key=lambda word: word.vowel - word.close)[:count]


def _add_pads(
    plan: Plan, library: Library, sections: list[Section], tracks: _Tracks, rng: np.random.Generator
) -> None:
    """Choirs that hold the chords on one vowel."""
    singer = _any_singer(plan, library, rng)
    choir = [singer, singer.another(rng), singer.another(rng)]
    vowels = _clear_vowels(singer, 8)
    word = vowels[rng.integers(len(vowels))]
    chosen = [s for s in sections if s.name in ("chorus", "bridge", "break")] or sections
    lowest = int(np.clip(singer.middle - 7.0 + rng.integers(0, 5), 48, 67))
    kept: dict[tuple[int, int], np.ndarray] = {}
    length = int(rng.choice((1, 1, 2)))
    for section in chosen[:2]:
        for bar in range(section.first_bar, section.first_bar + section.nb_bars, length):
            bars = min(length, section.first_bar + section.nb_bars - bar)
            for turn, pitch in enumerate(plan.chords[bar].voicing(lowest)[:3]):
                key = (pitch, bars)
                if key not in kept:
                    seconds = bars * 4.0 * plan.beat + 0.15
                    body = choir[turn].timbre
                    sound = singing.vowel(singer.voice, word, float(pitch), seconds, body, rng)
                    kept[key] = effects.chorus(effects.normalise(sound), rng, 0.004, 0.5)
                sound = effects.pan(kept[key], (-0.5, 0.5, 0.0)[turn % 3])
                late = plan.seconds(bar) + float(rng.uniform(0.0, 0.03))
                effects.place(tracks.pads, sound, late, 0.45)


def _add_chops(
    plan: Plan, library: Library, sections: list[Section], tracks: _Tracks, rng: np.random.Generator
) -> None:
    """Short cuts of a voice played as an instrument, the same pattern in each bar."""
    singer = _any_singer(plan, library, rng)
    vowels = _clear_vowels(singer, 12)
    chosen = rng.choice(len(vowels), min(3, len(vowels)), replace=False)
    lowest = int(np.clip(singer.middle - 2.0 + rng.integers(0, 8), 52, 74))
    step = float(rng.choice((0.25, 0.5)))
    beats = [beat for beat in np.arange(0.0, 4.0, step) if rng.random() < 0.35 + 0.25 * step]
    tones = [int(rng.integers(0, 4)) for _ in beats]
    kept: dict[tuple[int, int], np.ndarray] = {}
    for section in sections[:3]:
        if rng.random() < 0.3:
            continue
        for bar in range(section.first_bar, section.first_bar + section.nb_bars):
            pitches = plan.chords[bar].voicing(lowest)
            for place, (beat, tone) in enumerate(zip(beats, tones, strict=True)):
                pitch = pitches[tone % 3]
                key = (pitch, place % len(chosen))
                if key not in kept:
                    word = vowels[chosen[key[1]]]
                    seconds = max(step * plan.beat * 1.1, 0.12)
                    sound = singing.vowel(
                        singer.voice, word, float(pitch), seconds, singer.timbre, rng
                    )
                    kept[key] = effects.faded(effects.normalise(sound), 0.004, 0.015)
                sound = effects.pan(kept[key], float(np.sin(2.0 * place)) * 0.6)
                effects.place(tracks.pads, sound, plan.seconds(bar, float(beat)), 0.8)


def _mixed(
    plan: Plan, sections: list[Section], tracks: _Tracks, rng: np.random.Generator
) -> np.ndarray:
    """Treat the tracks and mix them."""
    lead = vocal_studio.treated(tracks.lead, plan, rng)
    wide = effects.highpass(tracks.doubles + tracks.backing, float(rng.uniform(120, 250)))
    if np.any(wide):
        wide = vocal_studio.balanced(effects.random_eq(wide, rng, 3.0), rng)
        wide = effects.compress(wide, -26.0, 4.0)
    pads = tracks.pads
    if np.any(pads):
        pads = vocal_studio.balanced(effects.random_eq(pads, rng, 4.0), rng)
    mix = effects.normalise(lead, LEVEL)
    # The lead stands in the middle, and in front: in six finished productions the sides of lead
    # voices were 14 to 26 dB under the middle.
    mix = mix + effects.decibels(rng.uniform(-18.0, -7.0)) * effects.normalise(wide, LEVEL)
    mix += effects.decibels(rng.uniform(-20.0, -9.0)) * effects.normalise(pads, LEVEL)
    mix = vocal_studio.special(mix.astype(np.float32), plan, sections, rng)
    mix = vocal_studio.spaced(mix, plan, rng)
    return effects.normalise(mix * _gate(plan, sections), LEVEL).astype(np.float32)


def _gate(plan: Plan, sections: list[Section]) -> np.ndarray:
    """Factor over time: 1 in the sections that have voices, with a little before and after."""
    gate = np.zeros(plan.nb_timesteps, np.float32)
    for section in sections:
        first = plan.seconds(section.first_bar) - _BEFORE
        last = plan.seconds(section.first_bar + section.nb_bars)
        time = np.arange(
            max(int(first * SAMPLE_RATE), 0),
            min(int((last + _AFTER) * SAMPLE_RATE), plan.nb_timesteps),
        )
        seconds = time / SAMPLE_RATE
        opening = np.clip((seconds - first) / 0.05, 0.0, 1.0)
        closing = np.clip((last + _AFTER - seconds) / _AFTER, 0.0, 1.0) ** 2
        gate[time] = np.maximum(gate[time], np.minimum(opening, closing))
    return gate
