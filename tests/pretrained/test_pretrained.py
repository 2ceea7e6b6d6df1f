"""The registry, and the rules by which a name or path becomes a model. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umx_np.config import ModelConfig
from umx_np.errors import ConfigError, DownloadError, ModelNotFoundError, WeightsError
from umx_np.pretrained import hashes as _hashes
from umx_np.pretrained import loading as pretrained
from umx_np.pretrained.models import PUBLISHED, ModelInfo, PublishedFile
from umx_np.testing import random_state
from umx_np.weights import ModelBundle, TargetWeights, save_folder, save_torch

CONFIG = ModelConfig(nb_bins=5, nb_channels=2, hidden_size=4, nb_layers=1, max_bin=3)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed."""
    names: list[str] = []
    original = pretrained.check_hashes

    def counting(path: Path, *arguments: object) -> str | None:
        names.append(path.name)
        return original(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pretrained, "check_hashes", counting)
    return names


@pytest.fixture
def content(tmp_path: Path) -> dict[str, bytes]:
    """Files of a small published model, by file name."""
    path = tmp_path / "made.pth"
    files = {}
    for seed, target in enumerate(("vocals", "drums")):
        save_torch(random_state(CONFIG, seed), path, legacy=seed == 0)
        data = path.read_bytes()
        files[f"{target}-{hashlib.sha256(data).hexdigest()[:8]}.pth"] = data
    path.unlink()
    return files


@pytest.fixture
def model(content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelInfo:
    """Put a model called "tiny" in place of the published ones, and empty caches."""
    files = {
        name.split("-")[0]: PublishedFile(
            target=name.split("-")[0],
            filename=name,
            url=f"http://127.0.0.1:9/{name}",
            sha256=hashlib.sha256(data).hexdigest(),
            sha512=hashlib.sha512(data).hexdigest(),
        )
        for name, data in content.items()
    }
    info = replace(
        PUBLISHED["umxhq"],
        name="tiny",
        files=files,
        config=CONFIG,
        n_fft=8,
        n_hop=2,
        nb_parameters=1000,
    )
    monkeypatch.setattr("umx_np.pretrained.models.PUBLISHED", {"tiny": info})
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("UMX_NP_OFFLINE", "1")
    monkeypatch.delenv("UMX_NP_MIRROR", raising=False)
    return info


def put_in_cache(content: dict[str, bytes], tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def test_cached_files(model: ModelInfo, content: dict[str, bytes], tmp_path: Path) -> None:
    folder = put_in_cache(content, tmp_path)
    paths = pretrained.download("tiny")
    assert paths == {target: folder / file.filename for target, file in model.files.items()}
    assert list(pretrained.download("tiny", "drums")) == ["drums"]
    assert list(pretrained.download("tiny", ["drums", "vocals"])) == ["drums", "vocals"]


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", "HOME"])
def test_cache_of_torch_hub_is_used(
    model: ModelInfo,
    content: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    if variable == "HOME" and os.name == "nt":
        pytest.skip("HOME does not count on Windows")
    base = tmp_path / "their"
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(base))
    inner = {"TORCH_HOME": "", "XDG_CACHE_HOME": "torch", "HOME": ".cache/torch"}[variable]
    folder = base / inner / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    before = sorted(folder.iterdir())
    paths = pretrained.download("tiny")
    assert {path.parent for path in paths.values()} == {folder}
    # Nothing is written into the folder of another program.
    assert sorted(folder.iterdir()) == before
    # A file there that is not the right one is not used.
    damaged = paths["vocals"]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")
    os.utime(damaged, ns=(1, 1))  # the clock of the file system may not have moved on
    with pytest.raises(DownloadError, match="sha256="):
        pretrained.download("tiny")


def test_files_are_hashed_once(
    model: ModelInfo, content: dict[str, bytes], tmp_path: Path, hashed: list[str]
) -> None:
    put_in_cache(content, tmp_path)
    path = pretrained.download("tiny", "vocals")["vocals"]
    pretrained.download("tiny", "vocals")
    assert len(hashed) == 1
    pretrained.download("tiny", "vocals", verify=True)
    assert len(hashed) == 2
    # A file that has been touched is hashed again, and again if the stamp is damaged.
    os.utime(path, ns=(1, 1))
    pretrained.download("tiny", "vocals")
    assert len(hashed) == 3
    (stamp,) = path.parent.glob(".*.verified.json")
    for text in ("", "[]", "{}", json.dumps({"path": str(path)}), '{"path": 3}'):
        stamp.write_text(text)
        pretrained.download("tiny", "vocals")
    assert len(hashed) == 8


def test_read_only_cache(
    model: ModelInfo,
    content: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    folder = put_in_cache(content, tmp_path)
    monkeypatch.setattr(_hashes, "atomic_write", refuse)
    for _ in range(2):
        assert set(pretrained.download("tiny")) == {"vocals", "drums"}
    assert sorted(path.name for path in folder.iterdir()) == sorted(content)


def test_damaged_cache(
    model: ModelInfo,
    content: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = put_in_cache(content, tmp_path)
    path = folder / model.files["vocals"].filename
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(DownloadError, match=r"has sha256=\w{64} instead of"):
        pretrained.download("tiny", "vocals")
    assert "is not used" in caplog.text


def test_each_known_hash_counts(
    model: ModelInfo,
    content: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_in_cache(content, tmp_path)
    file = model.files["vocals"]
    right = hashlib.md5(content[file.filename], usedforsecurity=False).hexdigest()
    cases = [
        ({"sha256": file.sha256[:8]}, None),
        ({"md5": right}, None),
        ({"sha256": "0" * 8}, "sha256="),
        ({"sha512": "0" * 128}, "sha512="),
        ({"md5": "0" * 32}, "md5="),
        ({"size": 10}, "instead of 10 bytes"),
    ]
    for changes, problem in cases:
        changed = replace(file, **changes)
        info = replace(model, files={"vocals": changed})
        monkeypatch.setattr("umx_np.pretrained.models.PUBLISHED", {"tiny": info})
        if problem is None:
            pretrained.download("tiny", verify=True)
        else:
            with pytest.raises(DownloadError, match=problem):
                pretrained.download("tiny", verify=True)


def test_offline_says_what_to_do(
    model: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = model.files["vocals"]
    monkeypatch.setattr(pretrained, "fetch", lambda *_, **__: pytest.fail("used the network"))
    for value, argument in (("1", False), ("true", False), ("0", True), ("", True)):
        monkeypatch.setenv("UMX_NP_OFFLINE", value)
        with pytest.raises(DownloadError) as caught:
            pretrained.download("tiny", offline=argument)
        message = str(caught.value)
        assert "offline" in message
        assert file.url in message
        assert file.sha256 in message
        assert str(tmp_path / "home" / "tiny" / file.filename) in message
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["bass"], "target='bass' is not known; valid targets of model='tiny': vocals, drums"),
        (["vocals", "vocals"], "named twice"),
        ([], "is empty"),
    ],
)
def test_bad_targets(model: ModelInfo, targets: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrained.download("tiny", targets)
    with pytest.raises(ConfigError, match=message):
        pretrained.load_model("tiny", targets)


def test_load_bundle_by_name(model: ModelInfo, content: dict[str, bytes], tmp_path: Path) -> None:
    put_in_cache(content, tmp_path)
    bundle = pretrained.load_model("tiny", ["drums", "vocals"])
    assert list(bundle.targets) == ["drums", "vocals"]
    assert (bundle.name, bundle.n_fft, bundle.license) == ("tiny", 8, "MIT")
    assert bundle.targets["drums"].config == CONFIG
    expected = random_state(CONFIG, 1)
    for name, array in bundle.targets["drums"].state.items():
        np.testing.assert_array_equal(array, expected[name], strict=True)


def test_published_file_of_another_architecture(
    model: ModelInfo,
    content: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_in_cache(content, tmp_path)
    info = replace(model, config=replace(CONFIG, hidden_size=6))
    monkeypatch.setattr("umx_np.pretrained.models.PUBLISHED", {"tiny": info})
    with pytest.raises(WeightsError, match=r"target='vocals' of model='tiny'.*has shape"):
        pretrained.load_model("tiny")


def write_model(path: Path) -> None:
    weights = TargetWeights(CONFIG, random_state(CONFIG, 5))
    save_folder(ModelBundle("own", {"vocals": weights}, 8000.0, 8, 2, 2), path)


def test_folder_or_name(
    model: ModelInfo,
    content: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_in_cache(content, tmp_path)
    work = tmp_path / "work"
    (work / "tiny").mkdir(parents=True)
    (work / "tiny" / "song.wav").touch()
    monkeypatch.chdir(work)
    # A folder without a model does not hide the published one, unless it is asked for as a path.
    assert len(pretrained.load_model("tiny").targets) == 2
    for path in ("./tiny", Path("tiny"), str(work / "tiny")):
        with pytest.raises(ModelNotFoundError, match="holds no"):
            pretrained.load_model(path)
    write_model(work / "own")
    for path in ("own", "./own", Path("own"), work / "own", str(work / "own") + "/"):
        assert pretrained.load_model(path).name == "own"
    # One with a model does, with a word about it.
    write_model(work / "tiny")
    with caplog.at_level(logging.WARNING):
        assert pretrained.load_model("tiny").sample_rate == 8000.0
    assert "instead of the model of that name" in caplog.text
    with pytest.raises(ConfigError, match="valid targets: vocals"):
        pretrained.load_model("tiny", ["drums"])


@pytest.mark.parametrize(
    "name",
    ["nothing", "./nothing", "~/nothing", Path("nothing"), "a/b", "~nobody-here/b", "a\0b"],
)
def test_nothing_of_that_name(
    model: ModelInfo, name: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="tiny"):
        pretrained.load_model(name)


def test_a_file_is_no_folder(model: ModelInfo, tmp_path: Path) -> None:
    (tmp_path / "song.wav").touch()
    with pytest.raises(ModelNotFoundError, match="is not a folder"):
        pretrained.load_model(tmp_path / "song.wav")


def test_empty_name_is_not_the_current_folder(
    model: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="model=''"):
        pretrained.load_model("")
    assert list(pretrained.load_model(".").targets) == ["vocals"]


@pytest.fixture
def stamped(model: ModelInfo, content: dict[str, bytes], tmp_path: Path) -> tuple[Path, Path]:
    """Weights that have been verified, and the stamp that says so."""
    put_in_cache(content, tmp_path)
    path = pretrained.download("tiny", "vocals")["vocals"]
    (stamp,) = path.parent.glob(".*.verified.json")
    return path, stamp


posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="files are hashed every time")


@posix
def test_a_stamp_of_this_user_spares_the_hashing(
    stamped: tuple[Path, Path], hashed: list[str]
) -> None:
    pretrained.download("tiny", "vocals")
    assert not hashed


@posix
@pytest.mark.parametrize("which", [0, 1], ids=["weights", "stamp"])
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_what_others_can_write_is_hashed(
    stamped: tuple[Path, Path], hashed: list[str], which: int, mode: int
) -> None:
    os.chmod(stamped[which], mode)
    known = json.loads(stamped[1].read_text())
    # As one who forges it would.
    known["identity"] = _hashes._identity(stamped[0].stat())
    stamped[1].write_text(json.dumps(known))
    os.chmod(stamped[1], mode if which else 0o644)
    pretrained.download("tiny", "vocals")
    assert hashed


@posix
@pytest.mark.parametrize("which", [0, 1], ids=["weights", "stamp"])
def test_what_others_own_is_hashed(
    stamped: tuple[Path, Path], hashed: list[str], which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid():
        monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    else:
        os.chown(stamped[which], 12345, 12345)
        known = json.loads(stamped[1].read_text())
        known["identity"] = _hashes._identity(stamped[0].stat())
        stamped[1].write_text(json.dumps(known))
    pretrained.download("tiny", "vocals")
    assert hashed


def test_another_file_of_the_same_size_and_time_is_hashed(
    stamped: tuple[Path, Path], tmp_path: Path
) -> None:
    path, _ = stamped
    status = path.stat()
    other = tmp_path / "other"
    other.write_bytes(bytes(status.st_size))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, path)
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    with pytest.raises(DownloadError, match="sha256="):
        pretrained.download("tiny", "vocals", offline=True)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"path": ' * 1000, "\x00", '{"identity": 1}', " " * 100_000, "[]"],
    ids=["deep", "nested", "null", "other", "long", "list"],
)
def test_stamps_that_are_damaged(stamped: tuple[Path, Path], hashed: list[str], text: str) -> None:
    stamped[1].write_text(text)
    pretrained.download("tiny", "vocals")
    assert hashed


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes of that kind")
def test_pipes_in_the_cache(stamped: tuple[Path, Path], hashed: list[str]) -> None:
    path, stamp = stamped
    stamp.unlink()
    os.mkfifo(stamp)
    pretrained.download("tiny", "vocals")
    assert hashed
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DownloadError, match="it is a pipe, not a file"):
        pretrained.download("tiny", "vocals", offline=True)
    path.unlink()
    path.symlink_to("gone")
    with pytest.raises(DownloadError, match="a link to 'gone', which does not exist"):
        pretrained.download("tiny", "vocals", offline=True)


def test_short_hashes_are_told(
    model: ModelInfo,
    content: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_in_cache(content, tmp_path)
    whole = model.files["vocals"]
    file = replace(whole, sha256=whole.sha256[:8], sha512=None, md5=None)
    info = replace(model, files={"vocals": file})
    monkeypatch.setattr("umx_np.pretrained.models.PUBLISHED", {"tiny": info})
    pretrained.download("tiny", "vocals")
    assert "only the first 32 bits of its SHA-256 are published" in caplog.text
    assert model.files["vocals"].sha256 in caplog.text
    assert {file.nb_verified_bits for file in PUBLISHED["umxl"].files.values()} == {32}
    assert {file.nb_verified_bits for file in PUBLISHED["umxhq"].files.values()} == {512}


def test_a_folder_that_is_a_link_to_nothing(model: ModelInfo, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to("gone")
    with pytest.raises(ModelNotFoundError, match="a link to 'gone', which does not exist"):
        pretrained.load_model(tmp_path / "model")
    with pytest.raises(ModelNotFoundError, match=r"'https://a\.org/model' .* an address"):
        pretrained.load_model("https://a.org/model")
