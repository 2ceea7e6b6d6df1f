"""Drum kits: which recordings each piece of a kit has, from soft to loud.

Sources: ``muldjordkit`` and ``gogodze_phu_ii`` (real kits), Debian's ``sonic-pi-samples`` and
``hydrogen-drumkits`` (rumpf_kit_z01 and Audiophob only), General-MIDI kits (`gm_notes`) and
`drum_synth`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..studio import effects, gm_notes
from ..studio.plan import SAMPLE_RATE
from ..studio.sources import Library
from . import drum_synth

# One hit when called, shape (1 or 2, nb_timesteps).
Hit = Callable[[], np.ndarray]
Kit = dict[str, list[Hit]]
Names = dict[str, str]

PIECES = (
    "kick", "snare", "rim", "hat", "hat_open", "hat_foot", "tom1", "tom2", "tom3", "tom4",
    "crash1", "crash2", "china", "splash", "ride", "bell",
)  # fmt: skip
PERCUSSION = ("clap", "shaker", "tambourine", "cowbell", "conga_high", "conga_low")
# What is played where a kit lacks a piece.
STAND_INS = {
    "hat_foot": "hat", "hat_open": "crash1", "tom1": "tom2", "tom2": "tom3", "tom3": "tom4",
    "tom4": "tom3", "crash2": "crash1", "china": "crash2", "splash": "crash1", "bell": "ride",
    "ride": "hat", "rim": "snare", "crash1": "hat_open",
}  # fmt: skip
# Seconds after which a hit is faded out.
LONGEST = {
    "kick": 0.8, "snare": 0.9, "rim": 0.4, "hat": 0.45, "hat_open": 1.6, "hat_foot": 0.4,
    "tom1": 1.3, "tom2": 1.4, "tom3": 1.6, "tom4": 1.8, "crash1": 4.0, "crash2": 4.0,
    "china": 3.0, "splash": 2.0, "ride": 2.8, "bell": 2.8,
}  # fmt: skip

_MULDJORD = {
    "kick": "KdrumR", "snare": "Snare", "hat": "HihatClosed", "hat_open": "HihatOpen",
    "tom1": "Tom1", "tom2": "Tom2", "tom3": "Tom3", "tom4": "Tom4", "crash1": "CrashL",
    "crash2": "CrashR", "china": "China", "ride": "RideR", "bell": "RideRBell",
}  # fmt: skip
_MULDJORD_OTHERS = {"kick": "KdrumL", "ride": "RideL", "bell": "RideLBell", "snare": "SnareRest"}
_GOGODZE = {
    "kick": "ks", "snare": "sc", "rim": "ss", "hat": "hc", "hat_open": "hh", "hat_foot": "hf",
    "tom1": "th", "tom2": "tm", "tom3": "tl", "crash1": "ho",
}  # fmt: skip
_GOGODZE_OTHERS = {"snare": "se", "hat": "ht", "hat_open": "hl"}
_SONIC_PI = "sonic-pi/samples/"
_RUMPF = "hydrogen/data/drumkits/rumpf_kit_z01_h2/beats_"
_AUDIOPHOB = "hydrogen/data/drumkits/Audiophob/"
_ELECTRONIC: dict[str, tuple[str, ...]] = {
    "kick": (
        *(f"{_SONIC_PI}bd_{name}.flac" for name in (
            "808", "ada", "boom", "fat", "gas", "haus", "klub", "mehackit", "pure", "sone", "tek",
            "zome", "zum",
        )),
        *(f"{_SONIC_PI}drum_{name}.flac" for name in ("bass_hard", "bass_soft", "heavy_kick")),
        *(f"{_RUMPF}{name}.flac" for name in ("06-38", "06-46", "07-20", "07-21", "08-15")),
    ),
    "snare": (
        *(f"{_SONIC_PI}sn_{name}.flac" for name in ("dolf", "dub", "generic", "zome")),
        *(f"{_SONIC_PI}drum_snare_{name}.flac" for name in ("hard", "soft")),
        *(f"{_SONIC_PI}elec_{name}.flac" for name in (
            "snare", "hi_snare", "mid_snare", "lo_snare", "filt_snare",
        )),
        *(f"{_RUMPF}{name}.flac" for name in ("08-24", "08-27", "08-28", "09-13")),
        f"{_AUDIOPHOB}25671__walter-odington__garage-city-snare-snappy.wav",
        f"{_AUDIOPHOB}124382__cubix__8bit-snare.wav",
    ),
    "hat": (
        f"{_SONIC_PI}drum_cymbal_closed.flac", f"{_SONIC_PI}drum_cymbal_pedal.flac",
        f"{_RUMPF}09-10.flac", f"{_AUDIOPHOB}116973__cbeeching__hat-light.wav",
    ),
    "hat_open": (
        f"{_SONIC_PI}drum_cymbal_open.flac", f"{_SONIC_PI}elec_cymbal.flac",
        f"{_AUDIOPHOB}104227__minorr__hhat-paiste-302-14-open-p.wav",
    ),
    "crash1": (
        f"{_SONIC_PI}drum_cymbal_hard.flac", f"{_SONIC_PI}drum_splash_hard.flac",
        f"{_AUDIOPHOB}124101__connersaw8__crash.wav",
    ),
    "ride": (f"{_SONIC_PI}drum_cymbal_soft.flac",),
    "tom2": (f"{_SONIC_PI}drum_tom_hi_hard.flac", f"{_AUDIOPHOB}101450__menegass__tomh.wav"),
    "tom3": (f"{_SONIC_PI}drum_tom_mid_hard.flac", f"{_AUDIOPHOB}99931__menegass__noise-tom1.wav"),
    "tom4": (f"{_SONIC_PI}drum_tom_lo_hard.flac", f"{_AUDIOPHOB}99930__menegass__noise-tom0.wav"),
    "clap": (
        f"{_RUMPF}01-26.flac", f"{_AUDIOPHOB}29800__stomachache__3.wav",
        f"{_SONIC_PI}perc_snap.flac", f"{_SONIC_PI}perc_snap2.flac",
    ),
    "cowbell": (f"{_SONIC_PI}drum_cowbell.flac", f"{_RUMPF}08-32.flac"),
    "shaker": (f"{_RUMPF}05-10.flac", f"{_AUDIOPHOB}156272__dayvonjersen__fxshake5.wav"),
    "rim": (f"{_AUDIOPHOB}16336__sstokes__ss-ht-crunchtime.wav", f"{_SONIC_PI}elec_tick.flac"),
}  # fmt: skip
_SYNTHESISED: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "kick": drum_synth.kick,
    "snare": drum_synth.snare,
    "clap": drum_synth.clap,
    "hat": drum_synth.hat,
    "hat_open": partial(drum_synth.hat, is_open=True),
    "crash1": drum_synth.crash,
    "shaker": drum_synth.shaker,
    "rim": drum_synth.rim,
    "tom2": partial(drum_synth.tom, frequency=170.0),
    "tom3": partial(drum_synth.tom, frequency=120.0),
    "tom4": partial(drum_synth.tom, frequency=85.0),
}
# Of General MIDI's kits: those that sound like rock, pop and machines; and their keys.
_GM_KITS = (0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 16, 17, 18, 24, 25, 32, 33)
_GM_KEYS = {
    "kick": 36, "snare": 38, "rim": 37, "hat": 42, "hat_open": 46, "hat_foot": 44, "tom1": 48,
    "tom2": 47, "tom3": 45, "tom4": 41, "crash1": 49, "crash2": 57, "china": 52, "splash": 55,
    "ride": 51, "bell": 53,
}  # fmt: skip
_GM_PERCUSSION = {
    "clap": 39, "shaker": 70, "tambourine": 54, "cowbell": 56, "conga_high": 63, "conga_low": 64,
}  # fmt: skip
_GM_VELOCITIES = (50, 80, 104, 124)
_GM_SECONDS = 2.5


def _recorded(library: Library, path: Path) -> Hit:
    return partial(library.load, path)


def _kit(
    library: Library, rng: np.random.Generator, names: Names, others: Names, share: float, path: str
) -> Kit:
    """Pieces of a kit, some of them by other names with a probability of `share`."""
    kit: Kit = {}
    for piece, name in names.items():
        if piece in others and rng.random() < share:
            name = others[piece]
        kit[piece] = [_recorded(library, found) for found in library.files(path.format(name))]
    return kit


def muldjord(library: Library, rng: np.random.Generator) -> Kit:
    """The MuldjordKit: large toms, two crashes, china, dry close microphones."""
    return _kit(library, rng, _MULDJORD, _MULDJORD_OTHERS, 0.35, "muldjordkit/{}/*.ogg")


def gogodze(library: Library, rng: np.random.Generator) -> Kit:
    """Gogodze Phu Vol. II: small, lively; its widely open hi-hat serves as crash."""
    path = "gogodze_phu_ii/{}_vl*_rr*.ogg"
    return _kit(library, rng, _GOGODZE, _GOGODZE_OTHERS, 0.4, path)


def real(library: Library, rng: np.random.Generator) -> Kit:
    """One of the real kits, or pieces of both; always with crashes and a ride."""
    kits = [muldjord(library, rng), gogodze(library, rng)]
    first = int(rng.integers(2))
    kit = {**kits[1 - first], **kits[first]}
    if rng.random() < 0.35:
        for piece in ("kick", "snare", "hat"):
            if rng.random() < 0.5:
                kit[piece] = kits[1 - first][piece]
    if rng.random() < 0.6:
        kit["crash1"] = kits[0]["crash1"]
    return kit


def electronic(library: Library, rng: np.random.Generator) -> Kit:
    """One-shots of drum machines, recorded or synthesised; kick, snare and clap often layered."""
    kit: Kit = {}
    for piece in (*_ELECTRONIC, *_SYNTHESISED):
        if piece in kit:
            continue
        hit = machine_hit(library, rng, piece)
        if piece in ("kick", "snare", "clap") and rng.random() < 0.4:
            hit = layered([hit, machine_hit(library, rng, piece)])
        kit[piece] = [hit]
    if rng.random() < 0.25:
        others = real(library, rng)
        for piece in ("hat", "hat_open", "crash1", "ride", "hat_foot"):
            kit[piece] = others[piece]
    if rng.random() < 0.35:
        kit["snare"] = kit["clap"]
    return kit


def machine_hit(library: Library, rng: np.random.Generator, piece: str) -> Hit:
    """A recorded or synthesised electronic hit."""
    paths = [library.installed(name) for name in _ELECTRONIC.get(piece, ())]
    make = _SYNTHESISED.get(piece)
    if make is not None and (not paths or rng.random() < 0.45):
        seed = int(rng.integers(2**31))
        return lambda: make(np.random.default_rng(seed))
    if not paths:
        raise KeyError(f"there is no electronic {piece!r}")
    return _recorded(library, paths[rng.integers(len(paths))])


def layered(hits: Sequence[Hit]) -> Hit:
    """Hits that sound together, each at the same level."""

    def play() -> np.ndarray:
        sounds = [level(trimmed(effects.stereo(hit()))) for hit in hits]
        out = np.zeros((2, max(sound.shape[-1] for sound in sounds)), np.float32)
        for sound in sounds:
            out[:, : sound.shape[-1]] += sound
        return out

    return play


def general_midi(library: Library, rng: np.random.Generator) -> Kit:
    """A kit of a sound font."""
    font = gm_notes.FONTS[rng.integers(len(gm_notes.FONTS))]
    program = int(rng.choice(_GM_KITS))
    return _gm(library, font, program, _GM_KEYS)


def percussion(library: Library, rng: np.random.Generator) -> Kit:
    """Hand percussion: General MIDI's, recorded or synthesised."""
    kit = _gm(library, gm_notes.FONTS[rng.integers(len(gm_notes.FONTS))], 0, _GM_PERCUSSION)
    for piece in ("clap", "shaker", "cowbell"):
        if rng.random() < 0.6:
            kit[piece] = [machine_hit(library, rng, piece)]
    return kit


def _gm(library: Library, font: str, program: int, keys: dict[str, int]) -> Kit:
    def hit(index: int, layer: int) -> np.ndarray:
        notes = gm_notes.notes(
            library, font, program, tuple(keys.values()), _GM_VELOCITIES, _GM_SECONDS, drums=True
        )
        return notes[index, layer].astype(np.float32) / np.float32(32767.0)

    return {
        piece: [partial(hit, index, layer) for layer in range(len(_GM_VELOCITIES))]
        for index, piece in enumerate(keys)
    }


def find(kit: Kit, piece: str) -> str | None:
    """The piece itself or what stands in for it; None if the kit has neither."""
    seen = set()
    while piece not in kit:
        seen.add(piece)
        piece = STAND_INS.get(piece, "")
        if not piece or piece in seen:
            return None
    return piece


def trimmed(audio: np.ndarray, before: float = 0.001) -> np.ndarray:
    """Without what precedes the attack (4 % of the peak), and with a short fade in."""
    loud = np.max(np.abs(audio), axis=0)
    start = int(np.argmax(loud > 0.04 * loud.max())) - int(before * SAMPLE_RATE)
    return effects.faded(audio[:, max(0, start) :], 0.0005, 0.02)


def level(audio: np.ndarray) -> np.ndarray:
    """Scale so that the loudest 25 ms have a root mean square of 0.2."""
    size = int(0.025 * SAMPLE_RATE)
    power = np.mean(np.square(audio), axis=0)
    sums = np.cumsum(np.concatenate([np.zeros(size), power, np.zeros(size)]))
    loudest = float(np.max(sums[size:] - sums[:-size])) / size
    return audio * np.float32(0.2 / np.sqrt(loudest + 1e-12))
