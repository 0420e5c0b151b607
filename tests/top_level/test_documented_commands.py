"""Every command that a page or a script's docstring shows runs to its end.

Commands of the demo stand as they are, shortened by flags at their end. In those for a model of the
user's, the model, the tasks and the files are small ones. `-m slow` runs all of them.
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
from conftest import ROOT

from neurosurgery.cli.entries import ENTRIES, description

SCRIPTS = ["MathNeuro.py", "MathNeuro_Ablations.py", "LAPE.py", "PathPatching.py", "FineTune.py"]
PAGES = ["README.md", *SCRIPTS, *(
    f"docs/{name}.md"
    for name in "DEMO REAL_MODELS PROGRAMS MASKS HEADS TRAINING METHODS COMPARE".split()
)]  # fmt: skip
"""The other how-to pages have tests of their own. The commands of REPRODUCTION.md need models of
the hub, and those of WORKERS.md a cluster."""

OF_CI = ("neurosurgery demo",)
"""`.ci/run` runs it from an empty folder."""

STAND_INS = {
    "meta-llama/Llama-3.2-1B-Instruct": "demo/model",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "demo/model",
    "MODEL": "demo/model",
    "/results_path": "results/published",
    "gsm8k_cot": "demo_gsm8k_cot",
    "race": "demo_race",
    "mmlu": "demo_mmlu",
}

SHORTER = {
    "MathNeuro.py": "--num_repeats 1 --num_samples 5 --eval_limit 6 --proportion .05",
    "MathNeuro_Ablations.py": "--num_repeats 1 --num_samples 5 --eval_limit 6 --proportion .05",
    "LAPE.py": "--num_repeats 1 --num_samples 5 --eval_limit 6 --ratio .1",
    "Relative.py": "--num_repeats 1 --num_samples 5 --eval_limit 6 --proportion .05",
    "FineTune.py": "--num_repeats 1 --num_samples 5 --eval_limit 6 --max_steps 2",
    "consistency": "--sizes 5 10",
}
"""Flags at the end of a command; what stands before them gives way."""

CELLS_OF_HEADS = "--num_repeats 1 --eval_limit 6"

FOR_THE_DEMOS_MODEL = "--templates demo --shots 0 --top 1 2"
"""It knows sums in this form alone, without examples, and has 16 heads."""


def commands(page: str) -> list[str]:
    """The commands of a page or a docstring: indented lines, or lines of a block of `bash`."""
    entry = next((entry for entry in ENTRIES if entry.script == page), None)
    if entry is None:
        text = (ROOT / page).read_text(encoding="utf-8")
    else:
        text = description(entry, as_command=False)
    text = re.sub(r" \\\n\s+", " ", text)
    found = re.findall(r"^ {4}((?:python|lm_eval|neurosurgery) .+)$", text, re.MULTILINE)
    return [command for command in found if command not in OF_CI]


CASES = [(page, command) for page in PAGES for command in commands(page)]


def runnable(command: str) -> str:
    """The command with small stand-ins and fewer documents."""
    words = command.split(" ")
    if words[0] == "neurosurgery":
        words = ["python", "-m", *words]
    subject = words[3] if words[1] == "-m" else words[1]
    subject = {entry.command: entry.script for entry in ENTRIES}.get(subject, subject)
    if "--model" in words or "lm_eval" in words:
        words = [STAND_INS.get(word, word) for word in words]
        if subject == "PathPatching.py" and "--operators" in words:
            words += FOR_THE_DEMOS_MODEL.split()
    words += SHORTER.get(subject, "").split()
    has_tasks = "--train_lm_eval_task" in words or "--model" not in words
    if subject == "PathPatching.py":
        words += ["--num_draws", "2", *(CELLS_OF_HEADS.split() if has_tasks else ())]
    if words[0] == "lm_eval":
        words = ["-m", "lm_eval", *words[1:], "--limit", "2"]
        words = [word.replace("pretrained=MODEL", "pretrained=demo/model") for word in words]
    else:
        words = words[1:]
    return f"{sys.executable} {' '.join(words)}"


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy of the repository, with files that users bring; all commands run in it, in order."""
    folder = tmp_path_factory.mktemp("copy") / "repository"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name, source in {"gsm8k": "math", "race": "race", "mmlu": "mmlu", "sgsm": "sgsm"}.items():
        shutil.copy2(folder / f"data/demo/{source}.csv", folder / f"data/{name}.csv")
    for name in ("new.csv", "new_problems.csv"):
        shutil.copy2(folder / "data/demo/new_problems.csv", folder / name)
    sums = [(a, b) for a in range(11, 60, 3) for b in (12, 25, 31)]
    prompts = [(f"{a}+{b}=", f"{a}@{b}=", str(a + b)) for a, b in sums]
    columns = ["prompt", "counterfactual", "answer"]
    pd.DataFrame(prompts, columns=columns).to_csv(folder / "prompts.csv", index=False)
    for name, source in {"past_tense": "math", "capitals": "mmlu"}.items():
        shutil.copy2(folder / f"data/demo/{source}.csv", folder / f"{name}.csv")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [skill] = re.findall(r"^```yaml\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    (folder / "skill.yaml").write_text(re.sub("model: .+", "model: demo/model", skill))
    page = (ROOT / "docs/METHODS.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (folder / "Relative.py").write_text(code, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), CASES, ids=[command for _, command in CASES])
def test_a_documented_command_ends_well(repository, page, command):
    found = subprocess.run(
        runnable(command),
        shell=True,
        executable="/bin/bash",
        cwd=repository,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, f"{page}: {runnable(command)}\n{found.stderr[-2000:]}"


QUICK_FORMS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if "arguments = parse(" in path.read_text(encoding="utf-8")
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["overhead", *QUICK_FORMS])
def test_a_benchmark_ends_well_in_its_quick_form(name, tmp_path):
    """`overhead` is the part of `grid` that wraps methods of the package, which change."""
    module = ["-m", f"benchmarks.{name}", "--quick", "--json", tmp_path / "ratios.json"]
    code = "from benchmarks.overhead import measure_overhead as m; assert m(True).cells == 2"
    found = subprocess.run(
        [sys.executable, *(["-c", code] if name == "overhead" else module)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
