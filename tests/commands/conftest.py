"""A stand-in for the engine, so that these tests are about files, names and messages."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile as sf

import umx_np.pretrained
import umx_np.pretrained.loading
import umx_np.separation
from umx_np.commands import main
from umx_np.config import SeparatorConfig
from umx_np.errors import ConfigError, ModelNotFoundError

STEMS = ["vocals", "drums", "bass", "other"]


class Engine:
    """Stems are the mixture times 1/2, 1/4, 1/8, ...; calls are recorded."""

    def __init__(self):
        self.loaded = []
        self.dtypes = []
        self.recommended = None
        self.separators = []
        self.separated = []
        self.sample_rate = 44100.0
        self.weights_digest = "0" * 64
        # Called with the path of each file before its first block.
        self.before = lambda path: None
        self.after_block = lambda: None

    def load_model(
        self, name_or_folder, targets=None, *, offline=False, progress=None, dtype="float32"
    ):
        if name_or_folder == "nonsense":
            raise ModelNotFoundError("model='nonsense' is not known; choose one of umxhq")
        self.loaded.append((name_or_folder, targets, offline))
        self.dtypes.append(dtype)
        name = str(name_or_folder).replace("\\", "/").rsplit("/", 1)[-1]
        return SimpleNamespace(name=name, targets=targets or STEMS)

    def from_bundle(self, bundle, **options):
        if options["residual"] in bundle.targets:
            raise ConfigError(f"residual={options['residual']!r} is a target")
        self.separators.append(options)
        residual = [options["residual"]] if options["residual"] else []
        stems = [*bundle.targets, *residual]
        return SimpleNamespace(
            engine=lambda: SimpleNamespace(stem_names=stems),
            name=bundle.name,
            sample_rate=self.sample_rate,
            stem_names=stems,
            target_names=list(bundle.targets),
            nb_channels=2,
            config=SeparatorConfig(
                niter=options.get("niter", 1),
                softmask=options.get("softmask", False),
                residual=bool(options["residual"]),
                wiener_win_len=options.get("wiener_win_len", 300),
            ),
            ops=SimpleNamespace(
                name=options.get("device", "cpu"), precision=options.get("precision", "full")
            ),
            weights_digest=self.weights_digest,
            # What else belongs to the residual is tested with real engines.
            holding_residual=lambda aggregate: [],
        )

    def separate_stream(
        self, engine, reader, writers, *, aggregate=None, progress=None, max_memory=None
    ):
        self.before(reader.path)
        self.separated.append(reader.path.name)
        self.max_memory = max_memory
        gains = {name: 0.5 ** (i + 1) for i, name in enumerate(engine.stem_names)}
        aggregate = aggregate or {name: [name] for name in engine.stem_names}
        assert list(writers) == list(aggregate)
        done = 0
        for block in reader.blocks(10000):
            block = block[:2]
            for name, summed in aggregate.items():
                writers[name].write(block * np.float32(sum(gains[stem] for stem in summed)))
            done += block.shape[1]
            self.after_block()
            if progress is not None:
                progress(done / reader.nb_timesteps)


@pytest.fixture
def engine(monkeypatch):
    """Put the stand-in in place of the models and the network."""
    engine = Engine()
    monkeypatch.setattr(umx_np.pretrained, "load_model", engine.load_model)
    monkeypatch.setattr(
        umx_np.pretrained.loading, "recommended_precision", lambda model: engine.recommended
    )
    stand_in = SimpleNamespace(from_bundle=engine.from_bundle)
    for name, value in (
        ("separation.separator", ("Separator", stand_in)),
        ("separation.tracks", ("separate_stream", engine.separate_stream)),
    ):
        module = ModuleType(f"umx_np.{name}")
        setattr(module, *value)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(umx_np.separation, name.rpartition(".")[2], module, raising=False)
    return engine


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def song(folder):
    """Write songs of noise, floats of 8 kHz stereo by default."""

    def save(name="song.wav", nb_channels=2, nb_timesteps=4000, rate=8000, level=0.5):
        rng = np.random.default_rng(len(name))
        audio = rng.uniform(-level, level, (nb_timesteps, nb_channels)).astype(np.float32)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(folder / name, audio, rate, subtype="FLOAT" if name.endswith("wav") else None)
        return audio.T

    return save


@pytest.fixture
def run(capsys):
    """Run the command; returns its status and what it said on stderr."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return SimpleNamespace(status=status, out=captured.out, err=captured.err)

    return run


def files(folder):
    """Every file below a folder but for the records of stems, as text relative to it."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not (path.name.startswith(".") and "umx-np" in path.name)
    )
