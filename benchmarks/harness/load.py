"""How much of the machine others use while something is measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Snapshot:
    """Seconds of processor time up to a moment.

    Attributes
    ----------
    everybody : float
        Of all processes of the machine, and time that its host gave to others.
    own : float
        Of this process and the children it has waited for.
    capacity : float
        All there was, idle or not.
    """

    everybody: float
    own: float
    capacity: float


def snapshot() -> Snapshot | None:
    """Read the counters, where the system has them (Linux)."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    # user nice system idle iowait irq softirq steal; guest time is part of user time.
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, first[1:9])
    busy = user + nice + system + irq + softirq + steal
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return Snapshot(busy / ticks, own, (busy + idle + iowait) / ticks)


def others_share(before: Snapshot | None, after: Snapshot | None) -> float | None:
    """Part of the machine, from 0 to 1, that others used between two moments."""
    if before is None or after is None or after.capacity <= before.capacity:
        return None
    others = (after.everybody - before.everybody) - (after.own - before.own)
    return round(min(max(others / (after.capacity - before.capacity), 0.0), 1.0), 3)


def wait_until_idle(limit: float, *, below: float = 0.05, interval: float = 2.0) -> bool:
    """Wait until others use next to nothing of the machine.

    Parameters
    ----------
    limit : float
        Seconds to wait at most.
    below : float
        Share of the machine that may be in use.
    interval : float
        Seconds to look at.

    Returns
    -------
    bool
        Whether it became idle, or cannot be told.
    """
    end = time.monotonic() + limit
    while True:
        before = snapshot()
        time.sleep(interval)
        share = others_share(before, snapshot())
        if share is None or share <= below:
            return True
        if time.monotonic() > end:
            return False
