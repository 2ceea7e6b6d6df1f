"""An ONNX graph under construction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import __version__
from ..errors import ConfigError
from ..weights.quantization import quantize
from ..weights.state import convert_floats

# ONNX 1.9 of 2021, which is old enough for whatever computes ONNX today.
_OPSET = 14
_IR_VERSION = 7


class Graph:
    """Inputs, outputs, nodes and constants.

    Parameters
    ----------
    stored : dtype
        What matrices are stored in: float32, float16 or int8. The graph computes in float32.

    Raises
    ------
    ConfigError
        If the package `onnx` is missing.
    """

    def __init__(self, stored: np.dtype) -> None:
        try:
            import onnx
            import onnx.helper
            import onnx.numpy_helper
        except ImportError as error:
            raise ConfigError(
                f"ONNX files need the package onnx ({error}); install it with: "
                "python -m pip install 'umx-np[onnx]'"
            ) from error
        self._onnx = onnx
        self._stored = stored
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def input(self, name: str, shape: tuple[int | str, ...]) -> str:
        """Add an input; sizes that may be any have a name. Returns its name."""
        self._inputs.append(self._described(name, shape))
        return name

    def output(self, name: str, shape: tuple[int | str, ...]) -> None:
        """Add an output, which a node of this name gives."""
        self._outputs.append(self._described(name, shape))

    def _described(self, name: str, shape: tuple[int | str, ...]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._onnx.TensorProto.FLOAT, shape)

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add an array as it is; returns its name."""
        array = np.ascontiguousarray(value)
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def integers(self, name: str, *values: int) -> str:
        """Add a shape or an index; returns its name."""
        return self.constant(name, np.array(values, np.int64))

    def node(self, operation: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        """Add an operation; returns the name of its first output."""
        make = self._onnx.helper.make_node
        self._nodes.append(make(operation, inputs, list(outputs), **attributes))
        return outputs[0]

    def matrix(self, name: str, value: np.ndarray) -> str:
        """Add a matrix, or several of one width, stored as matrices are; returns its name."""
        if self._stored == np.int8:
            small = quantize({name: value.reshape(-1, value.shape[-1])})
            parts = [self.constant(f"{key}/stored", array) for key, array in small.items()]
            rows = self.node("DequantizeLinear", parts, f"{name}/rows", axis=0)
            return self.node("Reshape", [rows, self.integers(f"{name}/shape", *value.shape)], name)
        array = convert_floats(name, value, self._stored)
        if self._stored == np.float32:
            return self.constant(name, array)
        stored = self.constant(f"{name}/stored", array)
        return self.node("Cast", [stored], name, to=self._onnx.TensorProto.FLOAT)

    def serialised(self, metadata: Mapping[str, str]) -> bytes:
        """Return the content of a file; the same graph gives the same bytes."""
        helper = self._onnx.helper
        graph = helper.make_graph(
            self._nodes, "open_unmix", self._inputs, self._outputs, self._constants
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            producer_name="umx_np",
            producer_version=__version__,
        )
        model.ir_version = _IR_VERSION
        helper.set_model_props(model, dict(metadata))
        data: bytes = model.SerializeToString(deterministic=True)
        return data
