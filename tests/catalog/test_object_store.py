"""Stores: one contract for folders and a server that speaks S3 and knows conditional writes."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

import umx_np
from umx_np.catalog import Ledger, make_plan, run_shard
from umx_np.catalog.stores import FolderStore, Store, open_store
from umx_np.errors import CatalogError

KEYS = ["a.bin", "b/c d.bin", "b/söng 100%.bin", "b/#1 [x]?.bin", "b/deeper/e.bin"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a bucket."""
    pytest.importorskip("obstore", reason="needs the extra cluster")
    moto = pytest.importorskip("moto.server", reason="needs moto[server,s3]")
    found: Any = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    found.start()
    host, port = found.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        import urllib.request

        request = urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")
        urllib.request.urlopen(request).close()
        yield "s3://bucket"
    found.stop()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    address = request.getfixturevalue("server")
    return open_store(f"{address}/{tmp_path.name}")


def test_values(store: Store) -> None:
    assert store.get("a.bin") is None
    assert list(store.list()) == []
    for key in KEYS:
        store.put(key, key.encode())
    assert {entry.key: entry.size for entry in store.list()} == {
        key: len(key.encode()) for key in KEYS
    }
    assert all(store.get(key) == key.encode() for key in KEYS)
    assert {entry.key for entry in store.list("b/deeper")} == {"b/deeper/e.bin"}
    assert all(1.6e9 < entry.written < 1e11 for entry in store.list())
    store.put("a.bin", b"other")
    assert store.get("a.bin") == b"other"
    store.delete("a.bin")
    store.delete("a.bin")
    assert store.get("a.bin") is None
    store.delete_all("b")
    store.delete_all("b")
    assert list(store.list()) == []


def test_only_one_creates(store: Store) -> None:
    assert store.create("one/key.json", b"first")
    assert not store.create("one/key.json", b"second")
    assert store.get("one/key.json") == b"first"
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return store.create("one/raced.json", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert sum(won) == 1
    assert store.get("one/raced.json") == str(won.index(True)).encode()
    assert len(list(store.list("one"))) == 2


def test_files_and_folders(store: Store, tmp_path: Path) -> None:
    with store.writing("made/here", tmp_path) as folder:
        (folder / "deeper").mkdir()
        (folder / "x.bin").write_bytes(b"x")
        (folder / "deeper" / "y.bin").write_bytes(b"y" * 10_000_000)
    assert {entry.key for entry in store.list("made")} == {
        "made/here/x.bin",
        "made/here/deeper/y.bin",
    }
    with store.reading("made/here/deeper/y.bin", tmp_path) as path:
        assert path.read_bytes() == b"y" * 10_000_000
    with store.reading("made/here", tmp_path) as path:
        assert {each.name for each in path.iterdir()} == {"x.bin", "deeper"}
        assert (path / "x.bin").read_bytes() == b"x"
    with pytest.raises(OSError), store.reading("missing.bin", tmp_path) as path:
        path.read_bytes()


def test_addresses_that_are_not_usable() -> None:
    pytest.importorskip("obstore", reason="needs the extra cluster")
    with pytest.raises(CatalogError, match="no address"):
        open_store("nonsense://x")


def test_catalogue_in_a_bucket(
    server: str, make_songs: Callable[..., Path], model: Path, tmp_path: Path
) -> None:
    songs = make_songs(4)
    source = open_store(f"{server}/songs")
    for path in songs.rglob("*.wav"):
        source.put(path.relative_to(songs).as_posix(), path.read_bytes())
    source.put("broken 1.wav", b"RIFF no sound")
    plan = make_plan(
        f"{server}/songs",
        f"{server}/stems",
        f"{server}/plan",
        settings={"niter": 0, "bits": "float"},
        model=str(model),
    )
    status = run_shard(plan, threads=1)
    assert (status.done, status.failed, status.running) == (4, 1, 0)
    assert "broken 1.wav" in status.errors
    results, named = open_store(plan.destination), set()
    for item in plan.items():
        result = Ledger(plan).result(item)
        if result is None:
            continue
        expected = umx_np.separate_file(
            songs / item.path, tmp_path / "one", model=model, niter=0, bits="float", threads=1
        )
        for stem, output in result["record"]["outputs"].items():
            key = f"{result['folder']}/{output['name']}"
            named.add(key)
            sound = results.get(key)
            assert sound is not None
            assert len(sound) == output["size"]
            found = sf.read(io.BytesIO(sound))[0]
            np.testing.assert_array_equal(found, sf.read(expected[stem])[0])
    there = {entry.key for entry in results.list() if not entry.key.endswith(".umx-np.wav.json")}
    assert there == named
