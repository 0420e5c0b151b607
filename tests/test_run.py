"""The whole command line on a tiny model: files, table, resume, growth, refusal, agreement."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from conftest import ROOT
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM

import MathNeuro
from neurosurgery.config import TASKS_FOLDER
from neurosurgery.dataset import CalibrationSet
from neurosurgery.masks import ParameterMask
from neurosurgery.verdict import COLUMNS

GRID = "--proportion 0.01 0.05 --num_repeats 2 --num_samples 12 --eval_limit 6".split()
CELLS = [
    f"{name}_calculate{proportion}_run{repeat}"
    for name in ("Race", "MMLU")
    for proportion in ("0.01", "0.05")
    for repeat in (0, 1)
]


def run(model: Path, save_path: Path, *flags: str) -> int:
    return MathNeuro.main(["--model", str(model), "--save_path", str(save_path), *GRID, *flags])


def table(save_path: Path) -> pd.DataFrame:
    return pd.read_csv(save_path / "results.csv")


def without_timings(save_path: Path) -> str:
    return table(save_path).drop(columns="seconds").to_csv(index=False)


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> Path:
    save_path = tmp_path_factory.mktemp("finished")
    assert run(tiny_model, save_path, "--pre_train_eval", "--save_masks") == 0
    return save_path


def test_files_of_a_run(finished):
    results = finished / "eval_results" / "tiny-llama"
    stems = ["pre_results", *CELLS]
    assert {path.name for path in results.glob("*.json")} == {
        f"{stem}{suffix}.json" for stem in stems for suffix in ("", "_train_task")
    }
    math = json.loads((results / f"{CELLS[0]}_train_task.json").read_text())
    assert list(math) == ["demo_gsm8k_cot"]
    assert "exact_match,last-number" in math["demo_gsm8k_cot"]
    other = json.loads((results / f"{CELLS[0]}.json").read_text())
    assert list(other) == ["demo_race", "demo_mmlu", "demo_stories"]
    assert (results / "results.txt").read_text().count("demo_stories") == 4
    lines = (finished / "samples" / "tiny-llama" / f"{CELLS[0]}.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 6
    assert {"task", "doc_id", "metrics", "answer"} <= set(json.loads(lines[0]))
    assert len(list((finished / "statistics").rglob("*.safetensors"))) == 3 * 2
    assert len(list((finished / "masks").rglob("*.safetensors"))) == len(CELLS)
    config = json.loads((finished / "config.json").read_text())
    assert config["runs"][0]["versions"]["torch"] == torch.__version__.partition("+")[0] or (
        config["runs"][0]["versions"]["torch"] == torch.__version__
    )
    assert not list(finished.rglob("*.tmp"))
    assert "Building contexts" in (finished / "logs" / "lm_eval.log").read_text()


def test_tidy_table(finished):
    rows = table(finished)
    assert list(rows.columns) == COLUMNS
    metrics = 1 + 1 + 1 + 3
    assert len(rows) == metrics * (1 + len(CELLS))
    baseline = rows[rows["method"] == "baseline"].set_index(["task", "metric"])["value"]
    edited = rows[rows["method"] == "mathneuro"]
    for _, row in edited.iterrows():
        assert row["baseline"] == pytest.approx(baseline[row["task"], row["metric"]])
        assert row["difference"] == pytest.approx(row["value"] - row["baseline"], abs=1e-5)
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]
        assert row["n"] == 6
    assert edited["edited"].gt(0).all()
    assert edited["topk_share"].between(0, 1).all()


def test_summary_has_one_row_per_grid_point(finished):
    summary = pd.read_csv(finished / "summary.csv")
    assert len(summary) == 4 * 6
    assert summary["repeats"].eq(2).all()
    assert set(summary["verdict"]) <= {"within noise", "higher", "lower"}


def test_masks_are_the_set_difference_of_the_reference(finished, tiny_model, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    samples = {
        name: pd.read_csv(ROOT / "data" / "demo" / f"{file}.csv")["qa"].tolist()
        for name, file in (("math", "math"), ("Race", "race"))
    }
    scores = {}
    for name, texts in samples.items():
        drawn = CalibrationSet(name, tuple(texts), "").multiplicities(12, 2, 42)[1]
        used = np.flatnonzero(drawn)
        scores[name] = reference.scores(
            model, [tokenizer.encode(texts[i]) for i in used], drawn[used]
        )
    mask = ParameterMask.load(
        finished / "masks" / "tiny-llama" / "Race_calculate0.05_run1.safetensors"
    )
    edited = differing = 0
    for name, math in scores["math"].items():
        count = int(math.size * 0.05)
        expected = reference.top_k(math, count) & ~reference.top_k(scores["Race"][name], count)
        found = mask.tensor(f"{name}.weight").numpy()
        differing += int((found != expected).sum())
        edited += int(expected.sum())
    # Float32 may exchange neighbours at a boundary, no more.
    assert differing <= 2
    rows = table(finished).query("calibration == 'Race' and proportion == 0.05 and repeat == 1")
    assert abs(rows["edited"].iloc[0] - edited) <= 2
    assert rows["edited"].iloc[0] == mask.count()
    parameters = sum(p.numel() for p in model.parameters())
    assert rows["edited_share"].iloc[0] == pytest.approx(mask.count() / parameters)


@pytest.mark.parametrize("edited", [False, True], ids=["baseline", "edited"])
def test_the_harness_agrees_to_the_document(edited, finished, tiny_model, tokenizer, tmp_path):
    """Our numbers are those of `lm_eval --model hf` on the same model, written out."""
    stem = CELLS[1] if edited else "pre_results"
    folder = tiny_model
    if edited:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        mask = ParameterMask.load(finished / "masks" / "tiny-llama" / f"{stem}.safetensors")
        with torch.no_grad():
            for name in mask:
                model.get_parameter(name)[mask.tensor(name)] = 0
        folder = tmp_path / "edited"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    theirs = simple_evaluate(
        model="hf",
        model_args=f"pretrained={folder},dtype=float32",
        tasks=["demo_gsm8k_cot", "demo_race", "demo_mmlu", "demo_stories"],
        task_manager=TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False),
        limit=6,
        batch_size=16,
        device="cpu",
    )
    results = finished / "eval_results" / "tiny-llama"
    ours = json.loads((results / f"{stem}_train_task.json").read_text()) | json.loads(
        (results / f"{stem}.json").read_text()
    )
    for task, metrics in ours.items():
        for name, value in metrics.items():
            if isinstance(value, float):
                assert theirs["results"][task][name] == pytest.approx(value, rel=1e-6), name
    lines = (finished / "samples" / "tiny-llama" / f"{stem}.jsonl").read_text().splitlines()
    documents = [json.loads(line) for line in lines]
    for task, samples in theirs["samples"].items():
        mine = [document for document in documents if document["task"] == task]
        assert [document["doc_hash"] for document in mine] == [s["doc_hash"] for s in samples]
        for document, sample in zip(mine, samples, strict=True):
            for metric, value in document["metrics"].items():
                assert np.allclose(value, sample[metric], rtol=1e-5), (task, metric)
            if task == "demo_gsm8k_cot":
                assert document["generated"] == sample["resps"][0][0]


def test_the_same_command_again_computes_nothing(finished, tiny_model, monkeypatch):
    before = without_timings(finished)
    monkeypatch.setattr(
        "neurosurgery.models.load_model", lambda *_: pytest.fail("a model was loaded")
    )
    assert run(tiny_model, finished, "--pre_train_eval", "--save_masks") == 0
    assert without_timings(finished) == before


def test_runs_are_deterministic(finished, tiny_model, tmp_path):
    torch.manual_seed(99)
    np.random.seed(7)
    assert run(tiny_model, tmp_path, "--pre_train_eval") == 0
    assert without_timings(tmp_path) == without_timings(finished)


def test_global_generators_are_left_as_they_were(tiny_model, tmp_path):
    """The harness resets them at every call; what else a process draws must not feel it."""
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    assert run(tiny_model, tmp_path, "--proportion", "0.05", "--num_repeats", "1") == 0
    assert (torch.rand(1), np.random.rand()) == expected


def test_without_a_baseline_the_verdict_stays_empty(tiny_model, tmp_path, capsys):
    assert run(tiny_model, tmp_path, "--num_repeats", "1") == 0
    assert "no baseline in this folder, so no verdict" in capsys.readouterr().out
    rows = table(tmp_path)
    assert rows[["baseline", "difference", "ci_low", "p_value"]].isna().all().all()
    # The baseline can come later; nothing is computed twice.
    assert run(tiny_model, tmp_path, "--num_repeats", "1", "--pre_train_eval") == 0
    rows = table(tmp_path).query("method == 'mathneuro'")
    assert rows["difference"].notna().all()


def test_a_folder_grows_by_cells(finished, tiny_model, tmp_path):
    small = ["--proportion", "0.05", "--num_repeats", "1"]
    assert run(tiny_model, tmp_path, *small, "--pre_train_eval") == 0
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "eval_results").rglob("*.json")}
    assert run(tiny_model, tmp_path) == 0
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())
    grown = table(tmp_path)
    assert len(grown) == len(table(finished))
    scaled = ["--scalar", "1.1", "--proportion", "0.05", "--num_repeats", "1"]
    assert run(tiny_model, tmp_path, *scaled) == 0
    name = "Race_calculate0.05_run0_scalar1.1_train_task.json"
    assert (tmp_path / "eval_results" / "tiny-llama" / name).exists()
    assert set(table(tmp_path)["scalar"].dropna()) == {0.0, 1.1}


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
def test_flags_that_change_the_meaning_are_refused(flags, message, finished, tiny_model, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    assert run(tiny_model, finished, *flags.format(finished, ROOT).split()) == 2
    error = capsys.readouterr().err.strip()
    assert message.format(finished, ROOT) in error
    assert len(error.splitlines()) == 1
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_overwrite_starts_afresh_and_spares_foreign_files(tiny_model, tmp_path):
    one = ["--proportion", "0.05", "--num_repeats", "1"]
    assert run(tiny_model, tmp_path, *one) == 0
    (tmp_path / "notes.txt").write_text("mine")
    assert run(tiny_model, tmp_path, *one, "--num_samples", "3", "--overwrite") == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (
        json.loads((tmp_path / "config.json").read_text())["meaning"]["--num_samples[mathneuro]"]
        == 3
    )


@pytest.mark.parametrize("flags", [[], ["--overwrite"]], ids=["plain", "overwrite"])
@pytest.mark.parametrize("name", ["config.json", "logs/mine.txt"])
def test_a_folder_of_somebody_else_is_refused(name, flags, tiny_model, tmp_path, capsys):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text('{"model_type": "llama"}')
    assert run(tiny_model, tmp_path, *flags) == 2
    assert "but no results of ours; expected a new folder" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_groups_and_tags_are_in_the_table(tiny_model, tmp_path, capsys):
    """A group with a number of its own, and a tag, which only stands for its members."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    data = ROOT / "lm-evaluation-harness" / "demo" / "demo_mmlu.jsonl"
    for name in ("first", "second"):
        (tasks / f"{name}.yaml").write_text(
            f"task: own_{name}\ntag: own_tag\ndataset_path: json\n"
            f"dataset_kwargs:\n  data_files:\n    test: {data}\n"
            "test_split: test\noutput_type: multiple_choice\ndoc_to_text: prompt\n"
            "doc_to_choice: options\ndoc_to_target: gold\nnum_fewshot: 0\n"
            "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
        )
    (tasks / "group.yaml").write_text(
        "group: own_group\ntask:\n  - own_first\n  - own_second\n"
        "aggregate_metric_list:\n  - metric: acc\n    aggregation: mean\n"
    )
    flags = ["--include_path", str(tasks), "--proportion", "0.05", "--num_repeats", "1"]
    flags.append("--pre_train_eval")
    assert run(tiny_model, tmp_path / "group", *flags, "--eval_datasets", "own_group") == 0
    rows = table(tmp_path / "group").query("task == 'own_group' and method == 'mathneuro'")
    assert rows["n"].eq(12).all()
    assert rows["ci_low"].notna().all()
    assert "own_group" in capsys.readouterr().out
    assert run(tiny_model, tmp_path / "tag", *flags, "--eval_datasets", "own_tag") == 0
    output = capsys.readouterr().out
    assert "own_first" in output
    assert "own_second" in output
    both = ["--train_lm_eval_task", "own_first", "--eval_datasets", "own_group"]
    assert run(tiny_model, tmp_path / "both", *flags, *both) == 2
    assert "own_first: is (part of) the math task already" in capsys.readouterr().err


def test_dry_run_prints_the_plan_and_writes_nothing(tiny_model, tmp_path, capsys):
    target = tmp_path / "results"
    assert run(tiny_model, target, "--dry_run") == 0
    output = capsys.readouterr().out
    assert "8 (0 done, 8 to do): 2 calibration sets × 2 repeats × 2 proportions × 1" in output
    assert "forward passes in all" in output
    assert not target.exists()


def test_a_blurred_factor_is_said(tiny_model, tmp_path, capsys):
    flags = "--proportion 0.05 --num_repeats 1 --scalar 1.01 --dtype bfloat16".split()
    assert run(tiny_model, tmp_path, *flags) == 0
    assert "in bfloat16 the factor 1.01 became 1.0" in capsys.readouterr().out


def test_killed_at_ten_moments_and_resumed(finished, tiny_model, tmp_path):
    """SIGKILL at random moments of a run; each start goes on where the last one was killed.

    A run that ends before its kill is compared too, and the next one starts in a new folder.
    """
    command = [sys.executable, "-W", "error", str(ROOT / "MathNeuro.py")]
    command += ["--model", str(tiny_model), *GRID, "--pre_train_eval", "--save_masks"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    moments = random.Random(0)
    killed = 0
    folders = 0
    save_path = tmp_path / "0"
    while killed < 10:
        files = set(save_path.rglob("*"))
        process = subprocess.Popen(
            [*command, "--save_path", str(save_path)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
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
    subprocess.run(
        [*command, "--save_path", str(save_path)], env=environment, check=True, capture_output=True
    )
    assert without_timings(save_path) == without_timings(finished)
    assert not list(save_path.rglob("*.tmp"))
    for path in (finished / "masks").rglob("*.safetensors"):
        theirs = save_path / path.relative_to(finished)
        assert ParameterMask.load(theirs) == ParameterMask.load(path)


def test_masks_can_be_saved_later(tiny_model, tmp_path):
    """`--save_masks` on a finished run writes the masks and evaluates nothing again."""
    one = ["--proportion", "0.05", "--num_repeats", "1"]
    assert run(tiny_model, tmp_path, *one) == 0
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "eval_results").rglob("*.json")}
    assert run(tiny_model, tmp_path, *one, "--save_masks") == 0
    assert len(list((tmp_path / "masks").rglob("*.safetensors"))) == 2
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())


def test_infinite_weights_stop_the_run_in_one_line(tiny_model, tokenizer, tmp_path, capsys):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    tokenizer.save_pretrained(tmp_path / "broken")
    assert run(tmp_path / "broken", tmp_path / "results") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the input of model.layers.1.mlp.down_proj is not finite" in error


def test_a_chat_template_is_needed_for_the_flag(tiny_model, tmp_path, capsys):
    assert run(tiny_model, tmp_path / "r", "--apply_chat_template") == 2
    assert "the tokenizer has no chat template" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
