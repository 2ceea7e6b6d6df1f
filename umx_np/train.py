"""``python -m umx_np.train`` is the command of that name, see `umx_np.commands.train`."""

from __future__ import annotations

import sys

from .commands.train import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
