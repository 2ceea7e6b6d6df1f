"""Write what this version computes and stores, for later versions to be compared with to the bit.

Run it only where results are meant to change, and say so in CHANGELOG.md::

    python tests/golden/make_earlier.py
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers import earlier

HERE = Path(__file__).resolve().parent / "earlier"


def main() -> None:
    """Write stems, a model folder and a checkpoint."""
    levels = earlier.levels()
    stems = {
        f"{level}/{name}": stem for level in levels for name, stem in earlier.stems(level).items()
    }
    document = {
        "environment": earlier.environment(),
        "digests": {name: earlier.digest(stem) for name, stem in stems.items()},
    }
    (HERE / "stems.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    some = {name: earlier.some(stem) for name, stem in stems.items()}
    np.savez_compressed(HERE / "stems.npz", **some)  # type: ignore[arg-type]
    earlier.write_model(HERE / "model")
    os.chdir(HERE)  # so that no path of this machine is written
    earlier.train(Path("run"), epochs=1)
    print(f"{len(stems)} stems; {sum(p.stat().st_size for p in HERE.rglob('*')) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
