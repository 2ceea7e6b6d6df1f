"""What a container allows, in trees of files as the kernel shows them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from umx_np import Separator
from umx_np._support import limits as _limits
from umx_np._support.limits import available_cores, core_limit, memory_limit
from umx_np.config import ModelConfig
from umx_np.separation import tracks as streaming
from umx_np.testing import random_bundle_of

V2 = "33 24 0:29 {inside} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "33 24 0:29 {inside} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "34 24 0:30 {inside} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "35 24 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
V1_PATHS = "4:memory:{path}\n1:cpu,cpuacct:{path}\n0::/\n"


@pytest.fixture
def machine(tmp_path):
    """Write a tree: mounts, paths of this process, and files of control groups."""

    def write(mounts: str, paths: str, files: dict[str, str]) -> Path:
        for name, text in {
            "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts,
            "proc/self/cgroup": paths,
            **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
        }.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", None), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1)],
)
def test_second_version(machine, quota, cores):
    files = {"cpu.max": f"{quota}\n", "memory.max": "max\n"}
    root = machine(V2.format(inside="/"), "0::/\n", files)
    assert core_limit(root) == cores
    assert memory_limit(root) is None


def test_limits_of_outer_groups_count(machine):
    files = {
        "a.slice/cpu.max": "300000 100000\n",
        "a.slice/b.scope/cpu.max": "max 100000\n",
        "a.slice/memory.max": "1000000\n",
        "a.slice/b.scope/memory.max": "2000000\n",
        "other.slice/cpu.max": "100000 100000\n",
    }
    root = machine(V2.format(inside="/"), "0::/a.slice/b.scope\n", files)
    assert core_limit(root) == 3
    assert memory_limit(root) == 1_000_000


@pytest.mark.parametrize(("inside", "path"), [("/", "/"), ("/docker/1f", "/docker/1f")])
def test_first_version(machine, inside, path):
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "536870912\n",
    }
    root = machine(V1.format(inside=inside), V1_PATHS.format(path=path), files)
    assert core_limit(root) == 3
    assert memory_limit(root) == 1 << 29


def test_first_version_without_limits(machine):
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    root = machine(V1.format(inside="/"), V1_PATHS.format(path="/a"), files)
    assert core_limit(root) is None
    assert memory_limit(root) is None


@pytest.mark.parametrize("path", ["/../..", "/elsewhere/1f", "/docker/1fe"])
def test_paths_that_lie_outside_of_what_is_mounted(machine, path):
    files = {"cpu.max": "200000 100000\n"}
    root = machine(V2.format(inside="/docker/1f"), f"0::{path}\n", files)
    assert core_limit(root) == 2


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 3\n", "0 0\n", "-5 100000\n"])
def test_what_cannot_be_read_is_no_limit(machine, tmp_path, text):
    assert core_limit(tmp_path / "nothing") is None
    assert memory_limit(tmp_path / "nothing") is None
    root = machine(V2.format(inside="/"), "0::/\n", {"cpu.max": text, "memory.max": text})
    assert core_limit(root) is None
    assert memory_limit(root) is None


@pytest.mark.parametrize(("limit", "cores"), [(None, 8), (3, 3), (64, 8), (0, 1)])
def test_cores_are_the_fewer_of_both(monkeypatch, limit, cores):
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(_limits, "_own_core_limit", lambda: limit)
    assert available_cores() == cores


def test_activations_beyond_half_of_a_container_go_to_disk(monkeypatch):
    config = ModelConfig(nb_bins=65, hidden_size=8)
    bundle = random_bundle_of(config, ["drums"], n_fft=128, n_hop=32)
    separator = Separator.from_bundle(bundle, threads=1)
    mix = np.random.default_rng(0).standard_normal((2, 3000)).astype(np.float32)
    stores = []

    class Store(streaming.DiskStore):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            stores.append(self)

    monkeypatch.setattr(streaming, "DiskStore", Store)
    monkeypatch.setattr(streaming, "memory_limit", lambda: None)
    expected = [stems for _, stems in separator.blocks(mix)]
    assert not stores
    monkeypatch.setattr(streaming, "memory_limit", lambda: 2000)
    found = [stems for _, stems in separator.blocks(mix)]
    assert stores
    np.testing.assert_array_equal(np.concatenate(found, -1), np.concatenate(expected, -1))
