"""The notebook that a researcher opens first: every cell runs and prints what is in the file."""

from __future__ import annotations

import re

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"


def text_of(notebook) -> str:
    streams = (
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    )
    return "".join(streams)


def pictures(notebook) -> int:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return sum("image/png" in output.get("data", {}) for output in outputs)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


# The kernel's own sockets; the notebook itself runs in a process of its own.
@pytest.mark.filterwarnings("default")
def test_the_notebook_runs_and_says_what_the_file_says(monkeypatch):
    committed = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    executed = nbformat.from_dict(committed)
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    executed = NotebookClient(
        executed,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute()
    assert pictures(executed) == pictures(committed) == 1
    found, told = text_of(executed), text_of(committed)
    assert numbers(found) == pytest.approx(numbers(told), abs=0.04)
    # What the text promises: math goes, stories stay, and everything comes back.
    before, pruned, restored = re.findall(r"math (\d\.\d+).*?stories (\d\.\d+)", found)
    assert restored == before
    assert float(pruned[0]) < 0.6 * float(before[0])
    assert float(pruned[1]) < float(before[1]) + 0.1
