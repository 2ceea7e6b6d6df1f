"""The drums of a song: a drummer's or a machine's part, played on a kit, recorded in a room.

Sources: ``midi/groove_cc-by-4.0.tar.xz``, the kits of `drumkits`, ``everythingisfree/*/drums.ogg``
(excerpts of finished stems).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..studio import effects, midi
from ..studio.plan import SAMPLE_RATE, Plan
from ..studio.sources import Library
from . import drumkits
from .drum_patterns import Drummer, Stroke
from .drumkits import Hit, Kit

# Shares of the kinds of drums in a style: real kits, finished stems, machines, General MIDI.
_KINDS = ("real", "stem", "machine", "midi")
_SHARES = {
    "electronic": (0.20, 0.30, 0.45, 0.05),
    "hiphop": (0.25, 0.25, 0.42, 0.08),
    "metal": (0.80, 0.06, 0.02, 0.12),
    "pop": (0.50, 0.20, 0.18, 0.12),
}
_OTHER_SHARES = (0.68, 0.12, 0.08, 0.12)
# Level in dB of a piece in the mix, by the loudest 25 ms, and how far it varies.
_LEVELS = {
    "kick": (1.5, 2.5), "snare": (-2.0, 2.5), "rim": (-8.0, 3.0), "hat": (-15.0, 3.5),
    "hat_open": (-14.0, 3.0), "hat_foot": (-20.0, 3.0), "tom1": (-3.0, 2.0), "tom2": (-3.0, 2.0),
    "tom3": (-2.5, 2.0), "tom4": (-2.0, 2.0), "crash1": (-9.0, 3.0), "crash2": (-9.0, 3.0),
    "china": (-10.0, 3.0), "splash": (-12.0, 3.0), "ride": (-16.0, 3.0), "bell": (-14.0, 3.0),
    "clap": (-4.0, 3.0), "shaker": (-19.0, 3.0), "tambourine": (-16.0, 3.0),
    "cowbell": (-14.0, 3.0), "conga_high": (-10.0, 3.0), "conga_low": (-10.0, 3.0),
}  # fmt: skip
# Place in the stereo field as the listener sees it, and width of a piece's own recording.
_PLACES = {
    "kick": (0.0, 0.3), "snare": (0.0, 0.5), "hat": (0.35, 0.6), "hat_open": (0.35, 0.7),
    "hat_foot": (0.35, 0.6), "tom1": (0.3, 0.6), "tom2": (0.1, 0.6), "tom3": (-0.25, 0.6),
    "tom4": (-0.45, 0.6), "crash1": (0.45, 1.0), "crash2": (-0.45, 1.0), "china": (-0.5, 1.0),
    "splash": (0.2, 1.0), "ride": (-0.4, 0.9), "bell": (-0.4, 0.9), "shaker": (-0.5, 1.0),
    "tambourine": (0.5, 1.0), "conga_high": (0.4, 0.8), "conga_low": (0.2, 0.8),
}  # fmt: skip
# How much of a piece reaches the room's microphones, in dB.
_ROOM_SENDS = {"kick": -8.0, "snare": 0.0, "hat": -5.0, "hat_open": -5.0}
_METAL_PIECES = frozenset(("hat", "hat_open", "hat_foot", "crash1", "crash2", "china", "splash",
                           "ride", "bell", "shaker", "tambourine"))  # fmt: skip
_DRUM_PIECES = frozenset(("kick", "snare", "tom1", "tom2", "tom3", "tom4"))
# Hits of a piece that are prepared for one song: the rest of a kit's layers is left out.
_HITS_PER_PIECE = 10
_SHORTEST_HIT = 400
# How long drums may ring on where they rest.
_RING_SECONDS = 0.8


def render(plan: Plan, library: Library) -> np.ndarray:
    """Play, record and finish the drums.

    Returns
    -------
    ndarray [shape=(2, nb_timesteps)], float32
        About -20 dB where it sounds, silent where a section has no drums.
    """
    if not any("drums" in section.stems for section in plan.sections):
        return plan.silence()
    rng = plan.rng("drums sound")
    kind = kind_of(plan)
    stem = _excerpts(plan, library, rng) if kind == "stem" else _played(plan, library, kind, rng)
    stem = _mastered(stem, rng, plan.style, is_finished=kind == "stem")
    stem = stem * _presence(plan)
    return effects.normalise(stem).astype(np.float32)


def kind_of(plan: Plan) -> str:
    """Which drums a song has: ``real``, ``stem``, ``machine`` or ``midi``."""
    shares = _SHARES.get(plan.style, _OTHER_SHARES)
    return _KINDS[plan.rng("drums kind").choice(len(_KINDS), p=shares)]


def strokes(plan: Plan, library: Library) -> list[Stroke]:
    """What the drummer plays, the bass may follow the kick; for finished stems a machine's part."""
    rng = plan.rng("drums part")
    # Real kits are mostly played by people, in metal less: nobody of the data set plays it.
    human = {"real": 0.25 if plan.style == "metal" else 0.85, "midi": 0.6, "machine": 0.15}
    is_human = rng.random() < human.get(kind_of(plan), 0.0)
    return Drummer(plan, midi.groove(library) if is_human else (), rng).strokes()


def _played(plan: Plan, library: Library, kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind == "real":
        kit = drumkits.real(library, rng)
    elif kind == "machine":
        kit = drumkits.electronic(library, rng)
    else:
        kit = drumkits.general_midi(library, rng)
    kit = {**drumkits.percussion(library, rng), **kit}
    modern = 0.5 if plan.style in ("pop", "electronic", "hiphop", "metal") else 0.25
    reinforced: dict[str, Hit] = {}
    if kind != "machine":
        for piece in ("kick", "snare"):
            if rng.random() < modern:
                reinforced[piece] = drumkits.machine_hit(library, rng, piece)
    part = strokes(plan, library)
    dry, sent = Recording(plan, kit, reinforced, rng, kind).take(part)
    return _with_room(dry, sent, rng, kind)


class Recording:
    """A kit set up for one song: every piece tuned, equalised, placed and balanced.

    Parameters
    ----------
    plan : Plan
    kit : Kit
        Hits of the pieces.
    reinforced : dict
        Hits that sound along with a piece.
    rng : Generator
    kind : str
        See `kind_of`.
    """

    def __init__(
        self,
        plan: Plan,
        kit: Kit,
        reinforced: dict[str, Hit],
        rng: np.random.Generator,
        kind: str = "real",
    ) -> None:
        self._plan, self._kit, self._rng = plan, kit, rng
        self._reinforced = reinforced
        self._is_machine = kind == "machine"
        self._side = float(rng.choice((-1.0, 1.0)))
        self._spread = float(rng.uniform(0.3, 1.3))
        # What a velocity does to the level: little where a record is compressed.
        self._dynamics = float(rng.uniform(0.9, 2.0))
        self._bright = float(rng.uniform(-4.0, 3.5))
        self._tuning = float(rng.uniform(-1.0, 1.0))
        self._gated = not self._is_machine and rng.random() < 0.15
        self._hall = effects.room(rng, rng.uniform(0.5, 1.5), rng.uniform(3000, 9000))
        self._setups: dict[str, dict[str, float]] = {}
        self._prepared: dict[tuple[str, int], np.ndarray] = {}

    def take(self, part: Sequence[Stroke]) -> tuple[np.ndarray, np.ndarray]:
        """Record a part: the close microphones, and what goes to the room."""
        dry, sent = self._plan.silence(), self._plan.silence()
        ends = _choked(part)
        for stroke, end in zip(part, ends, strict=True):
            piece = drumkits.find(self._kit, stroke.piece)
            if piece is None:
                continue
            sound = self._sound(piece, stroke.velocity)
            count = int((end - stroke.start) * SAMPLE_RATE)
            if count < sound.shape[-1]:
                sound = effects.faded(sound[:, : max(count, 64)], 0.0, 0.03)
            gain = stroke.velocity**self._dynamics
            effects.place(dry, sound, stroke.start, gain)
            send = effects.decibels(_ROOM_SENDS.get(piece, -3.0))
            effects.place(sent, sound, stroke.start, gain * send)
        return dry, sent

    def _sound(self, piece: str, velocity: float) -> np.ndarray:
        count = len(self._kit[piece])
        kept = min(count, _HITS_PER_PIECE)
        # The neighbours of a layer take turns, so that no two hits are quite the same.
        layer = int(np.clip(round(velocity * kept + self._rng.uniform(-1.2, 0.2)), 0, kept - 1))
        key = (piece, layer)
        if key not in self._prepared:
            index = round(layer * (count - 1) / max(1, kept - 1))
            audio = self._kit[piece][index]()
            if audio.shape[-1] < _SHORTEST_HIT:
                audio = self._kit[piece][min(index + 1, count - 1)]()
            self._prepared[key] = self._prepare(piece, audio)
        return self._prepared[key]

    def _setup(self, piece: str) -> dict[str, float]:
        """Numbers drawn once for all hits of a piece."""
        if piece not in self._setups:
            rng, setup = self._rng, {}
            middle, spread = _LEVELS.get(piece, (-8.0, 3.0))
            setup["level"] = middle + rng.normal(0.0, spread)
            setup["tune"] = float(np.clip(rng.normal(self._tuning, 0.8), -2.0, 2.0))
            setup["low"] = rng.uniform(-1, 6) if piece == "kick" else rng.uniform(-6, 3)
            setup["low at"] = rng.uniform(50, 90) if piece == "kick" else rng.uniform(120, 250)
            setup["box"] = rng.uniform(-8, 1)
            setup["box at"] = rng.uniform(280, 650)
            setup["attack"] = rng.uniform(-2, 7)
            setup["attack at"] = rng.uniform(2500, 6000)
            setup["air"] = self._bright + rng.uniform(-2, 3)
            setup["layer"] = rng.uniform(-10, 5)
            setup["cut"] = rng.uniform(200, 450)
            setup["drive"] = rng.uniform(-6, 9)
            setup["decay"] = rng.uniform(0.08, 0.5) if rng.random() < 0.4 else 0.0
            position, wide = _PLACES.get(piece, (rng.uniform(-0.3, 0.3), 0.6))
            setup["pan"] = float(np.clip(position * self._side * self._spread, -0.8, 0.8))
            setup["width"] = wide * rng.uniform(0.5, 1.4)
            self._setups[piece] = setup
        return self._setups[piece]

    def _prepare(self, piece: str, audio: np.ndarray) -> np.ndarray:
        setup = self._setup(piece)
        audio = drumkits.trimmed(audio[:, : int(5.0 * SAMPLE_RATE)])
        longest = int(drumkits.LONGEST.get(piece, 1.0) * SAMPLE_RATE)
        audio = effects.respeed(audio, 2.0 ** (setup["tune"] / 12.0))[:, :longest]
        audio = effects.faded(audio, 0.0005, 0.25 * min(1.0, audio.shape[-1] / SAMPLE_RATE))
        if piece in self._reinforced:
            other = drumkits.level(drumkits.trimmed(self._reinforced[piece]()))
            share = effects.decibels(setup["layer"])
            audio = _sum(drumkits.level(effects.stereo(audio)), effects.stereo(other) * share)
        audio = effects.stereo(audio)
        if piece in _DRUM_PIECES:
            audio = effects.peak(audio, setup["low at"], setup["low"], 0.9)
            audio = effects.peak(audio, setup["box at"], setup["box"], 1.0)
            audio = effects.peak(audio, setup["attack at"], setup["attack"], 0.7)
            audio = effects.high_shelf(audio, 7000.0, setup["air"])
            if setup["drive"] > 0:
                audio = effects.drive(audio, setup["drive"])
        elif piece in _METAL_PIECES:
            audio = effects.highpass(audio, setup["cut"])
            audio = effects.high_shelf(audio, 8000.0, setup["air"])
        else:
            audio = effects.peak(audio, setup["attack at"], setup["attack"] - 4.0)
        if setup["decay"] and piece in ("kick", "snare", "tom1", "tom2", "tom3", "tom4"):
            # A gate, as on close microphones.
            time = np.arange(audio.shape[-1], dtype=np.float32) / SAMPLE_RATE
            hold = 0.05 + setup["decay"]
            audio = audio * np.exp(-np.maximum(time - hold, 0.0) * 18.0)
        if piece == "snare" and self._gated:
            audio = _gated(audio, self._hall, 0.12 + 0.3 * self._spread)
        audio = effects.pan(effects.width(audio, setup["width"]), setup["pan"])
        audio = drumkits.level(audio) * np.float32(effects.decibels(setup["level"]))
        return effects.faded(audio, 0.0003, 0.02)


def _sum(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    out = np.zeros((2, max(one.shape[-1], other.shape[-1])), np.float32)
    out[:, : one.shape[-1]] += one
    out[:, : other.shape[-1]] += other
    return out


def _gated(audio: np.ndarray, response: np.ndarray, seconds: float) -> np.ndarray:
    """A large room that is cut off, as on records of the eighties."""
    padded = np.zeros((2, audio.shape[-1] + int(0.4 * SAMPLE_RATE)), np.float32)
    padded[:, : audio.shape[-1]] = audio
    wet = effects.reverb(padded, response, 2.0)
    return effects.faded(wet[:, : int((0.1 + seconds) * SAMPLE_RATE)], 0.0, 0.05)


def _choked(part: Sequence[Stroke]) -> list[float]:
    """When each stroke is damped: open hi-hats by the next hat, others never."""
    ends, following = [], np.inf
    for stroke in reversed(part):
        ends.append(following if stroke.piece == "hat_open" else np.inf)
        if stroke.piece in ("hat", "hat_open", "hat_foot"):
            following = stroke.start
    return [end if end < 1e9 else 1e9 for end in reversed(ends)]


def _with_room(
    dry: np.ndarray, sent: np.ndarray, rng: np.random.Generator, kind: str
) -> np.ndarray:
    """Add the room's microphones, squeezed more or less, and parallel compression."""
    seconds = float(np.exp(rng.uniform(np.log(0.2), np.log(1.8))))
    response = effects.room(rng, seconds, rng.uniform(3500, 11000), rng.uniform(0, 0.015))
    amount = rng.uniform(-24, -8) if kind == "machine" else rng.uniform(-16, -1)
    wet = effects.reverb(sent, response, 0.0) - sent
    if rng.random() < 0.5:
        wet = effects.compress(wet, -30.0, 6.0, 0.002, rng.uniform(0.05, 0.2))
    level = effects.rms(dry) / (effects.rms(wet) + 1e-9)
    mixed = dry + wet * np.float32(level * effects.decibels(amount))
    if rng.random() < 0.5:
        crushed = effects.compress(mixed, -34.0, 10.0, 0.001, rng.uniform(0.05, 0.25))
        if rng.random() < 0.5:
            crushed = effects.drive(crushed, rng.uniform(3, 14))
        mixed = mixed + crushed * np.float32(effects.decibels(rng.uniform(-14, -2)))
    return mixed


def _mastered(
    stem: np.ndarray, rng: np.random.Generator, style: str, is_finished: bool
) -> np.ndarray:
    """The drum bus: tape, compression, tone."""
    if is_finished:
        stem = effects.random_eq(stem, rng, 4.0)
    else:
        stem = effects.low_shelf(stem, rng.uniform(60, 120), rng.uniform(-3, 4))
        stem = effects.high_shelf(stem, rng.uniform(4000, 9000), rng.uniform(-4, 4))
    if rng.random() < (0.3 if is_finished else 0.7):
        threshold, ratio = rng.uniform(-26, -12), rng.uniform(2, 6)
        release = rng.uniform(0.06, 0.3)
        stem = effects.compress(stem, threshold, ratio, rng.uniform(0.002, 0.02), release)
    if rng.random() < 0.45:
        stem = effects.drive(stem, rng.uniform(-8, 4 if style != "metal" else 7))
    if rng.random() < 0.05:
        # Old or cheap machines and samplers, phones, effects of an intro.
        stem = effects.lowpass(stem, rng.uniform(5000, 11000))
    stem = effects.width(stem, rng.uniform(0.25, 1.05))
    stem = effects.softened(stem, rng.uniform(12, 22))
    return effects.highpass(stem, rng.uniform(22, 35))


def _excerpts(plan: Plan, library: Library, rng: np.random.Generator) -> np.ndarray:
    """Finished stems: a loud excerpt for each section, of one song, faster or slower."""
    paths = library.files("everythingisfree/*/drums.ogg")
    recorded = library.stored(paths[rng.integers(len(paths))])
    speed = float(rng.uniform(0.85, 1.15))
    hop = SAMPLE_RATE // 2
    level = np.abs(recorded[:, ::16]).mean(axis=0)[: recorded.shape[-1] // 16]
    envelope = np.add.reduceat(level, np.arange(0, len(level), hop // 16))
    stem = plan.silence()
    places: dict[str, int] = {}
    for section in plan.sections:
        if "drums" not in section.stems:
            continue
        begin = plan.seconds(section.first_bar)
        seconds = section.nb_bars * 4 * plan.beat
        count = int(seconds * speed * SAMPLE_RATE) + 64
        if section.name not in places:
            firsts = rng.integers(0, max(1, recorded.shape[-1] - count), 5)
            loud = [envelope[f // hop : (f + count) // hop].mean() for f in firsts]
            # From the loudest where there is much energy to the second where there is little.
            order = np.argsort(loud)
            places[section.name] = int(firsts[order[-1 if section.energy > 0.5 else -2]])
        first = places[section.name]
        piece = recorded[:, first : first + count].astype(np.float32) / np.float32(32767.0)
        # Begin on a stroke, so that the beat falls into place.
        near = np.abs(piece[:, : SAMPLE_RATE // 2]).max(axis=0)
        onset = int(np.argmax(near > 0.7 * near.max())) if near.max() > 0 else 0
        piece = effects.respeed(piece[:, max(0, onset - 100) :], speed)
        effects.place(stem, effects.faded(piece, 0.003, 0.05), begin)
    return stem


def _presence(plan: Plan) -> np.ndarray:
    """Gain that lets drums ring shortly where they rest, then silences them."""
    gain = np.zeros(plan.nb_timesteps, np.float32)
    ring = int(_RING_SECONDS * SAMPLE_RATE)
    fade = np.square(np.linspace(1.0, 0.0, ring, dtype=np.float32))
    for section in plan.sections:
        if "drums" not in section.stems:
            continue
        # Human drummers are early now and then.
        begin = max(0, int((plan.seconds(section.first_bar) - 0.05) * SAMPLE_RATE))
        end = int(plan.seconds(section.first_bar + section.nb_bars) * SAMPLE_RATE)
        rise = gain[begin : begin + 200]
        rise[:] = np.maximum(rise, np.linspace(0.0, 1.0, len(rise), dtype=np.float32))
        gain[begin + 200 : end] = 1.0
        tail = gain[end : end + ring]
        tail[:] = np.maximum(tail, fade[: len(tail)])
    return gain
