"""The tutorial's notebook runs from its first cell to its last, and its committed outputs are those of a whole run."""

from __future__ import annotations

import os
import re
from pathlib import Path

os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # older Jupyters warn that this will be so
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "tutorials" / "graph_in_your_network.ipynb"


def printed(notebook) -> str:
    """What its cells printed."""
    return "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "stream"
    )


def accuracy_on_test_clips(notebook) -> float:
    return float(re.search(r"test accuracy (\d\.\d+)", printed(notebook))[1])


@pytest.mark.slow
def test_every_cell_runs_on_few_clips_and_steps(tmp_path, monkeypatch):
    for name, value in (("CLIPS", "64"), ("STEPS", "16"), ("DATA", str(tmp_path / "data"))):
        monkeypatch.setenv(f"TUTORIAL_{name}", value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # Like Jupyter it starts where the notebook lies; a cell that fails raises here.
    where = {"metadata": {"path": NOTEBOOK.parent}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    assert "train 64 clips" in printed(notebook) and "attention (32, 3, 10, 14, 14)" in printed(notebook)
    assert 0 <= accuracy_on_test_clips(notebook) <= 1


def test_the_committed_outputs_are_of_one_whole_run_that_learnt():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [output for cell in code for output in cell.outputs if output.output_type == "error"] == []
    assert accuracy_on_test_clips(notebook) > 0.5  # 0.25 for naming every digit right and guessing the pair
    assert NOTEBOOK.stat().st_size < 400_000
