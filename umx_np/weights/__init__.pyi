"""Public names of `umx_np.weights`: imported lazily, and seen by type checkers."""

from .bundle import ModelBundle as ModelBundle
from .bundle import StateDict as StateDict
from .bundle import TargetWeights as TargetWeights
from .conversion import convert as convert
from .folder import is_model_folder as is_model_folder
from .folder import load_folder as load_folder
from .folder import save_folder as save_folder
from .safetensors_files import load_safetensors as load_safetensors
from .safetensors_files import load_safetensors_config as load_safetensors_config
from .safetensors_files import save_safetensors as save_safetensors
from .state import check_state as check_state
from .state import expected_state as expected_state
from .state import infer_config as infer_config
from .torch_files import load_torch as load_torch
from .torch_writer import save_torch as save_torch
