"""The same sound for everybody: a real recording where it can be had, else seeded noise."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np

# Seconds after the digital silence at its start, where Open-Unmix's residual is not defined.
_EXCERPT_START = 0.5
_NOISE_SECONDS = 10.0
_NOISE_RMS = 0.1
RECORDING = "recording shipped with stempeg, repeated"
NOISE = "seeded noise, coloured, independent channels"


def _recording(rate: int) -> np.ndarray | None:
    """The mixture of stempeg's example song [shape=(2, nb_timesteps)], if it can be decoded."""
    if shutil.which("ffmpeg") is None:
        return None
    try:
        from stempeg import example_stem_path
    except ImportError:
        return None
    command = ["ffmpeg", "-v", "error", "-i", example_stem_path(), "-map", "0:0"]
    command += ["-ss", str(_EXCERPT_START), "-ac", "2", "-ar", str(rate), "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    samples = np.frombuffer(done.stdout, dtype="<f4")
    if done.returncode or len(samples) < 2 * rate:
        return None
    return np.ascontiguousarray(samples.reshape(-1, 2).T)


def noise(rate: int, *, nb_channels: int = 2, seed: int = 0) -> np.ndarray:
    """Noise that falls with frequency and swells, every channel independent.

    Parameters
    ----------
    rate : int
        Samples a second.
    nb_channels : int
        Channels.
    seed : int
        The same seed gives the same sound.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)], float32
        Ten seconds of RMS 0.1.
    """
    nb_timesteps = int(_NOISE_SECONDS * rate)
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal((nb_channels, nb_timesteps)))
    spectrum /= 1.0 + 32.0 * np.arange(spectrum.shape[-1]) / spectrum.shape[-1]
    sound = np.fft.irfft(spectrum, nb_timesteps)
    sound *= 0.6 + 0.4 * np.sin(2.0 * np.pi * np.arange(nb_timesteps) / rate)
    return (_NOISE_RMS * sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def loop(rate: int) -> tuple[np.ndarray, str]:
    """A few seconds of stereo, and what they are.

    Returns
    -------
    audio : ndarray [shape=(2, nb_timesteps)], float32
    description : str
    """
    recording = _recording(rate)
    if recording is not None:
        return recording, RECORDING
    return noise(rate), NOISE


def material(seconds: float, rate: int, nb_channels: int = 2) -> tuple[np.ndarray, str]:
    """Return sound of any length.

    Parameters
    ----------
    seconds : float
        Length.
    rate : int
        Samples a second.
    nb_channels : int
        2, or 1 for the mean of the two.

    Returns
    -------
    audio : ndarray [shape=(nb_channels, nb_timesteps)], float32
    description : str
        For the record.
    """
    audio, description = loop(rate)
    if nb_channels == 1:
        audio = audio.mean(axis=0, keepdims=True)
    nb_timesteps = round(seconds * rate)
    repeats = -(-nb_timesteps // audio.shape[1])
    return np.ascontiguousarray(np.tile(audio, repeats)[:, :nb_timesteps]), description


def write_song(path: Path, seconds: float, rate: int = 44100) -> str:
    """Write a 16-bit stereo WAV file of any length.

    Parameters
    ----------
    path : Path
        The file.
    seconds : float
        Length.
    rate : int
        Samples a second.

    Returns
    -------
    str
        What the sound is.
    """
    import soundfile

    audio, description = loop(rate)
    left = round(seconds * rate)
    with soundfile.SoundFile(path, "w", rate, 2, subtype="PCM_16", format="WAV") as file:
        while left > 0:
            block = audio[:, : min(left, audio.shape[1])]
            file.write(block.T)
            left -= block.shape[1]
    return description
