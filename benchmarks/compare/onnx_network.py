"""ONNX Runtime on the graph that the package writes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umx_np.weights.bundle import TargetWeights


def session(weights: TargetWeights, threads: int) -> Any:
    """Return an ONNX Runtime session on some threads, with all graph optimisations."""
    import onnxruntime as ort

    from umx_np.export import save_onnx

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    with TemporaryDirectory() as folder:
        model = save_onnx(weights, Path(folder) / "network.onnx").read_bytes()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
