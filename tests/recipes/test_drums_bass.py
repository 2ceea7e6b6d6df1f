"""Drums and bass of the rendered songs, on tiny made-up recordings."""

import io
import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from recipes.umxm.band import bass, bass_synth, drum_patterns, drumkits, drums
from recipes.umxm.band.bass_lines import HIGHEST, LOWEST, RIFFS, Bassist, BassNote
from recipes.umxm.studio import midi
from recipes.umxm.studio.plan import SAMPLE_RATE, STYLES, Plan, make_plan
from recipes.umxm.studio.sources import Library


def burst(frequency: float, seconds: float = 0.2) -> np.ndarray:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * frequency * time) * np.exp(-8 * time)).astype(np.float32)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library with one bass and one kit of three layers."""
    audio = tmp_path_factory.mktemp("audio")
    (audio / "swagbass/notes").mkdir(parents=True)
    for name, pitch in (("c3", 36), ("gb3", 42), ("c4", 48)):
        for layer in ("p", "f", "fff"):
            for robin in (1, 2):
                path = audio / f"swagbass/notes/{name}_{layer}_rr{robin}.ogg"
                wave = burst(440.0 * 2 ** ((pitch - 69) / 12), 1.0)
                soundfile.write(path, wave, SAMPLE_RATE)
    return Library(audio, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def plan() -> Plan:
    """A song in which everybody plays."""
    plan = make_plan(3, duration=6.0, style="rock")
    everybody = frozenset(("vocals", "drums", "bass", "other"))
    return replace(plan, sections=tuple(replace(s, stems=everybody) for s in plan.sections))


def small_kit() -> drumkits.Kit:
    pitches = {"kick": 60, "snare": 200, "hat": 6000, "crash1": 4000, "tom3": 100}
    return {
        piece: [partial(lambda f, g: burst(f)[None] * g, pitch, gain) for gain in (0.2, 0.5, 1.0)]
        for piece, pitch in pitches.items()
    }


def performance(name: str = "1_rock_120_beat_4-4.mid") -> midi.Performance:
    beats = np.arange(32, dtype=np.float32) / 2.0
    notes = np.tile(np.array([36, 42, 38, 42], np.float32), 8)
    return midi.Performance(name, 120.0, beats, np.full(32, 0.1), notes, np.full(32, 0.8))


@pytest.mark.parametrize("style", STYLES)
def test_patterns_are_bars_of_known_pieces(style: str) -> None:
    known = {*drumkits.PIECES, *drumkits.PERCUSSION}
    for kind in drum_patterns.STYLE_PATTERNS[style]:
        for pattern in drum_patterns.PATTERNS[kind]:
            assert set(pattern) <= known
            assert {len(steps) for steps in pattern.values()} == {16}
            for beat, _, velocity in drum_patterns.pattern_bar(pattern, np.random.default_rng(0)):
                assert 0.0 <= beat < 4.0
                assert 0.0 < velocity <= 1.0


@pytest.mark.parametrize("seed", range(8))
def test_a_fill_stays_within_its_bar(seed: int) -> None:
    start, strokes = drum_patterns.fill_bar(np.random.default_rng(seed), is_fast=True)
    assert all(start <= beat < 4.0 for beat, _, _ in strokes)


def test_swing_delays_the_second_eighth_only() -> None:
    assert drum_patterns.swung(2.0, 0.3) == pytest.approx(2.0)
    assert drum_patterns.swung(2.5, 0.3) == pytest.approx(2.65)
    assert drum_patterns.swung(2.5, 0.0) == pytest.approx(2.5)


def test_bars_of_a_performance_take_early_notes_along() -> None:
    played = replace(performance(), beats=performance().beats - np.float32(0.05))
    beats, _, notes, _ = played.bar(1)
    assert len(notes) == 8
    assert beats[0] == pytest.approx(-0.05)


def test_a_drummer_plays_only_where_there_are_drums(plan: Plan) -> None:
    first = plan.sections[0]
    rests = replace(first, nb_bars=1, stems=frozenset(("bass",)))
    plays = replace(first, first_bar=1, nb_bars=plan.nb_bars - 1)
    halved = replace(plan, sections=(rests, plays))
    for performances in ((), (performance(),)):
        player = drum_patterns.Drummer(halved, performances, halved.rng("drums part"))
        assert player.is_human == bool(performances)
        assert min(stroke.start for stroke in player.strokes()) >= halved.seconds(1) - 0.1


def test_missing_pieces_have_stand_ins() -> None:
    assert drumkits.find(small_kit(), "china") == "crash1"
    assert drumkits.find(small_kit(), "tom4") == "tom3"
    assert drumkits.find(small_kit(), "shaker") is None


def test_a_recording_is_deterministic_and_finite(plan: Plan) -> None:
    part = drum_patterns.Drummer(plan, (), plan.rng("drums part")).strokes()

    def take() -> np.ndarray:
        recording = drums.Recording(plan, small_kit(), {}, plan.rng("drums sound"))
        return recording.take(part)[0]

    one, other = take(), take()
    assert one.shape == (2, plan.nb_timesteps)
    assert np.isfinite(one).all()
    assert one.std() > 0
    np.testing.assert_array_equal(one, other)


def test_an_open_hat_is_choked(plan: Plan) -> None:
    long = {"hat_open": [lambda: np.ones((1, SAMPLE_RATE), np.float32)], "hat": small_kit()["hat"]}
    strokes = [drum_patterns.Stroke(0.5, "hat_open", 1.0)]
    rings = drums.Recording(plan, long, {}, plan.rng("x")).take(strokes)[0]
    choked = drums.Recording(plan, long, {}, plan.rng("x")).take(
        [*strokes, drum_patterns.Stroke(0.7, "hat", 0.0)]
    )[0]
    late = slice(int(0.8 * SAMPLE_RATE), int(1.0 * SAMPLE_RATE))
    assert np.abs(choked[:, late]).max() < 0.01 * np.abs(rings[:, late]).max()


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("a2_ff_rr3", (33, "ff")),
        ("eb3_pp_rr1", (39, "pp")),
        ("a3_open_fff_rr4", (45, "fff")),
        ("pizz_bb1_ma", (22, "m")),
        ("scrape_1_rr1", None),
    ],
)
def test_names_of_notes(stem: str, expected: tuple[int, str] | None) -> None:
    assert bass.parse_name(stem) == expected


def test_lookup_finds_the_nearest_pitch_layer_and_robin() -> None:
    paths = [Path(f"{n}_{v}_rr{k}.ogg") for n in ("c3", "gb3") for v in ("p", "f") for k in (1, 2)]
    notes = bass.note_set(paths, ("p", "f"))
    assert notes.pitches == (36, 42)
    assert notes.choose(38, 0.9, 0) == (Path("c3_f_rr1.ogg"), 2)
    assert notes.choose(38, 0.9, 1) == (Path("c3_f_rr2.ogg"), 2)
    assert notes.choose(41, 0.2, 0) == (Path("gb3_p_rr1.ogg"), -1)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(4))
def test_lines_are_one_voice_within_the_register(style: str, seed: int) -> None:
    plan = make_plan(seed, style=style)
    kicks = np.arange(0.0, 48.0, 0.5)
    notes = Bassist(plan, kicks, (performance(),), plan.rng("bass part")).notes()
    for one, following in itertools.pairwise(notes):
        assert one.start + one.duration <= following.start + 1e-9
    assert all(LOWEST - 5 <= note.pitch <= HIGHEST for note in notes)


def test_riffs_fit_a_bar() -> None:
    for riffs in RIFFS.values():
        for riff in riffs:
            assert all(0 <= beat < 4 and beat + length <= 4.01 for beat, length, _, _ in riff)


@pytest.mark.parametrize("kind", bass_synth.KINDS)
def test_synthesised_basses_sound_at_their_pitch(kind: str) -> None:
    notes = [BassNote(0.1, 0.8, 40, 0.9)]
    audio = bass_synth.play(notes, SAMPLE_RATE, np.random.default_rng(5), kind)
    assert audio.shape == (2, SAMPLE_RATE)
    assert np.isfinite(audio).all()
    assert np.abs(audio[:, : int(0.09 * SAMPLE_RATE)]).max() == 0.0
    assert np.abs(audio).max() > 0.01


@pytest.mark.parametrize("kind", ["real", "synth"])
def test_bass_is_rendered_alike_twice(
    plan: Plan, library: Library, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bass, "kind_of", lambda plan: kind)
    monkeypatch.setattr(midi, "groove", lambda library: (performance(),))
    monkeypatch.setattr(midi, "bass_lines", lambda library: ())
    layers = bass._BASSES["swagbass"]
    monkeypatch.setattr(bass, "_BASSES", dict.fromkeys(bass._BASSES, layers))
    one, other = bass.render(plan, library), bass.render(plan, library)
    assert one.shape == (2, plan.nb_timesteps)
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    assert one.std() > 1e-3
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("stem", [bass, drums])
def test_silent_where_nobody_plays(stem: object, plan: Plan, library: Library) -> None:
    resting = tuple(replace(s, stems=frozenset(("vocals",))) for s in plan.sections)
    audio = stem.render(replace(plan, sections=resting), library)  # type: ignore[attr-defined]
    assert audio.shape == (2, plan.nb_timesteps)
    assert not audio.any()


def test_midi_files_are_read() -> None:
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=500_000, time=0))
    for note in (36, 38):
        track.append(mido.Message("note_on", channel=9, note=note, velocity=127, time=0))
        track.append(mido.Message("note_off", channel=9, note=note, velocity=0, time=480))
    song = mido.MidiFile(ticks_per_beat=480)
    song.tracks.append(track)
    content = io.BytesIO()
    song.save(file=content)
    (read,) = midi._read("1_rock_120_beat_4-4.mid", content.getvalue(), "drums")
    np.testing.assert_allclose(read.beats, [0.0, 1.0])
    np.testing.assert_allclose(read.notes, [36, 38])
    assert read.tempo == pytest.approx(120.0)
