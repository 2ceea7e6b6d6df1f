"""What `umx_np` promises to have."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import umx_np
from umx_np import errors


@pytest.mark.parametrize("name", umx_np.__all__)
def test_public_names_are_there_and_described(name):
    value = getattr(umx_np, name)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+", value)
        return
    assert inspect.getdoc(value)
    assert name in dir(umx_np)


@pytest.mark.parametrize(
    "name", [n for n in umx_np.__all__ if inspect.isfunction(getattr(umx_np, n))]
)
def test_functions_describe_every_parameter(name):
    """A parameter that a docstring leaves out is one that nobody finds."""
    function = getattr(umx_np, name)
    doc = inspect.getdoc(function)
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"^(\w+, )*{parameter}(, \w+)*( :|$)", doc, re.MULTILINE), parameter


def test_every_error_is_an_umx_error():
    for name, value in vars(errors).items():
        if inspect.isclass(value):
            assert issubclass(value, umx_np.UmxError), name


@pytest.mark.parametrize(
    "name",
    [
        "audio.read",
        "evaluation.score_files",
        "plots.plot_separation",
        "testing.random_bundle",
        "weights.load_torch",
        "export.save_onnx",
        "errors.AudioError",
        "data.Loader",
        "training.Trainer",
        "optim.Adam",
        "nn.TrainableNetwork",
        "pretrained.load_model",
    ],
)
def test_what_the_guide_names_is_found_after_one_import(name):
    code = f"import umx_np; assert callable(umx_np.{name})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names():
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        umx_np.nothing_of_the_kind  # noqa: B018
