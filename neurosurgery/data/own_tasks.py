"""A user's table as documents of a harness task, with what should be known of them.

1. The columns say what kind of task it is (`KINDS`): options to choose from, an answer to write, or
   a text to predict.
2. Every row becomes a document; a row that cannot be asked is refused by its number and column.
3. `Checked.facts` are counts and the chance level, `Checked.warnings` what would make a score say
   less than it seems to.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import chisquare

from neurosurgery.common.errors import UsageError
from neurosurgery.common.json_files import parse_json
from neurosurgery.common.numbers import count_of, number_text
from neurosurgery.common.tables import check_filled, matched, read_table
from neurosurgery.data.task_files import PERPLEXITY

FLAG = "FILE"

ASKS = ("question", "prompt")
"""A question gets the words `Question:` and `Answer:`; a prompt is asked as it stands."""
CHOICES = ("options", "choices")
KINDS = (
    *((ask, options, "answer") for options in CHOICES for ask in ASKS),
    *((ask, "answer") for ask in ASKS),
    ("text",),
)
"""The columns of the kinds of tasks; the first of these that a table has count."""

_NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(?:\.\d+)?")
_NUMBERS = {
    "filter_list": [
        {
            "name": "first-number",
            "filter": [
                {
                    "function": "regex",
                    "group_select": 0,
                    "regex_pattern": r"([-+]?\$?\d[\d,]*(?:\.\d+)?)",
                },
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [
        {
            "metric": "exact_match",
            "aggregation": "mean",
            "higher_is_better": True,
            "regexes_to_ignore": [",", r"\$", r"^\+", r"\.0+$"],
        }
    ],
}
"""The first number that a model writes counts: 1,000 and $1000.00 are 1000."""
_WORDS = {
    "filter_list": [
        {
            "name": "stripped",
            "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}],
        }
    ],
    "metric_list": [
        {
            "metric": "exact_match",
            "aggregation": "mean",
            "higher_is_better": True,
            "regexes_to_ignore": [r"^\s+"],
        }
    ],
}
"""White space around an answer does not count: whether a model's text begins with a blank depends
on its tokenizer."""

_SURELY = 0.001
"""The p value below which positions of right options are called unbalanced."""


@dataclass
class Checked:
    """A task that can be written.

    Attributes:
        what: its kind in words.
        documents: an object each, with every other column of the table, too.
        scoring: the entries of its task file (`task_files.write_task`).
        facts: names and values.
        warnings: sentences.
    """

    what: str
    documents: list[dict[str, Any]]
    scoring: Mapping[str, Any]
    facts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_task(path: Path, reading: str | None = None) -> Checked:
    """Read a table and make documents of its rows.

    Args:
        path: a CSV or JSONL file, or a text; the columns of `KINDS`.
        reading: how answers name an option, of `READINGS`; None to find out.

    Raises:
        UsageError: it cannot be read, or names the first row and column that cannot be used.
    """
    _, table = read_table(FLAG, path, texts=(*ASKS, "text"))
    columns = matched(FLAG, path, table, KINDS)
    if table.empty:
        raise UsageError(FLAG, path, "has a header but no rows")
    check_filled(FLAG, path, table, columns, "row")
    rest = table.drop(columns=list(columns)).to_dict("records")
    if columns == ("text",):
        checked = _texts(table["text"])
    else:
        prompts = [_asked(columns[0], text) for text in table[columns[0]]]
        answers = list(table["answer"])
        if len(columns) == 3:
            options = [_options(path, n, cell) for n, cell in enumerate(table[columns[1]], 1)]
            checked = _choice(prompts, options, _positions(path, answers, options, reading))
        else:
            checked = _written(prompts, answers)
    documents = [
        {**{str(name): cell for name, cell in more.items()}, **document}
        for more, document in zip(rest, checked.documents, strict=True)
    ]
    checked.documents = documents
    checked.facts["first"] = _shown(documents[0])
    return checked


def _shown(document: Mapping[str, Any]) -> str:
    """A document as it is asked: prompt and answer, or the text."""
    if "text" in document:
        return repr(_shorten(document["text"]))
    answer = document["options"][document["gold"]] if "gold" in document else document["answer"]
    return f"{_shorten(document['prompt'])!r} → {_shorten(answer)!r}"


_MOST_SHOWN = 120


def _shorten(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _asked(column: str, text: str) -> str:
    return text if column == "prompt" else f"Question: {text.strip()}\nAnswer:"


# Options


def _options(path: Path, row: int, cell: str) -> list[str]:
    """The options of a row.

    Raises:
        UsageError: it is no list of two different texts or more.
    """

    def refuse(reason: str) -> UsageError:
        return UsageError(FLAG, path, f"row {row}, options: {reason}")

    found = _list(cell)
    if found is None:
        raise refuse(
            f"expected a list as [{chr(34)}red{chr(34)}, {chr(34)}blue{chr(34)}], or texts with | "
            f"between them, found {cell}"
        )
    if any(isinstance(one, (list, dict)) or one is None for one in found):
        raise refuse("expected texts in the list")
    options = [one if isinstance(one, str) else str(one) for one in found]
    if not all(one.strip() for one in options):
        raise refuse("one is empty; expected a text")
    if len(options) < 2:
        raise refuse("expected two or more")
    twice = [one for one, count in Counter(one.strip() for one in options).items() if count > 1]
    if twice:
        raise refuse(f"{twice[0]} stands there twice; expected every option once")
    return options


def _list(cell: str) -> list[Any] | None:
    """A list in JSON, as Python writes it, or with bars between its texts."""
    for parse in (parse_json, ast.literal_eval):
        try:
            found = parse(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    if "|" in cell and not cell.lstrip().startswith(("[", "{")):
        return [one.strip() for one in cell.split("|")]
    return None


_LETTER = re.compile(r"\(?([A-Za-z])[).]?")


def _by_text(answer: str, options: Sequence[str]) -> int | None:
    stripped = [one.strip() for one in options]
    return stripped.index(answer) if answer in stripped else None


def _by_letter(answer: str, options: Sequence[str]) -> int | None:
    found = _LETTER.fullmatch(answer)
    return _within(ord(found.group(1).upper()) - ord("A"), options) if found else None


def _by_index(answer: str, options: Sequence[str]) -> int | None:
    return _within(int(answer), options) if answer.isdecimal() else None


def _by_number(answer: str, options: Sequence[str]) -> int | None:
    return _within(int(answer) - 1, options) if answer.isdecimal() else None


def _within(position: int, options: Sequence[str]) -> int | None:
    return position if position in range(len(options)) else None


READINGS: dict[str, Callable[[str, Sequence[str]], int | None]] = {
    "text": _by_text,
    "letter": _by_letter,
    "index": _by_index,
    "number": _by_number,
}
"""What an answer may be: an option's text, its letter, its position from 0, or from 1."""
_FOUND_OUT = ("text", "letter", "index")
"""Positions from 1 are positions from 0 of other options, so that they have to be asked for."""


def _positions(
    path: Path,
    answers: Sequence[str],
    options: Sequence[Sequence[str]],
    reading: str | None,
) -> list[int]:
    """The right option of every row, by one reading of the whole column.

    Raises:
        UsageError: no reading fits all rows, or two fit and differ.
    """
    names = _FOUND_OUT if reading is None else (reading,)
    stripped = [answer.strip() for answer in answers]
    found = {
        name: [READINGS[name](a, o) for a, o in zip(stripped, options, strict=True)]
        for name in names
    }
    whole = {name: places for name, places in found.items() if None not in places}
    if not whole:
        raise _unreadable(path, stripped, options, found)
    first, *others = whole
    for other in others:
        for row, places in enumerate(zip(whole[first], whole[other], strict=True), 1):
            if places[0] != places[1]:
                reason = (
                    f"{path}: answers may be read as {first} or {other}; row {row}, answer: "
                    f"{stripped[row - 1]} is another option then"
                )
                raise UsageError("--answers", "", f"{reason}; expected one of them")
    return [place for place in whole[first] if place is not None]


def _unreadable(
    path: Path,
    answers: Sequence[str],
    options: Sequence[Sequence[str]],
    found: Mapping[str, Sequence[int | None]],
) -> UsageError:
    """Names the first row that the reading which fits most rows does not fit."""
    name = min(found, key=lambda each: found[each].count(None))
    row = found[name].index(None)
    by_number = all(
        _by_number(a, o) is not None and a not in o for a, o in zip(answers, options, strict=True)
    )
    hint = "; if they count from 1, give --answers number" if by_number else ""
    last = len(options[row]) - 1
    expected = {
        "text": f"one of its options, {', '.join(options[row])}",
        "letter": f"a letter from A to {chr(ord('A') + min(last, 25))}",
        "index": f"a position from 0 to {last}",
        "number": f"a position from 1 to {last + 1}",
    }[name]
    reason = f"row {row + 1}, answer: {answers[row]} is none of its options; expected {expected}"
    return UsageError(FLAG, path, reason + hint)


_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")


def _are_dates(texts: Sequence[str]) -> bool:
    """Whether all texts are dates, of which the library datasets makes no texts any more.

    A blank before them keeps them texts.
    """
    return all(_DATE.fullmatch(text) for text in texts)


def _after(prompt: str, text: str) -> str:
    """A text with a blank before it, unless the prompt ends or the text begins with white space."""
    return text if prompt[-1:].isspace() or text[0].isspace() else f" {text}"


def _choice(
    prompts: Sequence[str], options: Sequence[Sequence[str]], right: Sequence[int]
) -> Checked:
    # The harness puts one delimiter before every option of a task. Where a prompt ends with white
    # space, or an option begins with it, that is the delimiter, and the others get theirs here.
    every = [one for each in options for one in each]
    spaced = (
        any(prompt[-1:].isspace() for prompt in prompts)
        or any(one[0].isspace() for one in every)
        or _are_dates(every)
    )
    written = [
        [_after(prompt, one) if spaced else one for one in each]
        for prompt, each in zip(prompts, options, strict=True)
    ]
    documents = [
        {"prompt": prompt, "options": each, "gold": gold}
        for prompt, each, gold in zip(prompts, written, right, strict=True)
    ]
    lengths = {len(one.strip()) for each in options for one in each}
    metrics = ["acc"] if len(lengths) == 1 else ["acc", "acc_norm"]
    checked = Checked(
        "multiple choice, options by log-likelihood",
        documents,
        {
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",
            "doc_to_choice": "options",
            "doc_to_target": "gold",
            "target_delimiter": "" if spaced else " ",
            "metric_list": [
                {"metric": name, "aggregation": "mean", "higher_is_better": True}
                for name in metrics
            ],
        },
    )
    counts = Counter(len(each) for each in options)
    chance = math.fsum(1 / len(each) for each in options) / len(options)
    of_each = "options each" if len(counts) == 1 else "options, by document"
    numbers = " or ".join(map(str, sorted(counts)))
    checked.facts["chance"] = f"{number_text(chance)} ({numbers} {of_each})"
    places = [right.count(place) for place in range(max(counts))]
    checked.facts["right option"] = ", ".join(
        f"{chr(ord('A') + place) if place < 26 else place + 1} {count}"
        for place, count in enumerate(places)
    )
    checked.facts["same position"] = f"{number_text(max(places) / len(right))} by always the same"
    _lengths(checked, prompts)
    if len(counts) > 1:
        told = ", ".join(f"{count} with {number}" for number, count in sorted(counts.items()))
        checked.warnings.append(f"documents have unequal numbers of options: {told}")
    _repeated(
        checked, prompts, [str(each[gold]) for each, gold in zip(options, right, strict=True)]
    )
    _unbalanced(checked, options, right)
    _leaking(
        checked,
        [
            _stands_in(each[gold], prompt)
            and not any(_stands_in(o, prompt) for n, o in enumerate(each) if n != gold)
            for prompt, each, gold in zip(prompts, options, right, strict=True)
        ],
        "the right option stands in the question, and no other option does",
    )
    return checked


def _unbalanced(checked: Checked, options: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    """Whether right options stand at some positions more often than at others."""
    number, _ = Counter(len(each) for each in options).most_common(1)[0]
    of_number = [gold for each, gold in zip(options, right, strict=True) if len(each) == number]
    counts = [of_number.count(place) for place in range(number)]
    if chisquare(counts).pvalue < _SURELY:
        checked.warnings.append(
            "the right option stands at some positions more often than at others "
            f"({' '.join(map(str, counts))}): a model that prefers a position scores by it"
        )


# Answers that are written


def _written(prompts: Sequence[str], answers: Sequence[str]) -> Checked:
    stripped = [answer.strip() for answer in answers]
    numbers = all(_NUMBER.fullmatch(answer) for answer in stripped)
    longest = max(len(answer.encode()) for answer in stripped)
    until = [end for end in ("\n", "\n\n") if not any(end in answer for answer in stripped)][:1]
    if prompts[0].startswith("Question: "):
        until.append("Question:")
    dates = _are_dates(stripped)
    checked = Checked(
        "answers written by the model, the first number compared"
        if numbers
        else "answers written by the model, compared exactly",
        [
            {"prompt": prompt, "answer": _after(prompt, answer) if dates else answer}
            for prompt, answer in zip(prompts, stripped, strict=True)
        ],
        {
            "output_type": "generate_until",
            "doc_to_text": "prompt",
            "doc_to_target": "answer",
            "target_delimiter": "" if dates or all(p[-1:].isspace() for p in prompts) else " ",
            "generation_kwargs": {
                "until": until,
                "do_sample": False,
                # No text has more tokens than bytes; a number may come after a few words.
                "max_gen_toks": longest + (24 if numbers else 8),
            },
            **(_NUMBERS if numbers else _WORDS),
        },
    )
    answer, count = Counter(stripped).most_common(1)[0]
    checked.facts["chance"] = "0 by guessing"
    checked.facts["same answer"] = f"{number_text(count / len(stripped))} by always {answer!r}"
    checked.facts["ends at"] = " or ".join(map(repr, until)) or "the end of the text"
    _lengths(checked, prompts)
    _repeated(checked, prompts, stripped)
    _leaking(
        checked,
        [_stands_in(answer, prompt) for prompt, answer in zip(prompts, stripped, strict=True)],
        "the answer stands in the question",
    )
    if not numbers and any(_NUMBER.fullmatch(answer) for answer in stripped):
        checked.warnings.append(
            "some answers are numbers and some are not, so that all are compared as texts: "
            "1,000 is not 1000"
        )
    return checked


# Texts


def _texts(texts: pd.Series) -> Checked:
    checked = Checked("perplexity of texts", [{"text": text} for text in texts], dict(PERPLEXITY))
    _lengths(checked, list(texts), "texts")
    _repeated(checked, list(texts), list(texts))
    return checked


# What is said of all


def _lengths(checked: Checked, texts: Sequence[str], name: str = "prompts") -> None:
    words = pd.Series([len(text.split()) for text in texts])
    checked.facts[name] = f"{words.median():g} words (median), {words.max():,} at most"
    if len(texts) < 100 and name == "prompts":
        checked.facts["precision"] = (
            f"{count_of(len(texts), 'document')} tell an accuracy to about "
            f"± {number_text(0.98 / math.sqrt(len(texts)))}"
        )


def _repeated(checked: Checked, prompts: Sequence[str], answers: Sequence[str]) -> None:
    """Equal prompts: with one answer they count twice, with several one of them is wrong."""
    table = pd.DataFrame({"prompt": prompts, "answer": answers})
    twice = table.duplicated("prompt", keep="first")
    if not twice.any():
        return
    rows = [int(row) + 1 for row in table.index[twice][:3]]
    more = " …" if twice.sum() > len(rows) else ""
    several = int((table.groupby("prompt")["answer"].nunique() > 1).sum())
    told = f"; {several} of them with another answer" if several else ""
    checked.warnings.append(
        f"{count_of(int(twice.sum()), 'document')} repeat one before (row "
        f"{', '.join(map(str, rows))}{more}){told}: they are counted as if they were new"
    )


def _leaking(checked: Checked, leaks: Sequence[bool], what: str) -> None:
    rows = [row for row, leak in enumerate(leaks, 1) if leak]
    if rows:
        shown = ", ".join(map(str, rows[:3])) + (" …" if len(rows) > 3 else "")
        checked.warnings.append(
            f"{len(rows)} of {len(leaks)}: {what} (row {shown}); a model may copy it"
        )


def _stands_in(answer: str, prompt: str) -> bool:
    """Whether an answer stands in a text as a whole word."""
    return re.search(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", prompt) is not None
