"""Weights: reading, writing and checking them, in PyTorch's formats and as safetensors.

Nothing here needs PyTorch, and no file can make it run code.
"""

from __future__ import annotations

from .bundle import ModelBundle, StateDict, TargetWeights
from .conversion import convert
from .folder import is_model_folder, load_folder, save_folder
from .safetensors_files import load_safetensors, load_safetensors_config, save_safetensors
from .state import check_state, expected_state, infer_config
from .torch_files import load_torch
from .torch_writer import save_torch

__all__ = [
    "ModelBundle",
    "StateDict",
    "TargetWeights",
    "check_state",
    "convert",
    "expected_state",
    "infer_config",
    "is_model_folder",
    "load_folder",
    "load_safetensors",
    "load_safetensors_config",
    "load_torch",
    "save_folder",
    "save_safetensors",
    "save_torch",
]
