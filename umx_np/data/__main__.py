"""``python -m umx_np.data`` is the command ``umx_np.commands.data``."""

from __future__ import annotations

import sys

from ..commands.data import main

if __name__ == "__main__":
    sys.exit(main())
