"""The baselines and the control: twins, Wanda, LAPE and another skill, in one results folder."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference
from conftest import ROOT, build_model
from hypothesis import given
from hypothesis import strategies as st
from scripts import MODEL, SCRIPTS, table
from transformers import AutoModelForCausalLM

from neurosurgery.activations.collect import STATISTICS, collect_activation_norms
from neurosurgery.activations.kinds import ACTIVATION_NORMS, FIRING_COUNTS
from neurosurgery.common.generator import generator
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.edit.kinds import scale_by
from neurosurgery.masks.files import load_mask
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.overlap import overlap_by_parameter, total
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.ranking import TopK
from neurosurgery.methods.twins import random_twin
from neurosurgery.models.targets import find_targets
from neurosurgery.results.keys import CellKey
from neurosurgery.settings.identity import MATH


@pytest.fixture(scope="module")
def shared(tiny_model, tmp_path_factory) -> Path:
    """All scripts and the control in one folder; passes over samples are counted."""
    save_path = tmp_path_factory.mktemp("shared")
    for script in SCRIPTS.values():
        assert script.run(tiny_model, save_path, "--pre_train_eval", "--save_masks") == 0
    assert SCRIPTS["mathneuro"].run(tiny_model, save_path, "--skill", "Race", "--save_masks") == 0
    return save_path


def jaccard(a: ParameterMask, b: ParameterMask) -> float:
    return total(overlap_by_parameter(a, b)).jaccard


def mask(save_path: Path, stem: str) -> ParameterMask:
    return load_mask(save_path / "masks" / MODEL / f"{stem}.safetensors")


@pytest.mark.parametrize("set_name", ["Race", "MMLU"])
@pytest.mark.parametrize("proportion", ["0.01", "0.05"])
def test_random_twins_have_the_counts_of_the_masks(set_name, proportion, shared):
    twins = []
    for repeat in (0, 1):
        stem = f"{set_name}_calculate{proportion}_run{repeat}"
        twin = mask(shared, f"random/{stem}")
        assert twin.counts() == mask(shared, stem).counts()
        assert twin != mask(shared, stem)
        twins.append(twin)
    assert jaccard(*twins) < 0.2


def test_twins_of_different_sets_differ(shared):
    race, mmlu = (
        jaccard(
            mask(shared, f"random/{name}_calculate0.05_run0"),
            mask(shared, "random/Race_calculate0.05_run0"),
        )
        for name in ("Race", "MMLU")
    )
    assert (race, mmlu < 0.2) == (1.0, True)


def test_twins_of_different_sizes_are_drawn_anew(shared):
    """Were they one draw, the smaller twin would lie within the larger one."""
    small, large = (mask(shared, f"random/Race_calculate{size}_run0") for size in ("0.01", "0.05"))
    assert small.count() > 20
    assert (small - large).count() > 0.5 * small.count()


@given(st.integers(0, 99), st.integers(0, 40), st.integers(0, 40))
def test_a_twin_is_a_function_of_its_seed(seed, first, second):
    bits = np.zeros((2, 40), dtype=bool)
    bits[0, :first] = bits[1, :second] = True
    original = ParameterMask(
        {"a": np.packbits(bits[0]), "b": np.packbits(bits[1])}, {"a": (5, 8), "b": (8, 5)}
    )
    twin = random_twin(original, generator(seed, 0, "Race", "random"))
    assert twin.counts() == {"a": first, "b": second}
    assert twin == random_twin(original, generator(seed, 0, "Race", "random"))


def test_twins_spread_evenly():
    """Every entry of a row of eight is drawn as often as the others: 400 draws of 2 of 8."""
    original = ParameterMask({"a": np.array([0b11000000], dtype=np.uint8)}, {"a": (1, 8)})
    drawn = sum(
        random_twin(original, generator(seed, 0, "s", "r")).tensor("a").numpy().astype(int)
        for seed in range(400)
    )
    # Binomial(400, 1/4): six standard deviations are 52.
    assert np.abs(drawn - 100).max() < 52


def test_wanda_is_the_reference_top_k(shared, tiny_model, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    texts = pd.read_csv(ROOT / "data" / "demo" / "math.csv")["qa"].tolist()
    drawn = CalibrationSet("math", tuple(texts), "").multiplicities(12, 2, 42)[1]
    used = np.flatnonzero(drawn)
    scores = reference.scores(model, [tokenizer.encode(texts[i]) for i in used], drawn[used])
    found = mask(shared, "wanda/calculate0.05_run1")
    differing = 0
    for name, score in scores.items():
        count = int(score.size * 0.05)
        selected = found.tensor(f"{name}.weight").numpy()
        assert selected.sum() == count
        differing += int((selected != reference.top_k(score, count)).sum())
    # Float32 may exchange neighbours at a boundary, no more.
    assert differing <= 2


def test_wanda_has_one_cell_per_repeat(shared):
    rows = table(shared).query("method == 'wanda' and task == 'demo_race'")
    assert len(rows) == 2 * 2
    assert rows["against"].isna().all()
    assert rows["topk_share"].eq(1).all()


def test_the_mask_and_what_was_taken_off_make_up_wanda(shared):
    wanda = mask(shared, "wanda/calculate0.05_run0")
    ours = mask(shared, "Race_calculate0.05_run0")
    assert (ours - wanda).count() == 0
    # What math and Race have in common is missing from both differences.
    races = mask(shared, "skill_Race/math_calculate0.05_run0")
    common = wanda - ours
    assert (races & wanda).count() == 0
    assert races.count() == wanda.count() - common.count()


def test_another_skill_takes_math_as_one_of_the_others(shared):
    rows = table(shared).query("skill == 'Race' and task == 'demo_race' and repeat == 0")
    assert sorted(rows["against"].unique()) == ["MMLU", "math"]
    text = (shared / "eval_results" / MODEL / "results.txt").read_text()
    assert "Control: pruning another skill" in text
    assert re.search(r"\n  Race +MathNeuro +math +demo_\w+ +\d", text)


def test_one_table_has_every_method_on_equal_terms(shared):
    rows = table(shared)
    assert set(rows["method"]) == {"baseline", "mathneuro", "random", "wanda", "lape"}
    place = ["against", "size", "repeat"]
    edited = rows[(rows["task"] == "demo_race") & (rows["skill"] == "math")]
    ours = edited[edited["method"] == "mathneuro"].set_index(place)["edited"].sort_index()
    twins = edited[edited["method"] == "random"].set_index(place)["edited"].sort_index()
    pd.testing.assert_series_equal(ours, twins)
    comparison = pd.read_csv(shared / "comparison.csv")
    # The random model solves none of the math task, so that there is nothing to remove.
    assert comparison.empty


def test_statistics_are_computed_once(shared, tiny_model, tmp_path, monkeypatch):
    passes = []

    usual = STATISTICS[ACTIVATION_NORMS]

    def counted(model, targets, scoring):
        passes.append(len(scoring.samples))
        return usual.collect(model, targets, scoring)

    norms = replace(usual, collect=counted)
    monkeypatch.setitem(STATISTICS, ACTIVATION_NORMS, norms)
    one = SCRIPTS["ablations"].one()
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path, *one, "--methods", "wanda") == 0
    assert len(passes) == 1, "Wanda needs the skill's statistics alone"
    assert SCRIPTS["ablations"].run(tiny_model, tmp_path, *one, "--methods", "random") == 0
    assert len(passes) == 3
    assert SCRIPTS["mathneuro"].run(tiny_model, tmp_path, *one) == 0
    assert SCRIPTS["mathneuro"].run(tiny_model, tmp_path, *one, "--skill", "MMLU") == 0
    assert len(passes) == 3


def test_lape_says_how_many_neurons(shared, tiny_model, tmp_path, capsys):
    for path in (shared / "cells" / MODEL / "lape").glob("*.json"):
        record = json.loads(path.read_text())
        units = record["units"]
        assert units["all"] == 80
        assert 0 <= units["skill"] <= units["selected"] <= 40
        assert record["edited"] == 24 * units["skill"]
    # round(80 × .005) = 0 neurons: a result, and the model is as it was.
    flags = ["--ratio", "0.005", "--num_repeats", "1", "--pre_train_eval"]
    assert SCRIPTS["lape"].run(tiny_model, tmp_path, *flags) == 0
    output = capsys.readouterr().out
    assert "lape/run0_ratio0.005: 0 of 80 neurons selected, 0 belong to the skill" in output
    assert "the model is evaluated unedited" in output
    rows = table(tmp_path).query("method == 'lape'")
    assert rows["edited"].eq(0).all()
    # Two of the metrics display the perplexity, and are not compared.
    assert rows["difference"].dropna().tolist() == [0] * 4


def test_lape_is_over_all_sets_so_that_another_one_is_refused(shared, tiny_model, capsys):
    flags = ["--calibration_datasets", str(ROOT / "data" / "demo" / "race.csv")]
    flags += ["--calibration_dataset_names", "Race"]
    assert SCRIPTS["lape"].run(tiny_model, shared, *flags) == 2
    assert "--calibration_dataset_names Race: the results in" in capsys.readouterr().err


def test_a_model_without_mlp_activations_is_refused(tiny_model, tmp_path, monkeypatch, capsys):
    without = replace(STATISTICS[FIRING_COUNTS], find=lambda _: [])
    monkeypatch.setitem(STATISTICS, FIRING_COUNTS, without)
    assert SCRIPTS["lape"].run(tiny_model, tmp_path) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "has no MLP with an activation module between linear modules" in error


def cell(
    method: str, against: str, size: float, scalar: float, repeat: int, skill: str = MATH
) -> CellKey:
    return CellKey(SelectionKey(method, skill, against, size, repeat), scale_by(scalar))


def test_stems():
    assert cell("mathneuro", "Race", 0.05, 0.0, 2).stem == "Race_calculate0.05_run2"
    assert cell("random", "Race", 0.05, 1.1, 0).stem == "random/Race_calculate0.05_run0_scalar1.1"
    assert cell("wanda", "", 0.05, 0.0, 0).stem == "wanda/calculate0.05_run0"
    assert cell("lape", "", 0.05, 0.5, 1).stem == "lape/run1_ratio0.05_scalar0.5"
    assert cell("random", "math", 0.05, 0.0, 0, "Race").stem == (
        "skill_Race/random/math_calculate0.05_run0"
    )
    assert CellKey().stem == "pre_results"
    # A selection serves every scalar, so that its files do not name one.
    assert cell("lape", "", 0.05, 0.5, 1).selection.stem == "lape/run1_ratio0.05"


def test_a_cell_is_the_same_when_it_is_read_back():
    for key in (CellKey(), cell("mathneuro", "Race", 0.05, 1.1, 2, "MMLU")):
        assert CellKey.from_record(json.loads(json.dumps(key.record()))) == key
    assert cell("lape", "", 0.05, 0.5, 1).record() == {
        "method": "lape",
        "calibration": "",
        "proportion": 0.05,
        "scalar": 0.5,
        "repeat": 1,
        "skill": "math",
    }


def test_a_ranking_serves_every_method(ragged_samples):
    """The cutoffs of one ranking, kept as numbers, give the masks of a fresh one."""
    model = build_model("llama")
    targets = find_targets(model)
    (norms,) = collect_activation_norms(model, targets, ragged_samples, np.ones((1, 11), int))
    both = TopK(targets, norms, [0.01, 0.1])
    assert both.mask(0.01) == TopK(targets, norms, [0.01]).mask(0.01)
    assert both.mask(0.1) == TopK(targets, norms, [0.1]).mask(0.1)
