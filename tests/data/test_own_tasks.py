"""Documents of a user's table: how answers are read, what is refused, what is warned about."""

from __future__ import annotations

import json

import pytest

from neurosurgery.__main__ import main
from neurosurgery.common.errors import UsageError
from neurosurgery.data.own_tasks import read_task

COLOURS = {"question": "Which?", "options": ["red", "blue", "green"]}


def table(folder, rows, name="own.jsonl"):
    file = folder / name
    if isinstance(rows, str):
        file.write_text(rows)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def golds(folder, *answers, options=("red", "blue", "green"), reading=None):
    rows = [{**COLOURS, "options": options, "answer": answer} for answer in answers]
    return [document["gold"] for document in read_task(table(folder, rows), reading).documents]


def test_answers_are_texts_letters_or_positions(tmp_path):
    assert golds(tmp_path, "blue", "red ") == [1, 0]
    assert golds(tmp_path, "b", "(C)", "A.") == [1, 2, 0]
    assert golds(tmp_path, 2, 0) == [2, 0]
    assert golds(tmp_path, 3, 1, reading="number") == [2, 0]


def test_numbers_that_are_options_and_positions_must_be_told_apart(tmp_path):
    with pytest.raises(UsageError, match=r"--answers: .* text or index; row 1, answer: 1 is anoth"):
        golds(tmp_path, 1, 2, options=("1", "2", "3"))
    assert golds(tmp_path, 1, 2, options=("1", "2", "3"), reading="text") == [0, 1]
    assert golds(tmp_path, 1, 2, options=("1", "2", "3"), reading="index") == [1, 2]
    # Where only one reading fits all rows there is nothing to ask.
    assert golds(tmp_path, 3, 2, options=("1", "2", "3")) == [2, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "purple"}, "row 2, answer: purple is none of its options; expected one of"),
        ({"answer": ""}, "row 2 is empty in column answer"),
        ({"question": " "}, "row 2 is empty in column question"),
        ({"options": ["red"]}, "row 2, options: expected two or more"),
        ({"options": ["red", "red "]}, "row 2, options: red stands there twice"),
        ({"options": ["red", ""]}, "row 2, options: one is empty"),
        ({"options": ["red", None]}, "row 2, options: expected texts"),
        ({"options": "red, blue"}, 'row 2, options: expected a list as ["red", "blue"]'),
    ],
)
def test_a_bad_row_is_named_with_its_column(tmp_path, row, message):
    file = table(tmp_path, [{**COLOURS, "answer": "red"}, {**COLOURS, "answer": "red"} | row])
    with pytest.raises(UsageError) as caught:
        read_task(file)
    assert message in str(caught.value)


def test_positions_from_1_are_recognised_and_not_guessed(tmp_path):
    with pytest.raises(UsageError, match=r"answer: 3 is none .* 0 to 2; .* --answers number"):
        golds(tmp_path, 1, 3)


@pytest.mark.parametrize("options", ['["red", "blue"]', "['red', 'blue']", "red | blue"])
def test_options_in_a_csv(tmp_path, options):
    quoted = options.replace('"', '""')
    file = table(tmp_path, f'prompt,options,answer,place\nSky?,"{quoted}",blue,up\n', "own.csv")
    [document] = read_task(file).documents
    assert document == {"place": "up", "prompt": "Sky?", "options": ["red", "blue"], "gold": 1}


def test_every_option_has_one_delimiter(tmp_path):
    rows = [
        {"prompt": "def f():\n    return", "options": [" 1", "2"], "answer": "2"},
        {"prompt": "x = ", "options": ["1", "2"], "answer": "1"},
    ]
    checked = read_task(table(tmp_path, rows))
    assert checked.scoring["target_delimiter"] == ""
    assert [each["options"] for each in checked.documents] == [[" 1", " 2"], ["1", "2"]]


def test_numbers_and_texts_are_compared_each_in_its_way(tmp_path):
    numbers = read_task(table(tmp_path, [{"prompt": "2+2=", "answer": n} for n in (4, "$1,000")]))
    assert "first number" in numbers.what
    texts = read_task(table(tmp_path, [{"prompt": "Say it", "answer": "a\nb"}]))
    # A line break belongs to an answer, and must not end it.
    assert texts.scoring["generation_kwargs"]["until"] == ["\n\n"]
    assert texts.scoring["generation_kwargs"]["max_gen_toks"] == 3 + 8


def test_chance_is_the_mean_over_documents(tmp_path):
    rows = [COLOURS | {"answer": "red"}, COLOURS | {"options": ["red", "blue"], "answer": "red"}]
    checked = read_task(table(tmp_path, rows))
    assert checked.facts["chance"].startswith("0.417 ")  # (1/3 + 1/2) / 2
    assert any("unequal numbers of options: 1 with 2, 1 with 3" in w for w in checked.warnings)


def test_repeated_leaking_and_unbalanced_documents_are_warned_about(tmp_path):
    rows = [
        {"question": f"Is {n} more than 1?", "options": ["yes", "no"], "answer": "yes"}
        for n in range(2, 32)
    ]
    [unbalanced] = read_task(table(tmp_path, rows)).warnings
    assert "more often than at others (30 0)" in unbalanced
    rows = [
        {"question": "Is the red one red?", "options": ["red", "blue"], "answer": "red"},
        {"question": "Sky?", "options": ["red", "blue"], "answer": "blue"},
        {"question": "Sky?", "options": ["red", "blue"], "answer": "red"},
    ]
    repeated, leaking = read_task(table(tmp_path, rows)).warnings
    assert "1 document repeat one before (row 3); 1 of them with another answer" in repeated
    assert "1 of 3: the right option stands in the question" in leaking
    # A part of a word is no answer.
    rows = [{"question": "Is it hot?", "options": ["a", "I"], "answer": a} for a in ("a", "I")]
    assert len(read_task(table(tmp_path, rows)).warnings) == 1


def test_a_text_file_has_texts_between_blank_lines(tmp_path):
    file = table(tmp_path, "def f():\n    return 1\n\n\ndef g():\n\treturn 2\n", "own.txt")
    assert [each["text"] for each in read_task(file).documents] == [
        "def f():\n    return 1",
        "def g():\n\treturn 2",
    ]


def test_no_task_is_replaced_and_none_of_the_suite_is_hidden(tmp_path, capsys):
    questions, tasks = tmp_path / "plural.txt", tmp_path / "tasks"
    questions.write_text("One.\n\nTwo.\n")
    command = ["tasks", "new", str(questions), "--output", str(tasks)]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in tasks.iterdir()}
    questions.write_text("Three.\n\nFour.\n")
    assert main(command) == 2
    assert "plural.yaml: is there already; --overwrite replaces" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tasks.iterdir()} == before
    assert main([*command, "--overwrite"]) == 0
    assert "Three" in (tasks / "plural.jsonl").read_text()
    assert main([*command, "--name", "small_sums"]) == 2
    assert "--name small_sums: is a task of the suite" in capsys.readouterr().err
