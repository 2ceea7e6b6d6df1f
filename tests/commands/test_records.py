"""What ``--skip-existing`` believes: the record beside the stems, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
import soundfile as sf

import umx_np.separation.files
from umx_np.data import load_datasets
from umx_np.errors import AudioError, ConfigError
from umx_np.evaluation.stems import stem_files
from umx_np.separation import records
from umx_np.separation.files import separate_file
from umx_np.separation.naming import name_on_disk, output_paths, record_path
from umx_np.separation.records import KnownFile, Record, weights_digest

RECORD = ".umx-np.wav.json"


@pytest.fixture
def again(engine, run):
    """Run the command with ``--skip-existing``: why it separated again, or '' if it did not."""

    def again(*options, name="song.wav"):
        before = len(engine.separated)
        result = run("separate", name, "--outdir", "o", "--skip-existing", *options)
        assert result.status == 0, result.err
        if len(engine.separated) == before:
            assert "separated again" not in result.err
            return ""
        lines = result.err.partition("is separated again: ")[2].splitlines()
        return lines[0] if lines else "for the first time"

    return again


@pytest.fixture
def separated(engine, song, run):
    song()
    assert run("separate", "song.wav", "--outdir", "o").status == 0


@pytest.mark.usefixtures("separated")
class TestSkipping:
    def test_nothing_has_changed(self, again):
        assert again() == ""
        assert again("--threads", 1, "--max-memory", 3, "--start", 0.0, "--duration", -1) == ""

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ("--model other", "model was umxm, is other"),
            ("--niter 2", "niter was 1, is 2"),
            ("--softmask", "softmask was false, is true"),
            ("--wiener-win-len 0", "wiener_win_len was 300, is null"),
            ("--precision fast", 'precision was "full", is "fast"'),
            ("--device reference", 'device was "auto", is "reference"'),
            ("--start 0.1", "start was 0.0, is 0.1"),
            ("--duration 0.1", "duration was null, is 0.1"),
            ("--bits 24", 'bits was "16", is "24"'),
            ("--clip-mode rescale", 'clip_mode was "clamp", is "rescale"'),
            ("--quality 0.5", "quality was null, is 0.5"),
            ("--rate model", 'rate was "input", is "model"'),
            ("--residual rest", "residual was false, is true"),
            ("--targets vocals", "targets was"),
            ('--aggregate {"vocals":["vocals"],"drums":["drums"]}', "aggregate was null, is"),
        ],
    )
    def test_another_option(self, again, options, reason):
        assert reason in again(*options.split())
        assert again(*options.split()) == ""
        assert again() != ""

    def test_other_weights_of_the_same_name(self, again, engine):
        engine.weights_digest = "1" * 64
        assert "the weights of the model are others" in again()
        engine.weights_digest = None  # unknown
        assert "the weights of the model are others" in again()
        assert "the weights of the model are others" in again()

    def test_another_version(self, again, monkeypatch):
        monkeypatch.setattr(records, "__version__", "99.0")
        assert "umx_np was" in again()

    def test_another_song_of_the_same_size_and_time(self, again, song, folder):
        """Nor is the time believed, which can be set."""
        status = os.stat("song.wav")
        data = bytearray((folder / "song.wav").read_bytes())
        data[-1] ^= 1
        (folder / "song.wav").write_bytes(data)
        os.utime("song.wav", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert "the song is another one, or was changed" in again()

    def test_a_song_that_was_only_touched_or_moved(self, again, folder):
        os.utime("song.wav")
        assert again() == ""
        (folder / "album").mkdir()
        shutil.move("song.wav", "album/song.wav")
        assert again(name="album/song.wav") == ""

    @pytest.mark.parametrize("damage", ["truncated", "removed", "replaced", "empty"])
    def test_stems_that_are_not_as_they_were(self, again, damage):
        path = "o/song/bass.wav"
        if damage == "removed":
            os.remove(path)
        elif damage == "replaced":
            shutil.copy("o/song/drums.wav", path)
        else:
            os.truncate(path, 0 if damage == "empty" else os.path.getsize(path) - 2)
        assert "bass.wav is not the file that was written" in again()
        assert sf.info(path).frames == 4000
        assert again() == ""

    @pytest.mark.parametrize("depth", [100, 500, 900, 950, 980, 990, 995])
    def test_a_nested_record(self, again, folder, depth):
        path = folder / "o" / "song" / RECORD
        text = path.read_text().replace(
            '"niter": ', '"x": ' + "[" * depth + "]" * depth + ', "niter": '
        )
        assert "[" * depth in text
        path.write_text(text)
        assert len(again()) < 1000
        assert again() == ""

    def test_a_record_that_says_much(self, again, folder):
        path = folder / "o" / "song" / RECORD
        document = json.loads(path.read_text())
        odd = {"x" * 1000 + str(number): "y" * 1000 for number in range(300)}
        document.update(umx_np="1" * 10_000, options={**document["options"], **odd})
        document["model"]["name"] = {"name": "z" * 10_000}
        document["outputs"]["w" * 10_000] = document["outputs"]["bass"]
        path.write_text(json.dumps(document))
        assert 100 < len(again()) < 30_000
        assert again() == ""

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", "null", "[" * 100_000, '{"format": "umx_np record"}', "older", "odd"],
    )
    def test_no_record_or_a_strange_one(self, again, folder, content):
        path = folder / "o" / "song" / RECORD
        if content == "older":
            document = json.loads(path.read_text())
            content = json.dumps({**document, "format_version": 0})
        elif content == "odd":
            content = json.dumps({**json.loads(path.read_text()), "options": []})
        path.write_text(content)
        assert "there is no record at" in again()
        path.unlink()
        assert "there is no record at" in again()
        assert again() == ""

    def test_stems_that_another_run_has_replaced(self, again, run):
        """One stem of other targets, of the same size, beside three of the first run."""
        first = record_path("song.wav", "o")
        kept = first.read_bytes()
        assert run("separate", "song.wav", "--outdir", "o", "--targets", "drums").status == 0
        first.write_bytes(kept)
        assert "is not the file that was written" in again()

    def test_a_copy_of_the_folder(self, again, folder):
        shutil.copytree("o", "copy")
        shutil.rmtree("o")
        os.rename("copy", "o")
        assert again() == ""


def test_stems_without_a_record_are_not_believed(engine, song, run, again, folder):
    """As those of earlier versions, or of a run that was killed between stems and record."""
    song()
    (folder / "o" / "song").mkdir(parents=True)
    for name in ("vocals", "drums", "bass", "other"):
        shutil.copy("song.wav", f"o/song/{name}.wav")
    assert "there is no record at" in again()


def test_a_failure_keeps_the_record_of_the_stems_that_stay(engine, song, run, again, folder):
    song()
    again()
    engine.after_block = lambda: (_ for _ in ()).throw(AudioError("broken"))
    assert run("separate", "song.wav", "--outdir", "o", "--niter", 3).status == 1
    engine.after_block = lambda: None
    assert again() == ""


def test_a_kill_between_the_stems_leaves_no_record(engine, song, run, again, monkeypatch):
    """Some stems would be new and some old, all of the right size."""
    song()
    again()
    replace, calls = os.replace, []

    def killed(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    assert run("separate", "song.wav", "--outdir", "o", "--niter", 3).status == 130
    monkeypatch.setattr(os, "replace", replace)
    assert len(calls) == 3
    assert "there is no record at" in again()


def test_another_program_that_writes_the_same_stems(engine, song, run, again, monkeypatch):
    """Its stems, in the moment before the record is written, are not taken for ours."""
    song()
    write = umx_np.separation.files._write_record

    def late(*arguments):
        shutil.copy("o/song/drums.wav", "o/song/vocals.wav")
        return write(*arguments)

    monkeypatch.setattr(umx_np.separation.files, "_write_record", late)
    again()
    monkeypatch.setattr(umx_np.separation.files, "_write_record", write)
    assert "vocals.wav is not the file that was written" in again()


def test_a_song_that_changes_while_it_is_separated(engine, song, run, again, folder):
    song()
    engine.after_block = lambda: os.utime("song.wav", (1, 1))
    result = run("separate", "song.wav", "--outdir", "o")
    assert result.status == 0
    assert "song.wav was changed while it was separated" in result.err
    engine.after_block = lambda: None
    assert "there is no record at" in again()


def test_a_record_that_cannot_be_written(engine, song, run, folder, monkeypatch):
    song()

    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "write", full)
    result = run("separate", "song.wav", "--outdir", "o")
    assert result.status == 0
    assert "the record cannot be written: [Errno 28] No space left" in result.err
    assert (folder / "o" / "song" / "vocals.wav").exists()


def test_the_format(engine, song):
    """What other programs rely on."""
    song("a/So\x07ng.wav")
    separate_file("a/So\x07ng.wav", "o", duration=0.25, residual="rest", targets=["vocals"])
    text = record_path("a/So\x07ng.wav", "o").read_text("ascii")
    document = json.loads(text)
    assert text == json.dumps(document, indent=1, sort_keys=True) + "\n"
    assert sorted(document) == [
        "format",
        "format_version",
        "gain",
        "model",
        "options",
        "outputs",
        "picture",
        "source",
        "umx_np",
    ]
    assert (document["format"], document["format_version"]) == ("umx_np record", 1)
    assert document["model"] == {"name": "umxm", "sha256": "0" * 64}
    assert sorted(document["outputs"]) == ["rest", "vocals"]
    source, vocals = document["source"], document["outputs"]["vocals"]
    assert sorted(source) == ["ctime_ns", "mtime_ns", "name", "sha256", "size"]
    assert (source["name"], vocals["name"]) == ("../../a/So\x07ng.wav", "vocals.wav")
    assert source["size"] == os.path.getsize("a/So\x07ng.wav")
    assert sorted(document["options"]) == [
        *(
            "aggregate",
            "bitrate",
            "bits",
            "clip_mode",
            "device",
            "downmix",
            "duration",
            "ext",
            "filterbank",
            "input_level",
            "n_fft",
        ),
        "n_hop",
        "nb_channels",
        "niter",
        "precision",
        "quality",
        "rate",
        "residual",
        "sample_rate",
        "softmask",
        "start",
        "stems",
        "tags",
        "targets",
        "track",
        "two_stems",
        "wiener_win_len",
    ]
    record = Record.read(record_path("a/So\x07ng.wav", "o"))
    record.write(record_path("a/So\x07ng.wav", "o"))
    assert record_path("a/So\x07ng.wav", "o").read_text("ascii") == text


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_not_unicode(engine, song, again, folder):
    song()
    os.rename(b"song.wav", b"so\xf6.wav")
    name = os.fsdecode(b"so\xf6.wav")
    again(name=name)
    assert again(name=name) == ""


@pytest.mark.parametrize(
    "filename",
    [
        "{track}/{stem}{ext}",
        "{parent}-{track}-{stem}{ext}",
        "{parent}{stem}{track}{ext}",
        "{stem}/{parent}-{track}{ext}",
        "{name}{stem}.wav",
        "{stem}",
        "{track}{ext}",
        "x/{track}.wav",
    ],
)
def test_songs_share_a_record_only_where_they_share_stems(filename):
    songs = [f"/{parent}/{track}.mp3" for parent in ("ab", "a", "b") for track in ("c", "bc", "d")]
    for ext in (".wav", ".flac"):
        records_of = {}
        for song in songs:
            stems = output_paths(song, ["vocals"], "o", filename=filename, ext=ext)
            place = record_path(song, "o", filename=filename, ext=ext)
            assert place not in stems.values()
            assert any(part.startswith(".") for part in place.parts)
            assert records_of.setdefault(place, stems) == stems


def test_records_are_no_stems(engine, song, run, folder):
    """Neither to the evaluation nor to the datasets."""
    song("train/a/a.wav")
    song("valid/b/b.wav")
    for place in ("train/a/a.wav", "valid/b/b.wav"):
        options = ["--outdir", os.path.dirname(os.path.dirname(place))]
        assert run("separate", place, *options, "--rate", "model").status == 0
        os.remove(place)
    assert list(stem_files(folder / "train" / "a")) == ["vocals", "drums", "bass", "other"]
    train, _ = load_datasets(
        {
            "dataset": "trackfolder_fix",
            "root": folder,
            "target_file": "vocals.wav",
            "interferer_files": ["drums.wav", "bass.wav"],
            "seq_dur": 0.1,
        }
    )
    assert len(train) >= 1


def test_pictures_are_part_of_it(engine, song, run, again, folder):
    pytest.importorskip("matplotlib")
    song()
    options = ("--plot", "song.png")
    again()
    assert "song.png is not the picture that was drawn" in again(*options)
    assert again(*options) == ""
    assert again() == ""
    assert "niter" in again("--niter", 2)  # without a picture, so that is of other stems now
    assert "song.png is not the picture that was drawn" in again("--niter", 2, *options)
    os.truncate("song.png", 10)
    assert "song.png is not the picture that was drawn" in again("--niter", 2, *options)


def test_a_known_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    known = KnownFile.of(path, tmp_path)
    assert known.name == "a"
    assert known.is_still(path)
    os.utime(path, (0, 0))
    assert known.is_still(path)
    path.write_bytes(b"two")
    assert not known.is_still(path)
    path.unlink()
    assert not known.is_still(path)
    assert not known.is_still(tmp_path)


def test_the_digest_depends_on_all_that_matters():
    state = {"a": np.zeros(3, np.float32), "b": np.zeros((), np.int64)}
    first = weights_digest({"v": (1, state)})
    assert first == weights_digest({"v": (1, dict(reversed(state.items())))})
    others = [
        {"w": (1, state)},
        {"v": (2, state)},
        {"v": (1, {**state, "a": np.float32([0, 0, 1])})},
        {"v": (1, {**state, "a": np.zeros((3, 1), np.float32)})},
        {"v": (1, {**state, "a": np.zeros(3, np.int32)})},
        {"v": (1, {"a": state["a"]})},
    ]
    assert len({first, *map(weights_digest, others)}) == 7


def test_names_of_one_file():
    composed, single = unicodedata.normalize("NFD", "Señor"), unicodedata.normalize("NFC", "SEÑOR")
    assert name_on_disk(composed) == name_on_disk(single)
    assert name_on_disk("a/../b") == name_on_disk("b")
    with pytest.raises(ConfigError, match="gives several"):
        output_paths("a.wav", [composed, unicodedata.normalize("NFC", composed)])


def test_names_of_models_stay_in_the_folder():
    with pytest.raises(ConfigError, match="out of the folder for the results"):
        output_paths("a.wav", ["vocals"], "o", model="../../x", filename="{model}/{stem}{ext}")
    with pytest.raises(ConfigError, match="must be text"):
        output_paths("a.wav", ["vocals"], "o", filename="\0{stem}{ext}")
