"""Get axe-core, which finds what keeps people out of a page: ``python tests/serve/axe.py FILE``.

It is licensed under the MPL 2.0, used by the tests only, and no part of the package.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import urllib.request
from pathlib import Path

ADDRESS = "https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz"
SHA512 = (
    "1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b73"
    "4f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5"
)


def main() -> None:
    """Download, check the hash, and write the script."""
    with urllib.request.urlopen(ADDRESS, timeout=120) as answer:
        data = answer.read()
    if hashlib.sha512(data).hexdigest() != SHA512:
        sys.exit(f"{ADDRESS} has another hash than it had")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        Path(sys.argv[1]).write_bytes(script.read())


if __name__ == "__main__":
    main()
