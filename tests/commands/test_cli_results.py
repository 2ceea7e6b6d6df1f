"""``umx-np separate``: which results there are, where they go, and how they are told."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf

from umx_np.audio import written_suffixes
from umx_np.audio.suffixes import SOUND_SUFFIXES
from umx_np.errors import AudioError, ConfigError
from umx_np.separation.files import separate_file
from umx_np.separation.naming import output_paths, record_path

from .conftest import STEMS, files


def lines(result):
    return [json.loads(line) for line in result.out.splitlines()]


class TestTwoStems:
    def test_are_a_stem_and_the_song_without_it(self, engine, song, run, folder):
        engine.sample_rate = 8000.0
        audio = song()
        options = ["--two-stems", "vocals", "--bits", "float", "--clip-mode", "none"]
        assert run("separate", "song.wav", *options).status == 0
        assert files(folder / "song_umxm") == ["no_vocals.wav", "vocals.wav"]
        vocals, rest = (
            sf.read(f"song_umxm/{n}.wav", dtype="float32")[0].T for n in ("vocals", "no_vocals")
        )
        np.testing.assert_array_equal(vocals, audio / 2)
        np.testing.assert_array_equal(rest, audio - audio / 2)

    @pytest.mark.parametrize(
        ("options", "loaded"),
        [
            ([], None),
            (["--niter", "0"], ["drums"]),
            (["--niter", "0", "--softmask"], None),
            (["--targets", "drums,bass"], ["drums", "bass"]),
        ],
    )
    def test_only_the_networks_that_are_needed(self, engine, song, run, options, loaded):
        song()
        assert run("separate", "song.wav", "--two-stems", "drums", *options).status == 0
        assert engine.loaded[0][1] == loaded
        separate_file("song.wav", two_stems="drums", niter=0)
        assert engine.loaded[1][1] == ["drums"]

    @pytest.mark.parametrize(
        ("options", "status", "message"),
        [
            (
                "--residual rest",
                2,
                "--two-stems already says what is written; leave out --residual",
            ),
            ('--aggregate {"a":["vocals"]}', 2, "leave out --aggregate"),
            ("--two-stems piano", 1, "--two-stems 'piano' must be one of the targets: vocals, dr"),
            ("--targets drums", 1, "--two-stems 'vocals' must be one of the targets: drums"),
            ("--only bass", 1, "--only ['bass'] must name some of the results: vocals, no_vocals"),
        ],
    )
    def test_what_makes_no_sense(self, engine, song, run, folder, options, status, message):
        song()
        result = run("separate", "song.wav", "--two-stems", "vocals", *options.split())
        assert result.status == status
        assert message in result.err
        assert files(folder) == ["song.wav"]

    def test_of_the_function(self, engine, song):
        song()
        separator = engine.from_bundle(engine.load_model("x", ["a", "no_a"]), residual=False)
        with pytest.raises(ConfigError, match="has a target 'no_a', too"):
            separate_file("song.wav", separator=separator, two_stems="a")
        with pytest.raises(ConfigError, match=r"leave out aggregate=\.\.\."):
            separate_file("song.wav", two_stems="vocals", aggregate={"a": ["vocals"]})
        with pytest.raises(ConfigError, match="leave out residual=True"):
            separate_file("song.wav", two_stems="vocals", residual="rest")
        with pytest.raises(ConfigError, match="two_stems=5 must be text"):
            separate_file("song.wav", two_stems=5)

    def test_are_part_of_the_record(self, engine, song, run):
        song()
        run("separate", "song.wav", "--two-stems", "vocals")
        again = run("separate", "song.wav", "--two-stems", "vocals", "--skip-existing", "--json")
        assert lines(again)[0]["status"] == "skipped"
        again = run("separate", "song.wav", "--skip-existing", "--only", "vocals", "--json")
        assert "two_stems was" in lines(again)[0]["warnings"][0]


def test_only_some_of_the_results(engine, song, run, folder):
    engine.sample_rate = 8000.0
    audio = song()
    options = ["--bits", "float", "--clip-mode", "none"]
    assert run("separate", "--only", "drums,bass", "song.wav", *options).status == 0
    assert files(folder / "song_umxm") == ["bass.wav", "drums.wav"]
    assert engine.loaded[0][1] is None
    np.testing.assert_array_equal(sf.read("song_umxm/drums.wav")[0].T, audio / 4)
    both = ["--two-stems", "vocals", "--only", "no_vocals", *options]
    assert run("separate", "song.wav", "-o", "o", *both).status == 0
    assert files(folder / "o") == ["song/no_vocals.wav"]
    np.testing.assert_array_equal(sf.read("o/song/no_vocals.wav")[0].T, audio - audio / 2)
    with pytest.raises(ConfigError, match="only='drums' must name some of the results"):
        separate_file("song.wav", only="drums")
    with pytest.raises(ConfigError, match=r"only=\[\] must name"):
        separate_file("song.wav", only=[])


@pytest.mark.parametrize(
    ("words", "targets", "songs"),
    [
        (["a.wav", "--targets", "vocals,drums"], ["vocals", "drums"], ["a.wav"]),
        (["a.wav", "--targets", "vocals", "drums"], ["vocals", "drums"], ["a.wav"]),
        (["a.wav", "--targets", "vocals,", "drums"], ["vocals", "drums"], ["a.wav"]),
        (["--targets", "vocals,drums", "a.wav"], ["vocals", "drums"], ["a.wav"]),
        (["--targets", "vocals", "a.wav", "d/b.wav"], ["vocals"], ["a.wav", "b.wav"]),
        (["a.wav", "--targets", "vocals", "d/b.wav"], ["vocals"], ["a.wav", "b.wav"]),
        (["--targets=vocals", "a.wav"], ["vocals"], ["a.wav"]),
        (["--only", "vocals", "a.wav"], None, ["a.wav"]),
        (["a.wav", "--targets", "lead.voice"], ["lead.voice"], ["a.wav"]),
    ],
)
def test_stems_are_named_in_every_way(engine, song, run, words, targets, songs):
    song("a.wav")
    song("d/b.wav")
    result = run("separate", *words)
    assert result.status == 0, result.err
    assert engine.loaded[0][1] == targets
    assert engine.separated == songs


def test_songs_that_are_missing(engine, run):
    result = run("separate", "--targets", "vocals", "album")
    assert result.status == 2
    assert "which songs? name files or folders, or - for standard input; they go befo" in result.err
    assert "which songs?" in run("separate").err
    assert "argument --targets: ',' names nothing" in run("separate", "a", "--targets", ",").err


def test_an_address_is_no_path(engine, run):
    result = run("separate", "https://host/a.mp3")
    assert result.status == 1
    assert result.err == (
        "umx-np: error: input='https://host/a.mp3' is an address; download the file first\n"
    )


def test_names_of_other_programs(engine, song, run, folder):
    """Those of demucs and spleeter."""
    song()
    assert run("separate", "song.wav", "-o", "out", "-n", "mine", "-j", "1").status == 0
    assert engine.loaded[0][0] == "mine"
    assert engine.separators[0]["threads"] == 1
    assert len(files(folder / "out" / "song")) == 4


class TestTrees:
    def test_are_kept(self, engine, song, run, folder):
        for name in ("m/b.wav", "m/a/c.wav", "m/a/b/c.wav", "m/.hidden/d.wav"):
            song(name)
        assert run("separate", "m", "--recursive", "-o", "out", "--only", "bass").status == 0
        assert engine.separated == ["b.wav", "c.wav", "c.wav"]
        assert files(folder / "out") == ["a/b/c/bass.wav", "a/c/bass.wav", "b/bass.wav"]
        assert run("separate", "m", "--recursive", "--only", "bass").status == 0
        assert files(folder)[:3] == ["a/b/c_umxm/bass.wav", "a/c_umxm/bass.wav", "b_umxm/bass.wav"]

    def test_with_pictures_and_references(self, engine, song, run, folder):
        pytest.importorskip("matplotlib")
        engine.sample_rate = 8000.0
        for name, truth in (("m/a.wav", "t/a"), ("m/d/a.wav", "t/d/a")):
            song(name, nb_timesteps=20000)
            (folder / truth).mkdir(parents=True)
            (folder / truth / "bass.wav").write_bytes((folder / name).read_bytes())
        options = ["-o", "o", "--plot", "p/", "--reference", "t/{relpath}/{track}"]
        result = run("separate", "m", "--recursive", "--only", "bass", *options, "--json")
        assert result.status == 0, result.err
        assert files(folder / "p") == ["a.png", "d/a.png"]
        assert [line["scores"]["bass"]["sdr"] for line in lines(result)] == pytest.approx(
            [20 * np.log10(8 / 7)] * 2, abs=0.01
        )
        assert lines(result)[0]["scores"]["bass"]["sdr_of_mixture"] is None  # infinite
        assert lines(result)[0]["picture"] == "p/a.png"

    def test_what_is_not_taken_is_said_in_one_line(self, engine, song, run, folder):
        for name in ("m/a.wav", "m/d/b.wav", "m/.c.wav", "out/x.wav"):
            song(name)
        (folder / "m" / "notes.txt").touch()
        if os.name != "nt":
            os.symlink("nowhere", "m/broken.wav")
            os.symlink("..", "m/d/link")
        said = run("separate", "m", "-o", "m/out").err.splitlines()[0]
        assert "m: 1 files of other types are left out (.txt); name them" in said
        assert "1 sub-folders (--recursive searches them)" in said
        assert "1 hidden sound files" in said
        if os.name != "nt":
            assert "1 links, pipes or devices that are no files" in said
        said = run("separate", "m", "-o", "m/out", "--recursive").err.splitlines()[0]
        if os.name != "nt":
            assert "1 links to folders" in said
        assert "1 folders for the results" in said
        assert engine.separated == ["a.wav", "a.wav", "b.wav"]
        (folder / "e" / "f").mkdir(parents=True)
        result = run("separate", "e")
        assert result.status == 1
        assert "holds no sound files (left out: 1 sub-folders (--recursive" in result.err

    @pytest.mark.parametrize(
        "filename", ["{dir}/{track}-{stem}{ext}", "{dir}/{stem}/{track}{ext}", None]
    )
    def test_stems_are_no_songs_the_next_time(self, engine, song, run, folder, filename):
        for name in ("m/a.wav", "m/d/b.wav"):
            song(name)
        os.chdir("m")
        options = ["--recursive", *(("--filename", filename) if filename else ())]
        assert run("separate", ".", *options).status == 0
        again = run("separate", ".", *options, "--skip-existing", "--json")
        assert [line["status"] for line in lines(again)] == ["skipped", "skipped"]
        assert "8 stems that were written here" in again.err
        assert engine.separated == ["a.wav", "b.wav"]

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs permissions")
    def test_a_folder_that_cannot_be_read(self, engine, song, run, folder):
        song("m/a.wav")
        (folder / "m" / "d").mkdir(mode=0)
        assert "m/d: not searched: Permission denied" in run("separate", "m", "--recursive").err

    @pytest.mark.parametrize("suffix", sorted(SOUND_SUFFIXES & {*written_suffixes()}))
    def test_every_type_is_taken(self, engine, song, run, folder, suffix):
        (folder / "m").mkdir()
        with open(f"m/a{suffix}", "wb") as file:
            sf.write(file, np.zeros((48000, 2)), 48000, format="WAV")
        assert run("separate", "m", "-o", "o").status == 0
        assert engine.separated == [f"a{suffix}"]

    def test_of_every_type_that_is_written(self):
        assert {*written_suffixes()} <= SOUND_SUFFIXES


class TestPlaces:
    def test_beside_the_song(self, engine, song, run, folder):
        song("m/d/a.wav")
        template = "{dir}/{track} ({stem}){ext}"
        assert run("separate", "m/d/a.wav", "--filename", template).status == 0
        assert files(folder) == sorted(["m/d/a.wav", *(f"m/d/a ({stem}).wav" for stem in STEMS)])
        assert (folder / "m/d/.a (umx-np).wav.json").exists()
        assert separate_file("m/d/a.wav", filename="{dir}/x/{stem}{ext}")["bass"].exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("{dir}/{stem}{ext} -o out", "beside the song, --outdir 'out' somewhere else; leave"),
            ("x/{dir}/{stem}{ext}", "{dir} can only be the first folder"),
            ("{dir}{stem}{ext}", "{dir} can only be the first folder"),
            ("{dir}/{dir}/{stem}{ext}", "{dir} can only be the first folder"),
            ("{dir}/../{stem}{ext}", "out of the folder for the results"),
            ("{dir}/{stem}", "--filename '{dir}/{stem}' gives 'vocals', whose type cannot be writ"),
        ],
    )
    def test_that_are_none(self, engine, song, run, options, message):
        song("m/a.wav")
        result = run("separate", "m/a.wav", "--filename", *options.split())
        assert result.status == 1
        assert message in result.err
        assert engine.separated == []

    def test_braces_are_text_where_they_are_doubled(self):
        paths = output_paths("m/a.wav", ["bass"], "o", filename="{{dir}}/{stem}{ext}")
        assert paths["bass"].as_posix() == "o/{dir}/bass.wav"
        assert record_path("m/a.wav", filename="{dir}/{track}{ext}").parent.as_posix() == "m"


class TestJson:
    def test_of_a_song(self, engine, song, run, folder):
        song("So\nng.wav", level=4.0)
        result = run("separate", "So\nng.wav", "--json", "--targets", "vocals", "--start", 0.1)
        assert result.status == 0
        (line,) = lines(result)
        assert list(line) == [
            "format", "format_version", "umx_np", "input", "status", "stems", "record", "picture",
            "seconds", "model", "options", "warnings", "error",
        ]  # fmt: skip
        assert (line["format"], line["format_version"]) == ("umx_np separation", 1)
        assert (line["input"], line["status"], line["error"]) == ("So\nng.wav", "separated", None)
        assert line["stems"] == {"vocals": "So\nng_umxm/vocals.wav"}
        assert line["seconds"] > 0
        assert "beyond full scale and limited; --clip-mode rescale" in line["warnings"][0]
        record = json.loads((folder / line["record"]).read_text())
        assert record["options"] == line["options"]
        assert record["model"] == line["model"]
        assert line["options"]["start"] == 0.1
        assert result.out.isascii()
        quiet = run("separate", "So\nng.wav", "--json", "--quiet")
        assert quiet.err == ""
        assert lines(quiet)[0]["warnings"]

    def test_of_every_ending(self, engine, song, run, folder):
        song("a.wav")
        song("b.wav")
        (folder / "c.wav").write_text("no sound")
        run("separate", "a.wav")

        def fail(path):
            if path.name == "d.wav":
                raise MemoryError("too long")

        engine.before = fail
        song("d.wav")
        songs = ["a.wav", "b.wav", "c.wav", "d.wav", "missing.wav"]
        result = run("separate", *songs, "--skip-existing", "--json")
        assert result.status == 3
        found = lines(result)
        assert [line["input"] for line in found] == songs
        assert [line["status"] for line in found] == ["skipped", "separated", *["failed"] * 3]
        assert found[0]["stems"]["bass"] == "a_umxm/bass.wav"
        assert found[2]["error"]["type"] == "AudioError"
        assert found[2]["error"]["message"].startswith("path='c.wav' holds no sound")
        assert found[3]["error"] == {"type": "MemoryError", "message": "unexpected: too long"}
        assert "No such file" in found[4]["error"]["message"]
        assert (found[2]["stems"], found[2]["record"]) == ({}, None)

    @pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
    def test_of_a_name_that_is_no_text(self, engine, song, run, folder):
        song()
        os.rename(b"song.wav", b"so\xf6.wav")
        (line,) = lines(run("separate", ".", "--json"))
        assert os.fsencode(line["input"]) == b"so\xf6.wav"
        assert os.path.exists(line["stems"]["bass"])

    def test_of_a_plan(self, engine, song, run, folder):
        song("a.wav")
        song("b.wav")
        result = run("separate", "a.wav", "b.wav", "--dry-run", "--json", "-o", "out")
        assert result.status == 0
        assert [line["status"] for line in lines(result)] == ["planned"] * 2
        assert lines(result)[1]["stems"]["bass"] == "out/b/bass.wav"
        assert "2 planned of 2 files" in result.err
        assert run("separate", "a.wav", "--dry-run").out.startswith("a_umxm/vocals.wav\n")
        assert files(folder) == ["a.wav", "b.wav"]
        run("separate", "a.wav")
        result = run("separate", "a.wav", "b.wav", "--dry-run", "--json", "--skip-existing")
        assert [line["status"] for line in lines(result)] == ["skipped", "planned"]


class TestStandardStreams:
    @pytest.fixture
    def pipe(self, monkeypatch):
        """Pipe bytes into the program, and what it writes out of it."""

        def pipe(data=b"", *, is_terminal=False):
            streams = []
            for name in ("stdin", "stdout"):
                stream = io.TextIOWrapper(io.BytesIO(data if name == "stdin" else b""))
                stream.isatty = lambda: is_terminal
                monkeypatch.setattr(sys, name, stream)
                streams.append(stream)
            return streams[1].buffer

        return pipe

    @staticmethod
    def of_unknown_length(audio, rate=8000):
        """A WAV file whose writer could not go back to its header."""
        buffer = io.BytesIO()
        sf.write(buffer, audio.T, rate, format="WAV", subtype="FLOAT")
        data = bytearray(buffer.getvalue())
        data[4:8] = b"\xff" * 4
        place = data.index(b"data") + 4
        data[place : place + 4] = b"\xff" * 4
        return bytes(data)

    def test_a_song_of_unknown_length(self, engine, song, run, pipe, folder):
        engine.sample_rate = 8000.0
        audio = song("song.wav")
        os.remove("song.wav")
        out = pipe(self.of_unknown_length(audio))
        options = ["--two-stems", "vocals", "--bits", "float"]
        result = run("separate", "-", *options, "-o", "-")
        assert result.status == 0
        assert "[1/1] - -> standard output (vocals)" in result.err
        stem, rate = sf.read(io.BytesIO(out.getvalue()), dtype="float32")
        assert rate == 8000
        np.testing.assert_array_equal(stem.T, audio / 2)
        assert files(folder) == []
        out = pipe(self.of_unknown_length(audio))
        more = ["--only", "no_vocals", "--ext", ".flac", "--bits", "24"]
        assert run("separate", "-", *options[:2], *more, "-o", "-").status == 0
        assert sf.info(io.BytesIO(out.getvalue())).format == "FLAC"

    def test_a_song_to_files(self, engine, song, run, pipe, folder, capsys):
        audio = song()
        os.remove("song.wav")
        data = self.of_unknown_length(audio)  # once: libsndfile writes the time into it
        out = pipe(data)
        result = run("separate", "-", "-o", "out", "--json")
        assert result.status == 0, result.err
        line = json.loads(out.getvalue())
        assert line["input"] == "-"
        assert line["stems"]["bass"] == "out/stdin/bass.wav"
        record = json.loads((folder / line["record"]).read_text())
        assert record["source"]["name"] == "-"
        pipe(data)
        assert run("separate", "-", "-o", "out", "--skip-existing").status == 0
        assert len(engine.separated) == 1

    def test_what_is_no_sound(self, engine, run, pipe, folder):
        for data in (b"", b"no sound"):
            out = pipe(data)
            result = run("separate", "-", "-o", "-", "--two-stems", "vocals")
            assert result.status == 1
            assert "error: path='-' " in result.err
            assert out.getvalue() == b""
        assert files(folder) == []

    @pytest.mark.parametrize(
        ("words", "status", "message"),
        [
            (["-o", "-"], 2, "say which with --only, of vocals,drums,bass,other"),
            (["b.wav", "-o", "-", "--only", "bass"], 2, "one stem of one song, and these are 2"),
            (["-o", "-", "--only", "bass", "--json"], 2, "leave out --json"),
            (["-o", "-", "--only", "bass", "--filename", "x"], 2, "leave out --filename"),
            (["-o", "-", "--only", "bass", "--skip-existing"], 2, "leave out --skip-existing"),
        ],
    )
    def test_what_makes_no_sense(self, engine, song, run, pipe, words, status, message):
        song("a.wav")
        song("b.wav")
        out = pipe()
        result = run("separate", "a.wav", *words)
        assert result.status == status
        assert message in result.err
        assert out.getvalue() == b""
        assert engine.separated == []

    def test_terminals_are_not_written_to(self, engine, song, run, pipe):
        song()
        pipe(is_terminal=True)
        result = run("separate", "song.wav", "-o", "-", "--only", "bass")
        assert result.status == 1
        assert "--outdir '-' writes to standard output, which is a terminal" in result.err
        assert "nothing is piped into it" in run("separate", "-").err

    @pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
    @pytest.mark.parametrize("words", [["-o", "-", "--only", "bass"], ["-o", "out"]])
    def test_a_reader_that_goes_away(self, song, words, folder):
        song()
        program = [sys.executable, "-m", "umx_np", "separate", "song.wav", "-q", *words]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 141


def test_errors_are_not_nested(engine, song, run, folder):
    (folder / "a.wav").write_text("no sound")
    for words in (["a.wav"], ["missing.wav"], ["a.wav", "--ext", ".xyz"], ["a.wav", "-n", "no/x"]):
        for line in run("separate", *words).err.splitlines():
            assert line.count("error:") <= 1, line


def test_a_failure_while_it_is_written(engine, song, run):
    song()
    engine.after_block = lambda: (_ for _ in ()).throw(AudioError("broken"))
    result = run("separate", "song.wav", "--two-stems", "vocals", "--json")
    assert result.status == 1
    assert lines(result)[0]["stems"] == {}
