"""Shards of trainings and of path patching, put together, are what one run leaves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scripts import DEMO_DATA, without_timings

import FineTune
import PathPatching
from neurosurgery.__main__ import main
from neurosurgery.settings.demo import DEMO

TASKS = ["--train_lm_eval_task", "demo_gsm8k_cot", "--eval_datasets", "demo_race", "demo_stories"]
TRAINED = (
    "--num_repeats 1 --num_samples 6 --eval_limit 4 --max_steps 4 --train_batch_size 2".split()
)
TRAINED += "--learning_rate 0.01 --proportion 0.2 --selection mathneuro wanda".split()
PATCHED = "--num_prompts 40 --num_draws 2 --top 1 2 --num_repeats 1 --eval_limit 4".split()


def train(model: Path, save_path: Path, *more: str) -> int:
    where = ["--model", str(model), "--save_path", str(save_path)]
    return FineTune.main(
        [*where, *DEMO_DATA, "--train_data", DEMO.train_data, *TASKS, *TRAINED, *more]
    )


def patch(_model: Path, save_path: Path, *more: str) -> int:
    return PathPatching.main(["--save_path", str(save_path), *PATCHED, *more])


@pytest.mark.parametrize(
    ("run", "kept"),
    [(train, ("deltas", "training", "training.csv")), (patch, ("path_patching", "masks"))],
    ids=["trainings", "path patching"],
)
def test_two_shards_are_one_run(run, kept, tiny_model, tmp_path, capsys):
    whole, merged = tmp_path / "whole", tmp_path / "merged"
    assert run(tiny_model, whole) == 0
    shards = [tmp_path / "s1", tmp_path / "s2"]
    for number, folder in enumerate(shards, 1):
        assert run(tiny_model, folder, "--shard", f"{number}/2") == 0
    cells = [len(pd.read_csv(one / "results.csv")["method"].dropna()) for one in shards]
    assert min(cells) < len(pd.read_csv(whole / "results.csv"))
    assert main(["merge", *map(str, shards), "--output", str(merged)]) == 0
    assert without_timings(merged) == without_timings(whole)
    for name in ("summary.csv", "comparison.csv", "statistics", *kept):
        mine, its = (
            {path.relative_to(root): path.read_bytes() for path in files(root / name)}
            for root in (merged, whole)
        )
        assert mine == its, name
    capsys.readouterr()
    assert run(tiny_model, merged) == 0
    assert "grid:" not in capsys.readouterr().err


def files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
