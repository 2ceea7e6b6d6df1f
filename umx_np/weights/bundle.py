"""The form in which weights travel from files to networks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..config import ModelConfig

StateDict = dict[str, np.ndarray]


@dataclass(frozen=True)
class TargetWeights:
    """Weights of one target network and the architecture they belong to.

    Attributes
    ----------
    config : ModelConfig
        Architecture.
    state : dict of str to ndarray
        Tensors under PyTorch's names; a matrix of int8 has its scales beside it, as
        ``<name>_scale``.
    """

    config: ModelConfig
    state: StateDict


@dataclass(frozen=True)
class ModelBundle:
    """All that a `Separator` needs to know about a trained model.

    Attributes
    ----------
    name : str
        Registry name, or the name of the folder it was read from.
    targets : dict of str to TargetWeights
        In the order in which stems are returned.
    sample_rate, n_fft, n_hop, nb_channels
        As in `SeparatorConfig`.
    license : str or None
        Licence of the weights, when known.
    input_level : float or None
        As in `SeparatorConfig`; None for the models of Open-Unmix.
    precision : {'full', 'fast', 'int8'} or None
        What the model recommends to separate with. The command line follows it, functions do not.
    """

    name: str
    targets: dict[str, TargetWeights] = field(repr=False)
    sample_rate: float = 44100.0
    n_fft: int = 4096
    n_hop: int = 1024
    nb_channels: int = 2
    license: str | None = None
    input_level: float | None = None
    precision: str | None = None
