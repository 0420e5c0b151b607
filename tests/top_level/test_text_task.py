"""A perplexity task from a text file: what is taken from it, and what is refused."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math

import pytest
import yaml
from conftest import ROOT
from scripts import SCRIPTS

BOOK = "\n\n".join(f"Chapter {n}.\n\nIn {n} the\n  river rose " + "and fell " * n for n in range(9))

FLIPPED = bytearray(gzip.compress(BOOK.encode()))
FLIPPED[20:24] = bytes(255 - byte for byte in FLIPPED[20:24])


@pytest.fixture(scope="module")
def text_task():
    spec = importlib.util.spec_from_file_location("text_task", ROOT / "data" / "text_task.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(text_task, file, output, *more: str) -> int:
    return text_task.main([str(file), "--name", "book", "--output", str(output), *more])


@pytest.mark.parametrize("zipped", [False, True])
def test_documents_are_spread_over_the_file(text_task, tmp_path, zipped, capsys):
    file = tmp_path / ("book.txt.gz" if zipped else "book.txt")
    file.write_bytes(gzip.compress(BOOK.encode()) if zipped else BOOK.encode())
    assert call(text_task, file, tmp_path / "tasks", "--documents", "3", "--words", "9") == 0
    lines = (tmp_path / "tasks/book.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"].split()[1] for line in lines] == ["2", "4", "6"]
    assert "3 documents" in capsys.readouterr().out


def test_a_name_that_yaml_reads_otherwise_stays_a_name(text_task, tmp_path):
    (tmp_path / "book.txt").write_bytes(b"\xef\xbb\xbf" + BOOK.encode())
    flags = ("--documents", "1", "--words", "3", "--name", "null")
    assert call(text_task, tmp_path / "book.txt", tmp_path / "tasks", *flags) == 0
    assert yaml.safe_load((tmp_path / "tasks/null.yaml").read_text())["task"] == "null"
    # The mark at the file's start is no part of its text.
    assert "\ufeff" not in json.loads((tmp_path / "tasks/null.jsonl").read_text())["text"]


def test_the_task_runs_in_a_script(text_task, tmp_path, tiny_model):
    (tmp_path / "book.txt").write_text(BOOK)
    flags = ("--documents", "4", "--words", "6")
    assert call(text_task, tmp_path / "book.txt", tmp_path / "tasks", *flags) == 0
    script = SCRIPTS["mathneuro"]
    more = [
        "--pre_train_eval",
        "--include_path",
        str(tmp_path / "tasks"),
        "--eval_datasets",
        "book",
    ]
    assert script.run(tiny_model, tmp_path / "out", *script.one(*more)) == 0
    found = json.loads((tmp_path / "out/eval_results/tiny-llama/pre_results.json").read_text())
    assert math.isfinite(found["book"]["word_perplexity,none"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--documents", "0"], "--documents 0: expected a whole number of at least 1"),
        (["--words", "-3"], "--words -3: expected a whole number of at least 1"),
        (["--words", "9", "--documents", "8"], "--documents 8: the file has 7 paragraphs of at"),
        (["--name", "a b"], "--name a b: expected letters, digits and '_'"),
        (["--name", ""], "--name: expected a value"),
        (["--name", "123"], "--name 123: expected letters, digits and '_', no digit first"),
    ],
)
def test_bad_values_are_refused_and_nothing_is_written(text_task, tmp_path, flags, message, capsys):
    (tmp_path / "book.txt").write_text(BOOK)
    assert call(text_task, tmp_path / "book.txt", tmp_path / "tasks", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "tasks").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.txt", None),
        ("latin.txt", "caf\xe9 ".encode("latin-1") * 99),
        ("broken.txt.gz", b"no gzip"),
        ("cut.txt.gz", gzip.compress(BOOK.encode())[:-12]),
        ("flipped.txt.gz", FLIPPED),
    ],
)
def test_files_that_are_no_text_are_refused(text_task, tmp_path, name, content, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert call(text_task, tmp_path / name, tmp_path / "tasks") == 2
    error = capsys.readouterr().err
    assert name in error
    assert "expected" in error
    assert error.count("\n") == 1
