"""One gain for all stems of a song."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest

from umx_np.audio import (
    StemWriter,
    commit_together,
    finish_together,
    read,
)

RATE = 16000
PEAKS = {"vocals": 2.5, "drums": 0.5, "bass": 1.25}


class TestOneGainForAll:
    """Of stems that belong together, the loudest says what all are scaled by."""

    def stems(self):
        rng = np.random.default_rng(8)
        stems = {name: rng.uniform(-1, 1, (2, 40_000)) for name in PEAKS}
        return {
            name: (stem * PEAKS[name] / np.abs(stem).max()).astype(np.float32)
            for name, stem in stems.items()
        }

    def write(self, folder, stems, suffix=".wav", **options):
        writers = {
            name: StemWriter(folder / f"{name}{suffix}", nb_channels=2, rate=RATE, **options)
            for name in stems
        }
        with commit_together(writers.values()):
            for begin in range(0, 40_000, 7_000):
                for name, writer in writers.items():
                    writer.write(stems[name][:, begin : begin + 7_000])
            gain = finish_together(writers.values())
        assert sorted(os.listdir(folder)) == sorted(f"{name}{suffix}" for name in stems)
        return {name: read(writer.path)[0] for name, writer in writers.items()}, gain

    @pytest.mark.parametrize(
        ("suffix", "bits"), [(".wav", "float"), (".wav", "24"), (".flac", "16")]
    )
    def test_their_balance_stays(self, tmp_path, caplog, suffix, bits):
        stems = self.stems()
        found, gain = self.write(tmp_path, stems, suffix, bits=bits, clip_mode="rescale")
        full = 1 if bits == "float" else 1 - 2.0 ** (1 - int(bits))
        assert gain == pytest.approx(full / 2.5, rel=1e-6)
        step = 0 if bits == "float" else 2.0 ** -int(bits)
        for name, stem in stems.items():
            np.testing.assert_allclose(found[name], stem * np.float32(gain), atol=1.01 * step)
        # So their sum is the mixture, scaled.
        mixture = sum(stems.values())
        np.testing.assert_allclose(sum(found.values()), mixture * gain, atol=4 * step + 1e-6)
        (message,) = caplog.messages
        assert "all stems are scaled by -7.96 dB to stay within full scale" in message
        assert all(name in message for name in stems)

    def test_stems_within_full_scale_are_left_alone(self, tmp_path, caplog):
        stems = {name: stem / 2.5 for name, stem in self.stems().items()}
        found, gain = self.write(tmp_path, stems, bits="float", clip_mode="rescale")
        assert (gain, caplog.messages) == (1.0, [])
        for name, stem in stems.items():
            np.testing.assert_array_equal(found[name], stem)

    def test_others_are_not_scaled(self, tmp_path):
        found, gain = self.write(tmp_path, self.stems(), bits="float", clip_mode="none")
        assert gain == 1.0
        assert np.abs(found["vocals"]).max() == np.float32(2.5)

    def test_without_a_word_of_the_gain_the_end_of_the_block_does_it(self, tmp_path):
        stems = self.stems()
        with commit_together(writers := []):
            for name, stem in stems.items():
                path = tmp_path / f"{name}.wav"
                writers.append(
                    StemWriter(path, nb_channels=2, rate=RATE, bits="float", clip_mode="rescale")
                )
                writers[-1].write(stem)
        drums, _ = read(tmp_path / "drums.wav")
        np.testing.assert_allclose(np.abs(drums).max(), 0.5 / 2.5, rtol=1e-6)

    def test_no_more_than_a_block_is_in_memory(self, tmp_path):
        """The samples are kept on the disk until the gain is known."""
        stem = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 2_000_000)).astype(np.float32)
        writers = [
            StemWriter(tmp_path / f"{k}.wav", nb_channels=2, rate=RATE, clip_mode="rescale")
            for k in range(2)
        ]
        tracemalloc.start()
        with commit_together(writers):
            for writer in writers:
                for begin in range(0, 2_000_000, 10_000):
                    writer.write(3 * stem[:, begin : begin + 10_000])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6 < stem.nbytes
