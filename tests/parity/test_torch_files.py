"""Weights travel between this package, PyTorch and Open-Unmix in both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umx_np.config import ModelConfig
from umx_np.errors import WeightsError
from umx_np.testing import random_state
from umx_np.weights import (
    ModelBundle,
    TargetWeights,
    check_state,
    convert,
    expected_state,
    infer_config,
    load_folder,
    load_torch,
    save_folder,
    save_torch,
)

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs torch")

CONFIG = ModelConfig(nb_bins=33, nb_channels=2, hidden_size=8, nb_layers=3, max_bin=20)
LAYOUTS = ["zip", "legacy"]


def network(openunmix: Any, config: ModelConfig = CONFIG) -> Any:
    return openunmix.model.OpenUnmix(
        nb_bins=config.nb_bins,
        nb_channels=config.nb_channels,
        hidden_size=config.hidden_size,
        nb_layers=config.nb_layers,
        unidirectional=config.unidirectional,
        max_bin=config.max_bin,
    )


def save(content: object, path: Path, layout: str, **options: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=layout == "zip", **options)


# From torch


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("unidirectional", [False, True])
@pytest.mark.parametrize("nb_layers", [1, 3])
def test_names_shapes_and_order_are_upstreams(
    openunmix: Any, tmp_path: Path, layout: str, unidirectional: bool, nb_layers: int
) -> None:
    config = ModelConfig(33, 2, 8, nb_layers, unidirectional, 20)
    path = tmp_path / "x.pth"
    model = network(openunmix, config)
    save(model.state_dict(), path, layout)
    state = load_torch(path)
    expected = expected_state(config)
    assert {name: array.shape for name, array in state.items()} == expected
    assert infer_config(state) == config
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(state[name], tensor.numpy(), strict=True)
    assert list(check_state(state)) == list(expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(tmp_path: Path, layout: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    tensor = torch.from_numpy(rng.normal(size=(4, 6))).to(getattr(torch, dtype))
    special = torch.tensor([0.0, -0.0, float("inf"), float("nan"), 1e-40], dtype=tensor.dtype)
    path = tmp_path / "x.pth"
    save({"t": tensor.t(), "s": tensor[1:, ::2], "x": special}, path, layout)
    state = load_torch(path)
    expected = tensor.float() if dtype == "bfloat16" else tensor
    np.testing.assert_array_equal(state["t"], expected.t().numpy(), strict=True)
    np.testing.assert_array_equal(state["s"], expected[1:, ::2].numpy(), strict=True)
    special = special.float() if dtype == "bfloat16" else special
    np.testing.assert_array_equal(state["x"], special.numpy(), strict=True)
    np.testing.assert_array_equal(np.signbit(state["x"][:2]), [False, True])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(tmp_path: Path, layout: str, protocol: int) -> None:
    path = tmp_path / "x.pth"
    save({"x": torch.arange(3.0), "y": torch.nn.Parameter(torch.ones(2))}, path, layout,
         pickle_protocol=protocol)  # fmt: skip
    np.testing.assert_array_equal(load_torch(path)["x"], [0, 1, 2])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoint_of_the_trainer(openunmix: Any, tmp_path: Path, layout: str) -> None:
    model = network(openunmix)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, weight_decay=1e-5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=80, cooldown=10)
    model(torch.rand(2, 2, 33, 5)).sum().backward()
    optimizer.step()
    scheduler.step(0.5)
    if layout == "zip":
        # As openunmix.utils.save_checkpoint writes it, with "vocals.pth" beside it.
        openunmix.utils.save_checkpoint(
            {
                "epoch": 3,
                "state_dict": model.state_dict(),
                "best_loss": 0.5,
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            },
            is_best=True,
            path=str(tmp_path),
            target="vocals",
        )
        states = [load_torch(tmp_path / "vocals.chkpnt"), load_torch(tmp_path / "vocals.pth")]
    else:
        content = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
        save(content, tmp_path / "x.chkpnt", layout)
        states = [load_torch(tmp_path / "x.chkpnt")]
    for state in states:
        for name, tensor in model.state_dict().items():
            np.testing.assert_array_equal(state[name], tensor.numpy(), strict=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wrapped_model(openunmix: Any, tmp_path: Path, layout: str) -> None:
    model = network(openunmix)
    path = tmp_path / "x.pth"
    save(torch.nn.DataParallel(model).state_dict(), path, layout)
    assert infer_config(load_torch(path)) == CONFIG
    check_state(load_torch(path), CONFIG)


def lightning(model: Any, prefix: str) -> dict[str, object]:
    """Make a checkpoint as Lightning writes it, after a step."""
    wrapped = torch.nn.ModuleDict({prefix: model}) if prefix else model
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=0.001)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    model(torch.rand(2, 2, 33, 5)).sum().backward()
    optimizer.step()
    scheduler.step()
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": wrapped.state_dict(),
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best": torch.tensor(0.5)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "hyper_parameters": {
            "root": Path("songs"),
            "device": torch.device("cpu"),
            "dtype": torch.float32,
            "targets": {"vocals"},
            "loss": np.float64(0.5),
            "history": np.arange(3.0),
        },
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("prefix", ["", "model", "net"])
@pytest.mark.parametrize("suffix", [".pt", ".ckpt"])
def test_checkpoint_of_lightning(
    openunmix: Any, tmp_path: Path, layout: str, prefix: str, suffix: str
) -> None:
    model = network(openunmix)
    path = tmp_path / f"vocals{suffix}"
    save(lightning(model, prefix), path, layout)
    state = check_state(load_torch(path))
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(state[name], tensor.numpy(), strict=True)
    # And back, where PyTorch's Open-Unmix takes it as its own.
    convert(path, tmp_path / "vocals.pth")
    other = network(openunmix)
    other.load_state_dict(torch.load(tmp_path / "vocals.pth", weights_only=True), strict=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("key", ["model_state_dict", "model", "net"])
def test_checkpoints_of_other_loops(openunmix: Any, tmp_path: Path, layout: str, key: str) -> None:
    model = network(openunmix)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(2, 2, 33, 5)).sum().backward()
    optimizer.step()
    wrapped = torch.nn.DataParallel(model)
    path = tmp_path / "x.pth"
    content = {"epoch": 1, key: wrapped.state_dict(), "optimizer": optimizer.state_dict()}
    save({"run": content, "best": np.float32(1)}, path, layout)
    state = check_state(load_torch(path))
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(state[name], tensor.numpy(), strict=True)


def test_a_separator(openunmix: Any, tmp_path: Path) -> None:
    models = {name: network(openunmix) for name in ("vocals", "drums")}
    separator = openunmix.model.Separator(models, n_fft=64, n_hop=16)
    path = tmp_path / "x.pth"
    save(separator.state_dict(), path, "zip")
    raw = load_torch(path)
    with pytest.raises(WeightsError, match=r"'target_models\.drums\.', 'target_models\.vocals\.'"):
        check_state(raw)
    one = {name: array for name, array in raw.items() if "drums" not in name}
    for name, tensor in models["vocals"].state_dict().items():
        np.testing.assert_array_equal(check_state(one)[name], tensor.numpy(), strict=True)


# To torch


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_loads_what_is_written(tmp_path: Path, legacy: bool) -> None:
    state = {
        "f": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "half": np.arange(3, dtype=np.float16),
        "double": np.arange(3, dtype=np.float64),
        "scalar": np.array(7),
        "empty": np.zeros((2, 0), np.float32),
        "bool": np.array([True, False]),
        "uint8": np.arange(3, dtype=np.uint8),
        "complex": np.array([1 + 2j], np.complex64),
    }
    path = tmp_path / "x.pth"
    save_torch(state, path, legacy=legacy)
    loaded = torch.load(path, weights_only=True)
    assert list(loaded) == list(state)
    for name, array in state.items():
        np.testing.assert_array_equal(loaded[name].numpy(), array, strict=True)
    if not legacy:
        mapped = torch.load(path, weights_only=True, mmap=True)
        np.testing.assert_array_equal(mapped["f"].numpy(), state["f"])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_openunmix_accepts_the_state(
    openunmix: Any, tmp_path: Path, legacy: bool, dtype: type
) -> None:
    path = tmp_path / "x.pth"
    state = {k: v.astype(dtype) if v.ndim else v for k, v in random_state(CONFIG).items()}
    save_torch(state, path, legacy=legacy)
    model = network(openunmix)
    result = model.load_state_dict(torch.load(path, weights_only=True), strict=True)
    assert not result.missing_keys
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[name].astype(tensor.numpy().dtype))


# Folders


def test_openunmix_loads_a_saved_folder(openunmix: Any, tmp_path: Path) -> None:
    targets = {
        name: TargetWeights(CONFIG, random_state(CONFIG, seed))
        for seed, name in enumerate(("vocals", "bass"))
    }
    bundle = ModelBundle("mine", targets, 22050.0, 64, 16, 2)
    save_folder(bundle, tmp_path / "mine")
    separator = openunmix.utils.load_separator(
        str(tmp_path / "mine"), targets=["vocals", "bass"], niter=0
    )
    assert float(separator.sample_rate) == 22050.0
    for name, weights in targets.items():
        loaded = separator.target_models[name].state_dict()
        for key, array in weights.state.items():
            np.testing.assert_array_equal(loaded[key].numpy(), array, strict=True)
    assert separator(torch.zeros(1, 2, 640)).shape == (1, 2, 2, 640)
    # And after a detour over float16 safetensors.
    convert(tmp_path / "mine", tmp_path / "half", dtype="float16")
    convert(tmp_path / "half", tmp_path / "back", format="pth", dtype="float32")
    openunmix.utils.load_separator(str(tmp_path / "back"), targets=["vocals", "bass"])


@pytest.mark.parametrize("unidirectional", [False, True])
def test_folder_of_the_trainer(openunmix: Any, tmp_path: Path, unidirectional: bool) -> None:
    # Open-Unmix itself cannot load its unidirectional models again.
    config = ModelConfig(33, 2, 8, 3, unidirectional, 20)
    for target in ("vocals", "drums"):
        model = network(openunmix, config)
        openunmix.utils.save_checkpoint(
            {"state_dict": model.state_dict()}, is_best=True, path=str(tmp_path), target=target
        )
        arguments = {
            "target": target, "nfft": 64, "nhop": 16, "hidden_size": 8, "nb_channels": 2,
            "unidirectional": unidirectional, "bandwidth": 16000,
        }  # fmt: skip
        document = {"args": arguments, "best_loss": 1.0, "train_loss_history": [1.0]}
        (tmp_path / f"{target}.json").write_text(json.dumps(document, indent=4, sort_keys=True))
    settings = {"nfft": 64, "nhop": 16, "sample_rate": 44100.0, "nb_channels": 2}
    (tmp_path / "separator.json").write_text(json.dumps(settings))
    bundle = load_folder(tmp_path)
    assert list(bundle.targets) == ["vocals", "drums"]
    assert bundle.targets["drums"].config == config
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(bundle.targets["drums"].state[name], tensor.numpy())


def test_published_architectures(openunmix: Any) -> None:
    from umx_np.pretrained.models import PUBLISHED

    for info in PUBLISHED.values():
        if info.config.hidden_size > 512:
            continue  # the large one differs in this size only
        shapes = {
            k: tuple(v.shape) for k, v in network(openunmix, info.config).state_dict().items()
        }
        assert shapes == expected_state(info.config)
