"""Write down what is promised to stay.

Run it where a public name, a signature, an option or a file format is meant to change, and say so
in CHANGELOG.md::

    python tests/golden/make_public_api.py

It writes public_api.json beside it and the lists in docs/stability.md; tests/test_stability.py
compares both with the package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.public_api import BEGIN, DOCUMENT, END, FILE, collect, render, split_document


def main() -> None:
    """Write the list, and its document."""
    FILE.write_text(json.dumps(collect(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    document = json.loads(FILE.read_text(encoding="utf-8"))
    before, _, after = split_document(DOCUMENT.read_text(encoding="utf-8"))
    DOCUMENT.write_text(f"{before}{BEGIN}\n{render(document)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
