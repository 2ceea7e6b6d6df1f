"""A checkpoint with anything in it is continued, or refused with a short error."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

pytest.importorskip("resource", reason="measures memory as POSIX does")

from helpers.fuzz_targets import TARGETS, mutate_document

from umx_np.errors import UmxError


def _continue_mutants(make_trainer, tmp_path, count: int, seed: int) -> None:
    make_trainer(epochs=1).fit()
    path = tmp_path / "out" / "tone.chkpnt"
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    for index in range(count):
        path.write_bytes(mutate_document(TARGETS["checkpoint"], whole, rng))
        begin = time.process_time()
        try:
            make_trainer(epochs=1, checkpoint=str(tmp_path / "out"))
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
