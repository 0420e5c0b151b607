"""What all three scripts do alike: files, resume, growth of a folder, refusals."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from scripts import MODEL, SCRIPTS, ScriptCase, files_with_times, table, without_timings
from transformers import AutoModelForCausalLM

from neurosurgery import __main__ as commands
from neurosurgery.masks.files import load_mask
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.demo import DEMO, TASKS_FOLDER
from neurosurgery.verdicts.columns import COLUMNS, SUMMARY_COLUMNS

TASKS = 4
METRICS = 1 + 1 + 1 + 3
NOBODY = 99_999_999
"""The number of no process: beyond the largest that a system gives."""


@pytest.fixture(scope="module", params=SCRIPTS)
def script(request) -> ScriptCase:
    return SCRIPTS[request.param]


@pytest.fixture(scope="module")
def finished(script, tiny_model, tmp_path_factory) -> Path:
    save_path = tmp_path_factory.mktemp("finished")
    assert script.run(tiny_model, save_path, "--pre_train_eval", "--save_masks") == 0
    return save_path


def test_files_of_a_run(script, finished):
    results = finished / "eval_results" / MODEL
    stems = ["pre_results", *script.cells]
    assert set(results.rglob("*.json")) == {
        results / f"{stem}{suffix}.json" for stem in stems for suffix in ("", "_train_task")
    }
    first = script.cells[0]
    of_math = json.loads((results / f"{first}_train_task.json").read_text())
    assert list(of_math) == ["demo_gsm8k_cot"]
    assert "exact_match,last-number" in of_math["demo_gsm8k_cot"]
    other = json.loads((results / f"{first}.json").read_text())
    assert list(other) == ["demo_race", "demo_mmlu", "demo_stories"]
    answers = json.loads((finished / "cells" / MODEL / f"{first}.json").read_text())["answers"]
    assert len(answers) == TASKS * 6
    assert {"task", "doc_id", "metrics", "answer"} <= set(answers[0])
    assert len(list((finished / "statistics").rglob("*.safetensors"))) == 3 * 2
    masks = finished / "masks" / MODEL
    assert set(masks.rglob("*.safetensors")) == {masks / f"{c}.safetensors" for c in script.cells}
    # Units are listed beside the mask, where a method selects units.
    units = script.cells if script.method == "lape" else []
    assert set(masks.rglob("*.csv")) == {masks / f"{c}.csv" for c in units}
    run = json.loads((finished / "config.json").read_text())["runs"][0]
    assert torch.__version__.startswith(run["versions"]["torch"])
    assert run["command"][0] == script.file
    assert not list(finished.rglob("*.tmp"))
    assert "Building contexts" in (finished / "logs" / "lm_eval.log").read_text()


def test_tidy_table(script, finished):
    rows = table(finished)
    assert list(rows.columns) == COLUMNS
    assert len(rows) == METRICS * (1 + len(script.cells))
    baseline = rows[rows["method"] == "baseline"].set_index(["task", "metric"])["value"]
    edited = rows[rows["method"] != "baseline"]
    assert edited["skill"].eq("math").all()
    displayed = edited["metric"].isin(["byte_perplexity,none", "bits_per_byte,none"])
    # They show the likelihood that the perplexity of a word is compared by.
    of_comparison = ["unit", "difference", "ci_low", "p_value", "retention"]
    assert displayed.sum() == 2 * len(script.cells)
    assert edited.loc[displayed, of_comparison].isna().all(axis=None)
    assert edited.loc[displayed, ["value", "baseline"]].notna().all(axis=None)
    for _, row in edited[~displayed].iterrows():
        before = baseline[row["task"], row["metric"]]
        assert row["baseline"] == pytest.approx(before)
        is_perplexity = row["metric"] == "word_perplexity,none"
        change = math.log(row["value"] / before) if is_perplexity else row["value"] - before
        assert row["unit"] == ("nats per word" if is_perplexity else "share")
        assert row["difference"] == pytest.approx(change, abs=1e-5)
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]
        assert row["n"] == 6
    options = rows[rows["metric"] == "acc,none"]
    assert options["chance"].eq(0.25).all()
    # Guessing never writes the right number, and has no perplexity.
    assert rows[rows["metric"].str.startswith("exact_match")]["chance"].eq(0).all()
    assert rows[rows["task"] == "demo_stories"]["chance"].isna().all()


def test_edited_weights_are_those_of_the_mask(script, finished, tiny_model):
    rows = table(finished).query("method != 'baseline' and task == 'demo_race'")
    parameters = rows["edited"].div(rows["edited_share"]).round().dropna().unique()
    assert len(parameters) == 1
    found = sorted(rows["edited"])
    masks = (finished / "masks").rglob("*.safetensors")
    assert found == sorted(load_mask(path).count() for path in masks)


def test_summary_has_one_row_per_grid_point(script, finished):
    summary = pd.read_csv(finished / "summary.csv")
    assert len(summary) == len(script.patterns) * 2 * METRICS
    assert summary["repeats"].eq(2).all()
    assert list(summary.columns) == SUMMARY_COLUMNS
    judged = summary["unit"].notna()
    assert summary["verdict"].notna().equals(judged)
    assert (~judged).sum() == len(script.patterns) * 2 * 2, "the displays of the perplexity"
    words = {"within the margin", "undecided", "higher", "lower"}
    assert {verdict.partition(",")[0] for verdict in summary["verdict"].dropna()} <= words
    of_math = summary["task"] == "demo_gsm8k_cot"
    assert summary.loc[~of_math, "q_value"].isna().all()
    assert summary.loc[of_math, "holm_p"].isna().all()
    first = summary["metric"].isin(["acc,none", "word_perplexity,none"])
    assert (summary.loc[first, "holm_p"] >= summary.loc[first, "p_value"]).all()
    text = (finished / "eval_results" / MODEL / "results.txt").read_text()
    assert len(re.findall(r"\n  .* demo_stories  ", text)) == len(script.patterns)


def test_a_report_makes_lost_tables_anew(script, finished, tmp_path):
    """The very bytes that the run has written."""
    folder = shutil.copytree(finished, tmp_path / "r")
    names = ["summary.csv", "comparison.csv", "isolation.csv"]
    for name in names:
        (folder / name).unlink()
    assert commands.main(["report", str(folder)]) == 0
    for name in ["results.csv", *names]:
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


def test_the_same_command_again_computes_nothing(script, finished, tiny_model, monkeypatch):
    before = without_timings(finished)
    monkeypatch.setattr(
        "neurosurgery.models.load.load_model", lambda *_: pytest.fail("a model was loaded")
    )
    assert script.run(tiny_model, finished, "--pre_train_eval", "--save_masks") == 0
    assert without_timings(finished) == before


def test_runs_are_deterministic_and_leave_global_generators(script, finished, tiny_model, tmp_path):
    """The harness resets them at every call; what else a process draws must not feel it."""
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    assert script.run(tiny_model, tmp_path, "--pre_train_eval") == 0
    assert (torch.rand(1), np.random.rand()) == expected
    assert without_timings(tmp_path) == without_timings(finished)


def test_a_folder_grows_by_cells(script, finished, tiny_model, tmp_path):
    assert script.run(tiny_model, tmp_path, *script.one("--pre_train_eval")) == 0
    times = files_with_times(tmp_path / "eval_results", "*.json")
    assert script.run(tiny_model, tmp_path) == 0
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())
    assert len(table(tmp_path)) == len(table(finished))
    assert script.run(tiny_model, tmp_path, *script.one("--scalar", "1.1")) == 0
    stem = script.cells_of(script.sizes[1:], (0,))[0]
    name = f"{stem}_scalar1.1_train_task.json"
    assert (tmp_path / "eval_results" / MODEL / name).exists()
    assert set(table(tmp_path)["edit_value"].dropna()) == {0.0, 1.1}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num_samples 13", "--num_samples 13: the results in {0} were made with 12"),
        ("--random_state 1", "--random_state 1: the results in {0} were made with 42"),
        ("--dtype bfloat16", "--dtype bfloat16: the results in {0} were made with float32"),
        (
            "--eval_limit 7",
            "--eval_dataset_subset/--eval_limit 7: the results in {0} were made with 6",
        ),
        ("--num_fewshot 1", "--num_fewshot 1: the results"),
        ("--eval_datasets demo_race", "--eval_datasets demo_race: the results"),
        ("--train_dataset {1}/data/demo/mmlu.csv", "--train_dataset"),
        (
            "--calibration_datasets {1}/data/demo/math.csv --calibration_dataset_names Race",
            "--calibration_datasets",
        ),
        ("--model {1}/demo/model", "--model model: the results in {0} were made with tiny-llama"),
    ],
)
def test_flags_that_change_the_identity_are_refused(
    flags, message, script, finished, tiny_model, capsys
):
    before = files_with_times(finished)
    assert script.run(tiny_model, finished, *flags.format(finished, ROOT).split()) == 2
    error = capsys.readouterr().err.strip()
    assert message.format(finished, ROOT) in error
    assert len(error.splitlines()) == 1
    assert files_with_times(finished) == before


def test_overwrite_starts_afresh_and_spares_foreign_files(script, tiny_model, tmp_path):
    assert script.run(tiny_model, tmp_path, *script.one()) == 0
    (tmp_path / "notes.txt").write_text("mine")
    again = script.one("--num_samples", "3", "--overwrite")
    assert script.run(tiny_model, tmp_path, *again) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {*ResultStore(tmp_path, "").identity.values("num_samples").values()} == {3}


@pytest.mark.parametrize("flags", [[], ["--overwrite"]], ids=["plain", "overwrite"])
@pytest.mark.parametrize("name", ["config.json", "logs/mine.txt"])
def test_a_folder_of_somebody_else_is_refused(name, flags, script, tiny_model, tmp_path, capsys):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text('{"model_type": "llama"}')
    assert script.run(tiny_model, tmp_path, *flags) == 2
    assert "but no results of ours; expected a new folder" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_dry_run_prints_the_plan_and_writes_nothing(script, tiny_model, tmp_path, capsys):
    target = tmp_path / "results"
    assert script.run(tiny_model, target, "--dry_run") == 0
    output = capsys.readouterr().out
    assert f"{script.method} " in output
    assert f"evaluation   {len(script.cells)} model states" in output
    assert "forward passes in all" in output
    assert not target.exists()


def test_masks_can_be_saved_later(script, tiny_model, tmp_path):
    """`--save_masks` on a finished run writes the masks and evaluates nothing again."""
    assert script.run(tiny_model, tmp_path, *script.one()) == 0
    times = files_with_times(tmp_path / "eval_results", "*.json")
    assert script.run(tiny_model, tmp_path, *script.one("--save_masks")) == 0
    assert len(list((tmp_path / "masks").rglob("*.safetensors"))) == len(script.patterns)
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())


def test_edited_models_can_be_saved(script, tiny_model, tmp_path):
    """What `--save_model` writes is the model that was evaluated, and loads like any other."""
    assert script.run(tiny_model, tmp_path, *script.one("--save_masks")) == 0
    times = files_with_times(tmp_path / "eval_results", "*.json")
    scaled = script.one("--scalar", "0", "0.5", "--save_model")
    assert script.run(tiny_model, tmp_path, *scaled) == 0
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())
    for stem in script.cells_of(script.sizes[1:], (0,)):
        mask = load_mask(tmp_path / "masks" / MODEL / f"{stem}.safetensors")
        for suffix, scalar in (("", 0.0), ("_scalar0.5", 0.5)):
            expected = AutoModelForCausalLM.from_pretrained(tiny_model)
            saved = AutoModelForCausalLM.from_pretrained(
                tmp_path / "models" / MODEL / f"{stem}{suffix}"
            )
            with torch.no_grad():
                for name in mask:
                    expected.get_parameter(name)[mask.tensor(name)] *= scalar
            for name, weight in expected.named_parameters():
                assert torch.equal(saved.get_parameter(name), weight), name


def test_a_run_ends_with_a_report(script, finished):
    report = finished / "report"
    # The random model knows no math, so that nothing of it can be lost: no isolation.
    assert {"proportion.png", "proportion.pdf", "number.png"} <= {
        path.name for path in report.iterdir()
    }
    assert script.file in (report / "report.html").read_text()


def test_what_a_killed_run_left_half_written_goes(script, finished, tiny_model, tmp_path):
    """Even where the run was killed in its last moment, with every cell done."""
    save_path = tmp_path / "results"
    shutil.copytree(finished, save_path)
    report = next(save_path.rglob("report.html")).parent
    left = [
        save_path / f".results.csv.{NOBODY}.tmp",
        save_path / f".comparison.csv.{NOBODY}.tmp",
        save_path / "cells" / f".cell.json.{NOBODY}.tmp",
        report / f".report.html.{NOBODY}.tmp",
        save_path / "models" / "m" / f".cell.{NOBODY}.tmp" / "model.safetensors",
    ]
    somebody_elses = save_path / f".notes.md.{NOBODY}.tmp"
    for path in (*left, somebody_elses):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    script.run(tiny_model, save_path, "--pre_train_eval", "--save_masks")
    assert list(save_path.rglob("*.tmp")) == [somebody_elses]
    assert without_timings(save_path) == without_timings(finished)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, 10])
def test_killed_at_random_moments_and_resumed(kills, script, finished, tiny_model, tmp_path):
    """SIGKILL at random moments of a run; each start goes on where the last one was killed.

    A run that ends before its kill is compared too, and the next one starts in a new folder.
    """
    more = ("--pre_train_eval", "--save_masks")
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    moments = random.Random(0)
    killed = 0
    folders = 0
    save_path = tmp_path / "0"

    def command() -> list[str]:
        flags = script.flags(tiny_model, save_path, *more)
        return [sys.executable, "-W", "error", str(ROOT / script.file), *flags]

    while killed < kills:
        files = set(save_path.rglob("*"))
        process = subprocess.Popen(
            command(), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Wait until this start has written something, then a random moment more.
        while process.poll() is None and not set(save_path.rglob("*")) - files:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:
            assert process.returncode == 0
            assert without_timings(save_path) == without_timings(finished)
            folders += 1
            save_path = tmp_path / str(folders)
    subprocess.run(command(), env=environment, check=True, capture_output=True)
    assert without_timings(save_path) == without_timings(finished)
    assert not list(save_path.rglob("*.tmp"))
    for path in (finished / "masks").rglob("*.safetensors"):
        theirs = save_path / path.relative_to(finished)
        assert load_mask(theirs) == load_mask(path)


def mixed_set(folder: Path) -> Path:
    """Ten test documents of demo_mmlu, with answers, and the first ten calibration samples."""
    lines = (TASKS_FOLDER / "demo" / "demo_mmlu.jsonl").read_text(encoding="utf-8").splitlines()
    tests = [json.loads(line) for line in lines[:10]]
    seen = [f"{test['prompt']} {test['options'][test['gold']]}".upper() for test in tests]
    new = pd.read_csv(ROOT / "data" / "demo" / "mmlu.csv")["qa"][:10].tolist()
    path = folder / "mixed.csv"
    pd.DataFrame({"qa": [*seen, *new]}).to_csv(path, index=False)
    return path


def test_calibration_samples_that_tests_ask_are_counted_and_can_be_left_out(
    script, tiny_model, tmp_path, capsys
):
    path = mixed_set(tmp_path)
    sets = ["--calibration_datasets", str(path), DEMO.calibration_datasets[0]]
    flags = script.one(*sets, "--calibration_dataset_names", "Mixed", "Race")
    assert script.run(tiny_model, tmp_path / "all", *flags) == 0
    # Six documents are asked (--eval_limit 6).
    assert "samples of Mixed: 6 of 20 are test documents (demo_mmlu 6)" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "all" / "overlap.csv").set_index(["samples", "against"])
    repeated = found["repeated"]
    assert repeated[repeated > 0].to_dict() == {("Mixed", "demo_mmlu"): 6, ("Mixed", "any task"): 6}
    page = (tmp_path / "all" / "report" / "report.html").read_text(encoding="utf-8")
    assert "Read with care: 6 of 20 samples of Mixed are test documents (demo_mmlu 6)" in page

    target = tmp_path / "new"
    assert script.run(tiny_model, target, *flags, "--drop_used", "--dry_run") == 0
    output = capsys.readouterr().out
    assert "12 of 14 samples" in output
    assert not target.exists()
    assert script.run(tiny_model, target, *flags, "--drop_used") == 0
    assert ResultStore(target, "").identity.value("other_data", "Mixed")["left out"] == 6
    done = files_with_times(target / "cells")
    assert script.run(tiny_model, target, *flags, "--drop_used") == 0
    assert files_with_times(target / "cells") == done
    capsys.readouterr()
    for folder, more in (("all", ["--drop_used"]), ("new", [])):
        assert script.run(tiny_model, tmp_path / folder, *flags, *more) == 2
        assert "--calibration_datasets mixed.csv (content " in capsys.readouterr().err


def test_a_set_that_is_all_tests_cannot_be_left_out(script, tiny_model, tmp_path, capsys):
    path = mixed_set(tmp_path)
    pd.read_csv(path)[:6].to_csv(path, index=False)
    more = ["--calibration_datasets", str(path), "--calibration_dataset_names", "Mixed"]
    assert script.run(tiny_model, tmp_path / "r", *more, "--drop_used") == 2
    error = capsys.readouterr().err.strip()
    assert "--drop_used: leaves 0 of the 6 samples of --calibration_datasets" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_a_damaged_mask_of_a_finished_folder_is_refused(
    tiny_model, finished, script, tmp_path, capsys
):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    damaged = folder / "masks" / MODEL / f"{script.cells[0]}.safetensors"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: content.rstrip(b"\n").rfind(b"\n") + 1])
    assert script.run(tiny_model, folder, "--pre_train_eval", "--save_masks") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--save_path " in error
    assert str(damaged) in error


def test_a_damaged_record_is_computed_again(tiny_model, finished, script, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    damaged = folder / "cells" / MODEL / f"{script.cells[0]}.json"
    whole = json.loads(damaged.read_bytes())
    damaged.write_bytes(damaged.read_bytes()[:-20])
    flags = ("--pre_train_eval", "--save_masks")
    assert script.run(tiny_model, folder, *flags, "--dry_run") == 0
    output = capsys.readouterr()
    assert f"{damaged} is damaged" in output.err
    assert "1 to do" in output.out
    # A report says what it leaves out.
    assert commands.main(["report", str(folder)]) == 0
    assert f"{damaged} is damaged" in capsys.readouterr().err
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "1 cell left out, whose record is damaged" in page
    assert script.run(tiny_model, folder, *flags) == 0
    again = json.loads(damaged.read_bytes())
    for name in ("seconds", "sha256", "notes"):
        del whole[name], again[name]
    assert again == whole
    assert (folder / "summary.csv").read_bytes() == (finished / "summary.csv").read_bytes()
