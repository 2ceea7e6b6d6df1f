"""A program that writes its result badly, in the way that its argument names."""

from __future__ import annotations

import os
import time


def main(argv: list[str]) -> int:
    """Write ``result.bin`` in many small steps."""
    fault = argv[0]
    if fault == "lost" and os.path.exists("result.bin"):
        os.remove("result.bin")
    name = "result.bin" if fault == "half" else "result.part"
    if fault == "left":
        name = f"result-{os.getpid()}.part"
    with open(name, "wb", buffering=0) as file:
        for _ in range(20):
            file.write(b"new")
            time.sleep(0.002)
    os.replace(name, "result.bin")
    return 0
