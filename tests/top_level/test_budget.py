"""`--budget` by whole commands: what is chosen, written, taken over and refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from scripts import DEMO_DATA, DEMO_TASKS, SCRIPTS, files_with_times

import FineTune
import LAPE
import PathPatching
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.demo import DEMO

CASE = SCRIPTS["mathneuro"]
NUMBERS = ("num_repeats", "skill_documents", "other_documents")
AMPLE = "60"
"""Minutes in which a tiny model can do anything that is asked here."""


def flags(model: Path, save_path: Path, *more: str) -> list[str]:
    """Nothing of what `--budget` chooses, but few documents."""
    where = ["--model", str(model), "--save_path", str(save_path), *DEMO_DATA, *DEMO_TASKS]
    few = "--num_samples 12 --pre_train_eval --documents 6 --proportion 0.05".split()
    return [*where, *few, *more]


def settings_of(folder: Path) -> list[dict]:
    runs = json.loads((folder / "config.json").read_text(encoding="utf-8"))["runs"]
    return [run["settings"] for run in runs]


@pytest.fixture(scope="module")
def chosen(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chosen") / "results"
    assert CASE.main(flags(tiny_model, folder, "--budget", AMPLE, "--num_repeats", "2")) == 0
    return folder


def test_the_run_is_one_with_the_chosen_numbers(chosen, tiny_model, tmp_path):
    """The timing leaves nothing; the same numbers without a budget give the same table."""
    numbers = {name: settings_of(chosen)[0][name] for name in NUMBERS}
    assert numbers == {"num_repeats": 2, "skill_documents": 6, "other_documents": 6}
    written = yaml.safe_load((chosen / "run.yaml").read_text(encoding="utf-8"))
    assert "budget" not in json.dumps(written)
    given = [word for name in NUMBERS for word in (f"--{name}", str(numbers[name]))]
    assert CASE.main(flags(tiny_model, tmp_path / "given", *given)) == 0
    tables = [
        pd.read_csv(folder / "results.csv").drop(columns="seconds")
        for folder in (chosen, tmp_path / "given")
    ]
    pd.testing.assert_frame_equal(*tables)


def test_it_says_beforehand_what_it_can_decide(tiny_model, tmp_path, capsys):
    argv = flags(tiny_model, tmp_path, "--budget", AMPLE, "--documents_from", "own")
    assert CASE.main(argv) == 0
    said = capsys.readouterr().out
    before = said[: said.index("Edited model against baseline")]
    repeats = re.search(r"budget       (\d+) repeats, 6 documents of the skill's task", before)
    assert repeats is not None
    assert settings_of(tmp_path)[0]["num_repeats"] == int(repeats.group(1))
    assert len(pd.read_csv(tmp_path / "results.csv")["repeat"].dropna().unique()) == int(
        repeats.group(1)
    )
    for task in ("demo_gsm8k_cot", "demo_race", "demo_mmlu"):
        assert re.search(rf"{task}: a change of the accuracy by 0\.\d\d, but not that", before)
    # Of a perplexity nobody knows beforehand what it varies by.
    assert "demo_stories: nothing is known beforehand" in before
    assert re.search(r"budget       the run took .* of 60 minutes", said)


def test_a_folder_keeps_its_numbers(chosen, tiny_model, capsys):
    """The same command is done; another script asks the same."""
    before = files_with_times(chosen, "cells/**/*.json")
    assert CASE.main(flags(tiny_model, chosen, "--budget", "0.001", "--num_repeats", "2")) == 0
    assert files_with_times(chosen, "cells/**/*.json") == before
    said = capsys.readouterr().out
    assert f"6 documents of the skill's task and 6 of each other task, as in {chosen}" in said
    assert "is timed" not in said
    argv = flags(tiny_model, chosen, "--budget", "0.001")
    argv[argv.index("--proportion")] = "--ratio"
    assert LAPE.main([*argv, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "lape 2 (0 done, 2 to do)" in said
    assert "the run took" not in said
    assert LAPE.main(argv) == 0
    assert {name: settings_of(chosen)[-1][name] for name in NUMBERS} == {
        "num_repeats": 2,
        "skill_documents": 6,
        "other_documents": 6,
    }


def test_an_interrupted_run_keeps_what_was_chosen(tiny_model, tmp_path, monkeypatch, capsys):
    """Whatever the time that is left, and another machine, would choose now."""
    folder, write = tmp_path / "results", ResultStore.write_cell
    argv = flags(tiny_model, folder, "--num_repeats", "2", "--proportion", "0.05", "0.1")
    written = []

    def stop_at_the_third(store, result):
        if store.root == folder:
            written.append(result.record.key)
            if len(written) == 3:
                raise KeyboardInterrupt
        write(store, result)

    monkeypatch.setattr(ResultStore, "write_cell", stop_at_the_third)
    assert CASE.main([*argv, "--budget", AMPLE]) == 130
    assert "the run took" not in capsys.readouterr().out
    monkeypatch.undo()
    finished = files_with_times(folder, "cells/**/*.json")
    assert len(finished) == 2
    assert CASE.main([*argv, "--budget", "0.001"]) == 0
    assert files_with_times(folder, "cells/**/*.json").items() >= finished.items()
    assert len(pd.read_csv(folder / "results.csv")["repeat"].dropna().unique()) == 2
    assert {run["skill_documents"] for run in settings_of(folder)} == {6}


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--budget", "0.001"], r"--budget 0.001: expected [\d.]+ minutes at least: .* for timing"),
        (["--budget", "0"], "--budget 0: expected a number above 0"),
        (["--budget", "-3"], "--budget -3: expected a number above 0"),
        (["--budget", "nan"], "--budget nan: expected a finite number"),
        (["--budget", "inf"], "--budget inf: expected a finite number"),
        (["--budget", "ten"], "--budget ten: expected a number"),
        (["--budget", "5", "--dry_run"], "--dry_run: loads no model, and --budget times one"),
        (
            "--budget 5 --num_repeats 1 --skill_documents 5 --other_documents 5".split(),
            "--budget 5: expected without one of --num_repeats, --skill_documents, "
            "--other_documents: it is chosen",
        ),
        (["--budget", "5", "--skill_task", "no_such_task"], "no_such_task"),
    ],
)
def test_refusals_write_nothing(tiny_model, tmp_path, capsys, more, line):
    folder = tmp_path / "results"
    assert CASE.main(flags(tiny_model, folder, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(line, error), error
    assert not list(folder.rglob("*"))


def test_path_patching_without_tasks_has_nothing_to_choose(tiny_model, tmp_path, capsys):
    argv = ["--model", str(tiny_model), "--save_path", str(tmp_path), "--budget", "5"]
    assert PathPatching.main(argv) == 2
    assert "--budget: expected with it --train_lm_eval_task" in capsys.readouterr().err


def test_trainings_are_timed_by_fewer_steps(tiny_model, tmp_path):
    folder = tmp_path / "trained"
    more = "--budget 60 --max_steps 20 --train_batch_size 2 --num_repeats 1".split()
    data = ["--train_data", DEMO.train_data, "--selection", "mathneuro"]
    argv = [word for word in flags(tiny_model, folder) if word != "--pre_train_eval"]
    assert FineTune.main([*argv, *data, *more]) == 0
    rows = pd.read_csv(folder / "results.csv")
    assert set(rows["method"]) == {"baseline", "mathneuro"}
    assert settings_of(folder)[0]["max_steps"] == 20
    assert settings_of(folder)[0]["skill_documents"] == 6
