"""MathNeuro.py beyond what the scripts share: its masks, the harness's agreement, odd input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from conftest import ROOT
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from scripts import SCRIPTS, table
from transformers import AutoModelForCausalLM

from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.masks.files import load_mask
from neurosurgery.settings.demo import TASKS_FOLDER

run = SCRIPTS["mathneuro"].run
CELLS = SCRIPTS["mathneuro"].cells


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> Path:
    save_path = tmp_path_factory.mktemp("finished")
    assert run(tiny_model, save_path, "--pre_train_eval", "--save_masks") == 0
    return save_path


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
    mask = load_mask(finished / "masks" / "tiny-llama" / "Race_calculate0.05_run1.safetensors")
    edited = differing = 0
    for name, math in scores["math"].items():
        count = int(math.size * 0.05)
        expected = reference.top_k(math, count) & ~reference.top_k(scores["Race"][name], count)
        found = mask.tensor(f"{name}.weight").numpy()
        differing += int((found != expected).sum())
        edited += int(expected.sum())
    # Float32 may exchange neighbours at a boundary, no more.
    assert differing <= 2
    rows = table(finished).query("against == 'Race' and size == 0.05 and repeat == 1")
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
        mask = load_mask(finished / "masks" / "tiny-llama" / f"{stem}.safetensors")
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
    record = json.loads((finished / "cells" / "tiny-llama" / f"{stem}.json").read_text())
    documents = record["answers"]
    for task, samples in theirs["samples"].items():
        mine = [document for document in documents if document["task"] == task]
        assert [document["doc_hash"] for document in mine] == [s["doc_hash"] for s in samples]
        for document, sample in zip(mine, samples, strict=True):
            for metric, value in document["metrics"].items():
                assert np.allclose(value, sample[metric], rtol=1e-5), (task, metric)
            if task == "demo_gsm8k_cot":
                assert document["generated"] == sample["resps"][0][0]


def test_without_a_baseline_the_verdict_stays_empty(tiny_model, tmp_path, capsys):
    assert run(tiny_model, tmp_path, "--num_repeats", "1") == 0
    told = capsys.readouterr().out
    assert "no baseline in this folder, so no verdict" in told
    assert " nan" not in told
    rows = table(tmp_path)
    assert rows[["baseline", "difference", "ci_low", "p_value"]].isna().all().all()
    # The baseline can come later; nothing is computed twice.
    assert run(tiny_model, tmp_path, "--num_repeats", "1", "--pre_train_eval") == 0
    rows = table(tmp_path).query("method == 'mathneuro'")
    displays = rows["metric"].isin(["byte_perplexity,none", "bits_per_byte,none"])
    assert rows.loc[~displays, "difference"].notna().all()


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
    assert "own_first: is (part of) the task of the skill already" in capsys.readouterr().err


def test_what_a_run_will_not_tell_is_said(tiny_model, tmp_path, capsys):
    flags = "--proportion 0.05 --num_repeats 1 --scalar 1".split()
    assert run(tiny_model, tmp_path, *flags) == 0
    output = capsys.readouterr().out
    assert "no baseline in this folder: without --pre_train_eval" in output
    assert "--scalar 1 changes nothing" in output


def test_a_blurred_factor_is_said(tiny_model, tmp_path, capsys):
    flags = "--proportion 0.05 --num_repeats 1 --scalar 1.01 --dtype bfloat16".split()
    assert run(tiny_model, tmp_path, *flags) == 0
    assert "in bfloat16 the factor 1.01 became 1.0" in capsys.readouterr().out


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
