"""``python -m umx_np.evaluate`` is the command ``umx-np evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .__main__ import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `umx_np.commands.main` for the exit status."""
    return run("evaluate", argv)


if __name__ == "__main__":
    sys.exit(main())
