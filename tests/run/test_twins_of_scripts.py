"""`--twins` and the methods beside the published ones, as whole commands in one folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scripts import DEMO_DATA, MODEL, SCRIPTS, files_with_times, table, without_timings

import FineTune
import PathPatching
from neurosurgery.masks.files import load_mask
from neurosurgery.methods.registry import METHODS, with_twins
from neurosurgery.settings.demo import DEMO

BOTH = ("--twins", "random", "bottom")
METHODS_OF_WEIGHTS = ("wanda", "wanda_rows", "snip", "magnitude")
ABLATIONS = ("--methods", *METHODS_OF_WEIGHTS, *BOTH, "--save_masks", "--pre_train_eval")


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> Path:
    """Every method with its twins, one proportion or ratio."""
    save_path = tmp_path_factory.mktemp("twins")
    size = ["--proportion", "0.05"]
    assert SCRIPTS["ablations"].run(tiny_model, save_path, *size, *ABLATIONS) == 0
    assert SCRIPTS["mathneuro"].run(tiny_model, save_path, *size, *BOTH, "--save_masks") == 0
    assert SCRIPTS["lape"].run(tiny_model, save_path, "--ratio", ".4", *BOTH, "--save_masks") == 0
    return save_path


def test_every_method_has_its_rows_and_its_controls(finished):
    rows = table(finished).query("task == 'demo_race'")
    expected = with_twins((*METHODS_OF_WEIGHTS, "mathneuro", "lape"), ["random", "bottom"])
    assert set(rows["method"]) == {"baseline", *expected}
    counts = rows.groupby("method").size()
    # Magnitude and its bottom twin draw nothing: one repeat. Two sets for those with a difference.
    assert counts.to_dict() == {
        **dict.fromkeys(expected, 2),
        **dict.fromkeys(with_twins(["snip", "mathneuro"], ["random", "bottom"]), 4),
        **{"magnitude": 1, "bottom_magnitude": 1, "baseline": 1},
    }
    for name in expected:
        edited = rows[rows["method"] == name].set_index(["against", "repeat"])["edited"]
        of = METHODS[name].basis.name
        its = rows[rows["method"] == of].set_index(["against", "repeat"])["edited"]
        shared = edited.index.intersection(its.index)
        assert len(shared)
        assert edited[shared].equals(its[shared]), name


def test_masks_of_twins_have_the_counts_of_every_matrix(finished):
    folder = finished / "masks" / MODEL
    compared = 0
    for name, method in METHODS.items():
        if not method.draw or not (folder / name).is_dir():
            continue
        for path in (folder / name).glob("*.safetensors"):
            its = folder / (method.basis.folder or method.basis.name)
            if method.basis.folder == "":
                its = folder
            other = its / path.name
            if not other.exists():
                continue  # magnitude has one repeat, its random twin several
            mine, basis = load_mask(path), load_mask(other)
            assert mine.count() == basis.count()
            if name != "bottom_lape":
                assert mine.counts() == basis.counts(), path
            assert mine != basis
            compared += 1
    assert compared > 20


def test_the_same_command_computes_nothing_and_another_size_one_pass_more(
    finished, tiny_model, tmp_path
):
    before = files_with_times(finished)
    size = ["--proportion", "0.05"]
    assert SCRIPTS["ablations"].run(tiny_model, finished, *size, *ABLATIONS) == 0
    after = files_with_times(finished)
    kept = [p for p in before if p.relative_to(finished).parts[0] in ("cells", "statistics")]
    assert len(kept) > 30
    assert all(after[path] == before[path] for path in kept)
    snip = ["--methods", "snip", *BOTH, "--pre_train_eval"]
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path / "a", *snip, *size) == 0
    both = ["--proportion", "0.05", "0.2"]
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path / "a", *snip, *both) == 0
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path / "b", *snip, *both) == 0
    assert without_timings(tmp_path / "a") == without_timings(tmp_path / "b")


def test_what_snip_counts_in_its_loss_is_said(tiny_model, tmp_path, capsys):
    own = tmp_path / "own.csv"
    rows = [(f"How much is {n} and 1?", f"It is {n + 1}.") for n in range(30)]
    pd.DataFrame(rows, columns=["question", "solution"]).to_csv(own, index=False)
    flags = [*SCRIPTS["ablations"].one(), "--methods", "snip", "--train_dataset", str(own), *BOTH]
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path / "r", *flags) == 0
    output = capsys.readouterr().out
    assert "math: the loss counts the tokens of the responses alone" in output
    # Once, though the bottom twin takes another pass over math.
    assert output.count("math: the loss counts") == 1
    assert "Race: the loss counts all tokens: the file has no column solution or answer" in output


def test_wanda_by_rows_refuses_a_size_before_the_model_is_loaded(tiny_model, tmp_path, capsys):
    flags = ["--methods", "wanda_rows", "--proportion", "0.001"]
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path / "r", *flags) == 2
    error = capsys.readouterr().err
    assert "--proportion 0.001: expected 1/24 or more for wanda_rows" in error
    assert "Loading weights" not in error
    assert not (tmp_path / "r").exists()


def test_heads_and_mlps_have_their_twins(tmp_path):
    few = "--num_prompts 40 --num_draws 2 --top 2 --num_repeats 2 --eval_limit 8".split()
    assert PathPatching.main(["--save_path", str(tmp_path), *few, *BOTH]) == 0
    rows = pd.read_csv(tmp_path / "results.csv").dropna(subset=["size"])
    expected = with_twins(["heads", "mlps"], ["random", "bottom"])
    assert set(rows["method"]) == set(expected)
    listed = {}
    for name in expected:
        units = pd.read_csv(tmp_path / "masks" / "model" / name / "top2_run0.csv")
        listed[name] = units["effect"].abs().max()
        assert units["belongs"].tolist() == [int(name in ("heads", "mlps"))] * 2
    effects = pd.read_csv(next((tmp_path / "path_patching" / "model").glob("effects.csv")))
    smallest = effects[effects["kind"] == "head"]["effect"].abs().nsmallest(4).max()
    # Of the prompts that the repeat has drawn, so that the order may differ a little.
    assert listed["bottom_heads"] <= 2 * smallest < listed["heads"]


def test_twins_are_trained_beside_their_method(finished, tiny_model, tmp_path, capsys):
    mask = finished / "masks" / MODEL / "snip" / "Race_calculate0.05_run0.safetensors"
    where = ["--model", str(tiny_model), "--save_path", str(tmp_path), *DEMO_DATA]
    where += ["--train_lm_eval_task", "demo_gsm8k_cot", "--eval_datasets", "demo_race"]
    argv = [*where, "--train_data", DEMO.train_data, "--num_repeats", "1", "--num_samples", "5"]
    argv += "--eval_limit 4 --max_steps 2 --train_batch_size 2 --proportion .2".split()
    assert FineTune.main([*argv, "--selection", "snip", str(mask), *BOTH]) == 0
    rows = pd.read_csv(tmp_path / "results.csv").query("task == 'demo_race' and edit == 'train'")
    names = (*with_twins(["snip"], ["random", "bottom"]), "mask_file", "random_mask_file")
    assert set(rows["method"]) == set(names)
    edited = rows.groupby("method")["edited"].unique().map(tuple)
    assert edited["snip"] == edited["random_snip"] == edited["bottom_snip"]
    assert edited["mask_file"] == edited["random_mask_file"]
    gains = pd.read_csv(tmp_path / "training.csv").query("method == 'snip'")
    assert set(gains["control"]) == {"random_snip"}
    without_size = argv[: argv.index("--proportion")]
    assert FineTune.main([*without_size, "--selection", "all", *BOTH]) == 2
    error = capsys.readouterr().err
    assert "--twins random: expected with it a method that has such a twin, found all" in error


@pytest.mark.parametrize("damage", ["cut", "text", "of another set", "of another size"])
def test_damaged_or_foreign_statistics_are_made_again(damage, tiny_model, tmp_path):
    """They would give other masks without a word, or none at all."""
    flags = ["--methods", "snip", "--proportion", "0.05", "0.2", "--num_repeats", "1"]
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path, *flags) == 0
    folder = tmp_path / "statistics" / MODEL / "gradient_top_k"
    file = folder / "size0.05" / "math_run0.safetensors"
    whole = file.read_bytes()
    other = {"of another set": "size0.05/Race_run0", "of another size": "size0.2/math_run0"}
    match damage:
        case "cut":
            file.write_bytes(whole[: len(whole) // 2])
        case "text":
            file.write_text("hi")
        case _:
            file.write_bytes((folder / f"{other[damage]}.safetensors").read_bytes())
    before = without_timings(tmp_path)
    for cell in (tmp_path / "cells" / MODEL / "snip").glob("*0.05*"):
        cell.unlink()
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path, *flags) == 0
    assert file.read_bytes() == whole
    assert without_timings(tmp_path) == before


def test_a_size_that_selects_nothing_is_said(tiny_model, tmp_path, capsys):
    flags = [*SCRIPTS["ablations"].one(), "--methods", "snip", "--proportion", "1e-9"]
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path, *flags) == 0
    output = capsys.readouterr().out
    assert "snip/Race_calculate1e-09_run0: no weight is selected" in output


def test_texts_of_one_token_are_one_line(tiny_model, tmp_path, capsys):
    own = tmp_path / "own.csv"
    pd.DataFrame({"text": ["a", "b", "7"] * 9}).to_csv(own, index=False)
    flags = [*SCRIPTS["ablations"].one(), "--methods", "snip", "--train_dataset", str(own)]
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path / "r", *flags) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "math: no drawn sample has a token that the loss could count" in error
