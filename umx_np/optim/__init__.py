"""Optimisers, the schedule of the learning rate, and when to stop.

The rules are PyTorch's, to the order of the operations, so that a run can be followed with either.
Optimisers change the arrays they are given in place and keep their state in arrays, which
`state_dict` copies: a run that is stopped and resumed goes on exactly as one that was not.
"""

from ..backends.updates import adam_update, sgd_update
from .optimizers import SGD, Adam, Optimizer, clip_grad_norm
from .schedules import EarlyStopping, ReduceLROnPlateau, cosine_rate

__all__ = [
    "SGD",
    "Adam",
    "EarlyStopping",
    "Optimizer",
    "ReduceLROnPlateau",
    "adam_update",
    "clip_grad_norm",
    "cosine_rate",
    "sgd_update",
]
