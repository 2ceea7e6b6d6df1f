"""Search for the state dict in a torch file: alone, or in a checkpoint beside other things.

Only names and descriptions are looked at. Nothing recurses, and no object is visited twice, so that
a checkpoint whose parts hold each other costs no more than its pickle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import WeightsError, shortened
from ._torch_records import MAX_NAME_LENGTH, TensorRecord
from .finding import ANCHOR, find_prefixes, is_complete, listed, without_wrappers

# Under which checkpoints have their state dict, where its names do not tell.
USUAL_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
_MAX_DEPTH = 6
# With fewer entries a dict is not taken for a network of which something is missing.
_FEWEST = 8


@dataclass(frozen=True)
class _Found:
    """A dict in a file, by the keys that lead to it."""

    path: tuple[str, ...]
    content: dict[object, object]

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def tensors(self) -> dict[str, TensorRecord]:
        return {
            name: value
            for name, value in self.content.items()
            if isinstance(name, str) and isinstance(value, TensorRecord)
        }


def select_state(content: object) -> tuple[dict[str, TensorRecord], list[str]]:
    """Find the state dict in what a file holds.

    Parameters
    ----------
    content : object
        A state dict, or a checkpoint that holds one, at any depth: the one with the names of an
        Open-Unmix network, or else the one under one of `USUAL_KEYS`.

    Returns
    -------
    dict of str to TensorRecord
        The tensors, under the names that they have in the state dict.
    list of str
        Names of what is ignored, by the keys that lead there.

    Raises
    ------
    WeightsError
        If there is no state dict, one with other things than tensors in it and no network, or
        several that could be meant.
    """
    if not isinstance(content, dict):
        kind = "tensor" if isinstance(content, TensorRecord) else type(content).__name__
        raise WeightsError(
            f"the file holds a {kind} instead of a state dict; save model.state_dict()"
        )
    found = list(_dicts(content))
    networks = _networks(found)
    if networks:
        chosen = _only(networks)
        return chosen.tensors(), _ignored(found, chosen)
    usual = [
        each
        for each in found
        if each.path and each.path[-1] in USUAL_KEYS and _holds_only_tensors(each.content)
    ]
    chosen = _only(usual) if usual else found[0]
    for name, value in chosen.content.items():
        _check_entry(name, value)
    return chosen.tensors(), _ignored(found, chosen)


def _dicts(content: dict[object, object]) -> Iterator[_Found]:
    """Yield a dict and those in it, at most `_MAX_DEPTH` keys away, each once."""
    seen = {id(content)}
    level = [_Found((), content)]
    for _ in range(_MAX_DEPTH + 1):
        yield from level
        further = []
        for parent in level:
            for key, value in parent.content.items():
                if isinstance(key, str) and len(key) > MAX_NAME_LENGTH:
                    raise WeightsError(
                        f"entry={shortened(key)} of the state dict has too long a name"
                    )
                if isinstance(key, str) and isinstance(value, dict) and id(value) not in seen:
                    seen.add(id(value))
                    further.append(_Found((*parent.path, key), value))
        level = further


def _networks(found: list[_Found]) -> list[_Found]:
    """Return the dicts that hold a network; where all are incomplete, those that hold one so."""
    complete: list[_Found] = []
    others: list[_Found] = []
    for each in found:
        if len(each.content) < _FEWEST or not any(
            isinstance(name, str) and name.endswith(ANCHOR) for name in each.content
        ):
            continue
        names = frozenset(without_wrappers(name) for name in each.tensors())
        if prefixes := find_prefixes(names):
            (complete if is_complete(names, prefixes[0]) else others).append(each)
    return complete or others


def _only(candidates: list[_Found]) -> _Found:
    """Return the one of several dicts, which may be the same tensors under several names."""
    first = candidates[0]
    tensors = first.tensors()
    rivals = [each for each in candidates[1:] if each.tensors() != tensors]
    if rivals:
        names = [each.name or "the file itself" for each in (first, *rivals)]
        raise WeightsError(
            f"the file holds {len(names)} state dicts, {listed(names)}, and nothing says which "
            "one is meant; save one of them alone"
        )
    return first


def _ignored(found: list[_Found], chosen: _Found) -> list[str]:
    """Name what lies on the way to a dict and beside its tensors."""
    names = []
    for each in found:
        depth = len(each.path)
        if each.path != chosen.path[:depth]:
            continue
        used = chosen.path[depth] if depth < len(chosen.path) else None
        for key, value in each.content.items():
            is_used = isinstance(value, TensorRecord) if used is None else key == used
            if not (is_used and isinstance(key, str)):
                names.append(".".join((*each.path, str(key))))
    return names


def _holds_only_tensors(content: dict[object, object]) -> bool:
    return bool(content) and all(isinstance(value, TensorRecord) for value in content.values())


def _check_entry(name: object, value: object) -> None:
    """Make sure that an entry is a tensor under a name."""
    if not isinstance(name, str):
        raise WeightsError(
            f"entry={shortened(name)} of the state dict has a key that is no text; save "
            "model.state_dict()"
        )
    if not isinstance(value, TensorRecord):
        raise WeightsError(
            f"entry={shortened(name)} of the state dict is a {type(value).__name__}, "
            "not a tensor; save model.state_dict()"
        )
