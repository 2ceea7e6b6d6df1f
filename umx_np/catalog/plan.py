"""Plans of catalogues: which songs, how they are separated or scored, and where the results go."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from .. import __version__
from ..errors import CatalogError
from .stores import Store, open_store

FORMAT = "umx_np catalog"
FORMAT_VERSION = 1
PLAN, ITEMS = "plan.json", "items.jsonl.gz"

# What can be done with an item. "nothing" measures stores and clusters before a large run.
WORKS = ("separation", "evaluation", "nothing")


@dataclass(frozen=True)
class Item:
    """A song, or the folder of a track.

    Attributes
    ----------
    path : str
        Relative to the source, with ``/``.
    size : int
        In bytes, of all its files.
    """

    path: str
    size: int = 0

    @cached_property
    def id(self) -> str:
        """Its name in the ledger: 16 hexadecimal digits."""
        return hashlib.sha256(self.path.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """What a catalogue is; it never changes once it is written.

    Attributes
    ----------
    place : str
        Folder or address of the plan and its ledger.
    source, destination : str
        Folders or addresses of songs and results.
    work : {'separation', 'evaluation', 'nothing'}
        What is done with each item.
    settings : dict
        Keywords of `umx_np.separate_file` or `umx_np.evaluation.evaluate`.
    model : dict
        ``name`` and ``sha256``, the digest of the weights.
    nb_items : int
        Songs or tracks.
    umx_np : str
        Version of the package.
    """

    place: str
    source: str
    destination: str
    work: str
    settings: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    nb_items: int = 0
    umx_np: str = __version__

    @cached_property
    def store(self) -> Store:
        """Where the plan and its ledger are."""
        return open_store(self.place)

    def items(self) -> Iterator[Item]:
        """Read the items, the largest first.

        Raises
        ------
        CatalogError
            If the list is missing or damaged.
        """
        packed = self.store.get(ITEMS)
        if packed is None:
            raise CatalogError(f"{self.place}: the plan has no {ITEMS}; make it anew")
        try:
            for line in gzip.decompress(packed).decode("utf-8", "surrogateescape").splitlines():
                yield Item(**json.loads(line))
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise CatalogError(f"{self.place}: {ITEMS} is damaged: {error}") from error


def make_plan(
    source: str,
    destination: str,
    place: str,
    *,
    work: str = "separation",
    settings: Mapping[str, Any] | None = None,
    model: str | None = None,
) -> Plan:
    """List the songs of a folder or of a prefix of an object store, and fix how they are separated.

    Parameters
    ----------
    source : str
        Folder or address (``s3://bucket/prefix``) that is searched, with all below it: for sound
        files, or to be scored, for folders of tracks that hold the sound files of their stems.
    destination : str
        Folder or address for the results.
    place : str
        Folder or address for the plan and its ledger; there must be none yet.
    work : {'separation', 'evaluation', 'nothing'}
        Separate each song, score the model on each track, or nothing, to measure stores.
    settings : mapping or None
        Keywords of `umx_np.separate_file`, or of `umx_np.evaluation.evaluate`.
    model : str or None
        Name of a pretrained model or folder of a trained one, which every machine needs; None is
        the default model. Its digest is part of the plan.

    Returns
    -------
    Plan

    Raises
    ------
    CatalogError
        If there is a plan already, or nothing to be done.
    ConfigError, ModelNotFoundError, DownloadError, WeightsError
        If the settings or the model are not usable.
    """
    if work not in WORKS:
        raise CatalogError(f"work={work!r} must be one of {', '.join(WORKS)}")
    known = {} if work == "nothing" else _digest(model)
    found = {"separation": _songs, "evaluation": _folders, "nothing": _files}[work](source)
    if not found:
        raise CatalogError(f"{source}: there is nothing to be done; name a folder of songs")
    found.sort(key=lambda item: (-item.size, item.path))
    store = open_store(place)
    plan = Plan(
        store.url,
        open_store(source).url,
        open_store(destination).url,
        work,
        json.loads(json.dumps(dict(settings or {}))),
        known,
        len(found),
    )
    lines = "".join(json.dumps(asdict(item)) + "\n" for item in found)
    if store.get(PLAN) is not None:
        raise CatalogError(f"{place}: there is a plan already; choose another place for this one")
    store.delete(ITEMS)  # of a plan that was interrupted here
    store.create(ITEMS, gzip.compress(lines.encode("ascii"), mtime=0))
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(plan)}
    del document["place"]
    if not store.create(PLAN, json.dumps(document, indent=1).encode("ascii") + b"\n"):
        raise CatalogError(f"{place}: there is a plan already; choose another place for this one")
    return plan


def read_plan(place: str) -> Plan:
    """Read a plan.

    Parameters
    ----------
    place : str
        Folder or address of the plan.

    Returns
    -------
    Plan

    Raises
    ------
    CatalogError
        If there is none, or it is one of another version.
    """
    store = open_store(place)
    text = store.get(PLAN)
    if text is None:
        raise CatalogError(f"{place}: there is no plan; `umx-np catalog plan` makes one")
    try:
        document = json.loads(text)
        kind = document.pop("format"), document.pop("format_version")
        names = {each.name for each in fields(Plan)}
        plan = Plan(place=store.url, **{name: document[name] for name in names - {"place"}})
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CatalogError(f"{place}: {PLAN} is no plan: {error}") from error
    if kind != (FORMAT, FORMAT_VERSION) or plan.umx_np != __version__:
        raise CatalogError(
            f"{place}: the plan is of umx_np {plan.umx_np}, and this is {__version__}: results of "
            "both would be mixed; install that version, or make a new plan"
        )
    return plan


def _digest(model: str | None) -> dict[str, Any]:
    """Name and digest of a model, as a record of stems has them."""
    from ..pretrained import default_model, load_model
    from ..separation.separator import Separator

    bundle = load_model(default_model() if model is None else model)
    digest = Separator.from_bundle(bundle, device="cpu").weights_digest
    return {"name": model or bundle.name, "sha256": digest}


def _files(source: str) -> list[Item]:
    return [Item(entry.key, entry.size) for entry in open_store(source).list()]


def _songs(source: str) -> list[Item]:
    from ..audio.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES

    suffixes = tuple(SOUND_SUFFIXES | VIDEO_SUFFIXES)
    return [item for item in _files(source) if item.path.lower().endswith(suffixes)]


def _folders(source: str) -> list[Item]:
    """Folders with sound files in them: the tracks of a data set."""
    from ..audio.suffixes import SOUND_SUFFIXES

    sizes: dict[str, int] = {}
    for entry in open_store(source).list():
        folder, _, name = entry.key.rpartition("/")
        if folder and name.lower().endswith(tuple(SOUND_SUFFIXES)):
            sizes[folder] = sizes.get(folder, 0) + entry.size
    return [Item(folder, size) for folder, size in sizes.items()]
