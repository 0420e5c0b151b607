"""Read samples to train on, and leave out those that calibration or tests use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from neurosurgery.activations.programs import program_prompt
from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.common.tables import first_empty, read_csv

FLAG = "--train_data"
_TEMPLATE = "--apply_chat_template"
IGNORED = -100
"""The label of a token that the loss leaves out, in transformers and torch."""

_LEAST = 30
"""A field of a test document that is shorter says nothing of which document it is."""


@dataclass(frozen=True)
class TrainingSample:
    """A text to train on; of one with a prompt, only the answer counts in the loss."""

    prompt: str
    answer: str

    @property
    def text(self) -> str:
        """Prompt and answer, joined as they stand."""
        return self.prompt + self.answer


@dataclass(frozen=True)
class TrainingData:
    """The samples of a file, in its order, and the file's SHA-256."""

    samples: tuple[TrainingSample, ...]
    sha256: str

    def split(self, share: float, seed: int) -> tuple[TrainingData, TrainingData]:
        """Shuffle; the first part is trained on, the last `share` of the samples is held out."""
        order = np.random.default_rng(seed).permutation(len(self.samples))
        count = min(max(1, round(share * len(order))), len(order) - 1)
        shuffled = tuple(self.samples[place] for place in order)
        return replace(self, samples=shuffled[:-count]), replace(self, samples=shuffled[-count:])


def read_training_data(path: Path) -> TrainingData:
    """Read a CSV file with the columns `qa`, `prompt` and `answer`, or `question` and `solution`.

    Of `qa` the whole text counts in the loss, else the answer or the solution alone. Questions with
    solutions become the prompt of the published programs (SGSM).

    Raises:
        UsageError: the file is missing, empty, not UTF-8 CSV, or has other columns or empty texts.
    """
    content, table = read_csv(FLAG, path)
    columns = _columns(table, path)
    for column in columns:
        empty = first_empty(table[column])
        if empty is not None:
            raise UsageError(FLAG, path, f"sample {empty} is empty in column {column}")
    if len(table) < 2:
        raise UsageError(FLAG, path, f"has {len(table)} rows; expected two samples or more")
    texts = [table[column].tolist() for column in columns]
    if columns == ("qa",):
        samples = [TrainingSample("", text) for text in texts[0]]
    elif columns == ("question", "solution"):
        samples = [
            TrainingSample(f"{program_prompt(question)}\n", solution)
            for question, solution in zip(*texts, strict=True)
        ]
    else:
        samples = [TrainingSample(*pair) for pair in zip(*texts, strict=True)]
    return TrainingData(tuple(samples), hashlib.sha256(content).hexdigest())


def _columns(table: pd.DataFrame, path: Path) -> tuple[str, ...]:
    for wanted in (("qa",), ("prompt", "answer"), ("question", "solution")):
        if set(wanted) <= set(table.columns):
            return wanted
    found = ", ".join(map(str, table.columns))
    reason = "expected qa, prompt and answer, or question and solution"
    raise UsageError(FLAG, path, f"has the columns {found}; {reason}")


@dataclass(frozen=True)
class LeftOut:
    """How many samples were left out: calibration or tests use them, or they stand there twice."""

    of_calibration: int
    of_tests: int
    twice: int = 0

    @property
    def text(self) -> str | None:
        """One line; None if all samples are new."""
        counts = {
            "a calibration sample": self.of_calibration,
            "a test": self.of_tests,
            "another sample": self.twice,
        }
        found = [f"{count:,} that repeat {what}" for what, count in counts.items() if count]
        return f"{FLAG}: left out {', '.join(found)}" if found else None


def without_used(
    data: TrainingData, calibration: Iterable[str], tests: Iterable[str], path: Path
) -> tuple[TrainingData, LeftOut]:
    """Leave out samples that calibration or tests use, or that repeat another sample.

    Spaces and line ends do not count.

    Args:
        data: all samples.
        calibration: the samples that the selection is made from.
        tests: texts of the test documents' fields. A sample that contains one is a test.
        path: the file, for the error.

    Raises:
        UsageError: fewer than two samples are left.
    """
    seen = [_normal(text) for text in calibration]
    whole = set(seen)
    asked = [text for text in map(_normal, dict.fromkeys(tests)) if len(text) >= _LEAST]
    kept: list[TrainingSample] = []
    of_calibration = of_tests = 0
    texts: set[str] = set()
    for sample in data.samples:
        text, prompt = _normal(sample.text), _normal(sample.prompt)
        if text in texts:
            continue
        texts.add(text)
        if text in whole or (prompt and any(other.startswith(prompt) for other in seen)):
            of_calibration += 1
        elif any(test in text for test in asked):
            of_tests += 1
        else:
            kept.append(sample)
    left_out = LeftOut(of_calibration, of_tests, len(data.samples) - len(texts))
    if len(kept) < 2:
        reason = f"has {len(kept)} samples that neither calibration nor tests use"
        raise UsageError(FLAG, path, f"{reason}; expected two or more")
    return replace(data, samples=tuple(kept)), left_out


def _normal(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True)
class EncodedTraining:
    """Token ids and labels of every sample that has an answer within the length.

    Attributes:
        samples: `input_ids` and `labels` of each, `IGNORED` where a token does not count.
        cut: how many lost their end.
        without_answer: how many are left out: their prompt alone is too long.
        other_prompt: how many have a prompt that ends otherwise than when the model is asked.
        rewritten: how many have an answer that the chat template has changed.
    """

    samples: list[dict[str, list[int]]]
    cut: int = 0
    without_answer: int = 0
    other_prompt: int = 0
    rewritten: int = 0


def encode_training(
    samples: Sequence[TrainingSample],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    with_chat_template: bool = False,
) -> EncodedTraining:
    """Tokenise samples, and label what the loss counts.

    A text, or an answer without a template, is closed by the end-of-text token. With a template the
    labels are the tokens of the rendered turn of the model, with the end that the template gives it
    (Gemma's `<end_of_turn>`); only where it gives none, the end-of-text token closes the turn.

    Args:
        samples: prompts and answers.
        tokenizer: the model's.
        max_length: tokens of a sample, at most.
        with_chat_template: a prompt becomes the user's turn, the answer that of the model.

    Raises:
        UsageError: the chat template refuses a prompt with its answer, or changes the prompt.
    """
    found = []
    counts = dict.fromkeys(("cut", "without_answer", "other_prompt", "rewritten"), 0)
    for sample in samples:
        if sample.prompt and with_chat_template:
            turn = _model_turn(sample, tokenizer)
            # The template has written the special tokens already.
            ids = _encode(tokenizer, turn.text, special=False)
            asked = _encode(tokenizer, turn.text[: turn.start], special=False)
            counts["other_prompt"] += turn.other_prompt
            counts["rewritten"] += sample.answer.strip() not in turn.text
            closed = turn.closed
        else:
            ids = _encode(tokenizer, sample.text, special=True)
            asked = _encode(tokenizer, sample.prompt, special=True) if sample.prompt else []
            closed = False
        end = tokenizer.eos_token_id
        if not closed and end is not None and ids[-1] != end:
            ids = [*ids, end]
        shared = _shared(ids, asked)
        # Nothing predicts the first token, so that it is no answer.
        if max(shared, 1) >= min(max_length, len(ids)):
            counts["without_answer"] += 1
            continue
        counts["cut"] += len(ids) > max_length
        labels = [IGNORED] * shared + ids[shared:]
        found.append({"input_ids": ids[:max_length], "labels": labels[:max_length]})
    return EncodedTraining(found, **counts)


@dataclass(frozen=True)
class _Turn:
    """A prompt and its answer, rendered.

    The model's turn begins at the character `start`. `closed`: something marks its end.
    `other_prompt`: what is before the turn is not how the model is asked.
    """

    text: str
    start: int
    closed: bool
    other_prompt: bool


def _model_turn(sample: TrainingSample, tokenizer: PreTrainedTokenizerBase) -> _Turn:
    """Render a conversation of one prompt and its answer.

    Raises:
        UsageError: the template refuses it, or renders the prompt otherwise once an answer follows.
    """
    user = {"role": "user", "content": sample.prompt}
    text = _render(tokenizer, [user, {"role": "assistant", "content": sample.answer}])
    asked = _render(tokenizer, [user], add_generation_prompt=True)
    # Templates of reasoning models begin a turn by a thought, and leave thoughts out of past turns.
    start = _shared(text, asked)
    if start < len(asked) and not text.startswith(_render(tokenizer, [user])):
        reason = "the chat template renders a prompt otherwise once its answer follows"
        raise UsageError(_TEMPLATE, "", f"{reason}; expected one that keeps it")
    closed = not text.rstrip().endswith(sample.answer.rstrip())
    return _Turn(text, start, closed, other_prompt=start < len(asked))


def _render(
    tokenizer: PreTrainedTokenizerBase,
    turns: list[dict[str, str]],
    *,
    add_generation_prompt: bool = False,
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )
    except (TemplateError, TypeError, ValueError) as error:
        roles = " and ".join(turn["role"] for turn in turns)
        reason = f"the chat template cannot render {roles}: {first_line(error)}"
        raise UsageError(_TEMPLATE, "", reason) from error


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=special, verbose=False)


def _shared(whole: Sequence[object], prompt: Sequence[object]) -> int:
    """The number of leading tokens, or characters, that a whole text shares with its prompt."""
    for place, (one, other) in enumerate(zip(whole, prompt, strict=False)):
        if one != other:
            return place
    return min(len(prompt), len(whole) - 1)
