"""A `consistency` that is killed goes on where it was, and ends with the same numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from scripts import DEMO_DATA

from neurosurgery.__main__ import main
from neurosurgery.localisation.consistency import Pair, Subset
from neurosurgery.masks.overlap import Overlap
from neurosurgery.studies.checkpoint import SubsetCheckpoint


class Killed(BaseException):
    """Nothing that the code under test would catch."""


def consistency(model: Path, save_path: Path, *flags: str) -> int:
    argv = ["consistency", "--model", str(model), "--save_path", str(save_path), *DEMO_DATA]
    small = ["--sizes", "1", "5", "--num_subsets", "2", "--proportion", "0.02", "0.05"]
    return main([*argv, *small, *flags])


def file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory) -> pd.DataFrame:
    save_path = tmp_path_factory.mktemp("whole")
    assert consistency(tiny_model, save_path) == 0
    assert file_names(save_path) == {"consistency.csv", "config.json", ".lock"}
    return pd.read_csv(save_path / "consistency.csv")


@pytest.mark.parametrize("kept", ["keep_norms", "keep_overlaps"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_was_kept_is_not_computed_again(
    kept, number, whole, tiny_model, tmp_path, monkeypatch
):
    """Killed as soon as so many sets, or so many weight matrices, are kept."""
    from neurosurgery.localisation import consistency as module

    passes, compared = [], []
    collect, compare = module.collect_from_set, module.compare_subsets

    def counted_pass(kind, loaded, parts, calibration_set, *rest):
        passes.append(calibration_set.name)
        return collect(kind, loaded, parts, calibration_set, *rest)

    def counted_comparison(target, *rest):
        compared.append(target.name)
        return compare(target, *rest)

    monkeypatch.setattr(module, "collect_from_set", counted_pass)
    monkeypatch.setattr(module, "compare_subsets", counted_comparison)
    with monkeypatch.context() as patch:
        keep, calls = getattr(SubsetCheckpoint, kept), []

        def keep_and_die(*arguments):
            keep(*arguments)
            calls.append(0)
            if len(calls) == number:
                raise Killed

        patch.setattr(SubsetCheckpoint, kept, keep_and_die)
        with pytest.raises(Killed):
            consistency(tiny_model, tmp_path)
    assert not (tmp_path / "consistency.csv").exists()
    before = len(passes), len(compared)
    assert before == ((number, 0) if kept == "keep_norms" else (3, number))
    assert consistency(tiny_model, tmp_path) == 0
    assert sorted(passes) == ["MMLU", "Race", "math"]
    assert len(set(compared)) == len(compared) == 14
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "consistency.csv"), whole, check_exact=True
    )
    assert file_names(tmp_path) == {"consistency.csv", "config.json", ".lock"}


def test_another_measurement_finds_nothing(tmp_path):
    subsets = {Subset(10, 0): torch.rand(3), Subset(2, 1): torch.rand(3)}
    norms = {subset: {"a/b": vector} for subset, vector in subsets.items()}
    overlaps = {Pair("Race", 2, 0.1, 0, 1): Overlap(9, 4, 3, 2, 1 / 3)}
    one, other = (SubsetCheckpoint(tmp_path, {"seed": seed}) for seed in (1, 2))
    one.keep_norms("Race", norms)
    one.keep_overlaps(5, overlaps)
    found = SubsetCheckpoint(tmp_path, {"seed": 1}).norms("Race")
    assert list(found) == sorted(norms)
    for subset, vector in subsets.items():
        assert torch.equal(found[subset]["a/b"], vector)
    assert SubsetCheckpoint(tmp_path, {"seed": 1}).overlaps() == (5, overlaps)
    assert one.norms("MMLU") is None
    assert other.norms("Race") is None
    assert other.overlaps() == (0, {})
    other.clear()
    assert list(tmp_path.iterdir()) == []
