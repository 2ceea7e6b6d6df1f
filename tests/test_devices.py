"""What the names of devices lead to, and what is said of those that lead nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import umx_np
from umx_np import separate_file
from umx_np.devices import cuda_index, get_backend
from umx_np.errors import ConfigError, DeviceError


@pytest.mark.parametrize("device", [None, 0, ["cpu"], b"cpu", object()])
def test_what_is_neither_name_nor_backend(device, tmp_path):
    with pytest.raises(ConfigError, match=r"device=.* must be text"):
        get_backend(device)
    with pytest.raises(ConfigError, match=r"device=.* must be text"):
        separate_file(tmp_path / "song.wav", device=device)


@pytest.mark.parametrize("precision", [None, 16, "half"])
@pytest.mark.parametrize("device", ["auto", "cpu", "reference"])
def test_precisions_that_there_are_not(device, precision):
    with pytest.raises(ConfigError, match=r"precision="):
        get_backend(device, precision=precision)


def test_an_error_of_the_processor_is_not_told_with_that_of_a_card(monkeypatch):
    monkeypatch.setenv("UMX_NP_ISA", "z80")
    with pytest.raises(DeviceError, match="UMX_NP_ISA='z80'") as caught:
        get_backend("auto")
    assert caught.value.__context__ is None


def test_only_the_door_reads_names_of_devices():
    """Who has to know whether a name means CUDA asks `cuda_index`."""
    root = Path(umx_np.__file__).parent
    asking = re.compile(r"""(startswith\(|==|\bin\b|partition\().{0,12}["']cuda""")
    files = [
        path
        for path in root.rglob("*.py")
        if path.name != "devices.py" and path.parent.name != "cuda"
    ]
    assert asking.search('device.startswith(("auto", "cuda"))')
    for path in files:
        assert not asking.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("name", "index"),
    [("cuda", 0), ("cuda:0", 0), ("cuda:12", 12), ("cpu", None), ("auto", None), ("cudart", None)],
)
def test_names_that_mean_cuda(name, index):
    assert cuda_index(name) == index
