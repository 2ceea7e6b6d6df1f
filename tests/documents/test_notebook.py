"""docs/tutorial.ipynb runs from its first cell to its last, and is kept without what it gave."""

from __future__ import annotations

import json
import os

import pytest
from helpers.documents import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def test_nothing_that_cells_gave_is_kept():
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestWarning")
def test_all_cells_run(monkeypatch, tmp_path):
    """In a kernel of its own, beside the example; training is cut to a second."""
    nbclient = pytest.importorskip("nbclient", reason="needs the extra 'docs'")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("numba", reason="needs the extra 'train'")
    monkeypatch.setenv("TUTORIAL_SECONDS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream"
    )
    assert "epoch 1: " in printed
    scores = [line.split() for line in printed.splitlines() if " mixture " in line]
    assert [name for name, *_ in scores] == ["vocals", "drums", "bass", "other"]
    assert all(float(sdr) > 5 for _, sdr, *_ in scores)
