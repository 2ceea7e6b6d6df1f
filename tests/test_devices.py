"""What the names of devices lead to, and what is said of those that lead nowhere."""

from __future__ import annotations

import pytest

from umx_np import separate_file
from umx_np.devices import get_backend
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
