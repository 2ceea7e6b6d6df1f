"""Uses everything in one process for a while and watches memory, handles, threads and files.

A script; `test_soak.py` runs it and looks at what it prints: one JSON object with a row of
measurements a round. Every round separates arrays and files, streams, loads models, trains, and
evaluates, each with other lengths, rates and formats, errors and interruptions among them::

    python tests/endurance/soak.py FOLDER SECONDS [SEED]
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile as sf

import umx_np
from umx_np import audio as umx_audio
from umx_np.config import ModelConfig
from umx_np.data import Loader, load_datasets
from umx_np.evaluation import evaluate
from umx_np.testing import random_bundle_of
from umx_np.train import main as train_main
from umx_np.weights import convert, save_folder

RATE = 8000
STEMS = ("vocals", "drums", "bass", "other")
FORMATS = ("wav", "flac", "ogg", "mp3", "aiff", "caf")
RATES = (8000, 11025, 16000, 22050, 44100, 48000)


class AlarmError(Exception):
    """In the place of Ctrl-C, at any moment."""


class Soak:
    """The material, and one method for each way to use the package."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.interrupts = 0
        self.errors = 0
        # Files that were closed by the collector only: none, but where an interrupt fell between
        # the opening of a file and the `with` that closes it.
        self.dropped: list[str] = []
        self.dropped_by_interrupts: list[str] = []
        config = ModelConfig(nb_bins=129, hidden_size=16, max_bin=100)
        bundle = random_bundle_of(config, STEMS, seed=1, sample_rate=float(RATE))
        save_folder(bundle, folder / "model")
        convert(folder / "model", folder / "torch", format="pth")
        live = ModelConfig(nb_bins=129, hidden_size=16, max_bin=100, unidirectional=True)
        save_folder(random_bundle_of(live, STEMS, seed=2, sample_rate=float(RATE)), folder / "live")
        for split, count in (("train", 3), ("valid", 1), ("test", 1)):
            for track in range(count):
                place = folder / "tracks" / split / f"track{track}"
                place.mkdir(parents=True)
                for name in ("vocals", "drums"):
                    sf.write(place / f"{name}.wav", self.sound(RATE, 1).T, RATE)
        mono = ModelConfig(nb_bins=129, nb_channels=1, hidden_size=8, max_bin=100)
        save_folder(
            random_bundle_of(mono, STEMS[:2], seed=3, sample_rate=float(RATE)), folder / "mono"
        )
        self.separator = umx_np.Separator.from_bundle(umx_np.load_model(folder / "model"))

    def note_warning(self, message: Warning | str, *_: object, **__: object) -> None:
        if isinstance(message, ResourceWarning):
            self.dropped.append(str(message))

    def sound(self, length: int, nb_channels: int) -> np.ndarray:
        return 0.1 * self.rng.standard_normal((nb_channels, length)).astype(np.float32)

    def arrays(self) -> None:
        sound = self.sound(self.random.choice([1, 500, 8000, 40000]), self.random.randint(1, 3))
        umx_np.separate(
            sound,
            self.random.choice(RATES),
            channels_first=True,
            model=self.folder / self.random.choice(["model", "torch"]),
            niter=self.random.randint(0, 2),
            residual=self.random.choice([False, True]),
            wiener_win_len=self.random.choice([None, 30]),
            precision=self.random.choice(["full", "fast"]),
            threads=self.random.randint(1, 4),
        )

    def song(self) -> Path:
        path = self.folder / f"song.{self.random.choice(FORMATS)}"
        rate = self.random.choice(RATES)
        sound = self.sound(self.random.randint(1, 3 * rate), self.random.randint(1, 2))
        sf.write(path, sound.T, rate)
        return path

    def files(self) -> None:
        path = self.song()
        umx_np.separate_file(
            path,
            self.folder / "stems",
            separator=self.separator,
            ext=self.random.choice([".wav", ".flac", ".ogg"]),
            max_memory=self.random.choice([None, 0]),
            start=self.random.choice([0.0, 0.01]) if sf.info(path).duration > 0.02 else 0.0,
        )
        shutil.rmtree(self.folder / "stems")
        path.unlink()

    def broken_files(self) -> None:
        path = self.song()
        content = bytearray(path.read_bytes())
        for place in self.random.sample(range(len(content)), min(20, len(content))):
            content[place] = self.random.randrange(256)
        path.write_bytes(content[: self.random.randint(0, len(content))])
        with suppress(umx_np.UmxError):
            umx_np.separate_file(path, self.folder / "stems", separator=self.separator)
            self.errors -= 1
        self.errors += 1
        shutil.rmtree(self.folder / "stems", ignore_errors=True)
        path.unlink()

    def blocks(self) -> None:
        path = self.song()
        with umx_audio.AudioReader(path, rate=RATE) as reader:
            for _, _stem in zip(range(3), self.separator.blocks(reader), strict=False):
                pass  # left in the middle, like a player that is stopped
        path.unlink()

    def live(self) -> None:
        model = umx_np.load_model(self.folder / "live")
        stream = umx_np.Separator.from_bundle(model).stream()
        for _ in range(20):
            stream.process(self.sound(self.random.randint(0, 900), 2))
        if self.random.random() < 0.5:
            stream.flush()

    def broken_models(self) -> None:
        place = self.folder / "broken"
        shutil.copytree(self.folder / self.random.choice(["model", "torch"]), place)
        path = self.random.choice(sorted(place.iterdir()))
        content = path.read_bytes()
        path.write_bytes(content[: self.random.randint(0, len(content) - 1)])
        with suppress(umx_np.UmxError):
            umx_np.load_model(place)
            self.errors -= 1
        self.errors += 1
        shutil.rmtree(place)

    def training(self) -> None:
        options = (
            "--dataset trackfolder_var --target-file vocals.wav --target vocals --seq-dur 0.25 "
            "--nfft 256 --nhop 128 --nb-channels 1 --hidden-size 8 --bandwidth 3000 --batch-size 3 "
            "--epochs 1 --device reference --no-plot --quiet --overwrite"
        )
        places = ["--root", str(self.folder / "tracks"), "--output", str(self.folder / "run")]
        assert train_main([*options.split(), *places]) == 0
        shutil.rmtree(self.folder / "run")

    def loading(self) -> None:
        options = {"target_file": "vocals.wav", "seq_dur": 0.25, "dataset": "trackfolder_var"}
        train, _ = load_datasets({**options, "root": str(self.folder / "tracks")})
        with Loader(train, 1, seed=1, shuffle=True, workers=2) as loader:
            batches = loader.epoch(0)
            for _ in range(self.random.randint(1, len(loader))):
                next(batches)

    def scores(self) -> None:
        result = evaluate(
            self.folder / "tracks",
            dataset="folder",
            model=self.folder / "mono",
            evaldir=self.folder / "scores",
            threads=2,
        )
        assert not result.failed
        shutil.rmtree(self.folder / "scores")

    def interrupted(self) -> None:
        """An exception out of a signal handler, somewhere within a separation."""

        def interrupt(*_: object) -> None:
            raise AlarmError

        gc.collect()
        assert not self.dropped, self.dropped
        before = signal.signal(signal.SIGALRM, interrupt)
        path = self.song()
        try:
            signal.setitimer(signal.ITIMER_REAL, self.random.uniform(0.0005, 0.05))
            umx_np.separate_file(path, self.folder / "stems", separator=self.separator)
            umx_np.separate(self.sound(20000, 2), RATE, separator=self.separator)
        except AlarmError:
            self.interrupts += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
        shutil.rmtree(self.folder / "stems", ignore_errors=True)
        path.unlink()
        gc.collect()
        self.dropped_by_interrupts += self.dropped
        self.dropped.clear()

    def activities(self) -> list[Callable[[], None]]:
        often = [self.arrays, self.files, self.blocks, self.live, self.interrupted] * 3
        errors = [self.broken_files, self.broken_models] * 2
        return [*often, *errors, self.loading, self.training, self.scores]

    def measured(self) -> dict[str, int]:
        """What must not grow, after what is not needed has been given back."""
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {
            "memory": pages * os.sysconf("SC_PAGE_SIZE"),
            "handles": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
            "files": len(os.listdir(tempfile.gettempdir())),
            "objects": len(gc.get_objects()),
        }


def main() -> None:
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    soak = Soak(folder, int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    warnings.simplefilter("always", ResourceWarning)
    warnings.showwarning = soak.note_warning
    rows: list[dict[str, int]] = []
    activities = soak.activities()
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(rows) < 8:
        soak.random.shuffle(activities)
        for activity in activities:
            activity()
        rows.append(soak.measured())
    print(
        json.dumps(
            {
                "rows": rows,
                "calls": len(rows) * len(activities),
                "interrupts": soak.interrupts,
                "errors": soak.errors,
                "dropped": soak.dropped,
                "dropped by interrupts": soak.dropped_by_interrupts,
            }
        )
    )


if __name__ == "__main__":
    main()
