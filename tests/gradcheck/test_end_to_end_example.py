"""The document on end-to-end gradients: its examples run, and the code cites what it has."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from helpers.documents import blocks_of, text_of

from umx_np.dsp import gradients

DOCUMENT = "docs/end-to-end.md"


def test_examples_train():
    """All blocks in one namespace; the first asserts that the loss falls to a third."""
    blocks = blocks_of("python", DOCUMENT)
    assert len(blocks) == 2
    namespace: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{DOCUMENT}, block {number}", "exec"), namespace)
    assert np.isfinite(namespace["losses"]).all()
    assert np.isfinite(namespace["stems"]).all()


def test_equations_that_the_code_cites_exist():
    found = re.findall(r"^ {4}.* \((\d+)\)$", text_of(DOCUMENT), re.MULTILINE)
    numbers = [int(n) for n in found]
    assert numbers == list(range(1, len(numbers) + 1))
    cited = set()
    for path in Path(gradients.__file__).parent.glob("*.py"):
        cited |= {int(n) for n in re.findall(r"\((\d{1,2})\)", path.read_text(encoding="utf-8"))}
    assert cited <= set(numbers)
    # (12) is a notation of the document.
    assert set(numbers) - cited <= {12}
