"""Write the calibration CSVs of the published commands from the hub's data sets.

    python data/prepare.py gsm8k race mmlu

One row per sample, in the column `qa`, in the formats of the published files. Without network the
data sets must be in the local cache (HF_DATASETS_CACHE); set HF_HUB_OFFLINE=1 to ask for that.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from neurosurgery.cli.flags import OneLineParser  # noqa: E402
from neurosurgery.cli.parse import run_script  # noqa: E402
from neurosurgery.common.errors import UsageError, first_line  # noqa: E402
from neurosurgery.common.files import write_atomically  # noqa: E402

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


def gsm8k_samples(rows: Iterable[Row]) -> Iterator[str]:
    """One sample a problem."""
    return map(gsm8k_sample, rows)


def mmlu_samples(rows: Iterable[Row]) -> Iterator[str]:
    """One sample a question."""
    return map(mmlu_sample, rows)


def race_samples(rows: Iterable[Row]) -> Iterator[str]:
    """One sample an article; the data set holds the questions of an article side by side."""
    for _, group in itertools.groupby(rows, key=lambda row: row["article"]):
        yield race_sample(list(group))


@dataclass(frozen=True)
class Source:
    """A data set of the hub, and how its rows become samples.

    The split is never the one that the harness evaluates on.
    """

    path: str
    configs: tuple[str, ...]
    split: str
    samples: Callable[[Iterable[Row]], Iterator[str]]


SOURCES = {
    "gsm8k": Source("openai/gsm8k", ("main",), "train", gsm8k_samples),
    "race": Source("ehovy/race", ("high",), "train", race_samples),
    "mmlu": Source("cais/mmlu", SUBJECTS, "validation", mmlu_samples),
}


def load_rows(source: Source, config: str) -> Iterable[Row]:
    """Load one configuration from the hub or the local cache.

    Raises:
        UsageError: it is in neither.
    """
    from datasets import load_dataset

    try:
        return load_dataset(source.path, config, split=source.split)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            source.path,
            config,
            f"neither the hub nor the local cache has it ({first_line(error)})",
        ) from None


def prepare(name: str, output: Path) -> None:
    """Write one CSV file and say what is in it."""
    from tqdm import tqdm

    source = SOURCES[name]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["qa"])
    count = 0
    for config in source.configs:
        rows = load_rows(source, config)
        for sample in source.samples(tqdm(rows, desc=f"{name} {config}", unit="row", leave=False)):
            writer.writerow([sample])
            count += 1
    content = text.getvalue().encode()
    path = output / f"{name}.csv"
    write_atomically(path, content)
    print(f"{path}: {count:,} rows, sha256 {hashlib.sha256(content).hexdigest()}")


def run(argv: Sequence[str] | None) -> None:
    """Parse the command line and write the files."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="+", choices=sorted(SOURCES), metavar="NAME", help="gsm8k, race, mmlu"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "data", help="folder (default: data/)"
    )
    arguments = parser.parse_args(argv)
    for name in arguments.names:
        prepare(name, arguments.output)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, or 2 where a data set cannot be had."""
    return run_script(run, argv)


if __name__ == "__main__":
    sys.exit(main())
