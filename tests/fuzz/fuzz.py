"""Fuzz one kind of files, guided by what code they reach; needs the package `atheris`.

    python tests/fuzz/fuzz.py torch-zip --minutes 30

Every input is held to the rule in `tests/helpers/fuzz_targets.py`. What breaks it is written to the
folder of the corpus, ``crash-*``; seeds are made anew and finds are kept there for the next run.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

# What Python may take in all; a file that needs more than its share meets this or the rule.
_MAX_ADDRESS_BYTES = 8 << 30


def main() -> None:
    """Run the fuzzer."""
    import atheris

    with atheris.instrument_imports(include=["umx_np.weights", "umx_np._support.inputs"]):
        from helpers import fuzz_targets as targets

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=targets.TARGETS)
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="of the processor, not of the clock"
    )
    parser.add_argument("--corpus", help="folder to keep inputs in (default: a temporary one)")
    options = parser.parse_args()

    target = targets.TARGETS[options.kind]
    # In memory where there is such a folder: thousands of files a second.
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    corpus = Path(options.corpus or folder / "corpus")
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = target.seeds(folder)
    # The first byte says on which level the others are.
    for index, seed in enumerate(seeds):
        (corpus / f"seed-{index}").write_bytes(b"\0" + seed)
        try:
            (corpus / f"core-{index}").write_bytes(b"\1" + target.core(seed))
        except (ValueError, KeyError):
            continue

    runs = 0

    def one(data: bytes) -> None:
        nonlocal runs
        if (seconds := time.process_time()) > 60 * options.minutes:
            print(f"{runs} inputs in {seconds:.0f} seconds of the processor", flush=True)
            os._exit(0)  # libFuzzer itself counts time by the clock only
        runs += 1
        content = target.wrap(data[1:]) if data[:1] == b"\1" else data[1:]
        targets.check(target, content, folder)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        if rng.random() < 0.2:
            return (b"\0" + targets.mutant(target, seeds, rng))[:max_size]
        return atheris.Mutate(data, max_size)

    resource.setrlimit(resource.RLIMIT_AS, (_MAX_ADDRESS_BYTES, _MAX_ADDRESS_BYTES))
    flags = [
        "-max_len=65536",
        # By the clock; the rule's own limit is of the processor.
        "-timeout=60",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={corpus}/",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
