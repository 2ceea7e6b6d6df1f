"""The page as people use it: with a pointer, with the keyboard alone, and by what it says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from helpers.documents import ROOT

from .browsing import Page
from .conftest import RATE, add_done, lanes_of, noise_file

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Levels in dB at the frequencies of the stems, as they leave the audio context.
LISTEN = """async () => {
  const { player } = (await import("/static/main.js")).state.mixer;
  const { context, master } = player;
  const analyser = context.createAnalyser();
  analyser.fftSize = 8192;
  analyser.smoothingTimeConstant = 0;
  master.connect(analyser);
  const start = context.currentTime;
  while (context.currentTime < start + 0.5) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const levels = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(levels);
  const at = (hertz) => levels[Math.round((hertz * analyser.fftSize) / context.sampleRate)];
  return { vocals: at(440), drums: at(1000), bass: at(100) };
}"""
# The last samples that left the context, and where in the song the player says that it is.
TAP = """async () => {
  const { player } = (await import("/static/main.js")).state.mixer;
  const { context, master } = player;
  const analyser = context.createAnalyser();
  analyser.fftSize = 4096;
  master.connect(analyser);
  const start = context.currentTime;
  while (context.currentTime < start + 0.4) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const samples = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(samples);
  const latency = context.outputLatency || 0;
  return [player.position() / player.rate + latency, Array.from(samples)];
}"""


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def heard(page: Page) -> set[str]:
    levels = page.page.evaluate(LISTEN)
    assert all(level > -40 or level < -70 for level in levels.values()), levels
    return {name for name, level in levels.items() if level > -40}


def open_song(page: Page) -> None:
    page.page.click("#songs .open")
    page.page.wait_for_selector(".lane")


def test_the_example_plays_without_a_further_click(browser, data):
    with Page(browser, data) as page:
        page.page.click("#example")
        page.page.wait_for_selector("#songs progress")
        page.wait_for("done")
        page.until("document.querySelector('.play')?.textContent === 'Pause'")
        _, samples = page.page.evaluate(TAP)
        assert 0.01 < np.std(samples) < 0.5
        before = page.mixer("m.position()")
        page.page.wait_for_timeout(500)
        assert page.mixer("m.position()") > before
        lanes = page.page.locator(".lane").evaluate_all("all => all.map(one => one.dataset.lane)")
        assert lanes == ["mixture", "vocals", "drums", "bass", "other"]


def test_mute_solo_and_comparison_are_heard(browser, data):
    add_done(data, lanes_of(30.0))
    with Page(browser, data) as page:
        open_song(page)
        page.page.click(".play")
        assert heard(page) == {"vocals", "drums", "bass"}
        page.page.click("[aria-label='Mute Drums']")
        assert heard(page) == {"vocals", "bass"}
        page.page.click("[aria-label='Solo Bass']")
        assert heard(page) == {"bass"}
        page.page.click("text=Compare with original")
        assert heard(page) == {"vocals", "drums", "bass"}
        page.page.click("text=Compare with original")
        page.page.click("[aria-label='Solo Bass']")
        page.page.locator("[aria-label='Level of Vocals']").fill("0")
        assert heard(page) == {"bass"}
        # And this is what is taken away.
        with page.page.expect_download() as download:
            page.page.click("text=This mix")
        audio, _ = sf.read(download.value.path(), dtype="int16")
        np.testing.assert_array_equal(audio, lanes_of(30.0)["bass"])
        assert download.value.suggested_filename == "Sines - mix.wav"


def test_what_is_heard_is_where_the_song_is(browser, data):
    noise = np.random.default_rng(0).integers(-3000, 3000, (60 * RATE, 2)).astype(np.int16)
    add_done(data, {"vocals": noise, "drums": np.zeros_like(noise)})
    mono = noise.astype(float).mean(axis=1) / 32768
    with Page(browser, data) as page:
        open_song(page)
        page.page.click(".play")
        box = page.page.locator(".lane[data-lane=vocals] .stack").bounding_box()
        for share in (None, 0.75, 0.25):
            if share is not None:
                page.page.mouse.click(box["x"] + share * box["width"], box["y"] + 20)
            told, samples = page.page.evaluate(TAP)
            part = mono[max(0, round((told - 1) * RATE)) :][: 2 * RATE]
            found = np.argmax(np.correlate(part, np.array(samples), "valid"))
            end = max(0, round((told - 1) * RATE)) + found + len(samples)
            assert abs(end / RATE - told) < 0.06
            if share is not None:
                assert share * 60 < told < share * 60 + 5


def test_a_part_is_looped_by_dragging_and_by_keys(browser, data):
    add_done(data, lanes_of(20.0))
    with Page(browser, data) as page:
        open_song(page)
        box = page.page.locator(".lane[data-lane=vocals] .stack").bounding_box()
        at = [box["x"] + share * box["width"] for share in (0.5, 0.55)]
        page.page.mouse.move(at[0], box["y"] + 20)
        page.page.mouse.down()
        page.page.mouse.move(at[1], box["y"] + 20, steps=4)
        page.page.mouse.up()
        loop = page.mixer("m.loop")
        assert abs(loop["from"] / RATE - 10) < 0.1
        assert abs(loop["to"] / RATE - 11) < 0.1
        assert page.page.locator(".region >> visible=true").count() == 4
        page.mixer("m.seek(10.5)")
        page.page.click(".play")
        page.page.wait_for_timeout(1500)
        assert 9.9 < page.mixer("m.position()") < 11.1
        page.page.keyboard.press("Escape")
        assert page.mixer("m.loop") is None
        page.page.click(".play")
        page.mixer("m.seek(4)")
        page.page.keyboard.press("[")
        page.mixer("m.seek(6)")
        page.page.keyboard.press("]")
        assert page.mixer("m.loop") == {"from": 4 * RATE, "to": 6 * RATE}


def test_the_keyboard_alone_is_enough(browser, data):
    add_done(data, lanes_of(20.0))
    with Page(browser, data) as page:
        keys = page.page.keyboard
        for _ in range(40):
            keys.press("Tab")
            if page.page.evaluate("document.activeElement.classList.contains('open')"):
                break
        keys.press("Enter")
        page.page.wait_for_selector(".lane")
        page.page.locator("#player").focus()
        keys.press("Space")
        assert heard(page) == {"vocals", "drums", "bass"}
        keys.press("2")
        assert heard(page) == {"drums", "bass"}
        keys.press("Shift+Digit3")
        assert heard(page) == {"drums"}
        keys.press("Shift+Digit3")
        # A slider keeps the keys that it has, and no others.
        slider = page.page.locator("[aria-label='Level of Bass']")
        slider.focus()
        keys.press("ArrowLeft")
        assert float(slider.input_value()) == 0.99
        keys.press("4")
        assert heard(page) == {"drums"}
        keys.press("4")
        page.page.locator("#player").focus()
        keys.press("c")
        assert heard(page) == {"vocals", "drums", "bass"}
        keys.press("Space")
        keys.press("Home")
        assert page.mixer("m.position()") == 0
        keys.press("ArrowRight")
        assert page.mixer("m.position()") == 5
        keys.press("?")
        assert page.page.locator("#help").is_visible()
        keys.press("Escape")
        assert not page.page.locator("#help").is_visible()


def test_two_songs_at_once_and_a_broken_file(browser, data, tmp_path):
    songs = [noise_file(tmp_path / f"{name}.wav", 1.0, name) for name in (1, 2)]
    broken = tmp_path / "Broken <b>.mp3"
    broken.write_bytes(b"no sound" * 1000)
    with Page(browser, data) as page:
        page.page.click("#options summary")
        page.page.check("text=vocals and the rest")
        page.page.select_option("#niter", "0")
        page.page.set_input_files("#file", [*songs, broken])
        page.wait_for("done", 2)
        page.wait_for("failed")
        failure = page.page.locator("#songs .failed")
        assert "Broken <b>.mp3" in failure.locator(".failure").inner_text()
        failure.locator("button").click()
        page.wait_for("failed", 0)
        choices = [job["choice"] for job in page.server.jobs()]
        assert {choice["two_stems"] for choice in choices} == {"vocals"}
        assert {choice["niter"] for choice in choices} == {0}


def test_a_song_that_is_cancelled_is_gone(browser, data, tmp_path):
    sf.write(tmp_path / "long.flac", np.zeros((RATE * 900, 2), np.int16), RATE)
    with Page(browser, data) as page:
        page.page.set_input_files("#file", tmp_path / "long.flac")
        page.until("document.querySelector('#songs .running p')?.textContent.includes('left')")
        page.page.click("[aria-label='Cancel long']")
        page.wait_for("running", 0)
        page.page.wait_for_selector("#no-songs:visible")
        assert page.server.files() == []


def test_songs_survive_a_reload_and_a_restart(browser, data):
    job = add_done(data, lanes_of(5.0))
    with Page(browser, data) as page:
        assert "token" not in page.page.url
        open_song(page)
        page.page.reload()
        page.page.wait_for_selector(".lane")
        assert page.page.url.endswith(f"#{job.id}")
        page.server.stop()
        page.until("document.querySelector('#notice').textContent.includes('away')")
        page.complaints.clear()  # that nobody answers
    with Page(browser, data) as page:
        open_song(page)
        page.page.once("dialog", lambda dialog: dialog.accept())
        page.page.click("[aria-label='Remove Sines']")
        page.page.wait_for_selector(".empty")
        assert page.server.files() == []


def test_a_spectrogram_is_shown(browser, data):
    add_done(data, lanes_of(3.0))
    with Page(browser, data) as page:
        open_song(page)
        page.page.click("[aria-label='Spectrogram of Vocals']")
        page.until("document.querySelector('.lane[data-lane=vocals] .picture').height === 240")
        bright = page.page.evaluate(
            """() => {
              const canvas = document.querySelector('.lane[data-lane=vocals] .picture');
              const pen = canvas.getContext('2d');
              const column = pen.getImageData(canvas.width / 2, 0, 1, canvas.height).data;
              const sums = Array.from({ length: canvas.height }, (_, y) =>
                column[4 * y] + column[4 * y + 1] + column[4 * y + 2]);
              return sums.indexOf(Math.max(...sums));
            }"""
        )
        # 440 Hz, of 40 Hz at the bottom to 20 kHz at the top of 240 rows
        assert abs(bright - (239 - 240 * np.log(440 / 40) / np.log(500))) < 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_nothing_keeps_anybody_out(browser, data, scheme, width):
    """Nothing that axe-core finds: empty, with a song and its controls pressed, with the help."""
    axe = os.environ.get("UMX_NP_AXE")
    if not axe:
        pytest.skip("set UMX_NP_AXE to the file that tests/serve/axe.py gets")
    add_done(data, lanes_of(3.0))
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with Page(browser, data, **look) as page:

        def check() -> None:
            page.page.evaluate(Path(axe).read_text(encoding="utf-8"))
            violations = page.page.evaluate("async () => (await axe.run()).violations")
            assert [(found["id"], found["nodes"][0]["html"]) for found in violations] == []
            overflow = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert not page.page.evaluate(overflow)

        page.page.click("#options summary")
        check()
        open_song(page)
        page.page.click("[aria-label='Mute Drums']")
        page.page.click("text=Compare with original")
        page.page.click("[aria-label='Spectrogram of Vocals']")
        page.page.wait_for_timeout(300)
        check()
        page.page.click("#help-open")
        check()


def test_the_picture_of_the_document(browser, data, tmp_path):
    """What docs/serve.md shows; written there with UMX_NP_WRITE_PICTURES=1."""
    with Page(browser, data) as page:
        page.page.click("#example")
        page.wait_for("done")
        page.page.wait_for_selector(".lane")
        if page.page.inner_text(".play") == "Pause":
            page.page.click(".play")
        page.mixer("m.seek(7.3)")
        page.page.click("[aria-label='Spectrogram of Vocals']")
        page.until("document.querySelector('.lane[data-lane=vocals] .picture').height === 240")
        page.page.mouse.move(0, 0)
        page.page.evaluate("document.activeElement.blur()")
        target = tmp_path / "serve.png"
        if os.environ.get("UMX_NP_WRITE_PICTURES") == "1":
            target = ROOT / "docs" / "serve.png"
        page.page.screenshot(path=target)
        assert target.stat().st_size > 20_000
