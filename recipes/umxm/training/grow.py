"""Make a model wider: ``python -m recipes.umxm.training.grow RUN/refine --out RUN/wide``.

A small network is trained in less time, a wide one learns more. What the small one has learned is
taken over: the wide one computes the same at first. Its new units listen to everything, but nobody
listens to them yet, so that training can begin with their outputs at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import umx_np
from umx_np.config import ModelConfig
from umx_np.errors import ConfigError, UmxError
from umx_np.network.openunmix import initial_state
from umx_np.weights import StateDict, TargetWeights, save_folder

from ..studio.plan import STEMS


def grow(weights: TargetWeights, hidden_size: int, seed: int | Sequence[int]) -> TargetWeights:
    """Return a wider network that computes the same.

    Parameters
    ----------
    weights : TargetWeights
        The network; not modified.
    hidden_size : int
        Width of the new one.
    seed : int or sequence of int
        Source of the new weights, which are those of a network before its training.

    Returns
    -------
    TargetWeights

    Raises
    ------
    ConfigError
        If the new network would not be wider.

    Notes
    -----
    Chen, Goodfellow and Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR
    2016, has the idea. There, new units are copies of old ones; here they are new, and the weights
    from them to old units are zero.
    """
    old = weights.config
    if hidden_size <= old.hidden_size:
        raise ConfigError(f"hidden_size={hidden_size} must be more than {old.hidden_size}")
    new = replace(old, hidden_size=hidden_size)
    fresh = initial_state(new, np.random.default_rng(seed))
    state: StateDict = {}
    for name, values in weights.state.items():
        places = [
            _places(kind, size, old, new)
            for kind, size in zip(_kinds(name), values.shape, strict=True)
        ]
        wide = fresh[name].astype(values.dtype)
        if len(places) == 2:
            wide[places[0]] = 0.0
        wide[np.ix_(*places)] = values
        state[name] = wide
    return TargetWeights(new, state)


def _kinds(name: str) -> tuple[str, ...]:
    """What the axes of a tensor count."""
    if name.startswith("lstm."):
        layer_kind = "hidden" if "_ih_l0" in name else "units of both directions"
        inputs = layer_kind if "weight_ih" in name else "units"
        return ("gates", inputs) if "weight" in name else ("gates",)
    if name.endswith("num_batches_tracked"):
        return ()
    return {
        "fc1.weight": ("hidden", "bins"),
        "fc2.weight": ("hidden", "hidden and units"),
        "fc3.weight": ("bins", "hidden"),
    }.get(name, ("hidden",) if name.startswith(("bn1", "bn2")) else ("bins",))


def _places(kind: str, size: int, old: ModelConfig, new: ModelConfig) -> np.ndarray:
    """Where the old elements of an axis lie in the new one."""
    if kind == "bins":
        return np.arange(size)
    parts = {
        "hidden": [(old.hidden_size, new.hidden_size)],
        "units": [(old.lstm_hidden_size, new.lstm_hidden_size)],
    }
    parts["gates"] = 4 * parts["units"]
    parts["units of both directions"] = old.nb_directions * parts["units"]
    parts["hidden and units"] = parts["hidden"] + parts["units of both directions"]
    places, start = [], 0
    for before, after in parts[kind]:
        places.append(start + np.arange(before))
        start += after
    return np.concatenate(places)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the wider model."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.umxm.training.grow", description=__doc__
    )
    parser.add_argument("model", type=Path, help="folder of the trained networks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the wider ones")
    parser.add_argument("--hidden-size", type=int, default=384, help="default: 384")
    parser.add_argument("--seed", type=int, default=11, help="default: 11")
    options = parser.parse_args(argv)
    try:
        bundle = umx_np.load_model(str(options.model), targets=list(STEMS))
        targets = {
            name: grow(weights, options.hidden_size, [options.seed, number])
            for number, (name, weights) in enumerate(bundle.targets.items())
        }
        save_folder(replace(bundle, targets=targets), options.out, "safetensors")
    except UmxError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
