"""Read samples to train on, and leave out those that calibration or tests use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.common.tables import check_filled, matched, read_table
from neurosurgery.data.overlap import identified, sample_record
from neurosurgery.data.programs import program_prompt
from neurosurgery.data.used import Compared, Overlap, Records, compare, overlap_table

FLAG = "--train_data"
_TEMPLATE = "--apply_chat_template"
NAME = "train_data"
"""What tables call the samples."""
COLUMNS = (("qa",), ("prompt", "answer"), ("question", "solution"), ("text",))
"""The columns that samples may have; the first of these that a table has are read."""
IGNORED = -100
"""The label of a token that the loss leaves out, in transformers and torch."""


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
    """Read a table with one of the choices of columns of `COLUMNS`.

    Of `qa` and `text` the whole text counts in the loss, else the answer or the solution alone.
    Questions with solutions become the prompt of the published programs (SGSM).

    Raises:
        UsageError: it cannot be read (`read_table`), has other columns, empty texts or one row.
    """
    texts = tuple(name for columns in COLUMNS for name in columns)
    sha256, table = read_table(FLAG, path, texts=texts)
    columns = matched(FLAG, path, table, COLUMNS)
    check_filled(FLAG, path, table, columns)
    if len(table) < 2:
        raise UsageError(FLAG, path, f"has {len(table)} rows; expected two samples or more")
    rows = table[list(columns)].itertuples(index=False, name=None)
    if len(columns) == 1:
        samples = [TrainingSample("", text) for (text,) in rows]
    elif columns == ("question", "solution"):
        samples = [
            TrainingSample(f"{program_prompt(question)}\n", solution) for question, solution in rows
        ]
    else:
        samples = [TrainingSample(*pair) for pair in rows]
    return TrainingData(tuple(samples), sha256)


@dataclass(frozen=True)
class LeftOut:
    """Which samples were left out: calibration or tests use them, or they stand there twice.

    Attributes:
        of_calibration: with the calibration sets.
        of_tests: with the tasks.
        twice: how many repeat another sample.
    """

    of_calibration: Compared
    of_tests: Compared
    twice: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many were left out, by reason; a sample counts under the first."""
        pairs = zip(self.of_calibration.of, self.of_tests.of, strict=True)
        return {
            "a calibration sample": self.of_calibration.repeated,
            "a test": sum(bool(test and not sample) for sample, test in pairs),
            "another sample": self.twice,
        }

    @property
    def resembling(self) -> dict[str, int]:
        """How many are kept though they have something of a calibration sample or a test."""
        both = (self.of_calibration, self.of_tests)
        kept = [not any(names) for names in zip(*(c.of for c in both), strict=True)]
        looks = {
            "have the words of one of these with other numbers": [c.templates or () for c in both],
            "have a passage or question of one of these, not the rest": [c.parts for c in both],
        }
        return {
            what: sum(is_kept and any(names) for is_kept, *names in zip(kept, *found, strict=True))
            for what, found in looks.items()
        }

    @property
    def text(self) -> str | None:
        """One line with all counts that are not 0; None if all are."""
        left_out = [f"{count:,} that repeat {what}" for what, count in self.counts.items() if count]
        names = "; ".join(filter(None, (self.of_calibration.names, self.of_tests.names)))
        where = f" ({names})" if names else ""
        kept = [f"{count:,} that {what}" for what, count in self.resembling.items() if count]
        said = [
            *([f"left out {', '.join(left_out)}{where}"] if left_out else []),
            *([f"kept {', '.join(kept)}"] if kept else []),
        ]
        return f"{FLAG}: {'; '.join(said)}" if said else None

    @property
    def table(self) -> pd.DataFrame:
        """The counts by set and task, and those of samples that repeat another one."""
        count = len(self.of_tests.of)
        itself = Overlap(
            NAME, NAME, count + self.twice, self.twice, 0, None, count, self.twice, True
        )
        of_sets = self.of_calibration.rows(left_out=True)
        of_tasks = self.of_tests.rows_of_tasks(left_out=True)
        return overlap_table([*of_sets, *of_tasks, itself])


def without_used(
    data: TrainingData,
    calibration: Records,
    tests: Records,
    path: Path,
) -> tuple[TrainingData, LeftOut]:
    """Leave out samples that calibration or tests use, or that repeat another sample.

    Args:
        data: all samples.
        calibration: the samples that the selection is made from, by set.
        tests: the documents of the tasks, by task.
        path: the file, for the error.

    Raises:
        UsageError: fewer than two samples are left.
    """
    records = [sample_record(sample.prompt, sample.answer) for sample in data.samples]
    first = {record.normal: place for place, record in reversed(list(enumerate(records)))}
    places = sorted(first.values())
    once = identified([records[place] for place in places])
    of_calibration, of_tests = (
        compare(NAME, once, others, with_templates=True) for others in (calibration, tests)
    )
    used = zip(of_calibration.of, of_tests.of, strict=True)
    kept = [data.samples[n] for n, names in zip(places, used, strict=True) if not any(names)]
    if len(kept) < 2:
        reason = f"has {len(kept)} samples that neither calibration nor tests use"
        raise UsageError(FLAG, path, f"{reason}; expected two or more")
    left_out = LeftOut(of_calibration, of_tests, len(records) - len(once))
    return replace(data, samples=tuple(kept)), left_out


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
        shared = shared_start(ids, asked)
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
    start = shared_start(text, asked)
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


def shared_start(whole: Sequence[object], prompt: Sequence[object]) -> int:
    """The number of leading tokens, or characters, that a whole text shares with its prompt."""
    for place, (one, other) in enumerate(zip(whole, prompt, strict=False)):
        if one != other:
            return place
    return min(len(prompt), len(whole) - 1)
