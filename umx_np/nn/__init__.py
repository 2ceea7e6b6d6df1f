"""The network as it is trained: every layer forward and backward.

Each layer is a file of two functions in plain NumPy, ``<layer>_forward`` and ``<layer>_backward``;
`reference_engine` composes them and is the specification. `TrainableNetwork` computes with it or
with the compiled kernels.
"""

from __future__ import annotations

from .loss import log_mse_loss, mse_loss, relative_error_db
from .network import ForwardCache, TrainableNetwork

__all__ = ["ForwardCache", "TrainableNetwork", "log_mse_loss", "mse_loss", "relative_error_db"]
