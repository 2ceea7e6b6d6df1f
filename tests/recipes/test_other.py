"""The other stem: what its instruments play, the sampler, and whole stems from tiny recordings."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from recipes.umxm.band import freedoom, guitars, other, parts, performances, soundfonts, synths
from recipes.umxm.studio import effects, gm_notes, notes
from recipes.umxm.studio.notes import Note
from recipes.umxm.studio.plan import SAMPLE_RATE, STYLES, Chord, Plan, Section, make_plan
from recipes.umxm.studio.sources import Library

_SECONDS = 3.0


def _tone(pitch: float, seconds: float = 0.5) -> np.ndarray:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time) * np.exp(-2 * time)
    return 0.5 * wave


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library whose recordings are short tones."""
    folder = tmp_path_factory.mktemp("audio")

    def write(path: str, audio: np.ndarray) -> None:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, audio, SAMPLE_RATE, format="OGG")

    for colour in ("black", "green"):
        sounds = f"black_and_green_guitars/Samples/{colour}"
        for name, pitch in (("e3", 40), ("c5", 60)):
            write(f"{sounds}/ord/twang_{name}_f_rr1.ogg", _tone(pitch))
            write(f"{sounds}/stac/staccato_{name}_rr1.ogg", _tone(pitch, 0.2))
    write("shinyguitar/Samples/acoustic/a2_vl3_rr1_1.ogg", _tone(45))
    write("emilyguitar/notes/a2_f_rr1.ogg", _tone(45))
    noise = 0.1 * np.random.default_rng(0).standard_normal((4 * SAMPLE_RATE, 2))
    for song, *_ in performances._SONGS:
        write(f"everythingisfree/{song}/other.ogg", noise)
    for song, _ in performances._GUITARS:
        write(f"{performances._GUITAR_FOLDER}/{song}/guitar.ogg", noise)
    made = Library(folder, folder / "cache")
    made.debian = folder
    return made


@pytest.fixture(scope="module", autouse=True)
def _soundfonts() -> Iterator[None]:
    slots = [_tone(pitch, soundfonts._SLOT) for pitch in soundfonts._PITCHES]
    layer = (np.concatenate(slots) * 32767).astype(np.int16)
    recorded = np.tile(layer, (2, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soundfonts, "instrument", lambda *_: recorded)
        patch.setattr(freedoom, "song", lambda *_: _song())
        yield


def _song() -> tuple[freedoom.Part, ...]:
    """A C major scale up and down for a guitar and, in long notes, for a pad."""
    pitches = np.array([48, 50, 52, 53, 55, 57, 59, 60] * 4)
    begins = np.arange(len(pitches)) * 0.5
    scale = np.stack([begins, np.full_like(begins, 0.4), pitches, np.full_like(begins, 0.8)], 1)
    return (freedoom.Part(89, scale[::4] * [1, 4, 1, 1]), freedoom.Part(30, scale))


def _section(seed: int = 3) -> tuple[Plan, Section]:
    plan = make_plan(seed, 20.0, "pop")
    section = replace(plan.sections[0], energy=0.9)
    return plan, section


@pytest.mark.parametrize("marks", ["X---x-x.m-......", "XX", ".x.x"])
def test_rhythm(marks):
    strokes = parts.rhythm(marks)
    assert len(strokes) == sum(mark in "Xxm" for mark in marks)
    sounding = sum(stroke.length for stroke in strokes)
    assert sounding <= 4.0
    ends = [stroke.beat + stroke.length for stroke in strokes]
    assert all(end <= after.beat for end, after in zip(ends, strokes[1:], strict=False))


@pytest.mark.parametrize("stroke", range(len(parts.COMPING)))
def test_comping_is_in_the_chord(stroke):
    plan, section = _section()
    played = parts.chords(plan, section, parts.COMPING[stroke], 55, 4)
    assert played
    for note in played:
        bar = int(note.start / (4 * plan.beat) + 1e-6)
        assert note.pitch % 12 in plan.chords[bar].pitch_classes
        assert note.pitch >= 55


@pytest.mark.parametrize("position", [0, 2, 5, 7])
@pytest.mark.parametrize("root", range(12))
def test_fingering(root, position):
    chord = Chord(root, (0, 4, 7))
    shape = parts.fingering(chord, position)
    assert shape[0][1] % 12 == root
    assert len({string for string, _ in shape}) == len(shape)
    assert all(pitch % 12 in chord.pitch_classes for _, pitch in shape)
    pitches = [pitch for _, pitch in parts.power_chord(chord)]
    assert np.diff(pitches).tolist() == [7, 5]


@pytest.mark.parametrize("manner", ["strum", "pick", "power", "chug", "funk", "riff", "lead"])
def test_guitar_parts_lie_in_the_section(manner):
    plan, section = _section()
    played = guitars.rhythm_part(plan, section, np.random.default_rng(0), manner)
    assert played
    end = plan.seconds(section.first_bar + section.nb_bars)
    assert all(0 <= note.start < end and note.duration > -0.05 for note in played)
    assert all(38 <= note.pitch <= 90 for note in played)


@pytest.mark.parametrize("seed", range(4))
def test_arpeggios_and_melodies_are_in_key(seed):
    plan, section = _section(seed)
    rng = np.random.default_rng(seed)
    chords = {pitch for chord in plan.chords for pitch in chord.pitch_classes}
    arpeggio = parts.arpeggio(plan, section, 55, rng)
    assert arpeggio
    assert all(note.pitch % 12 in chords for note in arpeggio)
    allowed = chords | set(plan.scale)
    melody = parts.melody(plan, section, 69, rng)
    assert melody
    assert all(note.pitch % 12 in allowed for note in melody)


@pytest.mark.parametrize(
    ("name", "octave", "expected"),
    [
        ("twang_a4_f_rr2", 0, (57, 0.95, 2)),
        ("a2_vl1_rr1_1", 1, (45, 0.3, 1)),
        ("eb4_mp_rr3", 1, (63, 0.5, 3)),
        ("staccato_gb3_rr1", 0, (42, 0.95, 1)),
        ("a2_release_rr1_1", 1, None),
        ("mute_string1_rr1_1", 1, None),
    ],
)
def test_names_of_recordings(name, octave, expected):
    assert notes.parse_name(name, octave) == expected


def test_sampler_takes_the_nearest_and_shifts_it(library):
    sampler = guitars.sampler(library, "black")
    assert sampler.lowest == 40
    path, shift = sampler.choose(59.0, 0.9, 0)
    assert (Path(path).stem, shift) == ("twang_c5_f_rr1", -1.0)
    sound = sampler.sound(72.0, 0.9, 0)[0]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    frequency = np.argmax(spectrum) * SAMPLE_RATE / len(sound)
    assert frequency == pytest.approx(523.25, abs=6)


def test_a_sound_does_not_hang_on_what_was_played_before(library):
    fresh = guitars.Sampler(library, library.files("emilyguitar/notes/*.ogg"))
    used = guitars.Sampler(library, library.files("emilyguitar/notes/*.ogg"))
    used.sound(47.0, 0.9, 0)
    np.testing.assert_array_equal(used.sound(47.004, 0.9, 0), fresh.sound(47.004, 0.9, 0))


@pytest.mark.parametrize("factor", [0.5, 0.97, 1.1, 1.9])
def test_another_speed_keeps_both_ends(factor):
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 2000)).astype(np.float32)
    played = effects.respeed(noise, factor)
    assert played.shape == (1, int(2000 / factor))
    assert np.abs(played[:, :2]).max() < 1.3
    assert np.abs(played[:, -4:]).max() < 1.3


def test_what_is_missing_is_told(library, monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.ogg.*Debian"):
        library.installed("sonic-pi/nothing.ogg")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="fluidsynth"):
        gm_notes.recorded(tmp_path / "font.sf2", 0, [(60, 100)], 0.5, 1.0, 0.5)


def test_silence_of_a_sound_font_is_an_error(monkeypatch, tmp_path):
    fluidsynth = tmp_path / "fluidsynth"
    fluidsynth.write_text("#!/bin/sh\necho it is broken >&2\n")
    fluidsynth.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(RuntimeError, match="it is broken"):
        gm_notes.recorded(tmp_path / "font.sf2", 0, [(60, 100)], 0.5, 1.0, 0.5)


def test_a_string_sounds_one_note_at_a_time():
    played = [Note(0.0, 2.0, 40, string=0), Note(0.5, 1.0, 45, string=0), Note(0.1, 2.0, 50)]
    stopped = notes.stopped(played)
    assert [note.duration for note in stopped] == [0.5, 2.0, 1.0]


def test_a_bent_note_ends_at_its_pitch():
    sound = _tone(69, 1.0)[None].astype(np.float32)
    bent = notes.glided(sound, 2.0, 0.0)
    late = bent[0, SAMPLE_RATE // 3 : SAMPLE_RATE * 2 // 3]
    crossings = np.sum(np.diff(np.signbit(late))) / 2 / (len(late) / SAMPLE_RATE)
    assert crossings == pytest.approx(440, rel=0.01)


@pytest.mark.parametrize("kind", ["pad", "pluck", "lead", "keys", "stab"])
def test_synths(kind):
    plan, section = _section()
    rng = np.random.default_rng(1)
    played = parts.melody(plan, section, 69, rng)
    audio = synths.play(plan, played, synths.draw_patch(kind, rng), rng)
    assert audio.shape == (2, plan.nb_timesteps)
    assert np.isfinite(audio).all()
    assert np.abs(audio).max() > 1e-3


def test_scores_come_into_the_key_and_the_section():
    plan, section = _section()
    score = _song()
    shift = freedoom.transposition(score, replace(plan, tonic=2, mode="major"))
    assert shift == 2
    played = freedoom.excerpt(score[1], plan, section, 1, shift)
    assert played[0].pitch == 50
    assert played[0].start == plan.seconds(section.first_bar)
    end = plan.seconds(section.first_bar + section.nb_bars)
    assert all(note.start + note.duration <= end + 0.1 for note in played)
    assert freedoom.fullest_bar(score, 4, np.random.default_rng(0)) == 0


def test_scores_are_read():
    track = mido.MidiTrack()
    for channel, program in ((0, 30), (1, 33), (9, 0)):
        track.append(mido.Message("program_change", channel=channel, program=program))
    for _ in range(freedoom._FEWEST_NOTES):
        for channel in (0, 1, 9):
            track.append(mido.Message("note_on", channel=channel, note=60, velocity=127))
        for channel, time in ((0, 240), (1, 0), (9, 0)):
            message = mido.Message("note_off", channel=channel, note=60, time=time)
            track.append(message)
    file = mido.MidiFile(ticks_per_beat=480, tracks=[track])
    with io.BytesIO() as score:
        file.save(file=score)
        read = freedoom._parts(score.getvalue())
    assert [part.program for part in read] == [30]
    np.testing.assert_allclose(read[0].notes[1], [0.5, 0.5, 60, 1.0])


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("style", STYLES)
def test_render(library, style, scored, monkeypatch):
    if scored:
        monkeypatch.setitem(other._PERFORMED, style, (0.0, 0.0))
        monkeypatch.setitem(other._SCORED, style, 1.0)
    plan = make_plan(11, _SECONDS, style)
    audio = other.render(plan, library)
    assert audio.shape == (2, plan.nb_timesteps)
    assert audio.dtype == np.float32
    assert np.isfinite(audio).all()
    assert any("other" in section.stems for section in plan.sections)
    assert effects.rms(audio) == pytest.approx(0.1, rel=1e-3)  # -20 dB
    if style in ("rock", "electronic"):
        # The mixtures of layers that are least alike.
        np.testing.assert_array_equal(audio, other.render(plan, library))


def test_silent_where_it_does_not_play(library):
    plan = make_plan(1, _SECONDS, "rock")
    resting = replace(plan.sections[0], nb_bars=1, stems=frozenset({"drums"}))
    sounding = replace(
        plan.sections[0],
        first_bar=1,
        nb_bars=max(1, plan.nb_bars - 1),
        stems=frozenset({"other"}),
    )
    audio = other.render(replace(plan, sections=(resting, sounding)), library)
    first = int(plan.seconds(1) * SAMPLE_RATE)
    assert np.abs(audio[:, :first]).max() == 0.0
    assert np.abs(audio[:, first:]).max() > 0.01
    nothing = other.render(replace(plan, sections=(resting,)), library)
    assert not nothing.any()
