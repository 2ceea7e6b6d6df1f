"""Several hosts: network namespaces with a scheduler and three workers, one of which is cut off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import umx_np
from umx_np.catalog import Ledger

from .test_cluster import small_plan
from .test_shards import published, stray_files

pytest.importorskip("distributed", reason="needs the extra cluster")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="makes network namespaces: needs root, and the program ip",
    ),
]

LONG = os.environ.get("UMX_NP_TEST_LONG") == "1"
SONGS = 300 if LONG else 40
# Seconds in which a host is cut off, and after which the others take it for gone.
AWAY = 60.0 if LONG else 25.0
PATIENCE = 15
TAG = f"umx{os.getpid() % 10000}"
HOSTS = ("scheduler", "worker1", "worker2", "worker3")


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")


def name(host: str) -> str:
    return f"{TAG}{HOSTS.index(host)}"


def address(host: str) -> str:
    return f"10.213.0.{HOSTS.index(host) + 1}"


@pytest.fixture
def hosts() -> Iterator[None]:
    """Namespaces on one bridge, that reach nothing else."""
    with ExitStack() as made:

        def make(*words: str, undone_by: str) -> None:
            ip(*words)
            made.callback(subprocess.run, ["ip", *undone_by.split()], capture_output=True)

        bridge = f"{TAG}b"
        # In a namespace of its own, so that the machine itself has no part in it.
        make("netns", "add", bridge, undone_by=f"netns del {bridge}")
        ip("-n", bridge, "link", "add", "bridge", "type", "bridge")
        ip("-n", bridge, "link", "set", "bridge", "up")
        for host in HOSTS:
            space = name(host)
            make("netns", "add", space, undone_by=f"netns del {space}")
            ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", space, "netns", bridge)
            ip("-n", bridge, "link", "set", space, "master", "bridge", "up")
            ip("-n", space, "addr", "add", f"{address(host)}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", space, "link", "set", device, "up")
        yield


@contextmanager
def on(host: str, *words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of Python on a host."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(umx_np.__file__).parents[1]),
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": f"{PATIENCE}s",
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": f"{PATIENCE}s",
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{PATIENCE}s",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = ["ip", "netns", "exec", name(host), sys.executable, "-m", *words]
    with (
        log.open("ab") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def test_host_that_is_cut_off(
    hosts: None, make_songs: Callable[..., Path], model: Path, tmp_path: Path
) -> None:
    plan = small_plan(make_songs(SONGS, 2.0), model, tmp_path)
    ledger = Ledger(plan)
    log = tmp_path / "log"
    scheduler = f"tcp://{address('scheduler')}:8786"
    with ExitStack() as running:
        words = ["distributed.cli.dask_scheduler", "--host", address("scheduler"), "--no-dashboard"]
        running.enter_context(on("scheduler", *words, log=log))
        for host in HOSTS[1:]:
            words = ["distributed.cli.dask_worker", scheduler, "--host", address(host)]
            words += ["--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)]
            running.enter_context(on(host, *words, log=log))
        words = ["umx_np", "catalog", "run", "-q", plan.place, "--scheduler", scheduler]
        client = running.enter_context(on("scheduler", *words, log=log))
        begin = time.monotonic()
        while not ledger.status().done:
            assert client.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() - begin < 120, log.read_text()[-3000:]
            time.sleep(0.2)
        ip("-n", name("worker2"), "link", "set", "eth0", "down")
        assert ledger.status().done < SONGS // 2
        time.sleep(AWAY)
        ip("-n", name("worker2"), "link", "set", "eth0", "up")
        assert client.wait(timeout=300) == 0, log.read_text()[-3000:]
    status = ledger.status()
    assert (status.done, status.failed, status.running) == (SONGS, 0, 0)
    assert len(published(plan)) == SONGS
    assert stray_files(plan) == set()
