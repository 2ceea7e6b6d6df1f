"""The ledger of a catalogue: which songs are done, failed, and being worked on.

Its values are small files of JSON beside the plan:

- ``done/<id>.json``, written only if there is none: what an attempt has published. Nothing else
  says that a song is done, and nobody looks at stems that it does not name.
- ``failed/<id>.json``: a song that is given up, and why.
- ``attempts/<id>/<attempt>.json``: an attempt that goes on, was lost, or failed and is tried again.
  Those of songs that are done are removed.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from ..errors import UmxError
from .plan import Item, Plan
from .stores import Entry

DONE, FAILED, ATTEMPTS = "done", "failed", "attempts"

# How often a song may end the process that works on it, or take too long: it is to blame.
MAX_KILLS = 2
# How often something around it may fail, such as a disk or a network.
MAX_ERRORS = 3
# How often it may be lost with a whole worker, for whatever reason.
MAX_LOSSES = 5
_LIMITS = {"killed": MAX_KILLS, "error": MAX_ERRORS, "lost": MAX_LOSSES}
# What the system says of a song, and not of itself.
_OF_SONG = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# Characters of a message that are kept.
_LONGEST = 2000
# Results whose times tell the rate.
_RECENT = 500


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    Attributes
    ----------
    kind : {'song', 'killed', 'error'}
        The song cannot be done, its process ended or took too long, or something around it failed.
    name, message : str
        Class of the error, and what it says.
    """

    kind: str
    name: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Say whether the song is to blame for an error, or the system around it."""
        kind, cause = "song", cast("BaseException | None", error)
        while cause is not None:
            of_system = isinstance(cause, OSError) and not isinstance(cause, (UmxError, *_OF_SONG))
            if of_system or isinstance(cause, MemoryError):
                kind = "error"
            cause = cause.__cause__
        return cls(kind, type(error).__name__, str(error))


@dataclass(frozen=True)
class Status:
    """How far a catalogue is.

    Attributes
    ----------
    total, done, failed : int
        Songs of the plan, and those that are published or given up.
    classes : dict of str to int
        Songs that are given up, by the class of their error.
    errors : dict of str to str
        What the errors say, by the path of the song.
    running : int
        Attempts that go on, or were lost with their worker.
    songs_an_hour : float or None
        Rate of the last results.
    seconds_left : float or None
        At that rate.
    """

    total: int
    done: int
    failed: int
    classes: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    running: int = 0
    songs_an_hour: float | None = None
    seconds_left: float | None = None


class Ledger:
    """The ledger of a plan.

    Parameters
    ----------
    plan : Plan
        The plan beside which it is.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._store = plan.store

    def ended(self) -> set[str]:
        """Identities of the songs that are done or given up, by two listings."""
        return {_id(entry) for name in (DONE, FAILED) for entry in self._store.list(name)}

    def left(self, items: Iterable[Item]) -> list[Item]:
        """Songs that are neither done nor given up, in their order."""
        ended = self.ended()
        return [item for item in items if item.id not in ended]

    def begin(self, item: Item) -> str | None:
        """Begin an attempt; None if the song is done or given up, perhaps by this very call.

        What earlier attempts left of a song that is done is removed.
        """
        if self._get(DONE, item) is not None or self._get(FAILED, item) is not None:
            return None
        earlier = self._attempts(item)
        counts = Counter(str(attempt.get("kind", "lost")) for attempt in earlier.values())
        for kind, limit in _LIMITS.items():
            if counts[kind] >= limit:
                last = {"name": "WorkerLost", "message": f"lost with its worker {limit} times"}
                if kind != "lost":
                    last = [each for each in earlier.values() if each.get("kind") == kind][-1]
                self._give_up(item, Failure(kind, last["name"], last["message"]), earlier)
                return None
        attempt = f"{len(earlier) + 1}-{secrets.token_hex(4)}"
        about = {"host": platform.node(), "pid": os.getpid(), "started": time.time()}
        self._store.put(f"{ATTEMPTS}/{item.id}/{attempt}.json", _json(about))
        return attempt

    def publish(self, item: Item, attempt: str, result: dict[str, Any]) -> bool:
        """Make the results of an attempt those of the song; False if others are that already."""
        document = {"path": item.path, "attempt": attempt, "finished": time.time(), **result}
        is_first = self._store.create(f"{DONE}/{item.id}.json", _json(document))
        self.forget(item, attempt)
        return is_first

    def fail(self, item: Item, attempt: str, failure: Failure) -> bool:
        """Note that an attempt failed; return whether the song is given up for it."""
        earlier = self._attempts(item)
        if failure.kind == "song":
            self._give_up(item, failure, {attempt: {}})
            return True
        ended = {**earlier.get(attempt, {}), **asdict(failure), "ended": time.time()}
        self._store.put(f"{ATTEMPTS}/{item.id}/{attempt}.json", _json(ended))
        alike = [each for each in earlier.values() if each.get("kind") == failure.kind]
        if len(alike) + 1 < _LIMITS[failure.kind]:
            return False
        self._give_up(item, failure, {**earlier, attempt: ended})
        return True

    def forget(self, item: Item, attempt: str) -> None:
        """Take back an attempt that ended well or was not needed."""
        self._store.delete(f"{ATTEMPTS}/{item.id}/{attempt}.json")

    def abandoned(self) -> list[tuple[str, str]]:
        """Attempts at songs that are done or given up: identities of songs, and attempts."""
        ended = self.ended()
        found = (entry.key.split("/") for entry in self._store.list(ATTEMPTS))
        return [(key[1], key[2].removesuffix(".json")) for key in found if key[1] in ended]

    def result(self, item: Item) -> dict[str, Any] | None:
        """What is published of a song; None if it is not done."""
        return self._get(DONE, item)

    def status(self) -> Status:
        """Say how far the catalogue is."""
        times = sorted(entry.written for entry in self._store.list(DONE))
        failures = [self._read(entry.key) or {} for entry in self._store.list(FAILED)]
        recent = times[-_RECENT:]
        rate = None
        if len(recent) > 1 and recent[-1] > recent[0]:
            rate = 3600 * (len(recent) - 1) / (recent[-1] - recent[0])
        left = self.plan.nb_items - len(times) - len(failures)
        return Status(
            self.plan.nb_items,
            len(times),
            len(failures),
            dict(Counter(str(each.get("name", "?")) for each in failures).most_common()),
            {str(each.get("path", "?")): str(each.get("message", "?")) for each in failures},
            sum("kind" not in (self._read(e.key) or {}) for e in self._store.list(ATTEMPTS)),
            rate,
            None if rate is None else 3600 * left / rate,
        )

    def retry(self, names: Collection[str] = ()) -> int:
        """Let songs that were given up be tried again.

        Parameters
        ----------
        names : collection of str
            Classes of errors whose songs are meant; empty for all.

        Returns
        -------
        int
            How many songs these are.
        """
        count = 0
        for entry in list(self._store.list(FAILED)):
            failure = self._read(entry.key) or {}
            if names and failure.get("name") not in names:
                continue
            for attempt in list(self._store.list(f"{ATTEMPTS}/{_id(entry)}")):
                self._store.delete(attempt.key)
            self._store.delete(entry.key)
            count += 1
        return count

    def _give_up(self, item: Item, failure: Failure, attempts: dict[str, Any]) -> None:
        document = {"path": item.path, **asdict(failure), "attempts": len(attempts)}
        document["message"] = failure.message[:_LONGEST] or failure.name
        self._store.create(f"{FAILED}/{item.id}.json", _json(document))
        for attempt in attempts:
            self.forget(item, attempt)

    def _attempts(self, item: Item) -> dict[str, dict[str, Any]]:
        """Earlier attempts at a song, the first ones first."""
        keys = sorted(entry.key for entry in self._store.list(f"{ATTEMPTS}/{item.id}"))
        found = {key.rpartition("/")[2].removesuffix(".json"): self._read(key) for key in keys}
        return {name: about for name, about in found.items() if about is not None}

    def _get(self, name: str, item: Item) -> dict[str, Any] | None:
        return self._read(f"{name}/{item.id}.json")

    def _read(self, key: str) -> dict[str, Any] | None:
        text = self._store.get(key)
        try:
            return None if text is None else json.loads(text)
        except ValueError:
            # Of attempts alone: they are not worth the time to make them survive a power failure.
            return {}


def _id(entry: Entry) -> str:
    return entry.key.rpartition("/")[2].removesuffix(".json")


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True, default=str).encode("ascii") + b"\n"
