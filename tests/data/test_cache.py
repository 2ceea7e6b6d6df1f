"""Reading excerpts: from files, and from a cache that changes no sample."""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from umx_np._support import atomic as _atomic
from umx_np.data import AlignedDataset
from umx_np.data import files as files_module
from umx_np.data.files import AudioFiles, AudioInfo, CachedFiles, Clip
from umx_np.errors import AudioError, ConfigError

FORMATS = {
    "16.wav": "PCM_16",
    "24.wav": "PCM_24",
    "float.wav": "FLOAT",
    "16.flac": "PCM_16",
    "24.flac": "PCM_24",
    "8.wav": "PCM_U8",
    "vorbis.ogg": "VORBIS",
    "layer3.mp3": "MPEG_LAYER_III",
}
EXACT_IN_16_BITS = {"16.wav", "16.flac", "8.wav"}


def noise(nb_timesteps: int, nb_channels: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.0, 1.0, (nb_timesteps, nb_channels))


@pytest.fixture
def store(tmp_path: Path) -> CachedFiles:
    return CachedFiles(tmp_path / "cache")


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    path = tmp_path / "song.wav"
    sf.write(path, noise(3000), 8000, subtype="PCM_16")
    return Clip(path)


def raw_file(store: CachedFiles) -> Path:
    (path,) = store.folder.iterdir()
    return path


@pytest.mark.parametrize("name", ["16.wav", "24.wav", "8.wav"])
def test_whole_clips_in_as_few_bits_as_they_need(store: CachedFiles, name: str) -> None:
    path = store.folder.parent / name
    sf.write(path, noise(3000), 8000, subtype=FORMATS[name])
    for files in (store, AudioFiles()):
        samples = files.read_all(Clip(path))
        if name in EXACT_IN_16_BITS:
            assert samples.dtype == np.int16
            samples = samples / np.float32(files_module.FULL_SCALE)
        assert samples.dtype == np.float32
        np.testing.assert_array_equal(samples, files.read(Clip(path)))
    raw_file(store).unlink()
    again = store.read_all(Clip(path))
    np.testing.assert_array_equal(again, AudioFiles().read_all(Clip(path)))


@pytest.mark.parametrize("name", FORMATS)
def test_the_cache_changes_no_sample(tmp_path: Path, store: CachedFiles, name: str) -> None:
    path = tmp_path / name
    rate = 44100 if name.endswith(("ogg", "mp3")) else 8000
    sf.write(path, noise(30000), rate, subtype=FORMATS[name])
    clip, plain = Clip(path), AudioFiles()
    info, cached = plain.info(clip), store.info(clip)
    assert (info.rate, info.nb_channels, info.nb_timesteps) == (rate, 2, cached.nb_timesteps)
    assert cached.quick
    assert info.quick == (not name.endswith(("ogg", "mp3")))
    whole = store.read(clip)
    np.testing.assert_array_equal(whole, plain.read(clip))
    assert whole.dtype == np.float32
    for first, count in ((0, 1), (7, 999), (29000, 1000)):
        excerpt = store.read(clip, first, count)
        np.testing.assert_array_equal(excerpt, whole[:, first : first + count])
        np.testing.assert_array_equal(plain.read(clip, first, count), excerpt)
    itemsize = 2 if name in EXACT_IN_16_BITS else 4
    assert raw_file(store).stat().st_size == 4096 + whole.size * itemsize


@pytest.mark.parametrize("value", [1.0, -1.0, 32767 / 32768, 1.5, 2.0**-16])
def test_full_scale_and_beyond(tmp_path: Path, store: CachedFiles, value: float) -> None:
    samples = np.zeros((400000, 1), np.float32)
    samples[-1] = value  # in the last block, after all others seemed to fit 16 bits
    sf.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(store.read(Clip(tmp_path / "a.wav")), samples.T)
    exact = value in (-1.0, 32767 / 32768)
    assert raw_file(store).stat().st_size == 4096 + 400000 * (2 if exact else 4)


def test_results_can_be_written_to(store: CachedFiles, clip: Clip) -> None:
    first = store.read(clip, 10, 50)
    first += 1.0
    assert not np.array_equal(store.read(clip, 10, 50), first)


def test_files_are_decoded_once(
    store: CachedFiles, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = store.read(clip)
    again = CachedFiles(store.folder)
    monkeypatch.setattr(CachedFiles, "_decode", None)
    np.testing.assert_array_equal(again.read(clip), expected)


def test_a_file_that_was_replaced_is_decoded_again(store: CachedFiles, clip: Clip) -> None:
    store.read(clip)
    sf.write(clip.path, noise(3000, seed=1), 8000, subtype="PCM_16")
    os.utime(clip.path, (1e9, 1e9))
    np.testing.assert_array_equal(CachedFiles(store.folder).read(clip), AudioFiles().read(clip))


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "nested", "numbers"])
def test_damaged_files_of_the_cache_are_replaced(
    store: CachedFiles, clip: Clip, damage: str
) -> None:
    expected = store.read(clip)
    path = raw_file(store)
    content = path.read_bytes()
    damaged = {
        "cut": content[:-100],
        "header": b"x" * len(content),
        "empty": b"",
        "nested": b"[" * len(content),
        "numbers": content.replace(b'"<i2"', b'"|O1"').replace(b'"<f4"', b'"|O1"'),
    }
    path.write_bytes(damaged[damage])
    np.testing.assert_array_equal(CachedFiles(store.folder).read(clip), expected)
    assert path.read_bytes() == content


def test_a_cache_that_is_deleted_in_use_is_made_again(
    store: CachedFiles, clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    expected = store.read(clip, 5, 10)
    raw_file(store).unlink()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(store.read(clip, 5, 10), expected)
    assert "song.wav left the cache" in caplog.text


def test_a_file_of_the_cache_that_becomes_shorter_in_use_is_made_again(
    store: CachedFiles, clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    expected = store.read(clip, 5, 10)
    content = raw_file(store).read_bytes()
    raw_file(store).write_bytes(content[:-2])
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(store.read(clip, 5, 10), expected)
    assert "song.wav left the cache" in caplog.text
    assert raw_file(store).read_bytes() == content


@pytest.mark.parametrize(("first", "count"), [(-1, 5), (2999, 2), (0, 0), (4000, 1)])
def test_excerpts_outside_are_refused(
    store: CachedFiles, clip: Clip, first: int, count: int
) -> None:
    with pytest.raises(AudioError, match="which has 3000"):
        store.read(clip, first, count)


def test_a_shorter_file_is_noticed_without_a_cache(clip: Clip) -> None:
    plain = AudioFiles()
    plain.info(clip)
    sf.write(clip.path, noise(2000), 8000, subtype="PCM_16")
    with pytest.raises(AudioError, match=r"song.wav.* gave .*\(2, 1000\) .* was it replaced"):
        plain.read(clip, 1000, 1500)


def test_nan_never_enters_the_cache(tmp_path: Path, store: CachedFiles) -> None:
    samples = noise(1000)
    samples[500, 1] = np.nan
    sf.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="nan in channel=1 at sample 500"):
        store.info(Clip(tmp_path / "a.wav"))
    assert not list(store.folder.iterdir())


def test_a_full_disk(store: CachedFiles, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 5000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    opened = os.fdopen

    def open_full(descriptor: int, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "w+b":
            return Full(descriptor, "w+", **kwargs)
        return opened(descriptor, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", open_full)
        with pytest.raises(AudioError, match=r"cannot take the 16096 bytes of .*No space left"):
            store.info(clip)
    assert not list(store.folder.iterdir())
    assert store.info(clip) == AudioInfo(8000, 2, 3000)


def test_an_unusable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cache=.* cannot be used"):
        CachedFiles(tmp_path / "file" / "cache")


@pytest.mark.skipif(os.name == "nt", reason="locks are those of POSIX")
def test_remains_of_killed_programs_are_removed(tmp_path: Path) -> None:
    abandoned = tmp_path / _atomic._new_name()
    for path in (abandoned, tmp_path / "old.raw"):
        path.write_text("")
    in_use = _atomic.TemporaryFile(tmp_path)
    abandoned.write_text("")
    CachedFiles(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {in_use.path.name, "old.raw"}
    in_use.discard()


def test_unfinished_files_that_vanish_are_nothing_to_complain_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program of the same folder renames its files when they are complete."""
    other = tmp_path / _atomic._new_name()
    other.write_text("")
    real = _atomic._remove_if_abandoned

    def late(path: Path) -> bool:
        path.rename(tmp_path / "other.raw")
        return real(path)

    monkeypatch.setattr(_atomic, "_remove_if_abandoned", late)
    CachedFiles(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.raw"]


def test_unreadable_files_are_found_together(tmp_path: Path, store: CachedFiles) -> None:
    clips = []
    for k in range(6):
        clips.append(Clip(tmp_path / f"{k}.wav"))
        sf.write(clips[-1].path, noise(100), 8000)
    clips[3].path.write_bytes(b"no sound")
    clips[5].path.unlink()
    fractions: list[float] = []
    for files in (store, AudioFiles()):
        errors = files.scan([*clips, *clips], fractions.append)
        assert sorted(errors) == [clips[3], clips[5]]
        assert "5.wav" in str(errors[clips[5]])
    assert fractions == [k / 6 for k in range(1, 7)] * 2


PROGRAM = """
import sys
from pathlib import Path
from umx_np.data.files import CachedFiles, Clip
clips = [Clip(path) for path in sorted(Path(sys.argv[1]).glob("*.wav"))]
store = CachedFiles(sys.argv[2])
assert not store.scan(clips)
print(sum(float(abs(store.read(clip)).sum(dtype="float64")) for clip in clips))
"""


def test_two_programs_share_a_folder(tmp_path: Path) -> None:
    for k in range(8):
        sf.write(tmp_path / f"{k}.wav", noise(200000, seed=k), 8000, subtype="PCM_16")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(tmp_path / "cache")]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {program.communicate()[0] for program in programs}
    assert [program.returncode for program in programs] == [0, 0, 0]
    assert len(sums) == 1
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".raw"] * 8


def test_datasets_read_through_the_cache(tmp_path: Path) -> None:
    for name in ("mixture", "vocals"):
        path = tmp_path / "data/train/1" / f"{name}.ogg"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, noise(50000, seed=len(name)), 44100)
    options: dict = {"input_file": "mixture.ogg", "output_file": "vocals.ogg"}
    options |= {"seq_duration": 0.5, "random_chunks": True}
    plain = AlignedDataset(tmp_path / "data", **options)
    cached = AlignedDataset(tmp_path / "data", cache=tmp_path / "cache", **options)
    for seed in range(5):
        a, b = (d.sample(0, np.random.default_rng(seed)) for d in (plain, cached))
        np.testing.assert_array_equal(a, b)


def test_slow_formats_are_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("mixture.ogg", "vocals.ogg"):
        (tmp_path / "train/1").mkdir(parents=True, exist_ok=True)
        sf.write(tmp_path / "train/1" / name, noise(5000), 44100)
    names = {"input_file": "mixture.ogg", "output_file": "vocals.ogg"}
    with caplog.at_level(logging.WARNING):
        AlignedDataset(tmp_path, seq_duration=0.1, **names)
    assert "2 files like" in caplog.text
    caplog.clear()
    AlignedDataset(tmp_path, seq_duration=0.1, cache=tmp_path / "cache", **names)
    assert not caplog.text


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_formats_that_ffmpeg_decodes(tmp_path: Path, store: CachedFiles) -> None:
    sf.write(tmp_path / "a.wav", noise(20000) / 4, 44100)
    path = tmp_path / "a.m4a"
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.wav"), "-c:a", "aac", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    plain = AudioFiles()
    assert not plain.info(Clip(path)).quick
    whole = plain.read(Clip(path))
    np.testing.assert_array_equal(store.read(Clip(path)), whole)
    np.testing.assert_array_equal(store.read(Clip(path), 100, 900), whole[:, 100:1000])
