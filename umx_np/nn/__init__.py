"""The network as it is trained, and its losses.

`reference_engine` runs the layers of `umx_np.layers` forward and backward and is the specification;
`TrainableNetwork` computes with it or with the compiled kernels.
"""

from __future__ import annotations

from .loss import log_mse_loss, mse_loss, relative_error_db
from .network import ForwardCache, TrainableNetwork

__all__ = ["ForwardCache", "TrainableNetwork", "log_mse_loss", "mse_loss", "relative_error_db"]
