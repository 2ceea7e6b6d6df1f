"""``python -m umx_np`` is the program ``umx-np``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program, however early it is interrupted.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes those of the program.

    Returns
    -------
    int
        Exit status, see `umx_np.commands.main`.
    """
    try:
        from .commands import main

        return main(argv)
    except KeyboardInterrupt:
        print("umx-np: interrupted", file=sys.stderr)
        return 130


def run(command: str, argv: Sequence[str] | None = None) -> int:
    """Run a command of the program as if it were one of its own: ``python -m umx_np.train``.

    Parameters
    ----------
    command : str
        Its name.
    argv : sequence of str or None
        Arguments of the command; None takes those of the program.

    Returns
    -------
    int
        Exit status, as of `main`.
    """
    return main([command, *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
