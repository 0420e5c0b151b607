"""The notebooks: every cell runs; the demo's prints what is in the file, the other runs alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

FOLDER = ROOT / "examples"


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


def executed(path: Path):
    """The notebook run anew, in its folder, by a kernel of its own."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    return client.execute()


# The kernel's own sockets; the notebook itself runs in a process of its own.
@pytest.mark.filterwarnings("default")
def test_the_notebook_runs_and_says_what_the_file_says(monkeypatch):
    path = FOLDER / "first_steps.ipynb"
    committed = nbformat.read(path, as_version=4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = executed(path)
    assert pictures(notebook) == pictures(committed) == 1
    found, told = text_of(notebook), text_of(committed)
    assert numbers(found) == pytest.approx(numbers(told), abs=0.04)
    # What the text promises: math goes, stories stay, and everything comes back.
    before, pruned, restored = re.findall(r"math (\d\.\d+).*?stories (\d\.\d+)", found)
    assert restored == before
    assert float(pruned[0]) < 0.6 * float(before[0])
    assert float(pruned[1]) < float(before[1]) + 0.15


@pytest.mark.filterwarnings("default")
def test_the_notebook_of_an_own_skill_runs_alone_with_any_model(tmp_path, monkeypatch):
    """Copied elsewhere, with the demo's model in the place of the one on the hub."""
    path = tmp_path / "own_skill.ipynb"
    shutil.copy(FOLDER / path.name, path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("NEUROSURGERY_MODEL", str(ROOT / "demo" / "model"))
    notebook = executed(path)
    assert pictures(notebook) == 1
    assert "3,803,392 parameters" in text_of(notebook)
    assert text_of(notebook).count("small_sums") == 3
    assert (tmp_path / "sums.safetensors").is_file()


def test_what_the_notebook_of_an_own_skill_shows_is_of_a_real_model():
    committed = nbformat.read(FOLDER / "own_skill.ipynb", as_version=4)
    told = text_of(committed)
    assert "134,515,008 parameters" in told
    assert re.search(r"without these weights\n.*?small_sums [^\n]* worse ", told, re.DOTALL)
    assert pictures(committed) == 1
