"""Cells of heads and MLPs by `PathPatching.py`: resume, growth, shared folders, refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from scripts import files_with_times, without_timings

import MathNeuro
import PathPatching
from neurosurgery import __main__
from neurosurgery.masks.files import load_mask
from neurosurgery.models import load
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.settings.demo import DEMO

FEW = "--num_prompts 40 --num_draws 2 --top 1 2 --num_repeats 2 --eval_limit 8".split()


def run(save_path: Path, *more: str) -> int:
    return PathPatching.main(["--save_path", str(save_path), *FEW, *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    save_path = tmp_path_factory.mktemp("cells")
    assert run(save_path) == 0
    return save_path


def cells(save_path: Path) -> dict[str, int]:
    found = pd.read_csv(save_path / "results.csv")
    names = ["method", "against", "size", "size_unit", "edit", "edit_value", "repeat"]
    return found.drop_duplicates(names)["method"].value_counts().to_dict()


def test_a_run_of_the_demo_has_its_cells(finished):
    assert cells(finished) == {"baseline": 1, "heads": 4, "random_heads": 4, "mlps": 4}
    table = pd.read_csv(finished / "results.csv")
    assert set(table["size"].dropna()) == {1, 2}
    units = table.dropna(subset=["size_unit"]).groupby("method")["size_unit"].unique()
    assert {name: list(found) for name, found in units.items()} == {
        "heads": ["heads"], "random_heads": ["heads"], "mlps": ["MLPs"]
    }  # fmt: skip
    assert set(table["edit"].dropna()) == {"mean ablation"}
    assert table["edit_value"].isna().all()
    heads = table[table["method"] == "heads"]
    assert (heads["edited"] == heads["size"] * 64 * 256).all()
    comparison = pd.read_csv(finished / "comparison.csv")
    assert set(comparison["method"]) <= {"heads", "random_heads", "mlps"}
    overlap = pd.read_csv(finished / "overlap.csv")
    assert set(overlap["samples"]) == {"prompts"}
    assert set(overlap["against"]) == {DEMO.train_lm_eval_task, *DEMO.eval_datasets, "any task"}
    assert overlap["repeated"].tolist() == [0] * 5
    page = (finished / "report" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"The knock-out of (1 head|2 heads) takes demo_gsm8k_cot from", page)
    for words in ("Random heads", "Number of units", "Heads of math", "MLPs of math"):
        assert words in page
    assert "Random heads of math" not in page
    for name in ("units", "effects", "knock_out_mean_all"):
        assert (finished / "report" / f"{name}.png").is_file()
    assert not list(finished.rglob("where*"))


def test_a_knock_out_is_no_scaling(tmp_path, capsys):
    """It has no value in the tables, and its mask says that it is not what was measured."""
    flags = "--units heads --top 2 --num_repeats 1 --save_masks".split()
    assert run(tmp_path, *flags) == 0
    assert run(tmp_path, *flags, "--scalar", "1.5", "2") == 0
    mask = tmp_path / "masks" / "model" / "random_heads" / "top2_run0.safetensors"
    capsys.readouterr()
    assert __main__.main(["masks", "show", str(mask)]) == 0
    shown = capsys.readouterr().out
    assert "evaluated_as knocked out by means, which is not pruning" in shown
    assert "2 heads selected, 0 of them belong to the skill" in shown
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "knocked out" in page
    points = grid_points(read_folder(tmp_path))
    assert set(points["edit"]) == {"mean ablation", "scale"}
    assert points["edit_value"][points["edit"] == "mean ablation"].isna().all()
    assert set(points["edit_value"].dropna()) == {1.5, 2.0}


def test_units_of_a_cell_are_written(finished):
    listed = pd.read_csv(finished / "masks" / "model" / "heads" / "top2_run1.csv")
    assert len(listed) == 2
    assert listed["effect"].is_monotonic_increasing


def test_the_second_run_loads_no_model(finished, monkeypatch, capsys):
    before = files_with_times(finished, "cells/**/*")

    def never(*_args, **_kwargs):
        raise AssertionError("the cells are there")

    monkeypatch.setattr(load, "load_model", never)
    assert run(finished) == 0
    assert files_with_times(finished, "cells/**/*") == before
    assert "top 2  knocked out  demo_race" in capsys.readouterr().out


def test_a_folder_grows_to_the_same_numbers(finished, tmp_path):
    assert run(tmp_path, "--top", "2", "--units", "heads", "mlps") == 0
    kept = files_with_times(tmp_path, "cells/**/*")
    assert run(tmp_path) == 0
    after = files_with_times(tmp_path, "cells/**/*")
    assert {path: after[path] for path in kept} == kept
    assert without_timings(tmp_path) == without_timings(finished)


def test_one_folder_with_weights_and_heads(finished, tmp_path):
    """MathNeuro's cells and those of heads are judged together; --overwrite starts afresh."""
    more = "--proportion .05 --num_repeats 1 --num_samples 5 --eval_limit 8".split()
    assert MathNeuro.main(["--save_path", str(tmp_path), *more, "--pre_train_eval"]) == 0
    assert run(tmp_path, "--units", "heads", "--scalar", "0", "1.5", "--save_masks") == 0
    there = cells(tmp_path)
    assert there.pop("mathneuro") == 2
    assert there == {"baseline": 1, "heads": 8, "random_heads": 8}
    actions = pd.read_csv(tmp_path / "results.csv").groupby("edit")["method"].unique()
    assert list(actions.index) == ["scale"]
    mask = tmp_path / "masks" / "model" / "heads" / "top2_run0.safetensors"
    assert load_mask(mask).count() == 2 * 64 * 256
    assert run(tmp_path, "--units", "heads", "--metric", "logit") == 2
    trained = tmp_path / "deltas" / "model" / "heads" / "top1_run0_trained0.01.safetensors"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(b"what a training of these heads has changed")
    overwritten = "--units heads --metric logprob --top 1 --num_repeats 1 --overwrite".split()
    assert run(tmp_path, *overwritten) == 0
    assert cells(tmp_path) == {"baseline": 1, "heads": 1, "random_heads": 1}
    assert not mask.exists()
    # Its effects are gone, too.
    assert not trained.exists()
    # Figures of what is gone are gone: MLPs were never asked for here, one curve stays.
    stale = tmp_path / "report" / "knock_out_zero_all.png"
    stale.write_bytes(b"old")
    assert __main__.main(["report", str(tmp_path)]) == 0
    assert not stale.exists()
    assert (tmp_path / "report" / "knock_out_mean_all.png").is_file()


def test_units_give_what_they_give_on_a_counterfactual_another_in_every_repeat(tmp_path, capsys):
    """Against the same cells by means; a run that grows by a repeat keeps what the others drew."""
    flags = "--ablation resample --units heads --top 2 --save_masks".split()
    assert run(tmp_path, *flags, "--num_repeats", "1") == 0
    first = pd.read_csv(tmp_path / "results.csv").drop(columns="seconds")
    assert run(tmp_path, *flags, "--num_repeats", "3") == 0
    table = pd.read_csv(tmp_path / "results.csv").drop(columns="seconds")
    assert set(table["edit"].dropna()) == {"resample ablation"}
    drawn = table.dropna(subset=["repeat"]).groupby("repeat")["value"].apply(tuple)
    assert len(set(drawn)) > 1
    same = table[table["repeat"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, first[first["repeat"] == 0].reset_index(drop=True))
    mask = next((tmp_path / "masks").rglob("*.safetensors"))
    assert __main__.main(["masks", "show", str(mask)]) == 0
    assert "knocked out by resampling, which is not pruning" in capsys.readouterr().out


def test_units_are_removed_in_one_way_in_a_folder(finished, capsys):
    before = files_with_times(finished)
    for more in ("--scalar 0", "--ablation zero", "--ablation resample"):
        assert run(finished, *more.split()) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"{more}: the units in {finished} are removed by mean" in error
    assert files_with_times(finished) == before


def test_a_dry_run_loads_no_model_and_writes_nothing(tmp_path, monkeypatch, capsys):
    def never(*_args, **_kwargs):
        raise AssertionError("a dry run loads no model")

    monkeypatch.setattr(load, "load_model", never)
    save_path = tmp_path / "results"
    assert run(save_path, "--dry_run") == 0
    output = capsys.readouterr().out
    assert not save_path.exists()
    assert "effects      16 heads, 4 MLPs" in output
    assert "heads 4 (0 done, 4 to do): 2 repeats × 2 numbers × 1 edit\n" in output
    assert "13 model states × (demo_gsm8k_cot on 8, demo_race on 8," in output
    flags = ["--dry_run", "--model", DEMO.model, "--operators", "+"]
    assert PathPatching.main([*flags, "--save_path", str(save_path)]) == 0
    assert "cells        none" in capsys.readouterr().out


def test_a_dry_run_counts_what_is_there(finished, capsys):
    assert run(finished, "--dry_run", "--num_repeats", "3") == 0
    assert "heads 6 (4 done, 2 to do)" in capsys.readouterr().out


REFUSED = [
    ("--units mlps --top 5", "--top 5: expected one of at most 4, the MLPs of the model"),
    ("--top 17", "--top 17: expected at most 16, the heads of the model"),
    (f"--model {DEMO.model} --margin .1", "--num_repeats: expected with it --train_lm"),
    ("--num_repeats 0", "--num_repeats 0: expected a whole number of at least 1"),
    ("--scalar nan", "--scalar nan: expected a finite number"),
    ("--eval_limit 0", "--eval_limit 0: expected a whole number of at least 1"),
    ("--eval_datasets nowhere", "--eval_datasets nowhere: expected a task"),
    ("--save_model", "--save_model: expected with it --scalar"),
    (f"--model {DEMO.model} --pre_train_eval", "expected with it --train_lm_eval_task and"),
    (f"--model {DEMO.model} --scalar 0", "--scalar: expected with it --train_lm_eval_task and"),
    (f"--model {DEMO.model} --eval_datasets demo_race", "--eval_datasets: expected with it"),
    (
        "--ablation mean_by_position --train_lm_eval_task demo_gsm8k_cot",
        "--ablation mean_by_position: expected mean, zero, resample or --scalar with tasks",
    ),
]


@pytest.mark.parametrize(("flags", "message"), REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(flags, message, tmp_path, capsys):
    save_path = tmp_path / "results"
    assert run(save_path, *flags.split()) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert not save_path.exists()
