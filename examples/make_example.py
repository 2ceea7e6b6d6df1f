"""Make a short song and a model to separate it with, from nothing but arithmetic.

    python examples/make_example.py
    umx-np separate example/song.wav --model example/model --outdir example/stems

The song (eight seconds, four stems) is synthesised. The model has Open-Unmix's form and runs
through the same code as a trained one, but nobody trained it: `design` sets its weights by hand,
with the stems of this very song in view. It shows the machinery; on any other song it is useless.
"""

from __future__ import annotations

import argparse
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import umx_np
from umx_np.config import ModelConfig
from umx_np.weights import ModelBundle, TargetWeights, expected_state, save_folder

RATE = 44100
BEAT = 0.5  # seconds
NB_BEATS = 16
TARGETS = ("vocals", "drums", "bass", "other")

# ------------------------------------------------------------------------------ the song


def pitch(midi: float) -> float:
    """Frequency in Hz of a MIDI note number."""
    return 440.0 * 2.0 ** ((midi - 69.0) / 12.0)


def place(track: np.ndarray, beat: float, sound: np.ndarray, left: float, right: float) -> None:
    """Add a mono sound to a stereo track [shape=(2, nb_timesteps)], starting at a beat."""
    start = round(beat * BEAT * RATE)
    sound = sound[: track.shape[1] - start]
    track[:, start : start + len(sound)] += np.outer([left, right], sound)


def seconds(beats: float) -> np.ndarray:
    """Time axis of a sound that lasts some beats."""
    return np.arange(round(beats * BEAT * RATE)) / RATE


def swell(time: np.ndarray, attack: float, release: float) -> np.ndarray:
    """Envelope that rises and falls linearly and is 1 in between."""
    return np.clip(np.minimum(time / attack, (time[-1] - time) / release), 0.0, 1.0)


def sing(midi: float, beats: float, formants: tuple[float, ...]) -> np.ndarray:
    """Sing a note: harmonics of a pitch with vibrato, shaped by the formants of a vowel."""
    time = seconds(beats)
    vibrato = 0.012 * np.sin(2.0 * np.pi * 5.5 * time) * np.clip(time / 0.3, 0.0, 1.0)
    frequency = pitch(midi) * (1.0 + vibrato)
    phase = 2.0 * np.pi * np.cumsum(frequency) / RATE
    sound = np.zeros_like(time)
    for harmonic in range(1, int(5000.0 / pitch(midi))):
        at = harmonic * pitch(midi)
        resonance = sum(
            1.0 / (1.0 + ((at - peak) / (60.0 + 0.06 * peak)) ** 2) for peak in formants
        )
        sound += (0.03 + resonance) / harmonic**0.5 * np.sin(harmonic * phase)
    return sound * swell(time, 0.06, 0.12)


def render_vocals() -> np.ndarray:
    """Two sung phrases with a pause between them."""
    track = np.zeros((2, round(NB_BEATS * BEAT * RATE)))
    vowels = {
        "a": (800.0, 1200.0, 2700.0),
        "o": (450.0, 800.0, 2600.0),
        "i": (300.0, 2200.0, 3000.0),
    }
    melody = [
        *[(1.0, 69, 1.0, "a"), (2.0, 72, 1.5, "o"), (3.5, 71, 0.5, "i"), (4.0, 69, 2.0, "a")],
        *[(9.0, 76, 1.0, "a"), (10.0, 74, 1.0, "i"), (11.0, 72, 1.0, "o"), (12.0, 71, 2.5, "a")],
    ]
    for beat, midi, beats, vowel in melody:
        place(track, beat, 0.1 * sing(midi - 12, beats, vowels[vowel]), 1.0, 1.0)
    return track


def render_drums() -> np.ndarray:
    """Kick, snare and hi-hat."""
    rng = np.random.default_rng(1)
    track = np.zeros((2, round(NB_BEATS * BEAT * RATE)))
    time = seconds(0.6)
    kick = np.sin(2.0 * np.pi * (50.0 * time + 6.0 * (1.0 - np.exp(-time / 0.03))))
    kick *= np.exp(-time / 0.08)
    noise = rng.standard_normal(len(time))
    snare = 0.5 * noise * np.exp(-time / 0.05) + np.sin(2 * np.pi * 190 * time) * np.exp(
        -time / 0.04
    )
    hat = np.diff(noise, n=2, prepend=[0.0, 0.0]) * np.exp(-time / 0.015)
    for beat in range(NB_BEATS):
        if beat % 2 == 0:
            place(track, beat, 0.55 * kick, 1.0, 1.0)
        else:
            place(track, beat, 0.22 * snare, 1.0, 0.9)
        for half in (0.0, 0.5):
            place(track, beat + half, 0.04 * hat, 0.5, 1.0)
    return track


def render_bass() -> np.ndarray:
    """Root notes in eighths."""
    track = np.zeros((2, round(NB_BEATS * BEAT * RATE)))
    for beat in range(NB_BEATS):
        root = (33, 29, 36, 31)[beat // 4]
        time = seconds(0.95)
        sound = sum(
            np.sin(2.0 * np.pi * harmonic * pitch(root) * time) / harmonic**1.5
            for harmonic in range(1, 7)
        )
        place(track, beat, 0.13 * sound * swell(time, 0.03, 0.08), 1.0, 1.0)
    return track


def render_other() -> np.ndarray:
    """Chords, detuned against each other on the two sides."""
    track = np.zeros((2, round(NB_BEATS * BEAT * RATE)))
    for bar, notes in enumerate([(57, 60, 64), (57, 60, 65), (55, 60, 64), (55, 59, 62)]):
        time = seconds(4.0)
        for note in notes:
            for detune, left, right in ((-0.06, 1.0, 0.1), (0.07, 0.1, 1.0)):
                sound = sum(
                    np.sin(2.0 * np.pi * harmonic * pitch(note + detune) * time + note) / harmonic
                    for harmonic in range(1, 12)
                )
                place(track, 4.0 * bar, 0.04 * sound * swell(time, 0.05, 0.1), left, right)
    return track


def render() -> dict[str, np.ndarray]:
    """Render the stems [shape=(2, nb_timesteps)] of the song; their sum is the song."""
    return {
        "vocals": render_vocals(),
        "drums": render_drums(),
        "bass": render_bass(),
        "other": render_other(),
    }


# ----------------------------------------------------------------------------- the model

NB_BANDS = 16
CONFIG = ModelConfig(nb_bins=2049, hidden_size=NB_BANDS, nb_layers=1, max_bin=1487)
# One step of the leaky average forgets a fifth; it then spans about 0.1 seconds.
KEEP = 0.8


def logit(probability: float) -> float:
    """Bias that sets a sigmoid gate to a constant."""
    return float(np.log(probability / (1.0 - probability)))


def design(stems: dict[str, np.ndarray]) -> ModelBundle:
    """Set the weights of four small networks by hand.

    Every mask has a fixed part, the share that the stem has in each frequency bin of the song, and
    a moving part, computed by the network:

    1. fc1 averages the normalised magnitudes in 16 frequency bands, tanh bounds them.
    2. The LSTM's gates stand still, so each unit is a leaky average of two neighbouring bands;
       one direction looks back and the other ahead.
    3. fc2 subtracts both averages from the band's own level. What is left after the ReLU is a
       *hit*: the band is louder now than shortly before and after.
    4. fc3 lets each hit raise the mask of the drums in its band and lower the others' masks.
    """
    spectra = {name: np.abs(umx_np.stft(stem)) for name, stem in stems.items()}
    mixture = np.abs(umx_np.stft(sum(stems.values()))).mean(axis=0)
    powers = {name: (spectrum**2).mean(axis=(0, 2)) for name, spectrum in spectra.items()}
    total = sum(powers.values()) + 1e-12
    shares = {name: power / total for name, power in powers.items()}

    edges = np.geomspace(60.0, RATE / 2.0, NB_BANDS) * 2.0 * (CONFIG.nb_bins - 1) / RATE
    band_of = np.searchsorted(edges, np.arange(CONFIG.nb_bins))
    band_of = np.minimum(band_of, NB_BANDS - 1)
    targets = {}
    for name in TARGETS:
        state = {
            key: np.zeros(shape, np.int64 if key.endswith("tracked") else np.float32)
            for key, shape in expected_state(CONFIG).items()
        }
        for norm in ("bn1", "bn2", "bn3"):
            state[f"{norm}.weight"][:] = 1.0
            state[f"{norm}.running_var"][:] = 1.0
        # Statistics as training takes them: the file holds minus the mean and one over the
        # standard deviation.
        cropped = mixture[: CONFIG.nb_input_bins]
        state["input_mean"][:] = -cropped.mean(axis=1)
        deviation = cropped.std(axis=1)
        state["input_scale"][:] = 1.0 / np.maximum(deviation, 1e-4 * deviation.max())
        state["output_scale"][:] = 1.0

        width = CONFIG.nb_input_bins
        for band in range(NB_BANDS):
            bins = np.flatnonzero(band_of[:width] == band)
            for channel in range(2):
                state["fc1.weight"][band, channel * width + bins] = 0.5 / max(len(bins), 1)
        units = CONFIG.lstm_hidden_size
        for direction in ("", "_reverse"):
            bias = state[f"lstm.bias_ih_l0{direction}"]
            bias[:units] = logit(1.0 - KEEP)  # input gate
            bias[units : 2 * units] = logit(KEEP)  # forget gate
            bias[3 * units :] = 8.0  # output gate, open
            for unit in range(units):
                row = state[f"lstm.weight_ih_l0{direction}"][2 * units + unit]
                row[2 * unit : 2 * unit + 2] = 0.5
        for band in range(NB_BANDS):
            row = state["fc2.weight"][band]
            row[band] = 2.0
            row[NB_BANDS + band // 2] = row[NB_BANDS + units + band // 2] = -1.0
        state["bn2.bias"][:] = -0.4  # small rises are no hits
        # A hit of 1 turns half of the band over to the drums.
        share = shares[name]
        gain = 0.5 * (1.0 - share if name == "drums" else -share)
        for channel in range(2):
            rows = channel * CONFIG.nb_bins + np.arange(CONFIG.nb_bins)
            state["fc3.weight"][rows, band_of] = gain
        state["output_mean"][:] = share
        targets[name] = TargetWeights(CONFIG, state)
    return ModelBundle(name="example", targets=targets, sample_rate=float(RATE), license="MIT")


# ------------------------------------------------------------------------------ the files


def write_wav(path: Path, sound: np.ndarray) -> None:
    """Write stereo sound [shape=(2, nb_timesteps)] as 16-bit PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.rint(np.clip(sound, -1.0, 1.0).T * 32767.0).astype("<i2").tobytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the song, the model and the true stems."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--outdir", type=Path, default=Path("example"), help="default: example")
    outdir = parser.parse_args(arguments).outdir
    outdir.mkdir(parents=True, exist_ok=True)
    stems = render()
    write_wav(outdir / "song.wav", sum(stems.values()))
    save_folder(design(stems), outdir / "model")
    # Laid out as a data set of one track, for the evaluation.
    true_stems = outdir / "true" / "song"
    true_stems.mkdir(parents=True, exist_ok=True)
    for name, stem in stems.items():
        write_wav(true_stems / f"{name}.wav", stem)
    print(f"wrote {outdir / 'song.wav'}, {outdir / 'model'} and {true_stems}")


if __name__ == "__main__":
    main()
