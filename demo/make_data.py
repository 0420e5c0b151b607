"""Write the demo's CSV files and the test documents of its harness tasks.

    python -m demo.make_data

The files are a function of the seed; no key of one split occurs in another (`documents.split_of`).
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from demo import facts, passages, stories, word_problems
from demo.documents import Document, stream
from demo.new_problems import make_new_problem
from neurosurgery.common.files import write_atomically
from neurosurgery.data.hub_samples import SGSM_COLUMNS
from neurosurgery.data.programs import TRAINING_SUBSET

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION_SAMPLES = 600
NEW_PROBLEMS = 600
TEST_DOCUMENTS = 200
PROGRAMS = 400
SEED = 0


def calibration_sets() -> dict[str, list[Document]]:
    """The samples of math.csv, race.csv and mmlu.csv."""
    problems = stream(word_problems.make_problem, lambda p: p.key, "calibration", SEED)
    texts = stream(passages.make_passage, lambda p: p.key, "calibration", SEED)
    questions = stream(facts.make_fact_question, lambda q: q.key, "calibration", SEED)
    return {
        "math": [word_problems.problem_document(p) for p in _take(problems, CALIBRATION_SAMPLES)],
        "race": [passages.passage_document(p) for p in _take(texts, CALIBRATION_SAMPLES)],
        "mmlu": [facts.fact_document(q) for q in _take(questions, CALIBRATION_SAMPLES)],
    }


def programs() -> list[tuple[str, str, int, str]]:
    """The rows of sgsm.csv: problems of the calibration and the test split, with programs."""
    problems = [
        problem
        for split in ("calibration", "test")
        for problem in _take(
            stream(word_problems.make_problem, lambda p: p.key, split, SEED + 1), PROGRAMS // 2
        )
    ]
    return [(p.question, p.program, p.answer, TRAINING_SUBSET) for p in problems]


def new_problems() -> list[tuple[str, str, str]]:
    """The rows of new_problems.csv: kinds of problems that the model has never seen."""
    problems = stream(make_new_problem, lambda p: p.key, "calibration", SEED)
    return [
        (p.key, word_problems.prompt_of(p), f"{p.reasoning}\n#### {p.answer}")
        for p in _take(problems, NEW_PROBLEMS)
    ]


def test_documents() -> dict[str, list[dict[str, object]]]:
    """The documents of the harness tasks, each with its key."""
    problems = stream(word_problems.make_problem, lambda p: p.key, "test", SEED)
    unseen = stream(make_new_problem, lambda p: p.key, "test", SEED)
    texts = stream(passages.make_passage, lambda p: p.key, "test", SEED)
    questions = stream(facts.make_fact_question, lambda q: q.key, "test", SEED)
    tales = stream(stories.make_story, lambda s: stories.story_document(s).key, "test", SEED)
    return {
        "demo_gsm8k_cot": _problem_tests(problems),
        "demo_new_problems": _problem_tests(unseen),
        "demo_race": [
            {
                "key": passage.key,
                "prompt": passages.article_of(passage) + passages.question_prompt(question),
                "options": list(question.options),
                "gold": question.gold,
            }
            for passage in _take(texts, TEST_DOCUMENTS)
            for question in passage.questions[:1]
        ],
        "demo_mmlu": [
            {
                "key": question.key,
                "prompt": facts.fact_prompt(question),
                "options": list(question.options),
                "gold": question.gold,
            }
            for question in _take(questions, TEST_DOCUMENTS)
        ],
        "demo_stories": [
            {"key": stories.story_document(story).key, "story": story}
            for story in _take(tales, TEST_DOCUMENTS)
        ],
    }


def _problem_tests(problems: Iterable[word_problems.WordProblem]) -> list[dict[str, object]]:
    return [
        {"key": p.key, "prompt": word_problems.prompt_of(p), "answer": str(p.answer)}
        for p in _take(problems, TEST_DOCUMENTS)
    ]


def _take(source: Iterable, count: int) -> list:
    return list(itertools.islice(source, count))


def write_all(root: Path) -> None:
    """Write every file below a checkout's root."""
    folder = root / "data" / "demo"
    for name, samples in calibration_sets().items():
        rows = [(sample.key, sample.text.rstrip("\n")) for sample in samples]
        _write_csv(folder / f"{name}.csv", ("key", "qa"), rows)
    _write_csv(folder / "sgsm.csv", SGSM_COLUMNS, programs())
    _write_csv(folder / "new_problems.csv", ("key", "prompt", "answer"), new_problems())
    for task, documents in test_documents().items():
        lines = "".join(f"{json.dumps(document)}\n" for document in documents)
        write_atomically(root / "lm-evaluation-harness" / "demo" / f"{task}.jsonl", lines)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to write into")
    write_all(parser.parse_args(argv).root)


if __name__ == "__main__":
    main()
