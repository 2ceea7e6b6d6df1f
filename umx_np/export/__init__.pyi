"""Public names of `umx_np.export`: imported lazily, and seen by type checkers."""

from .onnx_files import save_onnx as save_onnx
