"""ONNX Runtime on the graph that the package writes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.harness.agreement import BenchmarkError

if TYPE_CHECKING:
    from umx_np.weights.bundle import TargetWeights


def session(weights: TargetWeights, threads: int, *, in_eight_bits: bool = False) -> Any:
    """Return an ONNX Runtime session on some threads, with all graph optimisations.

    Parameters
    ----------
    weights : TargetWeights
        Of a bidirectional network.
    threads : int
        To compute on.
    in_eight_bits : bool
        Whether its dynamic quantisation rounds the LSTM and the linear layers.

    Raises
    ------
    BenchmarkError
        If a layer was left as it was.
    """
    import onnxruntime as ort

    from umx_np.export import save_onnx

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    with TemporaryDirectory() as folder:
        path = save_onnx(weights, Path(folder) / "network.onnx")
        if in_eight_bits:
            path = _rounded(path)
        model = path.read_bytes()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _rounded(path: Path) -> Path:
    """Quantise a file to another one beside it."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    rounded = path.with_name("rounded.onnx")
    quantize_dynamic(path, rounded, weight_type=QuantType.QInt8)
    kinds = [node.op_type for node in onnx.load(str(rounded)).graph.node]
    left = [kind for kind in kinds if kind in ("LSTM", "Gemm", "MatMul")]
    if left:
        raise BenchmarkError(f"ONNX Runtime did not round {', '.join(left)}")
    return rounded
