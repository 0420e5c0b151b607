"""Samples to train on: read, told apart from calibration and tests, tokenised, labelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.activations.overlap import identified, sample_record
from neurosurgery.activations.training_data import (
    IGNORED,
    TrainingData,
    TrainingSample,
    encode_training,
    read_training_data,
    without_used,
)
from neurosurgery.common.errors import UsageError


def write(folder, text: str):
    path = folder / "new.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "samples"),
    [
        ("qa\nQ: a\nQ: b\n", [("", "Q: a"), ("", "Q: b")]),
        ("key,prompt,answer\n1,p,a\n2,q,b\n", [("p", "a"), ("q", "b")]),
        (
            "question,solution,answer\nq,s,1\nr,t,2\n",
            [
                ("Instruct: q Let's write a Python program.\nOutput:\n", "s"),
                ("Instruct: r Let's write a Python program.\nOutput:\n", "t"),
            ],
        ),
        ("qa,prompt,answer\nx,p,a\ny,q,b\n", [("", "x"), ("", "y")]),
    ],
)
def test_columns(text, samples, tmp_path):
    found = read_training_data(write(tmp_path, text))
    assert [(sample.prompt, sample.answer) for sample in found.samples] == samples


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("qa\n", "has 0 rows; expected two samples or more"),
        ("qa\na\n", "has 1 rows"),
        ("question,answer\na,b\n", "has the columns question, answer; expected qa, prompt and"),
        ("prompt,answer\na,\nb,c\n", "sample 1 is empty in column answer"),
        ("prompt,prompt,answer\na,b,c\n", "has two columns prompt"),
    ],
)
def test_bad_files(text, reason, tmp_path):
    with pytest.raises(UsageError, match=reason):
        read_training_data(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--train_data .*gone\.csv"):
        read_training_data(tmp_path / "gone.csv")


def data_of(*pairs: tuple[str, str]) -> TrainingData:
    return TrainingData(tuple(TrainingSample(*pair) for pair in pairs), "")


LONG = "Natalia sold clips to 48 of her friends in April."


def records(*texts: str) -> list:
    return identified([sample_record("", text) for text in texts])


def test_what_calibration_and_tests_use_is_left_out(tmp_path):
    data = data_of(
        ("Q: new\n", "1"),
        ("Q: old\n", "2"),
        ("", f"Q: {LONG}\nA: 3"),
        ("", "Q: whole  text\nA: 4"),
        ("Q: newer\n", "5"),
        ("Q: newer", "\n5"),
        ("Answer.\nQuestion: Old", "7"),
        (LONG.upper(), "8"),
        (LONG.replace("48", "49"), "9"),
    )
    sets = {
        "math": records("Q: old A: another answer"),
        "other": records("Q: whole text\n\nA: 4"),
    }
    tests = {"gsm8k": records("Q: Who?\nA:"), "mmlu": records(LONG)}
    kept, left_out = without_used(data, sets, tests, tmp_path)
    assert [sample.answer for sample in kept.samples] == ["1", "5", "9"]
    assert list(left_out.counts.values()) == [3, 2, 1]
    assert left_out.text == (
        "--train_data: left out 3 that repeat a calibration sample, 2 that repeat a test, 1 that "
        "repeat another sample (math 2, other 1; mmlu 2); kept 1 that have the words of one of "
        "these with other numbers"
    )
    table = left_out.table.set_index("against")["repeated"]
    assert table.to_dict() == {
        "math": 2,
        "other": 1,
        "gsm8k": 0,
        "mmlu": 2,
        "any task": 2,
        "train_data": 1,
    }


def test_nothing_is_said_where_all_samples_are_new(tmp_path):
    data = data_of(("a", "1"), ("b", "2"))
    assert without_used(data, {}, {}, tmp_path)[1].text is None


def test_too_few_new_samples_are_refused(tmp_path):
    data = data_of(("Ann has", "1"), ("Tom has", "2"))
    with pytest.raises(UsageError, match="has 1 samples that neither calibration nor tests use"):
        without_used(data, {"math": records("Q: Ann has\nA: 3")}, {}, tmp_path)


@given(count=st.integers(2, 60), share=st.floats(0.001, 0.999), seed=st.integers(0, 5))
def test_the_split_is_a_partition_of_a_shuffle(count, share, seed):
    data = data_of(*((str(n), "a") for n in range(count)))
    train, held_out = data.split(share, seed)
    assert len(held_out.samples) == min(max(1, round(share * count)), count - 1)
    assert sorted([*train.samples, *held_out.samples], key=lambda s: int(s.prompt)) == list(
        data.samples
    )
    assert data.split(share, seed) == (train, held_out)


def test_only_the_answer_and_its_end_are_labelled(tokenizer):
    (found,) = encode_training([TrainingSample("Q: 1+1\nA:", " 2")], tokenizer, 99).samples
    ids, labels = found["input_ids"], found["labels"]
    assert tokenizer.decode(ids) == "Q: 1+1\nA: 2<|endoftext|>"
    counted = [token for token in labels if token != IGNORED]
    assert tokenizer.decode(counted) == " 2<|endoftext|>"
    assert labels == [IGNORED] * (len(ids) - len(counted)) + counted


def test_of_a_whole_text_everything_is_labelled(tokenizer):
    (found,) = encode_training([TrainingSample("", "Q: 1+1\nA: 2")], tokenizer, 99).samples
    assert found["labels"] == found["input_ids"]


def test_a_token_across_prompt_and_answer_counts_as_answer(tokenizer):
    """Where the two are joined within a token, nothing of the answer may be lost."""
    prompt, answer = "How man", "y boxes"
    assert len(tokenizer.encode(prompt)) + len(tokenizer.encode(answer)) != len(
        tokenizer.encode(prompt + answer)
    )
    (found,) = encode_training([TrainingSample(prompt, answer)], tokenizer, 99).samples
    counted = tokenizer.decode([token for token in found["labels"] if token != IGNORED])
    assert counted.endswith("y boxes<|endoftext|>")
    assert len(counted) > len("y boxes<|endoftext|>")


def test_long_samples_are_cut_and_prompts_without_answer_left_out(tokenizer):
    samples = [TrainingSample("Q: one two three four\nA:", " 5"), TrainingSample("", "a b c d e f")]
    whole = encode_training(samples, tokenizer, 99)
    length = len(whole.samples[1]["input_ids"]) - 1
    found = encode_training(samples, tokenizer, length)
    assert (found.cut, found.without_answer) == (1, 1)
    (cut,) = found.samples
    assert cut["input_ids"] == whole.samples[1]["input_ids"][:length]


def test_with_a_chat_template_the_prompt_is_the_users_turn(tokenizer):
    tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    samples = [TrainingSample("1+1", " 2"), TrainingSample("", "as it is")]
    found = encode_training(samples, tokenizer, 99, with_chat_template=True).samples
    texts = [tokenizer.decode(sample["input_ids"]) for sample in found]
    assert texts == ["<user>1+1<assistant> 2<|endoftext|>", "as it is<|endoftext|>"]
    counted = tokenizer.decode([token for token in found[0]["labels"] if token != IGNORED])
    assert counted == " 2<|endoftext|>"
