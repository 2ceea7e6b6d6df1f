"""What the player makes of the lanes, sample by sample, as a browser renders it."""

from __future__ import annotations

import numpy as np
import pytest

from .browsing import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RATE = 8000
LENGTH = 101_000  # two and a half pieces
LEAD = round(0.08 * RATE)

# Lanes of one channel: `frame % period` of each, which no other frame nearby has.
SETUP = """
const { Player } = await import("/static/player.js");
const periods = { mixture: 9001, vocals: 7919, drums: 6007 };
const value = (lane, frame) => (frame % periods[lane]) + 1;
const sound = (length, rate) => ({
  lanes: Object.keys(periods), rate, nb_channels: 1, nb_timesteps: length, first_byte: 0,
});
const load = async (lane, first, count) =>
  Int16Array.from({ length: count }, (_, i) => value(lane, first + i)).buffer;
async function rendered(length, seconds, rate, prepare) {
  const context = new OfflineAudioContext(1, Math.round(seconds * rate), rate);
  const player = new Player(context, sound(length, rate), load);
  await prepare(player);
  await player.play();
  await player.pump(seconds + 1);
  const output = (await context.startRendering()).getChannelData(0);
  player.close();
  return Array.from(output, (sample) => sample * 32768);
}
"""


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    with Page(browser, tmp_path_factory.mktemp("player") / "data") as page:
        yield page


def render(page: Page, prepare: str, seconds: float = 14.0, length: int = LENGTH) -> np.ndarray:
    script = f"async () => {{ {SETUP} return rendered({length}, {seconds}, {RATE}, {prepare}); }}"
    return np.array(page.page.evaluate(script))


def lane(period: int, frames: np.ndarray) -> np.ndarray:
    return frames % period + 1.0


FRAMES = np.arange(LENGTH)
MIXTURE, VOCALS, DRUMS = (lane(period, FRAMES) for period in (9001, 7919, 6007))


def test_lanes_begin_together_and_pieces_join_without_a_seam(page):
    found = render(page, "async () => {}")
    assert not found[:LEAD].any()
    np.testing.assert_allclose(found[LEAD : LEAD + LENGTH], MIXTURE + VOCALS + DRUMS, atol=0.02)
    assert not found[LEAD + LENGTH :].any()


def test_levels_are_those_of_the_lanes(page):
    """Mute, solo and gain are levels: 0 is not heard at all."""
    levels = "p.setLevel('mixture', 0); p.setLevel('vocals', 0.25); p.setLevel('drums', 1);"
    found = render(page, f"async (p) => {{ {levels} }}")
    np.testing.assert_allclose(found[LEAD : LEAD + LENGTH], 0.25 * VOCALS + DRUMS, atol=0.02)


def test_seeking_is_exact(page):
    found = render(page, "async (p) => { await p.seek(54321); }")
    wanted = (MIXTURE + VOCALS + DRUMS)[54321:]
    np.testing.assert_allclose(found[LEAD : LEAD + len(wanted)], wanted, atol=0.02)


@pytest.mark.parametrize(("begin", "end"), [(10_000, 14_321), (38_000, 81_000), (79_999, 101_000)])
def test_a_loop_comes_again_without_a_gap(page, begin, end):
    """Within a piece, over two seams, and to the end of the song."""
    prepare = f"async (p) => {{ p.loop = {{ from: {begin}, to: {end} }}; p.frame = {begin}; }}"
    found = render(page, prepare, seconds=20.0)[LEAD:]
    frames = begin + np.arange(len(found)) % (end - begin)
    np.testing.assert_allclose(found, (MIXTURE + VOCALS + DRUMS)[frames], atol=0.02)


def test_no_lane_drifts_in_ten_minutes(page):
    """One lane minus the other, which holds the same, is silence to the last sample."""
    script = f"""async () => {{ {SETUP}
      const same = async (lane, first, count) => load("vocals", first, count);
      const length = 600 * {RATE};
      const context = new OfflineAudioContext(1, length + {RATE}, {RATE});
      const player = new Player(context, sound(length, {RATE}), same);
      player.setLevel("mixture", 0);
      player.setLevel("drums", -1);
      await player.play();
      await player.pump(700);
      const both = (await context.startRendering()).getChannelData(0);
      const alone = new OfflineAudioContext(1, length + {RATE}, {RATE});
      const one = new Player(alone, sound(length, {RATE}), same);
      one.setLevel("mixture", 0);
      one.setLevel("drums", 0);
      await one.play();
      await one.pump(700);
      const output = (await alone.startRendering()).getChannelData(0);
      let wrong = 0;
      for (let frame = 0; frame < length; frame += 1) {{
        wrong += Math.abs(output[frame + {LEAD}] * 32768 - value("vocals", frame)) > 0.02;
      }}
      return [both.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0), wrong];
    }}"""
    assert page.page.evaluate(script) == [0, 0]


def test_memory_does_not_grow_with_the_song(page):
    """Of ten minutes, some pieces are kept; of what was heard, none."""
    script = f"""async () => {{ {SETUP}
      const context = new OfflineAudioContext(1, {RATE}, {RATE});
      const player = new Player(context, sound(600 * {RATE}, {RATE}), load);
      await player.play();
      await player.pump(500);
      const kept = player.chunks.size;
      player.close();
      return kept;
    }}"""
    assert 1 < page.page.evaluate(script) <= 7
