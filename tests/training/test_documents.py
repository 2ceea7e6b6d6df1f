"""The documents on training: their examples run, and their tables list every option."""

from __future__ import annotations

import argparse
import importlib.util
import re

import numpy as np
import pytest
import soundfile
from helpers.documents import blocks_of, text_of

from umx_np.commands.train import COMMAND
from umx_np.data import add_dataset_options

DOCUMENTS = ("docs/training.md", "docs/changing-the-model.md")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The folder ``data`` of the documents, as working directory's neighbour."""
    rng = np.random.default_rng(3)
    rate = 8000
    for track in ("train/song1", "train/song2", "valid/song9"):
        folder = tmp_path / "data" / track
        folder.mkdir(parents=True)
        for name in ("vocals", "drums", "bass"):
            sound = 0.1 * rng.standard_normal((2 * rate, 2))
            soundfile.write(folder / f"{name}.wav", sound, rate)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_examples(data, document):
    """All blocks of a document, in their order, in one namespace."""
    if importlib.util.find_spec("numba") is None:
        pytest.skip("the examples use the compiled kernels")
    blocks = blocks_of("python", document)
    assert blocks
    namespace: dict[str, object] = {"__name__": document}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{document}, block {number}", "exec"), namespace)


def test_all_options_are_listed():
    """The tables have every option that is not one of the data, and its default."""
    section = text_of("docs/training.md").split("\n## Options\n")[1].split("\n## ")[0]
    listed = {}
    for names, default in re.findall(r"^\| (`--[^|]*)\|([^|]*)\|", section, flags=re.MULTILINE):
        flags = re.findall(r"--?[a-z0-9-]+", names)
        # As in "--nfft, --nhop | 4096, 1024".
        defaults = default.strip("` ").split(", ")
        if len(defaults) != len(flags):
            defaults = defaults[:1] * len(flags)
        listed.update(zip(flags, defaults, strict=True))
    of_data = argparse.ArgumentParser()
    add_dataset_options(of_data)
    data_flags = {flag for action in of_data._actions for flag in action.option_strings}
    for action in COMMAND.parser()._actions:
        if set(action.option_strings) <= data_flags:
            continue
        assert set(action.option_strings) <= set(listed), action.option_strings
        shown = listed[action.option_strings[0]]
        if action.default is None or action.default is False or action.dest == "audio_backend":
            assert shown in ("", "all cores"), action.dest
        elif isinstance(action.default, (int, float)):
            assert float(shown) == action.default, action.dest
        else:
            assert shown == action.default, action.dest
