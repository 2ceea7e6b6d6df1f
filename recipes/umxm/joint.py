"""Train the four networks together: ``python -m recipes.umxm.joint --songs SONGS --model RUN``.

Alone, a network learns magnitudes, and never meets the others. What people hear are stems that the
Wiener filter has made of the magnitudes of all four, so in the last steps the loss is that of the
waveforms behind it (`umx_np.training.WaveformSeparator`).

The command can be stopped at any time and given again: it goes on from the last checkpoint. The
weights are those after the last step, when the learning rate has come to zero. The loss on the
songs in SONGS/valid is shown and kept in the log: where it no longer follows that of training,
more songs are wanted and not more steps.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import umx_np
from umx_np.backends.tensors import Reading
from umx_np.config import check_int
from umx_np.data import FixedSourcesTrackFolderDataset, Loader, UnmixDataset, aug_from_str
from umx_np.errors import ConfigError, UmxError
from umx_np.optim import Adam, cosine_rate
from umx_np.training import WaveformSeparator
from umx_np.training.checkpoint import read_checkpoint, write_checkpoint
from umx_np.training.records import source_commit
from umx_np.weights import ModelBundle, TargetWeights, save_folder

from .plan import SAMPLE_RATE, STEMS
from .train import AUGMENTATIONS, COHERENT_SHARE, MIX_LEVEL, SPEED

logger = logging.getLogger(__name__)

# Errors this far below the mixture hardly count any more, in dB.
FLOOR = -25.0
# Seconds in which the mixture is that far under its excerpt, in dB, do not count: what rings into
# silence is no error to learn from.
SILENT = -60.0
# Samples of the loss's frames, at least: a second, as museval has it.
FRAME = SAMPLE_RATE
# Mean square that keeps silent excerpts from being divided by zero.
_SILENCE = 1e-12
_MAX_NORM = 1.0
_STEPS_PER_SAVE = 50
_STEPS_PER_VALIDATION = 250
# Excerpts of each song for validation, the same ones every time.
_VALID_EXCERPTS = 4
# Probability of an excerpt as it was mixed, but for its speed, its sides and `FADERS`: music is in
# time, in tune and in balance. The others are varied like those of the networks alone.
AS_MIXED_SHARE = 0.85
# How far the stems of such an excerpt are turned up or down at most, in dB: no two engineers mix
# alike, and what is never quite the same is not learned by heart.
FADERS = 2.0
# Of the whole numbers among the settings.
_MINIMA = {"steps": 1, "batch_size": 1, "warmup": 0, "niter": 0, "seed": 0, "workers": 0}
# What changes the time, and of the numbers no more than the last digits and what is dropped.
_NOT_TOLD = ("threads", "device", "workers")


@dataclass(frozen=True)
class Settings:
    """What a run is told.

    Attributes
    ----------
    steps : int
        Steps of the optimisers.
    batch_size : int
        Excerpts of a step.
    seq_dur : float
        Seconds of an excerpt.
    lr : float
        Highest learning rate; it falls along a cosine.
    warmup : int
        Steps in which it rises first. Adam's first steps are as large as its later ones, but know
        little of the gradients, and what was learned before would suffer.
    niter : int
        EM iterations of the filter.
    dropout : float
        Share of the outputs between the LSTM layers that is dropped.
    frozen_norms : bool
        Normalise with the running statistics, which then stay as they are, and drop nothing: train
        what will separate. The statistics of a few excerpts are noise that this is free of.
    amp, tf32 : bool
        Products of the networks in bfloat16, or, on a graphics card, in TF32.
    device : str
        ``cpu``, or ``cuda`` for a graphics card.
    threads : int or None
        None takes all cores.
    workers : int
        Threads that read excerpts. A graphics card is faster than one of them.
    seed : int
        Where all random numbers come from.
    """

    steps: int = 1200
    batch_size: int = 8
    seq_dur: float = 3.0
    lr: float = 2e-4
    warmup: int = 0
    niter: int = 1
    dropout: float = 0.4
    frozen_norms: bool = False
    amp: bool = False
    tf32: bool = False
    device: str = "cpu"
    threads: int | None = None
    workers: int = 1
    seed: int = 42

    def __post_init__(self) -> None:
        for name, minimum in _MINIMA.items():
            check_int(name, getattr(self, name), minimum)
        if self.threads is not None:
            check_int("threads", self.threads, 1)
        for name in ("seq_dur", "lr"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)!r} must be a positive number")


class _Stacked(UnmixDataset):
    """Excerpts with all their stems, stacked as if they were channels.

    Parameters
    ----------
    songs : Path
        Folder of rendered songs.
    targets : sequence of str
        Stems, in the order in which they are wanted.
    seq_dur : float
        Seconds of an excerpt.
    **options
        For `FixedSourcesTrackFolderDataset`.
    """

    def __init__(self, songs: Path, targets: list[str], seq_dur: float, **options: Any) -> None:
        self._mixtures = partial(
            FixedSourcesTrackFolderDataset,
            songs,
            target_file=f"{targets[0]}.wav",
            interferer_files=[f"{name}.wav" for name in targets[1:]],
            seq_duration=seq_dur,
            random_chunks=True,
            **options,
        )
        self._as_mixed = self._mixtures()
        self.sample_rate = self._as_mixed.sample_rate

    def __len__(self) -> int:
        return len(self._as_mixed)

    def describe(self, index: int) -> str:
        """Folder of the song."""
        return self._as_mixed.describe(index)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Stems of an excerpt, twice, since an item has two parts."""
        stacked = np.concatenate(self._stems(index, rng))
        return stacked, stacked

    def _stems(self, index: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Stems of an excerpt [each shape=(nb_channels, nb_timesteps)]."""
        _, stems = self._as_mixed.mixture(index, rng)
        return stems


class Stems(_Stacked):
    """What is trained on, from the folder ``train``; see `_Stacked`."""

    def __init__(self, songs: Path, targets: list[str], seq_dur: float) -> None:
        super().__init__(songs, targets, seq_dur, speed=SPEED)
        self._varied = self._mixtures(
            random_track_mix=True,
            source_augmentations=aug_from_str(AUGMENTATIONS),
            coherent_share=COHERENT_SHARE,
            mix_level=MIX_LEVEL,
        )

    def _stems(self, index: int, rng: np.random.Generator) -> list[np.ndarray]:
        if rng.random() >= AS_MIXED_SHARE:
            return self._varied.mixture(index, rng)[1]
        stems = super()._stems(index, rng)
        gains = 10.0 ** (rng.uniform(-FADERS, FADERS, len(stems)) / 20.0)
        side = -1 if rng.random() < 0.5 else 1
        return [np.float32(g) * stem[::side] for g, stem in zip(gains, stems, strict=True)]

    def song_names(self) -> list[str]:
        """Names of the songs' folders."""
        return [track.folder.name for track in self._varied.tracks]


class AsMixed(_Stacked):
    """For validation a few excerpts of each song, just as it was mixed; see `_Stacked`."""

    def __init__(self, songs: Path, targets: list[str], seq_dur: float) -> None:
        options = {"split": "valid", "samples_per_track": _VALID_EXCERPTS}
        super().__init__(songs, targets, seq_dur, **options)


def waveform_loss(stems: Any, truth: Any, min_frame: int) -> tuple[Any, Any]:
    """Error of stems relative to their mixture, in dB, averaged over stems, excerpts and frames.

    Parameters
    ----------
    stems, truth : ndarray [shape=(nb_samples, nb_stems, nb_channels, nb_timesteps)]
        Estimates and what they should be; of NumPy, or of CuPy.
    min_frame : int
        Samples that a frame has at least. The excerpts are divided into as many equal frames as
        that allows; if they are of a length that cannot be divided so, frames are longer.

    Returns
    -------
    number [shape=()], float64
        The loss: as in the signal to distortion ratio, a soft stem counts as much as a loud one,
        and a soft second as much as a loud one, but for errors near `FLOOR`.
    ndarray
        Its gradient with respect to `stems`.
    """
    length = stems.shape[3]
    count = next(k for k in range(max(1, length // min_frame), 0, -1) if length % k == 0)
    error = stems - truth
    framed = error.reshape(*error.shape[:3], count, -1)
    power = _mean_squares(truth.sum(axis=1).reshape(len(truth), -1, count, length // count))
    counted = power >= 10.0 ** (SILENT / 10.0) * power.mean(axis=1, keepdims=True)
    weight = (counted / (counted.sum() * stems.shape[1]))[:, None]
    power = power[:, None]
    relative = _mean_squares(framed) + 10.0 ** (FLOOR / 10.0) * power + _SILENCE
    loss = (weight * 10.0 * np.log10(relative / (power + _SILENCE))).sum()
    size = framed.shape[2] * framed.shape[4]
    scale = 20.0 / math.log(10.0) / size * weight / relative
    framed *= scale[:, :, None, :, None].astype(error.dtype)
    return loss, framed.reshape(error.shape)


def _mean_squares(framed: Any) -> Any:
    """Mean square of each frame [shape=(..., nb_channels, nb_frames, nb_timesteps)], float64."""
    return (framed * framed).mean(axis=(-3, -1), dtype=np.float64)


class Run:
    """The networks, their optimisers, and how far they are.

    Parameters
    ----------
    bundle : ModelBundle
        Weights to begin with.
    songs : Path
        Folder of rendered songs: the folder ``train``, and ``valid`` if there is to be validation.
    settings : Settings

    Raises
    ------
    ConfigError
        If there are fewer songs than a batch needs, or they have another rate than the model.
    """

    def __init__(self, bundle: ModelBundle, songs: Path, settings: Settings) -> None:
        self.settings = settings
        self.commit = source_commit()  # now, since files may change while it runs
        self._bundle = bundle
        backend = "numba" if settings.device == "cpu" else settings.device
        self.separator = WaveformSeparator.from_bundle(
            bundle,
            niter=settings.niter,
            threads=settings.threads,
            backend=backend,
            dropout=settings.dropout,
            amp=settings.amp,
            tf32=settings.tf32,
        )
        networks = self.separator.networks
        self._optimizers = {
            name: Adam(net.parameters, backend=backend, threads=settings.threads)
            for name, net in networks.items()
        }
        dataset = Stems(songs, list(networks), settings.seq_dur)
        if len(dataset) < settings.batch_size:
            raise ConfigError(
                f"batch_size={settings.batch_size} needs more than {len(dataset)} songs"
            )
        if dataset.sample_rate != bundle.sample_rate:
            raise ConfigError(
                f"the songs have rate={dataset.sample_rate:g}, the model {bundle.sample_rate:g}"
            )
        self._told = {
            **{name: value for name, value in asdict(settings).items() if name not in _NOT_TOLD},
            "model": _digest(bundle),
            "songs": hashlib.sha256("/".join(dataset.song_names()).encode()).hexdigest(),
            "mixing": [list(AUGMENTATIONS), COHERENT_SHARE, list(MIX_LEVEL), list(SPEED)],
            "as_mixed_share": AS_MIXED_SHARE,
            "faders": FADERS,
            "floor": FLOOR,
            "silent": SILENT,
            "frame": FRAME,
        }
        self._loader = Loader(
            *(dataset, settings.batch_size),
            seed=settings.seed,
            shuffle=True,
            drop_last=True,
            workers=settings.workers,
        )
        self._valid = self._valid_batches(songs)
        self.losses: list[float] = []
        self.valid_losses: list[tuple[int, float]] = []
        """Steps made before, and the loss on the songs for validation."""

    def _valid_batches(self, songs: Path) -> Loader | None:
        if not (songs / "valid").is_dir():
            logger.warning("songs=%s has no folder valid: there is no validation", songs)
            return None
        dataset = AsMixed(songs, list(self.separator.networks), self.settings.seq_dur)
        return Loader(dataset, self.settings.batch_size, seed=0, shuffle=False, workers=1)

    def train(self, save: Path | None = None) -> Iterator[float]:
        """Make the steps that are left, and yield the loss before each."""
        settings = self.settings
        while len(self.losses) < settings.steps:
            epoch, batch = divmod(len(self.losses), len(self._loader))
            for stacked, _ in self._loader.epoch(epoch, start_batch=batch):
                done = len(self.losses)
                rng = np.random.default_rng([settings.seed, done])
                with self.separator.computing():
                    loss, norms = self._step(self._unstacked(stacked), rng, self._rate(done))
                broken = [name for name, norm in norms.items() if not np.isfinite(norm)]
                if broken:
                    raise FloatingPointError(
                        f"step {done + 1}: gradients that are no numbers, of {', '.join(broken)}"
                    )
                self.losses.append(loss)
                made, last = done + 1, done + 1 == settings.steps
                if self._valid and (made % _STEPS_PER_VALIDATION == 0 or last):
                    self.valid_losses.append((made, self.validate(self._valid)))
                if save is not None and made % _STEPS_PER_SAVE == 0:
                    write_checkpoint(save, self.state())
                yield loss
                if last:
                    return

    def _unstacked(self, stacked: np.ndarray) -> np.ndarray:
        """A batch of `_Stacked` [shape=(nb_samples, nb_stems, nb_channels, nb_timesteps)]."""
        return stacked.reshape(len(stacked), len(self.separator.networks), -1, stacked.shape[-1])

    def validate(self, batches: Loader) -> float:
        """Loss of what would separate now, averaged over excerpts."""
        losses, counts = [], []
        for stacked, _ in batches.epoch(0):
            with self.separator.computing():
                truth = self.separator.asarray(self._unstacked(stacked))
                mixtures = truth.sum(axis=1)
                stems, _ = self.separator.forward(mixtures, training=False, keep=False)
                losses.append(float(waveform_loss(stems, truth, FRAME)[0]))
            counts.append(len(stacked))
        return float(np.average(losses, weights=counts))

    def _step(
        self, stems: np.ndarray, rng: np.random.Generator, rate: float
    ) -> tuple[float, dict[str, float]]:
        """Make a step; returns the loss before it, and the norm of each network's gradients."""
        truth = self.separator.asarray(stems)
        estimates, cache = self.separator.forward(
            truth.sum(axis=1), training=not self.settings.frozen_norms, rng=rng
        )
        loss, d_estimates = waveform_loss(estimates, truth, FRAME)
        norms: dict[str, Reading] = {}
        for name, gradients in self.separator.backward(d_estimates, cache).items():
            norms[name] = gradients.clip(_MAX_NORM)
            self._optimizers[name].lr = rate
            # If the norm is no number, the update changes nothing: a device is not waited for.
            self._optimizers[name].step(gradients)
        return float(loss), {name: norm.value() for name, norm in norms.items()}

    def _rate(self, done: int) -> float:
        """Learning rate of the step after `done` steps."""
        settings = self.settings
        risen = min(1.0, (done + 1) / (settings.warmup + 1))
        return risen * cosine_rate(settings.lr, done / settings.steps)

    def state(self) -> dict[str, Any]:
        """Everything that `resume` needs."""
        return {
            "told": self._told,
            "losses": self.losses,
            "valid_losses": self.valid_losses,
            "networks": {n: net.state_dict() for n, net in self.separator.networks.items()},
            "optimizers": {name: adam.state_dict() for name, adam in self._optimizers.items()},
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises
        ------
        ConfigError
            If that run was told something else.
        """
        before, now = dict(state["told"]), self._told
        before.setdefault("tf32", False)  # which the first checkpoints do not name
        other = [key for key in now if before.get(key) != now[key]]
        if other:
            found = ", ".join(f"{key}={before.get(key)!r}, not {now[key]!r}" for key in other)
            raise ConfigError(
                f"the run to go on with had {found}; name another folder for a new one"
            )
        self.losses = list(state["losses"])
        # Which the first checkpoints do not have.
        self.valid_losses = [(int(k), float(x)) for k, x in state.get("valid_losses", [])]
        for name, network in self.separator.networks.items():
            network.load_state_dict(state["networks"][name])
            self._optimizers[name].load_state_dict(state["optimizers"][name])

    def bundle(self) -> ModelBundle:
        """The weights of now."""
        targets = {
            name: TargetWeights(network.config, network.state_dict())
            for name, network in self.separator.networks.items()
        }
        return replace(self._bundle, targets=targets)


def _digest(bundle: ModelBundle) -> str:
    """Hash of all weights of a model."""
    found = hashlib.sha256()
    for weights in bundle.targets.values():
        for name in sorted(weights.state):
            found.update(np.ascontiguousarray(weights.state[name]).tobytes())
    return found.hexdigest()


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m recipes.umxm.joint", description=__doc__)
    parser.add_argument("--songs", type=Path, required=True, help="folder of rendered songs")
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and checkpoint")
    for name, default in asdict(Settings()).items():
        option = "--" + name.replace("_", "-")
        if default is False:
            parser.add_argument(option, action="store_true", help="see Settings")
        else:
            kind = int if default is None else type(default)
            parser.add_argument(option, type=kind, default=default, help=f"default: {default}")
    options = vars(parser.parse_args(argv))
    songs, model, out = (options.pop(name) for name in ("songs", "model", "out"))
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "joint.chkpnt"
    others = [path for path in (out / f"{name}.pth" for name in STEMS) if path.exists()]
    if others:
        parser.error(f"{others[0]} belongs to another run; choose another --out")
    try:
        run = Run(umx_np.load_model(str(model), targets=list(STEMS)), songs, Settings(**options))
        if checkpoint.exists():
            run.resume(read_checkpoint(checkpoint))
    except UmxError as error:
        parser.error(str(error))
    with tqdm(run.train(checkpoint), initial=len(run.losses), total=run.settings.steps) as bar:
        for loss in bar:
            shown = {"loss": loss, "last_50": np.mean(run.losses[-50:])}
            if run.valid_losses:
                shown["valid"] = run.valid_losses[-1][1]
            bar.set_postfix({name: f"{value:.2f} dB" for name, value in shown.items()})
    write(run, out)


def write(run: Run, out: Path) -> list[Path]:
    """Write the model's folder, with settings, losses and commit in each target's JSON."""
    count = _STEPS_PER_SAVE
    means = [float(np.mean(run.losses[k : k + count])) for k in range(0, len(run.losses), count)]
    description = {
        "args": {**asdict(run.settings), "targets": "together"},
        "commit": run.commit,
        "train_loss_history": means,
        "valid_loss_history": run.valid_losses,
    }
    names = run.separator.networks
    return save_folder(
        run.bundle(), out, "safetensors", descriptions=dict.fromkeys(names, description)
    )


if __name__ == "__main__":
    main()
