"""``python -m umx_np`` is the command ``umx-np``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command of the program's arguments, however early it is interrupted.

    Returns
    -------
    int
        Exit status, see `umx_np.commands.main`.
    """
    try:
        from .commands import main

        return main()
    except KeyboardInterrupt:
        print("umx-np: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
