"""Whether a card computes what the processor does: a check of about a second, and its result.

``device="auto"`` takes a card only if it has passed. The result is kept in the user's cache under
what it depends on: the card, its driver, CuPy and this package.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import __version__
from .._support.atomic import atomic_write
from .._support.folders import user_cache
from ..backends.contracts import Backend
from ..backends.cpu import CpuBackend
from ..backends.reference_training import ReferenceTraining
from ..backends.training import ForwardPass, TrainingBackend
from ..config import ModelConfig, SeparatorConfig
from ..engines.bottleneck import MemoryStore
from ..engines.host import HostEngine
from ..engines.job import Job, SeparationEngine
from ..engines.sources import ArraySource
from ..errors import DeviceError
from ..weights.bundle import StateDict
from ..weights.state import expected_state
from .backend import CudaBackend
from .device import Device, get_device
from .separation import Engine
from .training import CudaTrainingBackend

logger = logging.getLogger(__name__)

# Width of umxhq's network, so that its kernels are checked and not those for small ones.
HIDDEN_SIZE = 512
_BINS, _HOP, _RATE = 257, 128, 44100
_NB_TIMESTEPS = 200 * _HOP
_FRAMES, _SAMPLES = 20, 4
# Largest relative errors; what other orders of summation leave is a hundredth of them.
LIMITS = {"separation": 1e-4, "gradients": 1e-3}


class Proof(NamedTuple):
    """Result of a check.

    Attributes
    ----------
    errors : dict of str to float
        For each part of `LIMITS` the largest relative error.
    """

    errors: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether all errors are within `LIMITS`; NaN is not."""
        return all(self.errors[part] <= limit for part, limit in LIMITS.items())

    def __str__(self) -> str:
        """Describe the result in a few words."""
        errors = ", ".join(f"{part} {error:.1e}" for part, error in self.errors.items())
        return f"{'passed' if self.passed else 'failed'} (relative errors: {errors})"


def identity(device: Device) -> dict[str, str]:
    """Return everything that the result of a check depends on."""
    return {
        "device": repr(device),
        "multiprocessors": str(device.multiprocessors),
        "driver": str(device.xp.cuda.runtime.driverGetVersion()),
        "cuda": str(device.cuda_version),
        "cupy": str(device.xp.__version__),
        "umx_np": __version__,
    }


def proof_file(device: Device) -> Path:
    """Return where the result for a card is kept."""
    key = json.dumps(identity(device), sort_keys=True).encode()
    return user_cache() / "devices" / f"cuda-{hashlib.sha256(key).hexdigest()[:16]}.json"


def known_proof(device: Device) -> Proof | None:
    """Return the result that is kept; None if there is none, or its file is damaged."""
    try:
        found = json.loads(proof_file(device).read_text(encoding="utf-8"))
        errors = {part: float(found["errors"][part]) for part in LIMITS}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Proof(errors) if found.get("identity") == identity(device) else None


def prove(device: Device) -> Proof:
    """Check a card and keep the result.

    Raises
    ------
    DeviceError
        If it cannot compute at all; that is not kept.
    """
    state = _random_state(_config())
    try:
        proof = Proof(
            {
                "separation": _separation_error(device, state),
                "gradients": _gradient_error(device, state),
            }
        )
    except DeviceError:
        raise
    # What a broken installation or a card that fails raises is in nobody's list.
    except Exception as error:
        raise DeviceError(f"{device!r} fails: {type(error).__name__}: {error}") from error
    path = proof_file(device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            content = {"identity": identity(device), "errors": proof.errors}
            file.write(json.dumps(content, indent=2).encode())
    except OSError as error:
        logger.warning("the check of %r cannot be kept in %s: %s", device, path, error)
    return proof


def proof_of(index: int) -> Proof:
    """Return the result for a card, which is checked if that has not been done.

    Raises
    ------
    DeviceError
        If there is no such card, or it cannot compute at all.
    """
    device = get_device(index)
    return known_proof(device) or prove(device)


def said_of(device: Device, *, check: bool) -> str:
    """Describe the result for a card in a few words, after checking it now if `check`."""
    try:
        proof = prove(device) if check else known_proof(device)
    except DeviceError as error:
        return f"failed: {error}"
    return "not made; umx-np info --check makes it" if proof is None else str(proof)


def _config() -> ModelConfig:
    return ModelConfig(nb_bins=_BINS, hidden_size=HIDDEN_SIZE)


def _random_state(config: ModelConfig) -> StateDict:
    """Weights like those that training begins with, and plausible statistics."""
    rng = np.random.default_rng(0)
    state: StateDict = {}
    for name, shape in expected_state(config).items():
        if name.endswith("num_batches_tracked"):
            state[name] = np.asarray(1, np.int64)
            continue
        matrix = name.startswith(("fc", "lstm."))
        bound = 1.0 / math.sqrt(shape[-1]) if matrix else 0.5
        middle = 0.0 if matrix or name.endswith((".bias", "mean")) else 1.0
        state[name] = rng.uniform(middle - bound, middle + bound, shape).astype(np.float32)
    return state


def _separation_error(device: Device, state: StateDict) -> float:
    audio = np.random.default_rng(1).standard_normal((2, _NB_TIMESTEPS)).astype(np.float32)

    def stems(ops: Backend, engine: Callable[[Job], SeparationEngine]) -> np.ndarray:
        network = ops.network(_config(), state)
        config = SeparatorConfig(
            sample_rate=_RATE, n_fft=2 * (_BINS - 1), n_hop=_HOP, niter=1, residual=True
        )
        job = Job(ops, {"target": network}, config, ("target", "residual"))
        nb_frames = job.geometry.nb_frames(_NB_TIMESTEPS)
        blocks = engine(job).separate(
            ArraySource(audio),
            None,
            lambda width: MemoryStore(nb_frames, width, np.dtype(np.float32)),
        )
        return np.concatenate([block.copy() for _, block in blocks], axis=2)

    return _difference(stems(CudaBackend(device), Engine), stems(CpuBackend(), HostEngine))


def _gradient_error(device: Device, state: StateDict) -> float:
    rng = np.random.default_rng(2)
    x, d_y = rng.random((2, _FRAMES, _SAMPLES, 2, _BINS)).astype(np.float32)
    trainable = {n: a for n, a in state.items() if "running" not in n and "num_" not in n}
    statistics = {n: a for n, a in state.items() if "running" in n}

    def gradients(backend: TrainingBackend) -> Mapping[str, np.ndarray]:
        memory, dtype = backend.memory, np.dtype(np.float32)
        parameters, buffers = memory.place(trainable), memory.place(statistics)
        engine = backend.engine(_config(), dtype)
        given = memory.asarray(x, dtype)
        _, cache, _ = engine.forward(given, parameters, buffers, ForwardPass())
        found = engine.backward(memory.asarray(d_y, dtype), cache, parameters, input_gradient=False)
        return parameters.arranged(found).to_host()

    actual, expected = gradients(CudaTrainingBackend(device)), gradients(ReferenceTraining())
    # The batch norm takes any mean of the input away: its gradient is rounding errors only.
    names = [name for name in expected if name != "input_mean"]
    errors = [_difference(actual[name], expected[name]) for name in names]
    return float(np.max(errors))  # which is NaN if one is


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Relative error in the Euclidean norm."""
    error = actual.astype(np.float64) - expected
    return float(np.linalg.norm(error) / np.linalg.norm(expected))
