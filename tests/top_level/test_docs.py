"""The short pages: their links lead somewhere, and the method that one of them adds runs."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields

import pandas as pd
import pytest
from conftest import ROOT

from neurosurgery.cli.api_reference import reference_text
from neurosurgery.data.used import Overlap
from neurosurgery.verdicts.columns import COLUMNS, OVERLAP_COLUMNS, SUMMARY_COLUMNS
from neurosurgery.verdicts.isolation import COMPARISON_COLUMNS, GAIN_COLUMNS, POINT_COLUMNS

PAGES = ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_that_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", text)
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_the_site_and_its_first_page_lead_to_every_page():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    start = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert pages - {"index.md"} == set(re.findall(r"\]\((\w+\.md)\)", start))
    navigation = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    assert sorted(re.findall(r'= "(\w+\.md)"', navigation)) == sorted(pages)


def test_links_lead_to_headings_that_are_there():
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", text):
            of = ((ROOT / page).parent / target) if target else ROOT / page
            headings = re.findall(r"^#+ (.+)$", of.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]
            assert anchor in slugs, (page, target, anchor)


def test_the_python_reference_is_current():
    assert (ROOT / "docs" / "API.md").read_text(encoding="utf-8") == reference_text()


def test_the_added_method_runs_and_is_compared(tmp_path):
    text = (ROOT / "docs" / "METHODS.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    script = tmp_path / "Relative.py"
    script.write_text(code, encoding="utf-8")
    flags = "--proportion .05 .15 --num_repeats 1 --num_samples 5 --eval_limit 6 --pre_train_eval"
    flags += " --twins random bottom"
    command = [sys.executable, "-W", "error", script, *flags.split(), "--save_path", tmp_path / "r"]
    found = subprocess.run(
        command,
        cwd=ROOT,
        env={
            **{"PATH": "", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
            **{"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    three = {"relative", "random_relative", "bottom_relative"}
    assert three <= set(pd.read_csv(tmp_path / "r" / "comparison.csv")["method"])
    rows = pd.read_csv(tmp_path / "r" / "results.csv").query("method in @three")
    for _, of_method in rows.groupby("method"):
        assert set(of_method["size"]) == {0.05, 0.15}
        assert of_method["edited"].min() > 0


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("results.csv", COLUMNS),
        ("summary.csv", SUMMARY_COLUMNS),
        ("isolation.csv", POINT_COLUMNS),
        ("comparison.csv", COMPARISON_COLUMNS),
        ("training.csv", GAIN_COLUMNS),
    ],
)
def test_every_column_of_every_table_is_explained(table, columns):
    """Where it names the cell, in the part of its table, or in that of the table before."""
    text = (ROOT / "docs" / "TABLES.md").read_text(encoding="utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    of_cells = next(part for part in parts if part.startswith("What names a cell"))
    names = {"What names a cell": of_cells} | {
        part.split(":")[0].split(",")[0]: part for part in parts
    }
    told = names["What names a cell"] + names[table]
    told += names["results.csv"] if table == "summary.csv" else ""
    explained = set(re.findall(r"`(\w+)`", "".join(
        line.split("|")[1] for line in told.splitlines() if line.startswith("|")
    )))  # fmt: skip
    assert not set(columns) - explained
    # And what the table's own part explains is there.
    own = [line.split("|")[1] for line in names[table].splitlines() if line.startswith("| `")]
    assert not set(re.findall(r"`(\w+)`", "".join(own))) - set(columns)


def test_the_columns_of_overlaps_are_those_that_are_written():
    assert [field.name for field in fields(Overlap)] == OVERLAP_COLUMNS
