"""Every command of the pages on own skills runs, word for word, in `examples/own_skill`.

The model that they name is the demo's here: a folder of that name. Its heads know sums in one form
alone, so that `pairs.csv` has these.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT

pytestmark = pytest.mark.whole

EXAMPLES = ROOT / "examples" / "own_skill"
PAGES = ["OWN_SKILL.md", "OWN_HEADS.md", "TRAIN_A_SKILL.md"]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "own_skill"
    shutil.copytree(EXAMPLES, path)
    model = path / "HuggingFaceTB" / "SmolLM2-135M-Instruct"
    model.parent.mkdir()
    model.symlink_to(ROOT / "demo" / "model", target_is_directory=True)
    rows = [(f"{a}+{b}=", f"{a}@{b}=", a + b) for a in range(11, 90, 11) for b in range(10, 50, 7)]
    # Another number of tokens.
    rows.append(("4+2=", "41@2=", 6))
    table = pd.DataFrame(rows, columns=["prompt", "counterfactual", "answer"])
    table.to_csv(path / "pairs.csv", index=False)
    return path


def run(line: str, folder: Path) -> str:
    program, command, *_ = line.split()
    assert program == "neurosurgery"
    words = f"-W error -m neurosurgery {command}"
    shell = line.replace(f"{program} {command}", f"{sys.executable} {words}", 1)
    more = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        shell,
        shell=True,
        cwd=folder,
        env=os.environ | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, (line, found.stderr)
    return found.stdout


@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs_in_its_order(page, folder):
    commands = blocks(page, "bash")
    assert commands
    told = "".join(run(line, folder) for block in commands for line in block.splitlines())
    # The pages show what `tasks new` says.
    shown = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lines = re.findall(
        r"^ {4}(tasks/\w+\.yaml: .*|  (?:chance|right option|first) .*)$", shown, re.M
    )
    assert [line for line in lines if line not in told] == []
    if page == "OWN_HEADS.md":
        [dropped] = (folder / "results" / "heads").rglob("dropped.csv")
        assert pd.read_csv(dropped)["reason"].str.contains("as many tokens").sum() == 1


@pytest.mark.parametrize(
    ("page", "file"), [("OWN_SKILL.md", "skill.yaml"), ("TRAIN_A_SKILL.md", "train.yaml")]
)
def test_the_files_that_the_pages_show_are_those_of_the_examples(page, file):
    [shown] = blocks(page, "yaml")
    assert yaml.safe_load(shown) == yaml.safe_load((EXAMPLES / file).read_text())
    for block in blocks(page, "json"):
        assert block.strip() in (EXAMPLES / "code.jsonl").read_text()
