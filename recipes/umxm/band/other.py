"""The *other* stem: everything that is neither voice, drums nor bass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..studio import effects, gm_notes, movement
from ..studio.notes import Note, moved
from ..studio.plan import SAMPLE_RATE, Plan, Section
from ..studio.sources import Library
from . import freedoom, guitars, parts, performances, soundfonts, synths

# How often a layer of a band is of a kind, by style: real electric guitar, acoustic guitar,
# instruments of soundfonts, synthesizers.
_KINDS = ("electric", "acoustic", "soundfont", "synth")
_MIXTURES = {
    "pop": (0.28, 0.16, 0.31, 0.25),
    "rock": (0.7, 0.08, 0.17, 0.05),
    "electronic": (0.06, 0.02, 0.27, 0.65),
    "ballad": (0.2, 0.25, 0.45, 0.1),
    "metal": (0.85, 0.03, 0.07, 0.05),
    "funk": (0.45, 0.03, 0.42, 0.1),
    "hiphop": (0.15, 0.06, 0.44, 0.35),
    "indie": (0.5, 0.15, 0.2, 0.15),
}
# dB by which a stem's peaks may be over its level.
_CREST = 17.0
# How often the instruments that carry a melody rest while somebody sings, as arrangers have it: the
# melody is the singer's then.
_YIELDING = 0.75
# Share of synthesizer layers whose filter moves in time with the song.
_MOVING = 0.3
# How often the stem comes from recorded guitars or electronic songs, with few layers added.
_PERFORMED = {
    "pop": (0.1, 0.15), "rock": (0.35, 0.02), "electronic": (0.02, 0.35), "ballad": (0.06, 0.12),
    "metal": (0.35, 0.02), "funk": (0.1, 0.1), "hiphop": (0.03, 0.3), "indie": (0.2, 0.12),
}  # fmt: skip
# How often the band plays what people wrote for Freedoom; nothing else is written then.
_SCORED = {
    "pop": 0.06, "rock": 0.25, "electronic": 0.2, "ballad": 0.03, "metal": 0.4, "funk": 0.05,
    "hiphop": 0.08, "indie": 0.1,
}  # fmt: skip
_GUITAR_PROGRAMS = range(26, 32)
_SYNTH_PROGRAMS = range(80, 104)
# Manners of an electric guitar and dB of drive, by style.
_MANNERS: dict[str, tuple[str, ...]] = {
    "pop": ("strum", "pick", "funk", "power", "lead", "power"),
    "rock": ("power", "chug", "strum", "riff", "lead", "power"),
    "electronic": ("pick", "funk", "power", "lead"),
    "ballad": ("pick", "strum", "pick", "lead"),
    "metal": ("chug", "chug", "riff", "power", "lead"),
    "funk": ("funk", "funk", "riff", "strum", "lead"),
    "hiphop": ("pick", "funk", "riff", "lead"),
    "indie": ("strum", "pick", "strum", "power", "riff", "lead"),
}
_GAINS = {
    "pop": (0, 22), "rock": (8, 30), "electronic": (0, 22), "ballad": (0, 14), "metal": (22, 38),
    "funk": (0, 8), "hiphop": (0, 12), "indie": (2, 20),
}  # fmt: skip


# Plays some sections; and whether what it plays is a melody.
_Player = tuple[Callable[[list[Section]], np.ndarray], bool]


@dataclass(frozen=True)
class _Layer:
    """One instrument of the band.

    Attributes
    ----------
    play : callable
        Gives the finished sound in some sections, shape ``(2, nb_timesteps)``.
    level : float
        dB.
    send : float
        dB of the room.
    leads : bool
        Whether it carries a melody.
    """

    play: Callable[[list[Section]], np.ndarray]
    level: float
    send: float
    leads: bool = False


def render(plan: Plan, library: Library) -> np.ndarray:
    """Play and mix the stem.

    Parameters
    ----------
    plan : Plan
    library : Library

    Returns
    -------
    ndarray [shape=(2, nb_timesteps)], float32
        At -20 dB where it sounds; silent in sections without it.
    """
    rng = plan.rng("other")
    sounding = [section for section in plan.sections if "other" in section.stems]
    if not sounding:
        return plan.silence()
    layers = _band(plan, library, rng)
    dry, wet = plan.silence(), plan.silence()
    for layer, sections in zip(layers, _arranged(layers, sounding, rng), strict=True):
        if sections:
            audio = effects.normalise(layer.play(sections), layer.level)
            dry += audio
            wet += audio * np.float32(effects.decibels(layer.send))
    response = effects.room(rng, rng.uniform(0.4, 2.6), rng.uniform(2500, 9000), 0.01)
    audio = dry + effects.reverb(wet, response, 0.0) - wet
    audio = _finished(audio, rng)
    return effects.normalise(audio * _opened(plan), -20.0).astype(np.float32)


def _band(plan: Plan, library: Library, rng: np.random.Generator) -> list[_Layer]:
    """Draw the instruments, the leading one first."""
    recorded_guitar, recorded_song = _PERFORMED[plan.style]
    drawn = rng.random()
    layers: list[_Layer] = []
    count = int(rng.integers(3, 7))
    if drawn < recorded_guitar + recorded_song:
        perform = performances.guitar if drawn < recorded_guitar else performances.electronic
        # The same state at each call: the performance does not hang on the other layers.
        seed = int(rng.integers(2**31))

        def performed(sections: list[Section]) -> np.ndarray:
            own = np.random.default_rng(seed)
            return effects.random_eq(perform(plan, library, sections, own), own, 5.0)

        layers.append(_Layer(performed, 0.0, rng.uniform(-40, -16)))
        count = int(rng.choice((1, 1, 2, 3)))
    elif rng.random() < _SCORED[plan.style]:
        layers = _scored(plan, library, rng)
        count = len(layers) or count
    names = rng.choice(_KINDS, count, p=_MIXTURES[plan.style])
    for index in range(len(layers), count):
        play, leads = _PLAYERS[str(names[index])](plan, library, rng, f"other {index}")
        quieter = rng.uniform(-9, 1) if index else 0.0
        layers.append(_Layer(play, quieter, rng.uniform(-30, -8), leads))
    if rng.random() < (0.5 if plan.style in ("electronic", "pop", "hiphop") else 0.12):
        layers.append(_sweeps(plan, rng))
    return layers


def _arranged(
    layers: list[_Layer], sections: list[Section], rng: np.random.Generator
) -> list[list[Section]]:
    """Which sections each layer plays: more layers where there is more energy."""
    chosen: list[list[Section]] = [[] for _ in layers]
    kept: dict[tuple[str, bool], list[int]] = {}
    yielding = rng.random() < _YIELDING
    for section in sections:
        accompanies = yielding and "vocals" in section.stems
        key = (section.name, accompanies)
        if key not in kept:
            wanted = int(np.clip(round(0.6 + 4.2 * section.energy + rng.normal(0, 0.6)), 1, 5))
            # Mostly the leading layers; others take their place now and then.
            order = np.argsort(np.arange(len(layers)) + rng.exponential(1.2, len(layers)))
            playing = [int(i) for i in order if not (accompanies and layers[i].leads)]
            kept[key] = (playing or [int(order[0])])[:wanted]
        for index in kept[key]:
            chosen[index].append(section)
    return chosen


def _finished(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the mixing engineer does to the sum."""
    if rng.random() < 0.35:
        audio = effects.compress(audio, rng.uniform(-26, -14), rng.uniform(1.5, 4.0))
    if rng.random() < 0.5:
        audio = effects.random_eq(audio, rng, 3.0)
    if rng.random() < 0.6:
        audio = effects.width(audio, rng.uniform(0.3, 1.1))
    audio = effects.high_shelf(audio, rng.uniform(5000, 9000), rng.uniform(-1, 6))
    audio = effects.highpass(audio, rng.uniform(50, 90))
    return audio * effects.limit(audio, effects.decibels(_CREST) * effects.rms(audio))


def _opened(plan: Plan) -> np.ndarray:
    """Gain of 1 in the sections in which the stem sounds and 0 elsewhere, without clicks."""
    gain = np.zeros(plan.nb_timesteps, np.float32)
    for section in plan.sections:
        if "other" in section.stems:
            first = int(plan.seconds(section.first_bar) * SAMPLE_RATE)
            last = int(plan.seconds(section.first_bar + section.nb_bars) * SAMPLE_RATE)
            gain[first:last] = 1.0
    ramp = int(0.01 * SAMPLE_RATE)
    edges = np.flatnonzero(np.diff(gain))
    for edge in edges:
        if gain[edge] > 0.5:
            first = max(0, int(edge) + 1 - ramp)
            gain[first : edge + 1] *= np.linspace(1, 0, edge + 1 - first, dtype=np.float32)
        else:
            last = min(len(gain), int(edge) + 1 + ramp)
            gain[edge + 1 : last] *= np.linspace(0, 1, last - edge - 1, dtype=np.float32)
    return gain


def _electric(plan: Plan, library: Library, rng: np.random.Generator, name: str) -> _Player:
    manner = str(rng.choice(_MANNERS[plan.style]))
    low, high = _GAINS[plan.style]
    gain = float(rng.uniform(low, high))
    if manner in ("chug", "power", "riff", "lead"):
        gain = max(gain, float(rng.uniform(6, 20)))
    elif manner in ("funk", "pick"):
        gain = min(gain, float(rng.uniform(0, 8)))
    double = rng.random() < {"chug": 0.9, "power": 0.8, "riff": 0.6, "strum": 0.45}.get(manner, 0.1)
    treatment = _treatment(plan, rng, 80.0, "lead" if manner == "lead" else "guitar")

    def play(sections: list[Section]) -> np.ndarray:
        notes: list[Note] = []
        for section in sections:
            own = plan.rng(f"{name} {section.name}")
            notes += guitars.rhythm_part(plan, section, own, manner)
        audio = guitars.electric(plan, library, notes, plan.rng(f"{name} sound"), gain, double)
        return treatment(audio)

    return play, manner == "lead"


def _acoustic(plan: Plan, library: Library, rng: np.random.Generator, name: str) -> _Player:
    manner = str(rng.choice(("strum", "strum", "pick")))
    double = rng.random() < 0.4
    treatment = _treatment(plan, rng, 90.0, "guitar")

    def play(sections: list[Section]) -> np.ndarray:
        notes: list[Note] = []
        for section in sections:
            own = plan.rng(f"{name} {section.name}")
            notes += guitars.rhythm_part(plan, section, own, manner)
        return treatment(guitars.acoustic(plan, library, notes, plan.rng(f"{name} sound"), double))

    return play, False


# What an instrument plays, by family: held chords, comping, stabs, arpeggios or melodies.
_ROLES = {
    "piano": ("comping", "comping", "comping", "arpeggio", "melody"),
    "electric piano": ("comping", "comping", "comping", "arpeggio"),
    "organ": ("held", "comping", "held"),
    "strings": ("held", "held", "melody", "stabs"),
    "brass": ("stabs", "stabs", "melody", "held"),
    "pad": ("held",),
    "lead": ("melody", "melody", "arpeggio"),
    "pluck": ("arpeggio", "arpeggio", "comping", "melody"),
    "mallet": ("arpeggio", "melody"),
    "guitar": ("arpeggio", "comping"),
    "distorted guitar": ("melody", "held"),
    "keys": ("comping", "comping", "arpeggio"),
    "stab": ("stabs", "comping"),
}
_FAMILY_WEIGHTS = (0.24, 0.13, 0.12, 0.16, 0.09, 0.05, 0.06, 0.05, 0.04, 0.04, 0.02)


def _written(plan: Plan, sections: list[Section], role: str, lowest: int, name: str) -> list[Note]:
    """Notes of a keyboard-like layer; the same in sections of the same name."""
    notes: list[Note] = []
    for section in sections:
        rng = plan.rng(f"{name} {section.name}")
        if role == "arpeggio":
            notes += parts.arpeggio(plan, section, lowest, rng)
        elif role == "melody":
            busy = rng.uniform(0.2, 0.9)
            centre = lowest + int(rng.integers(8, 20))
            notes += parts.melody(plan, section, centre, rng, busy, rng.random() < 0.3)
        else:
            choices = {"comping": parts.COMPING, "stabs": parts.STABS}.get(role)
            bars = choices[rng.integers(len(choices))] if choices else parts.COMPING[0]
            notes += parts.chords(plan, section, bars, lowest, int(rng.integers(3, 6)))
    return notes


def _soundfont(plan: Plan, library: Library, rng: np.random.Generator, name: str) -> _Player:
    families = tuple(soundfonts.FAMILIES)
    family = str(families[rng.choice(len(families), p=_FAMILY_WEIGHTS)])
    program = int(rng.choice(soundfonts.FAMILIES[family]))
    font = int(rng.integers(len(gm_notes.FONTS)))
    role = str(rng.choice(_ROLES[family]))
    lowest = int(rng.integers(48, 66)) if role != "melody" else int(rng.integers(55, 68))
    detune = float(rng.normal(0.0, 0.05))
    treatment = _treatment(plan, rng, rng.uniform(80, 180), family)

    def play(sections: list[Section]) -> np.ndarray:
        own = plan.rng(f"{name} sound")
        notes = moved(_written(plan, sections, role, lowest, name), own, own.uniform(0.002, 0.012))
        audio = soundfonts.play(library, font, program, notes, plan.nb_timesteps, detune)
        return treatment(effects.stereo(audio))

    return play, role == "melody"


def _synth(plan: Plan, library: Library, rng: np.random.Generator, name: str) -> _Player:
    kind = str(rng.choice(("pad", "pluck", "lead", "keys", "stab"), p=(0.3, 0.25, 0.2, 0.1, 0.15)))
    patch = synths.draw_patch(kind, rng)
    role = str(rng.choice(_ROLES[kind]))
    lowest = int(rng.integers(48, 66)) if role != "melody" else int(rng.integers(55, 70))
    treatment = _treatment(plan, rng, rng.uniform(90, 180), kind)

    def play(sections: list[Section]) -> np.ndarray:
        notes = _written(plan, sections, role, lowest, name)
        audio = synths.play(plan, notes, patch, plan.rng(f"{name} sound"))
        moving = plan.rng(f"{name} movement")
        if moving.random() < _MOVING:
            audio = movement.moved(audio, plan, moving, low=0.0)
        return treatment(audio)

    return play, role == "melody"


def _scored(plan: Plan, library: Library, rng: np.random.Generator) -> list[_Layer]:
    """Layers that play the parts of one of Freedoom's songs, from the same bars in all of them."""
    score = freedoom.song(library, rng)[:5]
    if not score:
        return []
    shift = freedoom.transposition(score, plan)
    longest = {
        section.name: freedoom.fullest_bar(score, section.nb_bars, rng) for section in plan.sections
    }
    layers = []
    for index, part in enumerate(score):
        play = _part(plan, library, rng, f"other {index}", part, longest, shift)
        layers.append(_Layer(play, rng.uniform(-7, 0), rng.uniform(-30, -10)))
    return layers


def _part(
    plan: Plan,
    library: Library,
    rng: np.random.Generator,
    name: str,
    part: freedoom.Part,
    first_bars: dict[str, int],
    shift: int,
) -> Callable[[list[Section]], np.ndarray]:
    """A part on its instrument: guitars are real ones, synthesizers sometimes our own."""
    guitar = part.program in _GUITAR_PROGRAMS and rng.random() < 0.85
    synth = part.program in _SYNTH_PROGRAMS and rng.random() < 0.6
    patch = synths.draw_patch("pad" if 88 <= part.program < 96 else "keys", rng)
    font = int(rng.integers(len(gm_notes.FONTS)))
    gain = float(rng.uniform(14, 34)) if part.program >= 29 else float(rng.uniform(0, 8))
    double, damped = rng.random() < 0.5, rng.random() < 0.5
    lowest = 80.0 if guitar else rng.uniform(90, 180)
    treatment = _treatment(plan, rng, lowest, "guitar" if guitar else "lead")

    def play(sections: list[Section]) -> np.ndarray:
        notes: list[Note] = []
        for section in sections:
            bar = first_bars[section.name]
            notes += freedoom.excerpt(part, plan, section, bar, shift)
        # No lower than a guitar.
        notes = [replace(note, pitch=note.pitch + 12 * max(0, _octaves(note))) for note in notes]
        own = plan.rng(f"{name} sound")
        if guitar:
            short = [damped and note.duration < 0.17 and note.pitch < 53 for note in notes]
            notes = [replace(note, muted=muted) for note, muted in zip(notes, short, strict=True)]
            audio = guitars.electric(plan, library, notes, own, gain, double)
        elif synth:
            audio = synths.play(plan, notes, patch, own)
        else:
            audio = soundfonts.play(library, font, part.program, notes, plan.nb_timesteps)
        return treatment(audio)

    return play


def _octaves(note: Note) -> int:
    """By how many octaves a note is under the lowest of a guitar."""
    return int(np.ceil((parts.TUNING[0] - note.pitch) / 12.0))


def _sweeps(plan: Plan, rng: np.random.Generator) -> _Layer:
    seed = int(rng.integers(2**31))

    def play(sections: list[Section]) -> np.ndarray:
        out = plan.silence()
        for section in sections:
            out += synths.riser(plan, section, np.random.default_rng([seed, len(section.name)]))
        return out

    return _Layer(play, float(rng.uniform(-14, -5)), float(rng.uniform(-20, -8)))


_PLAYERS = {"electric": _electric, "acoustic": _acoustic, "soundfont": _soundfont, "synth": _synth}
_WIDE = ("pad", "strings", "organ", "keys", "electric piano")


def _treatment(
    plan: Plan, rng: np.random.Generator, lowest: float, family: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Draw the channel strip of a layer: high pass, eq, chorus, echo, place."""
    seed = int(rng.integers(2**31))
    chorus = rng.random() < (0.4 if family in _WIDE else 0.12)
    echo = rng.random() < (0.45 if family in ("lead", "pluck") else 0.1)
    beats = float(rng.choice((0.5, 0.75, 0.75, 1.0)))
    duck = plan.style == "electronic" and family in ("pad", "keys", "stab") and rng.random() < 0.5
    squeeze = rng.random() < 0.25
    crunch = family in ("electric piano", "organ") and rng.random() < 0.3

    def treat(audio: np.ndarray) -> np.ndarray:
        own = np.random.default_rng(seed)
        out = effects.random_eq(effects.highpass(audio, lowest), own, 4.0)
        if crunch:
            out = effects.drive(out, own.uniform(0, 12))
        if squeeze:
            out = effects.compress(out, own.uniform(-26, -12), own.uniform(2, 6))
        if chorus:
            out = effects.chorus(out, own, own.uniform(0.001, 0.004), own.uniform(0.2, 1.5))
        if family not in ("guitar", *_WIDE):
            out = effects.pan(out, float(own.uniform(-0.6, 0.6)))
        if echo:
            level = own.uniform(-14, -5)
            out = effects.echo(out, beats * plan.beat, own.uniform(0.2, 0.55), level)
        if duck:
            out = out * _pumping(plan, own.uniform(0.4, 0.9))
        return out

    return treat


def _pumping(plan: Plan, depth: float) -> np.ndarray:
    """Gain that falls at each beat and comes back, as a compressor keyed by the bass drum."""
    time = np.arange(plan.nb_timesteps) / SAMPLE_RATE
    since = (time / plan.beat) % 1.0
    return (1.0 - depth * np.exp(-5.0 * since) * np.minimum(1.0, since * 60)).astype(np.float32)
