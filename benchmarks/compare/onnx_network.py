"""The network of Open-Unmix as an ONNX graph.

Built by hand, not exported: the graph is then the best that this architecture allows in ONNX
(normalisations folded into the matrices, one LSTM node a layer), and no exporter's version matters.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness.agreement import BenchmarkError

if TYPE_CHECKING:
    from umx_np.weights.bundle import TargetWeights

_BATCHNORM_EPS = 1e-5
_OPSET = 17
_IR_VERSION = 8


class _Graph:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def node(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output


def _iofc(rows: np.ndarray) -> np.ndarray:
    """From PyTorch's order of the gates (i, f, g, o) to that of ONNX (i, o, f, g)."""
    i, f, g, o = np.split(rows, 4)
    return np.concatenate([i, o, f, g])


def _folded(
    state: dict[str, np.ndarray], layer: str, norm: str, scale: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a linear layer, its batch norm, and a last ``x * scale + shift``."""
    gain = state[f"{norm}.weight"].astype(np.float64)
    gain = gain / np.sqrt(state[f"{norm}.running_var"].astype(np.float64) + _BATCHNORM_EPS)
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
    weight = state[f"{layer}.weight"] * (gain * scale)[:, None]
    return weight.astype(np.float32), (bias * scale + shift).astype(np.float32)


def build(weights: TargetWeights) -> bytes:
    """Return a serialised model.

    Parameters
    ----------
    weights : TargetWeights
        A bidirectional network.

    Returns
    -------
    bytes
        Takes ``mags`` and gives ``target``, both float32
        [shape=(nb_frames, nb_channels, nb_bins)].
    """
    from onnx import TensorProto, helper

    config, state, g = weights.config, weights.state, _Graph()
    channels, hidden, read = config.nb_channels, config.hidden_size, config.nb_input_bins
    one, zero = np.ones(1), np.zeros(1)

    x = g.node(
        "Slice",
        ["mags", g.integers("first", 0), g.integers("read", read), g.integers("axis", 2)],
        "cropped",
    )
    x = g.node("Add", [x, g.constant("input_mean", state["input_mean"])], "shifted")
    x = g.node("Mul", [x, g.constant("input_scale", state["input_scale"])], "scaled")
    x = g.node("Reshape", [x, g.integers("rows", -1, channels * read)], "flat")

    def linear(x: str, layer: str, norm: str, scale: np.ndarray, shift: np.ndarray) -> str:
        weight, bias = _folded(state, layer, norm, scale, shift)
        inputs = [x, g.constant(f"{layer}_w", weight), g.constant(f"{layer}_b", bias)]
        return g.node("Gemm", inputs, f"{layer}_out", transB=1)

    x = g.node("Tanh", [linear(x, "fc1", "bn1", one, zero)], "encoded")
    skip = x
    sequence = g.integers("sequence", -1, 1, hidden)
    x = g.node("Reshape", [x, sequence], "sequence_in")
    for layer in range(config.nb_layers):
        parts = {"W": "weight_ih", "R": "weight_hh"}
        inputs = [x]
        for key, name in parts.items():
            both = [_iofc(state[f"lstm.{name}_l{layer}{suffix}"]) for suffix in ("", "_reverse")]
            inputs.append(g.constant(f"{key}{layer}", np.stack(both)))
        bias = [
            np.concatenate(
                [_iofc(state[f"lstm.{b}_l{layer}{suffix}"]) for b in ("bias_ih", "bias_hh")]
            )
            for suffix in ("", "_reverse")
        ]
        inputs.append(g.constant(f"B{layer}", np.stack(bias)))
        y = g.node(
            "LSTM",
            inputs,
            f"lstm{layer}",
            hidden_size=config.lstm_hidden_size,
            direction="bidirectional",
        )
        # (nb_frames, 2, 1, hidden / 2) to (nb_frames, 1, hidden)
        y = g.node("Transpose", [y], f"turned{layer}", perm=[0, 2, 1, 3])
        x = g.node("Reshape", [y, sequence], f"layer{layer}")
    x = g.node("Reshape", [x, g.integers("matrix", -1, hidden)], "recurred")
    x = g.node("Concat", [skip, x], "both", axis=1)
    x = g.node("Relu", [linear(x, "fc2", "bn2", one, zero)], "combined")
    scale = np.tile(state["output_scale"].astype(np.float64), channels)
    shift = np.tile(state["output_mean"].astype(np.float64), channels)
    x = g.node("Relu", [linear(x, "fc3", "bn3", scale, shift)], "mask_rows")
    x = g.node("Reshape", [x, g.integers("spectrum", -1, channels, config.nb_bins)], "mask")
    g.node("Mul", [x, "mags"], "target")

    shape = ["nb_frames", channels, config.nb_bins]
    graph = helper.make_graph(
        g.nodes,
        "open_unmix",
        [helper.make_tensor_value_info("mags", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("target", TensorProto.FLOAT, shape)],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    return model.SerializeToString()


def quantized(model: bytes) -> bytes:
    """Return a model whose LSTM and linear layers ONNX Runtime computes in eight bits.

    Parameters
    ----------
    model : bytes
        From `build`.

    Raises
    ------
    BenchmarkError
        If a layer was left as it was.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        plain, rounded = Path(folder, "plain.onnx"), Path(folder, "rounded.onnx")
        plain.write_bytes(model)
        quantize_dynamic(plain, rounded, weight_type=QuantType.QInt8)
        result = onnx.load(str(rounded))
    left = [node.op_type for node in result.graph.node if node.op_type in ("LSTM", "Gemm")]
    if left:
        raise BenchmarkError(f"ONNX Runtime did not round {', '.join(left)}")
    return result.SerializeToString()


def session(model: bytes, threads: int) -> Any:
    """Return an ONNX Runtime session on some threads, with all graph optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
