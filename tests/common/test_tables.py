"""One reader of tables: CSV, JSONL and data sets of the hub give the same; others are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurosurgery.common.errors import UsageError
from neurosurgery.common.hub import HubPlace, hub_place
from neurosurgery.common.tables import read_table
from neurosurgery.data.calibration import read_calibration_set
from neurosurgery.data.program_files import holds_programs
from neurosurgery.data.training_data import read_training_data
from neurosurgery.prompts.read import read_prompts
from neurosurgery.settings.experiment import CalibrationSource, name_calibration_sets

TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\r\0"),
    min_size=1,
).filter(str.strip)


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def samples(path: Path) -> tuple[str, ...]:
    return read_calibration_set(CalibrationSource("Other", path)).samples


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), column=st.sampled_from(["qa", "text"]))
def test_csv_and_jsonl_hold_the_same(tmp_path_factory, texts, column):
    folder = tmp_path_factory.mktemp("tables")
    pd.DataFrame({column: texts}).to_csv(folder / "a.csv", index=False)
    jsonl(folder / "a.jsonl", *({column: text} for text in texts))
    assert samples(folder / "a.csv") == samples(folder / "a.jsonl") == tuple(texts)


def test_every_reader_takes_jsonl(tmp_path):
    programs = [{"question": "How many?", "solution": "def f(): return 1", "answer": 1, "x": [1]}]
    path = jsonl(tmp_path / "a.jsonl", *programs)
    assert samples(path)[0].endswith("Output:\ndef f(): return 1")
    assert holds_programs(path)
    assert not holds_programs(jsonl(tmp_path / "b.jsonl", {"qa": "a"}))
    trained = read_training_data(jsonl(tmp_path / "c.jsonl", *[{"prompt": "a", "answer": "b"}] * 2))
    assert [sample.text for sample in trained.samples] == ["ab", "ab"]
    whole = read_training_data(jsonl(tmp_path / "d.jsonl", {"text": "a"}, {"text": "b"}))
    assert [(sample.prompt, sample.answer) for sample in whole.samples] == [("", "a"), ("", "b")]
    pair = {"prompt": "2+3=", "counterfactual": "2@3=", "answer": 5}
    assert read_prompts(jsonl(tmp_path / "e.jsonl", pair))[0].answer == "5"


def test_the_published_column_goes_before_text(tmp_path):
    assert samples(jsonl(tmp_path / "a.jsonl", {"text": "b", "qa": "a"})) == ("a",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty; expected a JSON object on every line"),
        (b"\n\n", "is empty"),
        (b'{"text": "a"}\n{"text": ', "line 2: no JSON: Expecting value at column 10"),
        (b'["a"]\n', "line 1: expected a JSON object"),
        (b'"a"\n', "line 1: expected a JSON object"),
        (b"null\n", "line 1: expected a JSON object"),
        (b"\n" + b"[" * 100_000 + b"\n", "line 2: nested more than 100 levels deep"),
        (b'{"text": "a"}\n{"text": null}\n', "sample 2 is empty in column text"),
        (b'{"text": "a"}\n{"other": "b"}\n', "sample 2 is empty in column text"),
        (b'{"text": NaN}\n', "sample 1 is empty in column text"),
        (b'{"text": ["a"]}\n', "sample 1: text is a list; expected a text"),
        (b'{"text": {"a": 1}}\n', "sample 1: text is an object; expected a text"),
        (b'{"text": "a", "text": "b"}\n', "stands twice in an object"),
        (b'{"label": "a"}\n', "has the columns label; expected qa, question and solution, or text"),
        (b'{"text": "\xe9"}\n', "byte 10 cannot be decoded, on line 1"),
        ('{"text": "a"}\n'.encode("utf-16"), "expected UTF-8 text"),
    ],
)
def test_bad_lines_are_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        samples(path)
    assert reason in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["owner/sums", "owner/sums@default"])
def test_a_data_set_of_the_hub(tmp_path, monkeypatch, name):
    """A folder of the same name stands for one: `datasets` loads both alike."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "owner" / "sums").mkdir(parents=True)
    rows = [{"question": "1+1", "answer": 2}, {"question": "1+2", "answer": 3}]
    jsonl(tmp_path / "owner" / "sums" / "train.jsonl", *rows)
    assert samples(Path(f"hub:{name}:train:question")) == ("1+1", "1+2")
    _, table = read_table("--x", Path(f"hub:{name}:train"))
    assert table.to_dict("list") == {"question": ["1+1", "1+2"], "answer": ["2", "3"]}
    assert read_table("--x", Path(f"hub:{name}:train[:1]:question"))[1]["text"].tolist() == ["1+1"]
    for source, reason in {
        f"hub:{name}:train:other": "has the columns question, answer; expected other",
        f"hub:{name}:test:question": "neither the hub nor the local cache has it",
        "hub:owner/nothing:train:question": "neither the hub nor the local cache has it",
    }.items():
        with pytest.raises(UsageError, match=reason):
            samples(Path(source))


def test_places_on_the_hub():
    assert hub_place("--x", "hub:openai/gsm8k@main:train:question") == HubPlace(
        "openai/gsm8k", "main", "train", "question"
    )
    assert hub_place("--x", "hub:imdb:train[:100]") == HubPlace("imdb", None, "train[:100]", None)
    for source in ("hub:", "hub:a/b", "hub:a/b/c:train", "hub:a b:train", "hub:a:train:x:y"):
        with pytest.raises(UsageError, match="expected hub:OWNER/NAME"):
            hub_place("--x", source)
        with pytest.raises(UsageError, match="expected hub:OWNER/NAME"):
            CalibrationSource("math", Path(source))
    (named,) = name_calibration_sets(["hub:openai/gsm8k@main:train:question"], None)
    assert named.name == "gsm8k"
