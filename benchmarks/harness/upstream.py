"""PyTorch's Open-Unmix, with the weights of a bundle."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umx_np.weights.bundle import ModelBundle, TargetWeights

INSTALL = "python -m pip install torch && python -m pip install --no-deps openunmix==1.3.0"


def _stand_in_for_torchaudio() -> None:
    """Let openunmix be imported where there is no torchaudio.

    It imports it for files and resampling only, which no benchmark asks of it, and there is not a
    torchaudio for every torch.
    """
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError):
        sys.modules["torchaudio"] = ModuleType("torchaudio")


def load(*modules: str) -> SimpleNamespace:
    """Import torch and modules of openunmix.

    Parameters
    ----------
    *modules : str
        For instance ``"model"``, ``"filtering"``, ``"predict"``.

    Returns
    -------
    SimpleNamespace
        With ``torch`` and the modules.

    Raises
    ------
    SystemExit
        If they are not installed; the message says how to.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations within other packages
            found = SimpleNamespace(torch=importlib.import_module("torch"))
            _stand_in_for_torchaudio()
            for module in modules:
                setattr(found, module, importlib.import_module(f"openunmix.{module}"))
    except ImportError as error:
        raise SystemExit(f"PyTorch's Open-Unmix is needed ({error}): {INSTALL}") from error
    return found


def network(up: SimpleNamespace, weights: TargetWeights) -> Any:
    """Build `openunmix.model.OpenUnmix` in evaluation mode, without gradients.

    Parameters
    ----------
    up : SimpleNamespace
        From `load` with ``"model"``.
    weights : TargetWeights
        Architecture and state dict.
    """
    config = weights.config
    model = up.model.OpenUnmix(
        nb_bins=config.nb_bins,
        nb_channels=config.nb_channels,
        hidden_size=config.hidden_size,
        nb_layers=config.nb_layers,
        unidirectional=config.unidirectional,
        max_bin=config.max_bin,
    )
    state = {name: up.torch.from_numpy(value.copy()) for name, value in weights.state.items()}
    model.load_state_dict(state, strict=True)
    model.freeze()
    return model


def quantized(up: SimpleNamespace, model: Any) -> Any:
    """Return a network whose LSTM and linear layers torch computes in eight bits.

    Parameters
    ----------
    up : SimpleNamespace
        From `load`.
    model : Module
        From `network`; not changed.

    Raises
    ------
    SystemExit
        If a layer was left as it was.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch moves these functions elsewhere
        result = up.torch.ao.quantization.quantize_dynamic(
            model, {up.torch.nn.LSTM, up.torch.nn.Linear}, dtype=up.torch.qint8
        )
    for name in ("lstm", "fc1", "fc2", "fc3"):
        kind = type(getattr(result, name))
        if not kind.__module__.startswith("torch.ao.nn.quantized.dynamic"):
            raise SystemExit(f"{name} is still a {kind.__module__}.{kind.__name__}")
    return result


def separator(up: SimpleNamespace, bundle: ModelBundle, **options: Any) -> Any:
    """Build `openunmix.model.Separator` with the networks of a bundle, frozen.

    Parameters
    ----------
    up : SimpleNamespace
        From `load` with ``"model"``.
    bundle : ModelBundle
        Weights and STFT.
    **options
        Of the separator: niter, softmask, residual, wiener_win_len.
    """
    result = up.model.Separator(
        target_models={name: network(up, weights) for name, weights in bundle.targets.items()},
        sample_rate=bundle.sample_rate,
        n_fft=bundle.n_fft,
        n_hop=bundle.n_hop,
        nb_channels=bundle.nb_channels,
        **options,
    )
    result.freeze()
    return result
