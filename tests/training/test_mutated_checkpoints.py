"""A checkpoint with anything in it is continued, or refused with a short error."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest

pytest.importorskip("resource", reason="measures memory as POSIX does")

from helpers.fuzz_targets import TARGETS, header_of, mutate_document, mutate_tree, with_header

from umx_np.errors import UmxError


def _mutant(whole: bytes, rng: np.random.Generator) -> bytes:
    """Change the JSON of a checkpoint anywhere, or in one part of the tree without arrays."""
    if rng.random() < 0.3:
        return mutate_document(TARGETS["checkpoint"], whole, rng)
    header, numbers = json.loads(header_of(whole)), whole[8 + len(header_of(whole)) :]
    inner = json.loads(header["__metadata__"]["umx_np"])
    document = json.loads(inner["metadata"]["checkpoint"])
    parts = sorted(document["content"].keys() - {"network", "optimizer"})
    part = parts[rng.integers(len(parts))]
    changed = mutate_tree({part: document["content"].pop(part)}, rng)
    document["content"].update(changed)
    inner["metadata"]["checkpoint"] = json.dumps(document)
    header["__metadata__"]["umx_np"] = json.dumps(inner)
    return with_header(json.dumps(header).encode(), numbers)


def _continue_mutants(make_trainer, tmp_path, count: int, seed: int) -> None:
    make_trainer(epochs=1).fit()
    path = tmp_path / "out" / "tone.chkpnt"
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    for index in range(count):
        path.write_bytes(_mutant(whole, rng))
        begin = time.process_time()
        try:
            make_trainer(epochs=2, checkpoint=str(tmp_path / "out")).fit()
        except UmxError as error:
            shown = str(error).replace(str(tmp_path), "")
            assert len(shown) < 500
            assert shown.isprintable(), shown
        except Exception as error:
            (tmp_path / f"broken-{index}.chkpnt").write_bytes(path.read_bytes())
            raise AssertionError(f"file {index} in {tmp_path}: {error!r}") from error
        assert time.process_time() - begin < 3


def test_mutated_checkpoints(make_trainer, tmp_path):
    _continue_mutants(make_trainer, tmp_path, 40, 0)


@pytest.mark.long
def test_many_mutated_checkpoints(make_trainer, tmp_path):
    """Run with ``UMX_NP_TEST_LONG=1``; ``UMX_NP_FUZZ_FILES`` says how many (default: 1000)."""
    count = int(os.environ.get("UMX_NP_FUZZ_FILES", "1000"))
    _continue_mutants(make_trainer, tmp_path, count, 1)
