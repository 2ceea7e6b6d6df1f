"""PyTorch's Open-Unmix behind NumPy arrays: the oracle of the parity tests.

Two peculiarities of openunmix 1.3.0 are kept away from the comparison here:

* Several of its constants (pi, the regularisation) are made in torch's default dtype. In
  float64 it is therefore run with float64 as the default, otherwise they carry float32 errors.
* `wiener` changes the mixture that it is given. It always gets a copy.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from umx_np.weights.bundle import ModelBundle, StateDict, TargetWeights

from . import torchaudio_standin


class Upstream:
    """The modules `torch` and `openunmix`, and shortcuts from arrays to arrays.

    Raises
    ------
    ImportError
        If torch or openunmix is not installed.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # Other people's deprecations at import are not ours to fail on.
            warnings.simplefilter("ignore")
            self.torch = importlib.import_module("torch")
            # Many small operations: torch's threads would only wait for each other.
            self.torch.set_num_threads(1)
            torchaudio_standin.install()
            for name in ("model", "filtering", "transforms", "predict", "utils"):
                setattr(self, name, importlib.import_module(f"openunmix.{name}"))

    model: Any
    filtering: Any
    transforms: Any
    predict: Any
    utils: Any

    @contextmanager
    def precision(self, dtype: str) -> Iterator[Any]:
        """Torch's dtype called `dtype`, made the default, without gradients."""
        before = self.torch.get_default_dtype()
        torch_dtype = getattr(self.torch, dtype)
        self.torch.set_default_dtype(torch_dtype)
        try:
            with self.torch.no_grad():
                yield torch_dtype
        finally:
            self.torch.set_default_dtype(before)

    def state_dict(self, state: StateDict) -> dict[str, Any]:
        """Copy a state dict of arrays to one of tensors."""
        return {name: self.torch.from_numpy(np.array(value)) for name, value in state.items()}

    def network(self, weights: TargetWeights, dtype: str = "float64") -> Any:
        """Build an `openunmix.model.OpenUnmix` in evaluation mode with these weights."""
        config = weights.config
        network = self.model.OpenUnmix(
            nb_bins=config.nb_bins,
            nb_channels=config.nb_channels,
            hidden_size=config.hidden_size,
            nb_layers=config.nb_layers,
            unidirectional=config.unidirectional,
            max_bin=config.max_bin,
        )
        network.load_state_dict(self.state_dict(weights.state), strict=True)
        network.freeze()
        return network.to(getattr(self.torch, dtype))

    def forward(self, weights: TargetWeights, x: np.ndarray, dtype: str = "float64") -> np.ndarray:
        """Run one target network on magnitudes."""
        with self.precision(dtype) as torch_dtype:
            return self.network(weights, dtype)(self.torch.tensor(x, dtype=torch_dtype)).numpy()

    def separator(self, bundle: ModelBundle, dtype: str = "float64", **options: Any) -> Any:
        """Build an `openunmix.model.Separator` with the networks of `bundle`."""
        with self.precision(dtype) as torch_dtype:
            separator = self.model.Separator(
                target_models={
                    name: self.network(weights, dtype) for name, weights in bundle.targets.items()
                },
                sample_rate=bundle.sample_rate,
                n_fft=bundle.n_fft,
                n_hop=bundle.n_hop,
                nb_channels=bundle.nb_channels,
                **options,
            )
            separator.freeze()
            return separator.to(torch_dtype)

    def separate(
        self, bundle: ModelBundle, audio: np.ndarray, dtype: str = "float64", **options: Any
    ) -> np.ndarray:
        """Separate `audio` [shape=(nb_samples, nb_channels, nb_timesteps)]."""
        separator = self.separator(bundle, dtype, **options)
        with self.precision(dtype) as torch_dtype:
            return separator(self.torch.tensor(audio, dtype=torch_dtype)).numpy()

    def filterbanks(self, dtype: str = "float64", **options: Any) -> tuple[Callable, Callable]:
        """Forward and inverse transform between real and complex arrays."""
        with self.precision(dtype) as torch_dtype:
            encoder, decoder = (
                bank.to(torch_dtype) for bank in self.transforms.make_filterbanks(**options)
            )

        def forward(x: np.ndarray) -> np.ndarray:
            with self.precision(dtype) as torch_dtype, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # asteroid warns of windows that hold zeros
                tensor = encoder(self.torch.tensor(x, dtype=torch_dtype))
                return self.torch.view_as_complex(tensor.contiguous()).numpy()

        def inverse(spectrogram: np.ndarray, length: int | None = None) -> np.ndarray:
            with self.precision(dtype), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                complex_dtype = np.result_type(np.dtype(dtype), np.complex64)
                tensor = self.torch.from_numpy(spectrogram.astype(complex_dtype))
                return decoder(self.torch.view_as_real(tensor).clone(), length=length).numpy()

        return forward, inverse

    def wiener(
        self, estimates: np.ndarray, mix_stft: np.ndarray, dtype: str = "float64", **options: Any
    ) -> np.ndarray:
        """Run `openunmix.filtering.wiener` on a complex mixture; returns complex estimates."""
        with self.precision(dtype) as torch_dtype:
            result = self.filtering.wiener(
                self.torch.tensor(estimates, dtype=torch_dtype),
                self._pairs(mix_stft, torch_dtype),
                **options,
            )
            return _join(result.numpy(), axis=-2)

    def expectation_maximization(
        self, y: np.ndarray, x: np.ndarray, dtype: str = "float64", **options: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run `openunmix.filtering.expectation_maximization` on complex arrays.

        Returns
        -------
        y : ndarray [shape=(nb_frames, nb_bins, nb_channels, nb_sources)], complex
        v : ndarray [shape=(nb_frames, nb_bins, nb_sources)]
        R : ndarray [shape=(nb_bins, nb_channels, nb_channels, nb_sources)], complex
        """
        with self.precision(dtype) as torch_dtype:
            y_pairs = self._pairs(y, torch_dtype).movedim(-1, -2).contiguous()
            y_out, v, R = self.filtering.expectation_maximization(
                y_pairs, self._pairs(x, torch_dtype), **options
            )
            R = self.torch.stack(R, dim=-1) if isinstance(R, (list, tuple)) else R
            return _join(y_out.numpy(), axis=-2), v.numpy(), _join(R.numpy(), axis=-2)

    def _pairs(self, array: np.ndarray, torch_dtype: Any) -> Any:
        """Complex array to a tensor with a last axis of real and imaginary part."""
        pairs = np.stack([array.real, array.imag], axis=-1)
        return self.torch.tensor(pairs, dtype=torch_dtype)


def _join(pairs: np.ndarray, axis: int) -> np.ndarray:
    real, imag = np.moveaxis(pairs, axis, 0)
    return real + 1j * imag


def options_id(options: Mapping[str, object]) -> str:
    """Readable parametrisation id of keyword options."""
    return ",".join(f"{name}={value}" for name, value in options.items()) or "defaults"
