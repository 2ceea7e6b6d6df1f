"""``python -m umx_np.evaluate`` is the command of that name, see `umx_np.commands.evaluate`."""

from __future__ import annotations

import sys

from .commands.evaluate import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
