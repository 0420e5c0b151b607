"""Samples to train on: read, told apart from calibration and tests, tokenised, labelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.common.errors import UsageError
from neurosurgery.data.overlap import identified, sample_record
from neurosurgery.data.training_data import (
    IGNORED,
    TrainingData,
    TrainingSample,
    encode_training,
    read_training_data,
    without_used,
)


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


def chatting(tokenizer, template: str):
    """A copy of the tokenizer with a template, whose marks of turns are tokens of their own."""
    copy = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    copy.add_special_tokens({"additional_special_tokens": MARKS})
    copy.chat_template = template
    return copy


MARKS = ["<bos>", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|end|>"]
MARKS += ["<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<think>", "</think>"]

GEMMA = (
    "<bos>{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\\n' + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
CHATML = (
    "<|im_start|>system\nBe kind.<|im_end|>\n"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{% generation %}"
    "{{ m.content }}<|end|>{% endgeneration %}{% else %}<|user|>{{ m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MISTRAL = (
    "<bos>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
NO_PROMPT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{{ m.content.split('</think>')[-1] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)
ENDLESS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "whole", "labelled"),
    [
        (
            GEMMA,
            "<bos><start_of_turn>user\n1+1<end_of_turn>\n<start_of_turn>model\n2<end_of_turn>\n",
            "2<end_of_turn>\n",
        ),
        (
            PHI,
            "<|user|>\n1+1<|end|>\n<|assistant|>\n 2<|end|>\n<|endoftext|>",
            " 2<|end|>\n<|endoftext|>",
        ),
        (
            CHATML,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n1+1<|im_end|>\n"
            "<|im_start|>assistant\n 2<|im_end|>\n",
            " 2<|im_end|>\n",
        ),
        (MARKED, "<|user|>1+1<|assistant|> 2<|end|>", " 2<|end|>"),
        (MISTRAL, "<bos>[INST] 1+1 [/INST] 2<|endoftext|>", " 2<|endoftext|>"),
        (NO_PROMPT, "<|user|>1+1<|end|><|assistant|> 2<|end|>", "<|assistant|> 2<|end|>"),
        (ENDLESS, "<user>1+1\n<assistant> 2\n<|endoftext|>", " 2\n<|endoftext|>"),
    ],
    ids="gemma phi chatml marked mistral no_prompt endless".split(),
)
def test_the_labels_are_the_rendered_turn_of_the_model(template, whole, labelled, tokenizer):
    """Its end is that of the template: a model that is asked stops there."""
    chat = chatting(tokenizer, template)
    found = encode_training([TrainingSample("1+1", " 2")], chat, 99, with_chat_template=True)
    (sample,) = found.samples
    assert chat.decode(sample["input_ids"]) == whole
    assert chat.decode([t for t in sample["labels"] if t != IGNORED]) == labelled
    assert (found.other_prompt, found.rewritten) == (0, 0)


def test_a_template_that_leaves_thoughts_out_is_told_of(tokenizer):
    """The model is asked with `<think>`, and a turn that is over has none."""
    chat = chatting(tokenizer, THINKING)
    samples = [TrainingSample("1+1", "2"), TrainingSample("1+2", "easy</think>3")]
    found = encode_training(samples, chat, 99, with_chat_template=True)
    texts = [chat.decode([t for t in each["labels"] if t != IGNORED]) for each in found.samples]
    assert texts == ["2<|end|>", "3<|end|>"]
    assert (found.other_prompt, found.rewritten) == (2, 1)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}"
            "{{ raise_exception('only questions') }}{% endif %}{{ m.content }}{% endfor %}",
            "only questions",
        ),
        (
            "{% if messages | length > 1 %}{{ messages[-1].content }}"
            "{% else %}<|user|>{{ messages[0].content }}{% endif %}",
            "renders a prompt otherwise once its answer follows",
        ),
        ("{{ messages[0].content[0] + messages[0].content | length }}", "cannot render user"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template, reason, tokenizer):
    chat = chatting(tokenizer, template)
    with pytest.raises(UsageError, match=f"--apply_chat_template: .*{reason}"):
        encode_training([TrainingSample("1+1", " 2")], chat, 99, with_chat_template=True)


def test_a_token_alone_is_no_sample(tokenizer):
    """Nothing predicts it."""
    endless = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    endless.eos_token = None
    found = encode_training([TrainingSample("", "a"), TrainingSample("", "a b")], endless, 99)
    assert (len(found.samples), found.without_answer) == (1, 1)


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
