"""Checkpoints as other people's programs write them: where the weights are, what is left out."""

from __future__ import annotations

import logging
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers import torch_bytes as tb

from umx_np import OpenUnmix
from umx_np.errors import WeightsError
from umx_np.weights import (
    check_state,
    convert,
    infer_config,
    load_folder,
    load_safetensors,
    load_torch,
    save_safetensors,
)

STATE = tb.tiny_state()
LAYOUTS = ["zip", "legacy"]
# How the means of losses and other values of NumPy and Python come into a checkpoint.
NUMPY_DTYPE = b"cnumpy\ndtype\n(" + tb.text("f8") + b"\x89\x88tR(K\x03" + tb.text("<") + b"NNNtb"
NUMPY_BYTES = b"c_codecs\nencode\n(" + tb.text("\x00" * 8) + tb.text("latin1") + b"tR"
NUMPY_NUMBER = b"cnumpy.core.multiarray\nscalar\n(" + NUMPY_DTYPE + NUMPY_BYTES + b"tR"
PATH = b"cpathlib\nPosixPath\n(" + tb.text("/") + tb.text("songs") + b"tR"
COUNTER = b"ccollections\nCounter\n(}K\x05K\x01stR"


def prefixed(prefix: str, seed: int = 0) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in tb.tiny_state(seed=seed).items()}


OPTIMIZER = {
    "state": {0: {"step": 7.0, "exp_avg": np.ones((4, 6), np.float32)}},
    "param_groups": [{"lr": 0.001, "betas": (0.9, 0.999), "params": [0], "fused": None}],
}
LIGHTNING = {
    "epoch": 3,
    "global_step": 120,
    "pytorch-lightning_version": "2.4.0",
    "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 4}}}},
    "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": np.zeros((), np.float32)}},
    "optimizer_states": [OPTIMIZER],
    "lr_schedulers": [{"milestones": COUNTER}],
    "hparams_name": "kwargs",
    "hyper_parameters": {
        "root": PATH,
        "nb_bins": 5,
        "names": ["a", "b"],
        "dtype": b"ctorch\nint8\n",
    },
}
EXTRAS = {"epoch": 3, "optimizer": OPTIMIZER, "best_loss": NUMPY_NUMBER, "args": {"lr": 0.1}}

CONTENTS = {
    "state_dict": {"state_dict": STATE, **EXTRAS},
    "model_state_dict": {**EXTRAS, "model_state_dict": STATE},
    "model": {"model": STATE, **EXTRAS},
    "net": {"net": prefixed("module."), **EXTRAS},
    "another key": {"best weights": STATE, **EXTRAS},
    "keys in keys": {"checkpoint": {"model": {"state_dict": prefixed("net."), "epoch": 1}}},
    "lightning, model.": {"state_dict": prefixed("model."), **LIGHTNING},
    "lightning, net.": {**LIGHTNING, "state_dict": prefixed("net.module.")},
    "lightning, wrapped": {"state_dict": prefixed("module.model._orig_mod."), **LIGHTNING},
    "with losses": {
        "state_dict": {**prefixed("model."), "loss.weight": np.ones(2, np.float32)},
        **LIGHTNING,
    },
    "beside its names": {**STATE, "epoch": 3, "optimizer": OPTIMIZER},
    "compiled in parts": {
        name.replace("lstm.", "lstm._orig_mod."): array for name, array in STATE.items()
    },
    "one target of a separator": prefixed("target_models.vocals."),
    "no counts": {"model": {k: v for k, v in STATE.items() if not k.endswith("batches_tracked")}},
    "counts that are plain": {
        "model": {k: 5 if k.endswith("batches_tracked") else v for k, v in STATE.items()}
    },
}


def write(tmp_path: Path, content: object, layout: str = "zip", name: str = "x.ckpt") -> Path:
    path = tmp_path / name
    path.write_bytes(tb.torch_file(content, legacy=layout == "legacy"))
    return path


def assert_same(actual: dict[str, np.ndarray], *, counts: bool = True) -> None:
    assert list(actual) == list(STATE)
    for name, array in STATE.items():
        if counts or not name.endswith("batches_tracked"):
            np.testing.assert_array_equal(actual[name], array, strict=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", CONTENTS)
def test_checkpoints(tmp_path: Path, kind: str, layout: str) -> None:
    raw = load_torch(write(tmp_path, CONTENTS[kind], layout))
    assert infer_config(raw) == tb.TINY
    assert_same(check_state(raw), counts="counts" not in kind)
    model = OpenUnmix(**{k: getattr(tb.TINY, k) for k in tb.TINY.__dataclass_fields__})
    keys = model.load_state_dict(raw, strict=False)
    assert not keys.missing_keys
    assert_same(model.state_dict(), counts="counts" not in kind)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".PT", ".chkpnt"])
def test_files_are_converted_whatever_their_suffix(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path, CONTENTS["lightning, model."], name=f"vocals{suffix}")
    convert(source, tmp_path / "vocals.safetensors")
    written = load_safetensors(tmp_path / "vocals.safetensors")
    assert_same({name: written[name] for name in STATE})


@pytest.mark.parametrize("prefix", ["model.", "net.", "module.model.", "state_dict.net."])
def test_prefixes_in_safetensors(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "vocals.safetensors"
    save_safetensors({**prefixed(prefix), "loss.weight": np.ones(2)}, path)
    assert_same(check_state(load_safetensors(path)))


@pytest.mark.parametrize("suffix", ["pth", "pt", "ckpt", "safetensors"])
def test_folder(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if suffix == "safetensors":
        save_safetensors(prefixed("net."), folder / "vocals.safetensors")
    else:
        write(folder, CONTENTS["lightning, model."], name=f"vocals.{suffix}")
    (folder / "separator.json").write_text(
        '{"nfft": 8, "nhop": 2, "sample_rate": 8000, "nb_channels": 2}'
    )
    (folder / "vocals.json").write_text('{"args": {}}')
    assert_same(load_folder(folder).targets["vocals"].state)


def test_several_files_of_a_target(tmp_path: Path) -> None:
    """None is guessed where not both are of the kinds that count first."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "separator.json").write_text(
        '{"nfft": 8, "nhop": 2, "sample_rate": 8000, "nb_channels": 2}'
    )
    (folder / "vocals.json").write_text('{"args": {}}')
    write(folder, {"state_dict": tb.tiny_state(seed=1)}, name="vocals.ckpt")
    for other in ("vocals.pt", "vocals-0123abcd.pth"):
        path = write(folder, STATE, name=other)
        with pytest.raises(
            WeightsError, match=r"several weights of target='vocals': vocals\.pt|ckpt"
        ):
            load_folder(folder)
        path.unlink()
    write(folder, STATE, name="vocals.pth")
    assert_same(load_folder(folder).targets["vocals"].state)


# What is left out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_ignored_is_said_in_a_line(
    tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, {"state_dict": {**STATE, "seed": 1}, **EXTRAS}, layout)
    with caplog.at_level(logging.DEBUG):
        load_torch(path)
    assert caplog.messages == [
        f"{path}: ignored what is not weights: 'epoch', 'optimizer', 'best_loss', 'args', "
        "'state_dict.seed'"
    ]
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        load_torch(write(tmp_path, STATE, layout))
    assert not caplog.messages


def test_tensors_that_are_ignored_are_said_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    state = {**prefixed("model."), "loss.weight": np.ones(2), "model.extra": np.ones(1)}
    with caplog.at_level(logging.INFO):
        check_state(state)
    expected = "ignored tensors that are not part of the network: 'extra', 'loss.weight'"
    assert caplog.messages == [expected]


def test_numbers_of_optimizers_are_not_read(tmp_path: Path) -> None:
    moments = {"state": {0: {"exp_avg": np.zeros(4_000_000, np.float32)}}}
    path = write(tmp_path, {"state_dict": STATE, "optimizer": moments})
    tracemalloc.start()
    try:
        load_torch(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


# What nothing can decide


AMBIGUOUS = {
    "two keys": ({"model": STATE, "ema": tb.tiny_state(seed=1)}, "2 state dicts, 'model', 'ema'"),
    "within and beside": (
        {**STATE, "state_dict": tb.tiny_state(seed=1)},
        "2 state dicts, 'the file itself', 'state_dict'",
    ),
    "two depths": (
        {"state_dict": STATE, "best": {"model": tb.tiny_state(seed=1)}},
        "'state_dict', 'best.model'",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_two_that_fit(tmp_path: Path, kind: str, layout: str) -> None:
    content, message = AMBIGUOUS[kind]
    with pytest.raises(WeightsError, match=message):
        load_torch(write(tmp_path, content, layout))


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("model.", "ema_model.", "'ema_model.', 'model.'"),
        ("", "ema.", "'', 'ema.'"),
        ("target_models.drums.", "target_models.vocals.", "'target_models.drums.', 'target_models"),
    ],
)
def test_two_networks_in_one_state_dict(
    tmp_path: Path, first: str, second: str, names: str
) -> None:
    both = {**prefixed(first), **prefixed(second, seed=1)}
    # As it is in the file, so that who wants one of them can take it.
    assert load_torch(write(tmp_path, {"state_dict": both})).keys() == both.keys()
    for function in (infer_config, check_state):
        with pytest.raises(WeightsError, match=f"2 networks, under {names}"):
            function(both)


def test_the_same_tensors_twice_are_one(tmp_path: Path) -> None:
    once = tb._Writer(legacy=False)
    memo = once.value(STATE) + b"q\x00"
    pickle = tb.PROTOCOL + b"}" + tb.text("model") + memo + b"s" + tb.text("ema") + b"h\x00s."
    path = tmp_path / "x.pt"
    path.write_bytes(tb.zip_file(pickle, {key: raw for key, (_, raw) in once.storages.items()}))
    assert_same(load_torch(path))


def test_a_complete_network_beside_parts_of_one(tmp_path: Path) -> None:
    part = {k: v for k, v in STATE.items() if k.startswith("fc")}
    assert_same(load_torch(write(tmp_path, {"state_dict": STATE, "ema": part})))
    assert_same(check_state({**prefixed("model."), **{f"ema.{k}": v for k, v in part.items()}}))


def test_a_network_with_something_missing(tmp_path: Path) -> None:
    part = {k: v for k, v in prefixed("model.").items() if k != "model.fc2.weight"}
    raw = load_torch(write(tmp_path, {"state_dict": part, **EXTRAS}))
    with pytest.raises(WeightsError, match=r"tensors are missing: 'fc2\.weight'"):
        check_state(raw)


def test_no_network_and_several_usual_keys(tmp_path: Path) -> None:
    one, other = {"a": np.ones(2, np.float32)}, {"b": np.ones(2, np.float32)}
    assert list(load_torch(write(tmp_path, {"net": one, "epoch": 1}))) == ["a"]
    with pytest.raises(WeightsError, match="2 state dicts, 'state_dict', 'model'"):
        load_torch(write(tmp_path, {"state_dict": one, "model": other}))
    with pytest.raises(WeightsError, match="entry='optimizer' of the state dict is a dict"):
        load_torch(write(tmp_path, {"optimizer": one}))


# Safety


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "value",
    [
        b"cargparse\nNamespace\n)\x81}b",
        b"cfunctools\npartial\n(cos\nsystem\ntR",
        b"cnumpy\nload\n" + tb.text("x") + b"\x85R",
        b"ccollections\ndefaultdict\n)R",
        b"cpathlib\nPosixPath.open\n)R",
    ],
)
def test_other_names_are_still_refused(tmp_path: Path, layout: str, value: bytes) -> None:
    with pytest.raises(WeightsError, match="asks for global="):
        load_torch(write(tmp_path, {"state_dict": STATE, "args": value}, layout))


def test_values_that_are_ignored_are_no_weights(tmp_path: Path) -> None:
    content = {**STATE, "fc1.weight": NUMPY_NUMBER}
    with pytest.raises(WeightsError, match=r"'fc1\.weight' of the state dict is a Ignored"):
        load_torch(write(tmp_path, content))
    # Nor are they looked into: what is set on them, and what they are made of, is dropped.
    for value in (PATH + b"}" + tb.text("x") + b"K\x01sb", NUMPY_DTYPE):
        assert_same(load_torch(write(tmp_path, {"model": STATE, "args": value})))


def wide() -> bytes:
    """Many dicts, each with the name of a network."""
    call = tb.tensor(tb.storage()) + b"q\x00" + tb.text("fc1.weight") + b"q\x0100}("
    return call + b"".join(tb.text(f"k{i}") + b"}h\x01h\x00s" for i in range(40_000)) + b"u"


def nested() -> bytes:
    """Each dict holds the one before ten times."""
    start = b"}" + tb.text("fc1.weight") + tb.tensor(tb.storage()) + b"sq\x00"
    holding = b"".join(tb.text(f"k{i}") + b"h\x00" for i in range(10))
    return start + (b"0}(" + holding + b"uq\x00") * 300


def long_names() -> bytes:
    call = tb.tensor(tb.storage()) + b"q\x000}("
    return (
        call
        + b"".join(
            tb.text(f"{i}." + "module." * 65 + "fc1.weight") + b"h\x00" for i in range(15_000)
        )
        + b"u"
    )


def long_keys() -> bytes:
    """One long text as the key that leads to many dicts."""
    key = tb.text("k" * 490) + b"q\x000"
    deep = b"}h\x00}h\x00}h\x00Nsss"
    return key + b"}(" + b"".join(tb.text(str(i)) + deep for i in range(20_000)) + b"u"


@pytest.fixture(params=[wide, nested, long_names, long_keys])
def costly(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "x.pt"
    path.write_bytes(tb.zip_file(tb.PROTOCOL + request.param() + b".", {"0": bytes(24)}))
    return path


def test_contents_made_to_cost_time(costly: Path) -> None:
    begin = time.process_time()
    with suppress(WeightsError):
        load_torch(costly)
    # Twice the second that is promised, for machines slower than those the promise is for.
    assert time.process_time() - begin < 2


@pytest.mark.slow
def test_contents_made_to_cost_memory(costly: Path) -> None:
    tracemalloc.start()
    try:
        with suppress(WeightsError):
            load_torch(costly)
        assert tracemalloc.get_traced_memory()[1] < costly.stat().st_size + (100 << 20)
    finally:
        tracemalloc.stop()
