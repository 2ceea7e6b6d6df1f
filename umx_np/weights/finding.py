"""Search for the tensors of a network among those of a file, by their names alone.

Programs that train put their own words in front of them: wrappers of torch, the attribute of a
Lightning module, the keys of a checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from ..errors import WeightsError, shortened
from .bundle import StateDict

# What torch's DataParallel and torch.compile add, in front of a name or within it.
_WRAPPERS = re.compile(r"(?<![^.])(?:module|_orig_mod)\.")
# Every network has it, and what stands in front of it stands in front of all names.
ANCHOR = "fc1.weight"
# What a network of any architecture has.
_NEEDED = (
    "input_mean", "input_scale", "output_mean", "output_scale", ANCHOR, "fc2.weight", "fc3.weight",
    "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0",
    "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var",
    "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var",
    "bn3.weight", "bn3.bias", "bn3.running_mean", "bn3.running_var",
)  # fmt: skip
_MAX_LISTED = 6


def listed(names: Iterable[str]) -> str:
    """Write names for a message, the first few of many."""
    names = list(names)
    shown = ", ".join(shortened(name, 60) for name in names[:_MAX_LISTED])
    return shown + (f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else "")


def without_wrappers(name: str) -> str:
    """Return a name without what torch's wrappers have added to it."""
    return _WRAPPERS.sub("", name)


def strip_wrappers(state: Mapping[str, np.ndarray]) -> StateDict:
    """Remove what torch's wrappers (``module.``, ``_orig_mod.``) have added to names.

    Parameters
    ----------
    state : mapping of str to ndarray
        Any state dict.

    Returns
    -------
    dict of str to ndarray
        The same arrays under their plain names.

    Raises
    ------
    WeightsError
        If two names become the same.
    """
    plain: StateDict = {}
    origins: dict[str, str] = {}
    for name, array in state.items():
        stripped = without_wrappers(name)
        if stripped in plain:
            raise WeightsError(
                f"tensor={shortened(stripped)} is there twice, with and without a prefix: as "
                f"{shortened(origins[stripped])} and as {shortened(name)}"
            )
        plain[stripped], origins[stripped] = array, name
    return plain


def find_prefixes(names: Collection[str]) -> list[str]:
    """Find what stands in front of the names of networks.

    Parameters
    ----------
    names : collection of str
        Names of tensors, without those of wrappers.

    Returns
    -------
    list of str
        One for each network: ``""`` for plain names, or such as ``"model."``. Those that have all
        that every network has; where there are none, those with some of it.
    """
    names = frozenset(names)
    starts = [
        name.removesuffix(ANCHOR) for name in names if name == ANCHOR or name.endswith(f".{ANCHOR}")
    ]
    complete = [start for start in starts if is_complete(names, start)]
    return sorted(complete or starts)


def is_complete(names: Collection[str], prefix: str) -> bool:
    """Whether all that every network has is there with a prefix."""
    return all(prefix + needed in names for needed in _NEEDED)


def network_tensors(state: Mapping[str, np.ndarray]) -> tuple[StateDict, list[str]]:
    """Take the tensors of a network from a state dict.

    Parameters
    ----------
    state : mapping of str to ndarray
        State dict, in which the network may lie under a name such as ``model``.

    Returns
    -------
    dict of str to ndarray
        The same arrays under their plain names; all of them where no network is found.
    list of str
        Names of the tensors that are none of the network's.

    Raises
    ------
    WeightsError
        If there are several networks.
    """
    plain = strip_wrappers(state)
    prefixes = find_prefixes(plain)
    if len(prefixes) > 1:
        raise WeightsError(
            f"there are {len(prefixes)} networks, under {listed(prefixes)}, and nothing says which "
            "one is meant; save one of them alone"
        )
    prefix = prefixes[0] if prefixes else ""
    own = {name[len(prefix) :]: v for name, v in plain.items() if name.startswith(prefix)}
    return own, [name for name in plain if not name.startswith(prefix)]
