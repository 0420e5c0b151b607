"""`consistency`: draws, one pass, masks against the straight way, the file and its folder."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, build_model

import MathNeuro
from neurosurgery.__main__ import main
from neurosurgery.consistency import (
    Subset,
    compare_subsets,
    measure_consistency,
    subset_multiplicities,
    usable_sizes,
)
from neurosurgery.dataset import CalibrationSet
from neurosurgery.masks import TopK
from neurosurgery.models import LoadedModel, find_targets
from neurosurgery.scoring import collect_activation_norms

COLUMNS = (
    "model calibration num_samples proportion subset_a subset_b count_a count_b overlap jaccard "
    "overlap_coefficient overlap_by_chance jaccard_by_chance"
).split()
SUBSETS = [Subset(size, number) for size in (1, 4) for number in range(3)]
PROPORTIONS = [0.02, 0.1]


def texts(name: str, count: int) -> CalibrationSet:
    words = "Mia has three apples and buys four more at the old market".split()
    draw = np.random.default_rng(len(name))
    samples = (" ".join(draw.choice(words, draw.integers(2, 20))) for _ in range(count))
    return CalibrationSet(name, tuple(samples), "")


SETS = {name: texts(name, count) for name, count in (("math", 12), ("Race", 9), ("MMLU", 3))}


@pytest.fixture
def loaded(tokenizer) -> LoadedModel:
    return LoadedModel(build_model("llama"), tokenizer, "float32")


def measure(loaded: LoadedModel) -> pd.DataFrame:
    sizes = usable_sizes((1, 4, 100), SETS)
    return measure_consistency(loaded, SETS, sizes, 3, PROPORTIONS, seed=7, batch_tokens=1)


def test_subsets_are_drawn_without_replacement():
    drawn = subset_multiplicities(SETS["math"], SUBSETS, 7)
    assert drawn.shape == (6, 12)
    assert drawn.sum(axis=1).tolist() == [1, 1, 1, 4, 4, 4]
    assert drawn.max() == 1
    assert len({tuple(row) for row in drawn[3:]}) == 3


def test_every_subset_has_a_generator_of_its_own():
    """A subset does not depend on which others are asked for; it does on seed, number and set."""
    together = subset_multiplicities(SETS["math"], SUBSETS, 7)
    alone = subset_multiplicities(SETS["math"], [SUBSETS[4]], 7)
    assert np.array_equal(alone[0], together[4])
    assert not np.array_equal(together[4], subset_multiplicities(SETS["math"], SUBSETS, 8)[4])
    other = CalibrationSet("other", SETS["math"].samples, "")
    assert not np.array_equal(together, subset_multiplicities(other, SUBSETS, 7))
    with pytest.raises(ValueError, match="larger sample"):
        subset_multiplicities(SETS["MMLU"], SUBSETS, 7)


def test_sizes_reach_as_far_as_the_smaller_of_both_files():
    assert usable_sizes((1, 4, 9, 10), SETS) == {"Race": (1, 4, 9), "MMLU": (1,)}


def test_one_forward_pass_per_sample_drawn(loaded):
    """However many subsets hold it, and however many proportions are asked for."""
    seen = 0

    def count(_module, arguments):
        nonlocal seen
        seen += len(arguments["input_ids"])

    loaded.model.base_model.register_forward_pre_hook(
        lambda module, _inputs, arguments: count(module, arguments), with_kwargs=True
    )
    measure(loaded)
    drawn = {
        "math": subset_multiplicities(SETS["math"], SUBSETS, 7),
        "Race": subset_multiplicities(SETS["Race"], SUBSETS, 7),
        "MMLU": subset_multiplicities(SETS["MMLU"], SUBSETS[:3], 7),
    }
    unique = sum(int(of_set.any(axis=0).sum()) for of_set in drawn.values())
    assert seen == unique
    assert unique < sum(int(of_set.sum()) for of_set in drawn.values())


def test_the_table_is_that_of_masks_made_one_by_one(loaded):
    """Each subset scored in a run of its own, its mask whole in memory, compared as a user would.

    A batch per sample on both sides, so that no rounding differs.
    """
    targets = find_targets(loaded.model)

    def top_k(name: str, subset: Subset, proportion: float):
        [drawn] = subset_multiplicities(SETS[name], [subset], 7)
        ids = [loaded.tokenizer.encode(SETS[name].samples[i]) for i in np.flatnonzero(drawn)]
        ones = np.ones((1, len(ids)), np.int64)
        [norms] = collect_activation_norms(loaded.model, targets, ids, ones, batch_tokens=1)
        return TopK(targets, norms, [proportion]).mask(proportion)

    table = measure(loaded)
    expected = [
        (calibration, size, proportion, a, b)
        for calibration, sizes in (("Race", (1, 4)), ("MMLU", (1,)))
        for size in sizes
        for proportion in PROPORTIONS
        for a, b in combinations(range(3), 2)
    ]
    places = table[["calibration", "num_samples", "proportion", "subset_a", "subset_b"]]
    assert list(places.itertuples(index=False, name=None)) == expected
    for _, row in table.iterrows():
        masks = [
            top_k("math", Subset(row["num_samples"], number), row["proportion"])
            - top_k(row["calibration"], Subset(row["num_samples"], number), row["proportion"])
            for number in (row["subset_a"], row["subset_b"])
        ]
        assert [row["count_a"], row["count_b"]] == [mask.count() for mask in masks]
        common = (masks[0] & masks[1]).count()
        assert row["jaccard"] == masks[0].jaccard(masks[1])
        assert row["overlap"] == common / ((masks[0].count() + masks[1].count()) / 2)
        assert row["overlap_coefficient"] == common / min(mask.count() for mask in masks)
        assert 0 < row["jaccard_by_chance"] < row["overlap_by_chance"] < 0.2


def test_equal_samples_agree_and_chance_does_not_care(loaded):
    targets = find_targets(loaded.model)
    generator = torch.Generator().manual_seed(0)

    def vectors():
        return {
            target.name: torch.rand(target.in_features, generator=generator).double()
            for target in targets
        }

    math, race = vectors(), vectors()
    same = {Subset(5, 0): math, Subset(5, 1): math}
    norms = {"math": same, "Race": {Subset(5, 0): race, Subset(5, 1): race}}
    [found] = compare_subsets(targets, norms, [0.1]).values()
    assert found.jaccard == found.overlap == 1
    assert found.overlap_by_chance < 0.2


# The command


def consistency(model, save_path, *flags: str) -> int:
    argv = ["consistency", "--model", str(model), "--save_path", str(save_path)]
    small = ["--sizes", "1", "5", "--num_subsets", "2", "--proportion", "0.05"]
    return main([*argv, *small, *flags])


def test_in_the_folder_of_a_run(tiny_model, tmp_path, capsys):
    """Beside the scripts' results, which stay as they are and go on afterwards."""
    flags = "--proportion 0.05 --num_repeats 1 --num_samples 5 --eval_limit 2".split()
    script = ["--model", str(tiny_model), "--save_path", str(tmp_path), *flags]
    assert MathNeuro.main(script) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert consistency(tiny_model, tmp_path) == 0
    output = capsys.readouterr().out
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    content = after.pop(tmp_path / "consistency.csv")
    assert after == before
    table = pd.read_csv(tmp_path / "consistency.csv")
    assert list(table.columns) == COLUMNS
    assert table["model"].unique().tolist() == ["tiny-llama"]
    assert table["calibration"].tolist() == ["Race", "Race", "MMLU", "MMLU"]
    assert f"{table['overlap'][0]:.3f}" in output

    assert consistency(tiny_model, tmp_path) == 2
    assert "holds consistency.csv; --overwrite replaces it" in capsys.readouterr().err
    torch.manual_seed(3)
    assert consistency(tiny_model, tmp_path, "--overwrite") == 0
    assert (tmp_path / "consistency.csv").read_bytes() == content
    assert MathNeuro.main(script) == 0
    assert (tmp_path / "consistency.csv").read_bytes() == content


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files to point bad flags at."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "good.csv").write_text("qa\nhello\nyou\n")
    (folder / "columns.csv").write_text("text\na\n")
    for name, meaning in (("another", {"--model": "gpt2"}), ("revised", {"--revision": "v9"})):
        (folder / name).mkdir()
        config = {"format": "neurosurgery-results/1", "meaning": meaning}
        (folder / name / "config.json").write_text(json.dumps(config))
    (folder / "foreign").mkdir()
    (folder / "foreign" / "results.csv").write_text("mine")
    (folder / "file").write_text("")
    (folder / "taken" / "consistency.csv").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--sizes 0", "--sizes 0: expected whole numbers of at least 1"),
        (
            "--sizes 1 3 --train_dataset {0}/good.csv",
            "--sizes 3: {0}/good.csv has only 2 samples",
        ),
        ("--num_subsets 1", "--num_subsets 1: expected a whole number of at least 2"),
        ("--random_state -1", "--random_state -1: expected a whole number of at least 0"),
        ("--batch_tokens 0", "--batch_tokens 0: expected a whole number of at least 1"),
        ("--proportion 2", "--proportion 2.0: expected a fraction in (0, 1]"),
        ("--train_dataset {0}/none.csv", "--train_dataset {0}/none.csv: No such file"),
        ("--calibration_datasets {0}/columns.csv", "has the columns text; expected qa"),
        (
            "--calibration_datasets {0}/good.csv --calibration_dataset_names math",
            "is the name of the math set",
        ),
        ("--save_path {0}/file", "--save_path {0}/file: expected a folder"),
        ("--save_path {0}/foreign", "holds results.csv, but no results of ours"),
        ("--save_path {0}/another", "--model tiny-llama: the results in {0}/another were made"),
        ("--save_path {0}/revised", "--revision None: the results in {0}/revised were made with"),
        ("--save_path {0}/taken --overwrite", "holds a folder consistency.csv"),
        ("--model {0}", "--model {0}: expected a folder with a config.json"),
        ("--device cuda:77", "--device cuda:77: expected a device of this machine"),
        ("--device cpu --device_map auto", "--device cpu: cannot be had with --device_map"),
        ("--scalar 0", "unrecognized arguments: --scalar 0"),
    ],
)
def test_refused_in_one_line(flags, message, folder, tiny_model, capsys, monkeypatch):
    monkeypatch.setattr(
        "neurosurgery.models.load_model", lambda *_: pytest.fail("a model was loaded")
    )
    before = sorted(folder.rglob("*"))
    argv = ["consistency", "--model", str(tiny_model), *flags.format(folder).split()]
    if "--save_path" not in argv:
        argv += ["--save_path", str(folder / "new")]
    try:
        status = main(argv)
    except SystemExit as error:
        status = error.code
    error = capsys.readouterr().err
    assert status == 2
    assert message.format(folder) in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


def test_no_flags_mean_the_demo(tmp_path, monkeypatch):
    """What a call without flags asks for; nothing is measured here."""
    calls = []

    def remember(_loaded, sets, sizes, num_subsets, proportions, *_rest):
        calls.append((list(sets), sizes, num_subsets, proportions))
        return pd.DataFrame(columns=COLUMNS[1:])

    monkeypatch.setattr("neurosurgery.consistency.measure_consistency", remember)
    monkeypatch.setattr("neurosurgery.consistency.consistency_text", lambda _table: "")
    monkeypatch.chdir(tmp_path)
    assert main(["consistency"]) == 0
    sizes = (1, 10, 50, 100, 500)
    grid = (0.001, 0.005, 0.01, 0.05, 0.075, 0.1)
    assert calls == [(["math", "Race", "MMLU"], {"Race": sizes, "MMLU": sizes}, 5, grid)]
    assert (tmp_path / "results" / "demo" / "consistency.csv").exists()
    assert main(["consistency", "--model", str(ROOT / "demo" / "model"), "--overwrite"]) == 0
    assert calls[1][3] == (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15)
