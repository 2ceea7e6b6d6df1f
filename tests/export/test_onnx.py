"""ONNX files: what is in them, and that ONNX Runtime computes the network from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.asserts import assert_close
from tolerances import TOL

from umx_np.commands import main
from umx_np.config import ModelConfig
from umx_np.errors import ConfigError, WeightsError
from umx_np.export import save_onnx
from umx_np.network.openunmix import OpenUnmix
from umx_np.testing import random_bundle_of, random_state
from umx_np.weights import (
    ModelBundle,
    TargetWeights,
    convert,
    load_folder,
    load_safetensors,
    save_folder,
)

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")

SMALL = ModelConfig(nb_bins=33, hidden_size=10, nb_layers=2, max_bin=21)
CAUSAL = ModelConfig(nb_bins=17, nb_channels=1, hidden_size=7, nb_layers=3, unidirectional=True)


def magnitudes(config: ModelConfig, nb_frames: int) -> np.ndarray:
    """Magnitudes [shape=(nb_frames, nb_channels, nb_bins)], of many levels."""
    rng = np.random.default_rng(nb_frames)
    shape = (nb_frames, config.nb_channels, config.nb_bins)
    return (rng.random(shape) * 10.0 ** rng.uniform(-2, 1, shape)).astype(np.float32)


def expected(weights: TargetWeights, mags: np.ndarray) -> np.ndarray:
    """What the specification computes, in double precision."""
    double = {
        name: value.astype(np.float64) if value.dtype.kind == "f" else value
        for name, value in weights.state.items()
    }
    model = OpenUnmix.from_weights(TargetWeights(weights.config, double), device="reference")
    return model(mags[:, None].astype(np.float64), layout="frames")[:, 0]


def session(path: Path) -> object:
    """Let ONNX Runtime read a file, with no more threads than this process has cores for."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        ModelConfig(nb_bins=12, nb_channels=1, hidden_size=2, nb_layers=1),
        ModelConfig(nb_bins=129, nb_channels=3, hidden_size=38, nb_layers=3, max_bin=128),
    ],
)
def test_all_targets_of_a_bidirectional_model(config: ModelConfig, tmp_path: Path) -> None:
    bundle = random_bundle_of(config, seed=5)
    path = save_onnx(bundle, tmp_path / "model.onnx")
    run = session(path)
    assert [output.name for output in run.get_outputs()] == list(bundle.targets)
    assert [entry.name for entry in run.get_inputs()] == ["mags"]
    for nb_frames in (1, 2, 37):
        mags = magnitudes(config, nb_frames)
        for result, weights in zip(
            run.run(None, {"mags": mags}), bundle.targets.values(), strict=True
        ):
            assert_close(result, expected(weights, mags), TOL["onnx"]["float32"], dtype="float32")


def test_pieces_of_a_unidirectional_model(tmp_path: Path) -> None:
    bundle = random_bundle_of(CAUSAL, ["vocals", "drums"], seed=6)
    run = session(save_onnx(bundle, tmp_path / "live.onnx"))
    mags = magnitudes(CAUSAL, 23)
    shape = run.get_inputs()[1].shape
    assert shape == [2 * 3 * 2, 1, 7]
    state, pieces = np.zeros(shape, np.float32), []
    for piece in np.split(mags, [1, 9]):
        *parts, state = run.run(None, {"mags": piece, "state": state})
        pieces.append(parts)
    for name, parts in zip(bundle.targets, zip(*pieces, strict=True), strict=True):
        wanted = expected(bundle.targets[name], mags)
        assert_close(np.concatenate(parts), wanted, TOL["onnx"]["float32"], dtype="float32")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_stored_smaller(dtype: str, tmp_path: Path) -> None:
    """Smaller weights are those of `convert`, and the network is computed from them exactly."""
    config = ModelConfig(nb_bins=129, hidden_size=32)
    bundle = random_bundle_of(config, ["vocals"], seed=7)
    save_folder(bundle, tmp_path / "plain", "safetensors")
    convert(tmp_path / "plain", tmp_path / "small", dtype=dtype)
    small = load_folder(tmp_path / "small")
    if dtype == "float16":
        # Vectors stay as they are in the graph.
        state = bundle.targets["vocals"].state
        stored = small.targets["vocals"].state
        exact = {name: stored[name] if v.ndim == 2 else v for name, v in state.items()}
        small = ModelBundle("m", {"vocals": TargetWeights(config, exact)})
    sizes = {}
    mags = magnitudes(config, 20)
    for name in ("float32", dtype):
        path = save_onnx(bundle, tmp_path / f"{name}.onnx", dtype=name)
        sizes[name] = path.stat().st_size
    (result,) = session(tmp_path / f"{dtype}.onnx").run(None, {"mags": mags})
    wanted = expected(small.targets["vocals"], mags)
    assert_close(result, wanted, TOL["onnx"]["float32"], dtype="float32")
    assert np.abs(wanted - expected(bundle.targets["vocals"], mags)).max() > 0
    assert sizes[dtype] < {"float16": 0.6, "int8": 0.4}[dtype] * sizes["float32"]


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    bundle = random_bundle_of(SMALL, ["a", "b"], n_hop=7, sample_rate=8000.0)
    path = save_onnx(bundle, tmp_path / "new" / "model.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 14)]
    assert model.ir_version == 7
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in shape] == ["nb_frames", 2, 33]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "targets": "a b", "sample_rate": "8000.0", "n_fft": "64", "n_hop": "7", "license": "MIT",
    }  # fmt: skip
    assert path.read_bytes() == save_onnx(bundle, tmp_path / "again.onnx").read_bytes()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    bundle = random_bundle_of(SMALL, ["vocals"])
    path = tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match="dtype='float64' must be, for ONNX, float32"):
        save_onnx(bundle, path, dtype="float64")
    with pytest.raises(ConfigError, match="is a folder"):
        save_onnx(bundle, tmp_path)
    with pytest.raises(ConfigError, match="target='state' is a name that the graph needs"):
        save_onnx(random_bundle_of(SMALL, ["state"]), path)
    several = {
        "a": bundle.targets["vocals"],
        "b": TargetWeights(CAUSAL, random_state(CAUSAL)),
    }
    with pytest.raises(ConfigError, match="a, b differ in nb_channels"):
        save_onnx(ModelBundle("m", several), path)
    state = bundle.targets["vocals"].state
    large = {**state, "fc2.weight": np.full_like(state["fc2.weight"], 1e6)}
    with pytest.raises(WeightsError, match=r"fc2\.weight"):
        save_onnx(TargetWeights(SMALL, large), path, dtype="float16")
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(ConfigError, match="exists; use overwrite=True"):
        save_onnx(bundle, path, overwrite=False)
    assert path.read_text() == "mine"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a model of two targets."""
    save_folder(random_bundle_of(SMALL, ["drums", "vocals"], seed=3), tmp_path / "model")
    return tmp_path / "model"


def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    assert main(["convert", str(folder), str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path} (")
    names = [output.name for output in onnx.load(path).graph.output]
    assert names == ["vocals", "drums"]
    assert main(["convert", str(folder), str(path)]) == 1
    assert "use --overwrite to replace it" in capsys.readouterr().err
    assert main(["convert", str(folder), str(path), "--overwrite", "--dtype", "int8", "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["convert", str(folder), str(tmp_path / "x.onnx"), "--format", "pth"]) == 1
    assert "contradicts the suffix" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nothing"), str(tmp_path / "x.onnx")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_command_with_one_network(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "vocals.onnx"
    assert main(["convert", str(folder / "vocals.pth"), str(path)]) == 0
    mags = magnitudes(SMALL, 5)
    (result,) = session(path).run(["target"], {"mags": mags})
    wanted = expected(load_folder(folder).targets["vocals"], mags)
    assert_close(result, wanted, TOL["onnx"]["float32"], dtype="float32")
    assert [entry.key for entry in onnx.load(path).metadata_props] == ["targets"]


def test_command_with_the_name_of_a_model(tmp_path: Path) -> None:
    path = tmp_path / "umxm.onnx"
    assert main(["convert", "umxm", str(path), "--dtype", "int8"]) == 0
    (matrix,) = (
        entry
        for entry in onnx.load(path).graph.initializer
        if entry.name == "bass/fc2.weight/stored"
    )
    assets = Path(__file__).resolve().parents[2] / "umx_np" / "assets"
    plain = load_safetensors(assets / "umxm" / "bass.safetensors")["fc2.weight"]
    stored = onnx.numpy_helper.to_array(matrix)
    assert stored.dtype == np.int8
    assert stored.shape == plain.shape
