"""``python -m umx_np.data`` is the command ``umx-np data``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..__main__ import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `umx_np.commands.main` for the exit status."""
    return run("data", argv)


if __name__ == "__main__":
    sys.exit(main())
