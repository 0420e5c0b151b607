"""Samples that repeat test documents or other samples, in whatever form both are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.common.errors import UsageError
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.data.hub_samples import gsm8k_sample, mmlu_sample, race_sample
from neurosurgery.data.overlap import (
    document_record,
    identified,
    of_one_template,
    repeats,
    sample_record,
)
from neurosurgery.data.programs import program_sample
from neurosurgery.data.used import check_sets, compare
from neurosurgery.settings.experiment import CalibrationSource


def found(samples, documents) -> list[list[int]]:
    """Which documents each sample repeats."""
    return [each.others for each in repeats(identified(samples), identified(documents))]


PROBLEM = "Natalia sold clips to 48 of her friends, then sold half as many. How many in all?"
ROW = {"question": PROBLEM, "answer": "48/2 = <<48/2=24>>24.\nIn all 72.\n#### 72"}


def gsm8k_document(question: str = PROBLEM):
    return document_record(f"Q: {question}\nA:", [question, ROW["answer"]])


FORMS = {
    "as the hub has it": sample_record(ROW["question"], ROW["answer"]),
    "as calibration has it": sample_record("", gsm8k_sample(ROW)),
    "without its leading Q": sample_record("", gsm8k_sample(ROW).removeprefix("Q: ")),
    "as prompt and answer": sample_record(f"Question: {PROBLEM}\nAnswer:", " 72"),
    "as a program": sample_record("", program_sample(PROBLEM, "def solution(): return 72")),
    "as one text": sample_record("", f"{PROBLEM} {ROW['answer']}"),
    "in an instruction": sample_record(
        "Below is a task.\n\n### Instruction:\n" + PROBLEM + "\n\n### Response:\n", "72"
    ),
    "in capitals": sample_record("", PROBLEM.upper().replace(".", " !")),
    "with another answer": sample_record(PROBLEM, "I do not know."),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_record_repeats_it(form):
    assert found([FORMS[form]], [gsm8k_document()]) == [[0]]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_repeats_a_calibration_sample(form):
    assert found([FORMS[form]], [sample_record("", gsm8k_sample(ROW))]) == [[0]]


@pytest.mark.parametrize(
    "question",
    [
        PROBLEM.replace("48", "49"),
        PROBLEM.replace("48", "4.8"),
        PROBLEM.replace("48", "-48"),
        PROBLEM.replace("clips", "pins"),
        "Natalia sold clips to 48 of her friends.",
    ],
)
def test_a_problem_with_another_number_or_word_is_another(question):
    sample = sample_record("", f"Q: {question}\nA: 5")
    assert found([sample], [gsm8k_document()]) == [[]]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("47+25=72", True),
        ("Q: 47 + 25 =\nA: 72", True),
        ("47-25=22", False),
        ("147+25=172", False),
        ("3+47+25=75", False),
        ("47+25+1=73", False),
        ("47+2.5=49.5", False),
    ],
)
def test_short_sums(text, same):
    document = document_record("47+25=", ["47+25=", "72"], target="72")
    assert found([sample_record("", text)], [document]) == [[0] if same else []]


def test_a_short_text_that_goes_on_in_its_answer():
    document = document_record("The capital of France is", ["x"], options=["Rome", "Paris"])
    texts = ["The capital of France is Paris.", "The capital of France is larger than Rome's."]
    assert found([sample_record("", text) for text in texts], [document]) == [[0], []]


MMLU = {"question": "Which is true?", "choices": ["Ice is hot", "Water is wet"], "answer": 1}


def mmlu_document(row: dict):
    question, choices = row["question"], row["choices"]
    text = question + "".join(f"\n{a}. {b}" for a, b in zip("ABCD", choices, strict=False))
    return document_record(f"{text}\nAnswer:", [question, "physics"], choices, list("ABCD"))


@pytest.mark.parametrize(
    ("sample", "same"),
    [
        (sample_record("", mmlu_sample(MMLU)), True),
        (sample_record("", mmlu_sample(MMLU | {"choices": MMLU["choices"][::-1]})), True),
        (sample_record("Which is true?", "Water is wet"), True),
        (sample_record("Which is true?", "Fire is cold"), False),
        (sample_record("", mmlu_sample(MMLU | {"choices": ["Ice is hot", "Fire burns"]})), False),
    ],
)
def test_of_a_question_with_options_these_count_too(sample, same):
    assert found([sample], [mmlu_document(MMLU)]) == [[0] if same else []]


ARTICLE = "Tom lives in Rome with a cat and a dog. " * 3
RACE = [
    {"article": ARTICLE, "question": question, "options": ["a cat", "a dog"], "answer": "A"}
    for question in ("Who sleeps?", "Who barks?")
]


def boolq_document(passage: str, question: str):
    return document_record(f"{passage}\nQuestion: {question}\nAnswer:", [question, passage])


def test_a_passage_with_another_question_is_a_part_only():
    samples = [sample_record("", race_sample(RACE))]
    documents = [
        boolq_document(ARTICLE, "Who barks?"),
        boolq_document(ARTICLE, "Who eats?"),
        boolq_document("Ann lives in Oslo.", "Who barks?"),
    ]
    (only,) = repeats(identified(samples), identified(documents))
    assert (only.others, only.parts) == ([0], [1])


def test_a_long_part_of_a_test_text_is_of_the_test():
    page = " ".join(f"Sentence {n} tells of town {n * 7} and river {n * 3}." for n in range(40))
    document = document_record(page, [page])
    part = page[page.index("Sentence 9 ") : page.index("Sentence 14")]
    assert found([sample_record("", part), sample_record("", "Sentence 9")], [document]) == [
        [0],
        [],
    ]


INSTRUCTION = "Solve the problem step by step and finish with the number."


@pytest.mark.parametrize(
    "asked", [f"{INSTRUCTION}\nQ: {{}}\nA:", f"{INSTRUCTION} {{}}", f"{{}}\n{INSTRUCTION}"]
)
def test_what_most_documents_have_identifies_none(asked):
    questions = [
        f"Ann has {n} pens and gives {n // 2} to Tom. How many are left?" for n in range(10, 30)
    ]
    documents = [document_record(asked.format(question), [INSTRUCTION]) for question in questions]
    new = [sample_record(asked.format(f"Tom buys {n} red pens."), "5") for n in range(20)]
    assert not any(found(new, documents))
    bare = [sample_record(question, "5") for question in questions]
    assert found(bare, documents) == [[n] for n in range(20)]
    # The example before every question is no test.
    assert found([sample_record("", INSTRUCTION * 3)], documents) == [[]]


def test_what_differs_in_numbers_only_is_counted_by_owner():
    records = [sample_record("", f"Q: Ann has {n} pens. How many?\nA: {n}") for n in (3, 4)]
    others = identified([gsm8k_document(), gsm8k_document("Ann has 5 pens. How many?")])
    assert of_one_template(records, others, ["one", "other"]) == [{"other"}, {"other"}]
    compared = compare("set", records, {"one": others[:1], "other": others[1:]})
    assert compared.templates is None
    assert compared.repeated == 0


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_numbers_tell_problems_apart(one, other):
    sample = sample_record("", f"Q: Ann has {one:,} pens and buys 2. How many has she?\nA: 5")
    document = gsm8k_document(f"Ann has {other} pens and buys 2. How many has she?")
    assert found([sample], [document]) == [[0] if one == other else []]


def test_a_question_that_begins_another_is_found_at_the_end_of_a_text():
    short = "Nina has 5 red apples and then buys 7"
    documents = [gsm8k_document(short), gsm8k_document(f"{short} more of them in town. Why?")]
    assert found([sample_record(short)], documents) == [[0]]
    assert found([sample_record(f"Well. {short}")], documents) == [[0]]


def test_many_problems_of_one_template_are_told_apart():
    question = "Ann has {} pens and then buys {} more of them in town. How many has she?"
    documents = [gsm8k_document(question.format(n, n + 1)) for n in range(2000)]
    samples = [sample_record(question.format(n, n + 1), "5") for n in range(1000, 3000)]
    assert sum(map(bool, found(samples, documents))) == 1000


def calibration_set(name: str, *samples: str) -> CalibrationSet:
    return CalibrationSet(name, samples, "0" * 64)


def test_sets_are_compared_with_every_task_and_lose_what_tests_ask(tmp_path):
    new = [f"Q: Tom has {n} pens. How many has he?\nA: {n}" for n in (5, 6)]
    sets = {
        "math": calibration_set("math", new[0], gsm8k_sample(ROW), new[1]),
        "MMLU": calibration_set("MMLU", mmlu_sample(MMLU), *new),
    }
    sources = [CalibrationSource(name, tmp_path / name) for name in sets]
    tests = {"gsm8k": [gsm8k_document(), gsm8k_document("Else?")], "mmlu": [mmlu_document(MMLU)]}
    checked = check_sets(sets, sources, tests, drop=False)
    assert checked.sets == sets
    table = checked.overlap.set_index(["samples", "against"])
    assert table["repeated"].to_dict() == {
        ("math", "gsm8k"): 1,
        ("math", "mmlu"): 0,
        ("MMLU", "gsm8k"): 0,
        ("math", "any task"): 1,
        ("MMLU", "mmlu"): 1,
        ("MMLU", "any task"): 1,
    }
    assert table.loc[("math", "gsm8k"), ["count", "records", "records_repeated"]].tolist() == [
        3,
        2,
        1,
    ]
    assert [line.partition(":")[0] for line in checked.lines] == [
        "samples of math",
        "samples of MMLU",
    ]
    dropped = check_sets(sets, sources, tests, drop=True)
    assert {name: found.samples for name, found in dropped.sets.items()} == {
        "math": tuple(new),
        "MMLU": tuple(new),
    }
    assert [found.left_out for found in dropped.sets.values()] == [1, 1]


def test_too_few_samples_left_are_refused(tmp_path):
    sets = {"math": calibration_set("math", gsm8k_sample(ROW), "Q: Who?\nA: I.")}
    sources = [CalibrationSource("math", tmp_path / "math.csv")]
    with pytest.raises(UsageError, match=r"--drop_used: leaves 1 of the 2 samples of --train_data"):
        check_sets(sets, sources, {"gsm8k": [gsm8k_document()]}, drop=True)
