"""A results folder with made-up but plausible numbers, for the report's tests."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from neurosurgery.edit.kinds import scale_by
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.masks.files import write_mask_file
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import CellKey
from neurosurgery.results.store import FORMAT, ResultStore
from neurosurgery.verdicts.columns import COLUMNS, GRID, SUMMARY_COLUMNS
from neurosurgery.verdicts.isolation import AT_EQUAL_DAMAGE, COMPARISON_COLUMNS, POINT_COLUMNS

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
MARGIN = 0.03
_TEXTS = "method skill against size_unit edit".split()
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
    skill_name: str = "math"

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
        table = pd.DataFrame(rows)
        for name in ("skill", "against"):
            if name in table:
                table[name] = table[name].replace("math", self.skill_name)
        return table

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
        half = 0.015 if is_perplexity(metric) else 0.06
        difference = math.log(value / baseline) if is_perplexity(metric) else value - baseline
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
            "unit": unit_of(metric) if before else "",
            "value": value,
            "stderr": 0.02,
            "n": 200,
            "baseline": baseline if before else "",
            "difference": difference if before else "",
            "ci_low": difference - half if before else "",
            "ci_high": difference + half if before else "",
            "p_value": p_value_of(difference, half) if before else "",
            "edited": edited,
            "edited_share": edited / PARAMETERS,
            "topk_share": "" if method == "lape" else share,
            "seconds": 2.5,
            "skill": skill,
            "chance": chance or "",
            "retention": "",
        }

    def write(self, path: Path) -> Path:
        """Write the tables and config.json."""
        path.mkdir(parents=True, exist_ok=True)
        write_tables(path, complete(self.rows()), next(iter(self.tasks)))
        math_task, *others = self.tasks
        config = {
            "format": FORMAT,
            "identity": [
                {"setting": "model", "value": self.model},
                {"setting": "skill_task", "value": math_task},
                {"setting": "other_tasks", "value": sorted(others)},
                {"setting": "random_state", "value": 42},
            ],
            "runs": [
                {
                    "command": ["MathNeuro.py", "--save_path", "results/fake", "--overwrite"],
                    "script": "MathNeuro.py",
                    "settings": {
                        "margin": [str(MARGIN)],
                        "num_samples": 500,
                        "skill_name": self.skill_name,
                    },
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


def is_perplexity(metric: str) -> bool:
    """Whether lower is better, and differences are of logarithms."""
    return metric.startswith("word_perplexity")


def unit_of(metric: str) -> str:
    """What differences are in."""
    return "nats per word" if is_perplexity(metric) else "share"


def p_value_of(difference: float, half: float) -> float:
    """The p-value of a normal difference whose 95 % interval is ± `half`."""
    return float(2 * stats.norm.sf(1.96 * abs(difference) / half))


def verdict_of(difference: float, half: float) -> str:
    """The verdict by the 95 % interval, and by the 90 % interval of a normal difference."""
    if math.isnan(difference):
        return ""
    within = abs(difference) + half * 1.645 / 1.96 <= MARGIN
    if abs(difference) <= half:
        return "within the margin" if within else "undecided"
    word = "higher" if difference > 0 else "lower"
    return f"{word}, within the margin" if within else word


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
    lower_is_better = table["metric"].map(is_perplexity).astype(bool)
    table["retention"] = (before / value).where(lower_is_better, accuracy)
    return table


def summary_of(results: pd.DataFrame) -> pd.DataFrame:
    """summary.csv: means over repeats with a narrower interval, and every column filled."""
    edited = results[results["method"] != "baseline"]
    rows = [
        _point(dict(zip(_KEYS, key, strict=True)), group)
        for key, group in edited.groupby(_KEYS, sort=False, dropna=False)
    ]
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def _point(key: dict, repeats: pd.DataFrame) -> dict:
    numbers = repeats.apply(pd.to_numeric, errors="coerce")
    means = numbers[["value", "baseline", "difference", "retention"]].mean()
    failed = int(numbers["value"].isna().sum())
    difference = means["difference"]
    half = 0.8 * (numbers["ci_high"] - numbers["ci_low"]).mean() / 2
    unit = "" if math.isnan(means["baseline"]) else unit_of(key["metric"])
    if unit and is_perplexity(key["metric"]):
        means["value"] = means["baseline"] * math.exp(difference)
    row = key | {
        "model": repeats["model"].iloc[0],
        "unit": unit,
        "direction": "lower" if is_perplexity(key["metric"]) else "higher",
        "chance": numbers["chance"].iloc[0],
        "repeats": len(repeats),
        "n": numbers["n"].max(),
        "failed": failed,
        "baseline": means["baseline"],
        **numbers[["edited", "edited_share", "topk_share"]].mean(),
    }
    if failed:
        return row | {"verdict": "broken"}
    if not unit or math.isnan(difference):
        return row | {name: means[name] for name in ("value", "retention")}
    verdict, p_value = verdict_of(difference, half), p_value_of(difference, half)
    ends = [difference - half, difference + half]
    if is_perplexity(key["metric"]):
        low, high = (means["baseline"] * math.exp(end) for end in ends)
    else:
        low, high = (means["baseline"] + end for end in ends)
    undecided = verdict == "undecided"
    return row | means.to_dict() | {
        "value_low": low,
        "value_high": high,
        "ci_low": difference - half,
        "ci_high": difference + half,
        "p_value": p_value,
        "q_value": p_value,
        "holm_p": p_value,
        "margin": MARGIN,
        "verdict": verdict,
        "retention_low": means["retention"] - 0.05,
        "retention_high": means["retention"] + 0.05,
        "sd_documents": half / 1.96 * math.sqrt(200),
        "sd_repeats": 0.01 if len(repeats) > 1 else math.nan,
        "documents_needed": 800 if undecided else math.nan,
        "repeats_needed": len(repeats) if undecided else math.nan,
    }  # fmt: skip


def isolation_of(summary: pd.DataFrame, math_task: str) -> pd.DataFrame:
    """isolation.csv: the removed points by the retentions of a summary, with bars of ± .05."""
    removed = (summary["edit"] == "mean ablation") | (summary["edit_value"] == 0)
    rows = []
    for key, point in summary[removed].groupby(GRID, sort=False, dropna=False):
        kept = point.set_index("task")["retention"].astype(float)
        if (point["verdict"] == "broken").any() or math.isnan(kept.get(math_task, math.nan)):
            continue
        others = kept.drop(math_task).dropna().clip(0, 1)
        if others.empty:
            continue
        row = dict(zip(GRID, key, strict=True)) | {
            "repeats": point["repeats"].iloc[0],
            "worst_task": others.idxmin(),
            "left_out": "",
        }
        lost = min(max(1 - kept[math_task], 0), 1)
        for name, value in (
            ("removed", lost), ("kept_mean", others.mean()), ("kept_worst", others.min()),
        ):  # fmt: skip
            row |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(POINT_COLUMNS))


def write_tables(path: Path, results: pd.DataFrame, math_task: str) -> None:
    """results.csv, and what a run makes of it: summary.csv and isolation.csv."""
    summary = summary_of(results)
    write_csv(results, path / "results.csv")
    write_csv(summary, path / "summary.csv")
    write_csv(isolation_of(summary, math_task), path / "isolation.csv")


def read_csv(path: Path) -> pd.DataFrame:
    """A table whose texts are texts, and whose numbers numbers, also where all are missing."""
    empty = dict.fromkeys((*_TEXTS, "unit", "verdict", "control", "other", "left_out"), str)
    table = pd.read_csv(path, dtype=empty, keep_default_na=False, na_values=[""])
    return table.fillna({name: "" for name in empty if name in table})


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
    """comparison.csv: methods alone, per set and over sets, and one pair of them."""
    rows: list[dict[str, object]] = []
    of_both = {"skill": "math", "left_out": ""}
    quantities = ("loss_at_half_mean", "loss_at_half_worst", "area_mean", "area_worst")
    for index, (method, against) in enumerate(
        [("mathneuro", ""), ("mathneuro", "MMLU"), ("mathneuro", "Race"), ("wanda", "")]
    ):
        for quantity in quantities:
            value = 0.02 + 0.1 * index if quantity.startswith("loss") else 0.95 - 0.1 * index
            rows.append(
                of_both
                | {
                    "method": method, "against": against, "other": "", "quantity": quantity,
                    "value": value, "low": value - 0.01, "high": value + 0.01, "verdict": "",
                    "reached": 1.0 if method == "mathneuro" else 0.25, "points": 6, "repeats": 3,
                }
            )  # fmt: skip
    for quantity in (*quantities, AT_EQUAL_DAMAGE):
        loss = quantity.startswith("loss")
        value, half = (-0.3, 0.1) if loss else (0.3, 0.4)
        rows.append(
            of_both
            | {
                "method": "mathneuro", "against": "", "other": "wanda", "quantity": quantity,
                "value": value, "low": value - half, "high": value + half,
                "p_value": 0.002 if loss else 0.2, "verdict": "lower" if loss else "undecided",
            }
        )  # fmt: skip
    write_csv(pd.DataFrame(rows, columns=COMPARISON_COLUMNS), path / "comparison.csv")


def write_factor(path: Path, model: str, scalar: float, low: float, high: float) -> None:
    """A cell's record whose weights could not keep the scalar."""
    key = CellKey(SelectionKey("mathneuro", "math", "Race", 0.01, 0), scale_by(scalar))
    nothing = Evaluation({}, [], {}, {})
    record = CellRecord(key, 0, 0.0, None, (scalar, low, high), 1.0, {})
    ResultStore(path, model).write_cell(CellResult(record, nothing, nothing))
