"""Training: the run, its files, and the way back into it.

    config = TrainConfig(target="vocals", output="open-unmix")
    Trainer(config, train_dataset, valid_dataset).fit()

`JointTrainer` trains the networks of all targets together, on the waveforms of the stems.

``python -m umx_np.train`` does the same from the command line; see docs/training.md. Names are
imported when they are first used, because options are parsed before anything heavy is needed.
"""

from __future__ import annotations

import lazy_loader

# The names are those of __init__.pyi, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
