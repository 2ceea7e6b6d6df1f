"""``python -m umx_np`` is the command ``umx-np``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
