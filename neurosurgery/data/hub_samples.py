"""Data sets of the hub, and how their rows become calibration samples, in the published formats."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

SUBJECTS = tuple(
    "anatomy business_ethics clinical_knowledge college_biology college_medicine "
    "computer_security electrical_engineering formal_logic global_facts "
    "high_school_european_history high_school_geography high_school_government_and_politics "
    "high_school_macroeconomics high_school_microeconomics high_school_psychology "
    "high_school_us_history high_school_world_history human_aging human_sexuality "
    "international_law jurisprudence logical_fallacies machine_learning management marketing "
    "medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory "
    "professional_law professional_medicine professional_psychology public_relations "
    "security_studies sociology us_foreign_policy virology world_religions".split()
)
"""MMLU without the 16 quantitative subjects, which the published file leaves out."""


MATH_SUBJECTS = tuple(
    "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra "
    "precalculus".split()
)


def gsm8k_sample(row: Row) -> str:
    """A problem with its solution, calculator marks kept, and the final number in words."""
    solution, _, number = row["answer"].partition("\n#### ")
    return f"Q: {row['question']}\nA: Let's think step by step.\n{solution}\nThe answer is {number}"


def mmlu_sample(row: Row) -> str:
    """A question, the list of its choices and the text of the right one."""
    choices = list(row["choices"])
    return f"Question: {row['question']}\n\nChoices: {choices}\n\nAnswer: {choices[row['answer']]}"


def race_sample(rows: Sequence[Row]) -> str:
    """An article, then every question about it with its options and its answer."""
    parts = [rows[0]["article"]]
    for row in rows:
        options = list(row["options"])
        answer = options["ABCD".index(row["answer"])]
        parts.append(f"Question: {row['question']}\nOptions: {options}\nAnswer: {answer}")
    return "\n\n".join(parts)


def math_sample(row: Row) -> str:
    """A problem with its worked solution, whose last step boxes the answer."""
    return f"Problem:\n{row['problem']}\n\nSolution:\n{row['solution']}"


def gsm8k_rows(rows: Iterable[Row]) -> Iterator[list[str]]:
    """One sample a problem."""
    return ([gsm8k_sample(row)] for row in rows)


def mmlu_rows(rows: Iterable[Row]) -> Iterator[list[str]]:
    """One sample a question."""
    return ([mmlu_sample(row)] for row in rows)


def race_rows(rows: Iterable[Row]) -> Iterator[list[str]]:
    """One sample an article; the data set holds the questions of an article side by side."""
    for _, group in itertools.groupby(rows, key=lambda row: row["article"]):
        yield [race_sample(list(group))]


def math_rows(rows: Iterable[Row]) -> Iterator[list[str]]:
    """One sample a problem."""
    return ([math_sample(row)] for row in rows)


SGSM_COLUMNS = ("question", "solution", "answer", "subset")


def sgsm_rows(rows: Iterable[Row]) -> Iterator[list[str]]:
    """A problem, the program that solves it, its answer and its subset; nothing is left out."""
    return (["" if row[name] is None else str(row[name]) for name in SGSM_COLUMNS] for row in rows)


@dataclass(frozen=True)
class Source:
    """A data set of the hub, and how its rows become those of a CSV file with these `columns`.

    The split is never the one that the harness evaluates on.
    """

    path: str
    configs: tuple[str | None, ...]
    split: str
    rows: Callable[[Iterable[Row]], Iterator[list[str]]]
    columns: tuple[str, ...] = ("qa",)


SOURCES = {
    "gsm8k": Source("openai/gsm8k", ("main",), "train", gsm8k_rows),
    "race": Source("ehovy/race", ("high",), "train", race_rows),
    "mmlu": Source("cais/mmlu", SUBJECTS, "validation", mmlu_rows),
    "math": Source("EleutherAI/hendrycks_math", MATH_SUBJECTS, "train", math_rows),
    "sgsm": Source("bryanchrist/SGSM", (None,), "train", sgsm_rows, SGSM_COLUMNS),
}
"""What `data/NAME.csv` is made from."""
