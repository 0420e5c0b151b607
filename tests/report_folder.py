"""A results folder with made-up but plausible numbers, for the report's tests."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from neurosurgery.config.methods import METHODS
from neurosurgery.masks.files import write_mask_file
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.results.store import FORMAT
from neurosurgery.verdicts.columns import COLUMNS, GRID

PROPORTIONS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.15)
SETS = ("Race", "MMLU")
TASKS = {
    "demo_gsm8k_cot": ("exact_match,last-number", 0.86, 0.0),
    "demo_race": ("acc,none", 0.875, 0.25),
    "demo_mmlu": ("acc,none", 0.70, 0.25),
    "demo_stories": ("word_perplexity,none", 2.02, 0.0),
}
MODULES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
LAYERS = 6
PARAMETERS = 3_800_000
_KEYS = [*GRID, "task", "metric"]


@dataclass
class FakeFolder:
    """What to write; every field can be made smaller."""

    model: str = "fake-model"
    methods: Sequence[str] = ("mathneuro", "random", "wanda", "lape")
    sets: Sequence[str] = SETS
    proportions: Sequence[float] = PROPORTIONS
    scalars: Sequence[float] = (0.0,)
    repeats: int = 3
    tasks: dict[str, tuple[str, float, float]] = field(default_factory=lambda: dict(TASKS))
    skills: Sequence[str] = ("math",)
    baseline: bool = True

    def rows(self) -> pd.DataFrame:
        """results.csv."""
        rows = [self._baseline_row(task) for task in self.tasks] if self.baseline else []
        for skill in self.skills:
            for method in self.methods:
                for against in self._sets(skill, method):
                    for proportion in self.proportions:
                        for scalar in self.scalars:
                            for repeat in range(self.repeats):
                                key = (skill, method, against, proportion, scalar, repeat)
                                rows += [self._row(task, *key) for task in self.tasks]
        return pd.DataFrame(rows)

    def _sets(self, skill: str, method: str) -> Sequence[str]:
        if method in ("wanda", "lape"):
            return ("",)
        return self.sets if skill == "math" else ("math",)

    def _baseline_row(self, task: str) -> dict:
        metric, value, chance = self.tasks[task]
        return {
            "model": self.model,
            "method": "baseline",
            "task": task,
            "metric": metric,
            "value": value,
            "stderr": 0.02,
            "n": 200,
            "edited": 0,
            "edited_share": 0,
            "skill": "",
            "chance": chance or "",
            "seconds": 1.5,
        }

    def _row(self, task, skill, method, against, proportion, scalar, repeat) -> dict:
        metric, baseline, chance = self.tasks[task]
        first = task == next(iter(self.tasks))
        value = edited_value(task, metric, baseline, chance, first and skill == "math", method,
                             against, proportion, scalar, repeat)  # fmt: skip
        half = 0.06 if metric.startswith(("acc", "exact")) else 0.015
        difference = value - baseline
        share = 0.55 - 0.15 * math.log10(proportion * 1000) + 0.03 * (against == "MMLU")
        share = 1.0 if method == "wanda" else share
        edited = round(PARAMETERS * proportion * share)
        before = self.baseline
        return {
            "model": self.model,
            "method": method,
            "against": against,
            "size": proportion,
            "edit_value": scalar,
            "repeat": repeat,
            "task": task,
            "metric": metric,
            "value": value,
            "stderr": 0.02,
            "n": 200,
            "baseline": baseline if before else "",
            "difference": difference if before else "",
            "ci_low": difference - half if before else "",
            "ci_high": difference + half if before else "",
            "p_value": 0.0004 if before and abs(difference) > 0.1 else 0.4 if before else "",
            "edited": edited,
            "edited_share": edited / PARAMETERS,
            "topk_share": "" if method == "lape" else share,
            "seconds": 2.5,
            "skill": skill,
            "chance": chance or "",
            "retention": "",
        }

    def summary(self, rows: pd.DataFrame) -> pd.DataFrame:
        """summary.csv: means over repeats with a narrower interval."""
        edited = rows[rows["method"] != "baseline"]
        table = []
        for key, group in edited.groupby(_KEYS, sort=False):
            numbers = group.apply(pd.to_numeric, errors="coerce")
            difference = numbers["difference"].mean()
            half = 0.8 * (numbers["ci_high"] - numbers["ci_low"]).mean() / 2
            table.append(
                dict(zip(_KEYS, key, strict=True))
                | {
                    "model": self.model,
                    "repeats": len(group),
                    "value": numbers["value"].mean(),
                    "baseline": numbers["baseline"].mean(),
                    "difference": difference,
                    "ci_low": difference - half,
                    "ci_high": difference + half,
                    "p_value": numbers["p_value"].max(),
                    "margin": 0.03,
                    "retention_low": numbers["retention"].min() - 0.05,
                    "retention_high": numbers["retention"].max() + 0.05,
                    "verdict": "",
                }
            )
        return pd.DataFrame(table)

    def write(self, path: Path) -> Path:
        """Write the tables and config.json."""
        path.mkdir(parents=True, exist_ok=True)
        rows = self.rows()
        write_csv(complete(rows), path / "results.csv")
        if len(rows[rows["method"] != "baseline"]):
            write_csv(self.summary(complete(rows)), path / "summary.csv")
        math_task, *others = self.tasks
        config = {
            "format": FORMAT,
            "meaning": {
                "--model": self.model,
                "--train_lm_eval_task": math_task,
                "--eval_datasets": sorted(others),
                "--random_state": 42,
            },
            "runs": [
                {
                    "command": ["MathNeuro.py", "--save_path", "results/fake", "--overwrite"],
                    "started": "2026-11-21T08:27:27+00:00",
                    "python": "3.11.7",
                    "versions": {"torch": "2.13.0"},
                    "device": "cpu",
                    "machine": "Linux x86_64",
                    "threads": 2,
                }
            ],
        }
        (path / "config.json").write_text(json.dumps(config))
        return path


def edited_value(
    task, metric, baseline, chance, is_math, method, against, proportion, scalar, repeat
) -> float:
    """A smooth fall with the proportion, a little different for every method and repeat."""
    reach = proportion**0.8 / 0.04**0.8
    strength = {"mathneuro": 1.0, "random": 0.12, "wanda": 1.2, "lape": 0.4}.get(method, 0.3)
    strength *= {"Race": 0.85, "MMLU": 1.0}.get(against, 1.0)
    wobble = 0.012 * math.sin(7 * repeat + 40 * proportion + len(task) + len(method))
    damage = 1 - math.exp(-strength * reach)
    if not is_math:
        damage *= {"mathneuro": 0.08, "random": 0.9, "wanda": 0.75, "lape": 0.5}.get(method, 1.0)
    if scalar:
        damage = -0.12 * math.exp(-((scalar - 1.1) ** 2) / 0.01) if is_math else abs(scalar - 1) / 4
    if metric.startswith("word_perplexity"):
        return round(baseline * (1 + max(0.0, damage) * 1.5 + abs(wobble)), 6)
    return round(min(1.0, max(0.0, chance + (baseline - chance) * (1 - damage) + wobble)), 6)


def complete(rows: pd.DataFrame) -> pd.DataFrame:
    """All columns of results.csv: no skill is math, no edit a scaling, no chance 0.

    Retention is by its definition.
    """
    table = rows.reindex(columns=COLUMNS)
    edited = table["method"] != "baseline"
    table["edit"] = table["edit"].astype(object).where(table["edit"].notna() | ~edited, "scale")
    table["size_unit"] = [
        METHODS[name].size_unit if name in METHODS else "" for name in table["method"]
    ]
    table["skill"] = [skill or "math" for skill in table["skill"].astype(object).fillna("")]
    table["chance"] = pd.to_numeric(table["chance"], errors="coerce").fillna(0.0)
    value, before = (pd.to_numeric(table[name], errors="coerce") for name in ("value", "baseline"))
    above = (before - table["chance"]).where(before > table["chance"])
    accuracy = (value - table["chance"]) / above
    lower_is_better = table["metric"].str.startswith("word_perplexity")
    table["retention"] = (before / value).where(lower_is_better, accuracy)
    return table


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """As the scripts write."""
    table.to_csv(path, index=False, float_format="%.10g", lineterminator="\n")


def write_masks(path: Path, model: str = "fake-model", proportions: Sequence[float] = (0.01, 0.05)):
    """Masks of two repeats: more is selected in later layers and in down_proj."""
    generator = np.random.default_rng(0)
    for method, against in (("mathneuro", "Race"), ("mathneuro", "MMLU"), ("wanda", "")):
        for proportion in proportions:
            for repeat in range(2):
                packed, shapes, counts = {}, {}, {}
                for layer in range(LAYERS):
                    for module in MODULES:
                        name = f"model.layers.{layer}.{module}.weight"
                        shapes[name] = (48, 16) if "mlp" in module else (16, 16)
                        weight = (1 + layer / 3) * (2 if "down" in module else 1)
                        bits = generator.random(shapes[name]) < proportion * weight
                        packed[name] = np.packbits(bits.reshape(-1))
                        counts[name] = int(bits.sum())
                stem = f"{against}_calculate" if against else "calculate"
                folder = path / "masks" / model / ("" if method == "mathneuro" else method)
                write_mask_file(
                    folder / f"{stem}{proportion}_run{repeat}.safetensors",
                    ParameterMask(packed, shapes),
                    {
                        "model": model,
                        "skill": "math",
                        "method": method,
                        "calibration": against,
                        "proportion": proportion,
                        "repeat": repeat,
                        "seed": 42,
                        "counts": counts,
                    },
                )


def write_consistency(path: Path, model: str = "fake-model") -> None:
    """consistency.csv: overlap rises with samples; two pairs of subsets each."""
    rows = []
    for against in SETS:
        for samples in (1, 10, 50, 100, 500):
            for proportion in (0.001, 0.01, 0.05):
                size = round(PARAMETERS * proportion / 2)
                for pair in (0, 1):
                    share = 0.95 - 0.35 / (1 + math.log10(samples)) - 0.02 * pair - proportion
                    rows.append(
                        {
                            "model": model,
                            "against": against,
                            "num_samples": samples,
                            "proportion": proportion,
                            "subset_a": 0,
                            "subset_b": pair + 1,
                            "count_a": size,
                            "count_b": size + 10,
                            "overlap": share - 0.001,
                            "jaccard": share / (2 - share),
                            "overlap_coefficient": share,
                            "overlap_by_chance": size / PARAMETERS,
                            "jaccard_by_chance": proportion / 4,
                        }
                    )
    write_csv(pd.DataFrame(rows), path / "consistency.csv")


def write_comparison(path: Path) -> None:
    """comparison.csv with a row per method and set, and one per method over its sets."""
    rows = []
    for index, (method, against) in enumerate(
        [("mathneuro", "Race"), ("mathneuro", "MMLU"), ("mathneuro", ""), ("wanda", "")]
    ):
        row: dict[str, object] = {"skill": "math", "method": method, "against": against}
        for quantity in ("loss_at_half_mean", "loss_at_half_worst", "area_mean", "area_worst"):
            value = 0.02 + 0.1 * index if quantity.startswith("loss") else 0.95 - 0.1 * index
            row |= {
                quantity: value,
                f"{quantity}_low": value - 0.01,
                f"{quantity}_high": value + 0.01,
            }
        if method == "wanda":
            row |= {name: math.nan for name in row if name.startswith("loss")}
        rows.append(row | {"reached": 3 * (method != "wanda"), "curves": 3, "repeats": 3})
    write_csv(pd.DataFrame(rows), path / "comparison.csv")


def write_factor(path: Path, model: str, scalar: float, low: float, high: float) -> None:
    """A cell's record whose weights could not keep the scalar."""
    cell = path / "cells" / model / f"Race_calculate0.01_run0_scalar{scalar}.json"
    cell.parent.mkdir(parents=True, exist_ok=True)
    key = {
        "skill": "math",
        "method": "mathneuro",
        "calibration": "Race",
        "proportion": 0.01,
        "scalar": scalar,
        "repeat": 0,
    }
    cell.write_text(json.dumps({"key": key, "factor": [scalar, low, high]}))
