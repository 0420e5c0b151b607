"""Pairs that path patching cannot use, shown with the tokens that are the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from transformers import PreTrainedTokenizerBase

from neurosurgery.prompts.pairs import PromptPair, TokenPair, encoder, sorted_out

REASONS = {
    "repeated": "is a row before, again",
    "trailing": "ends with a space, which belongs to the answer",
    "joined": "the last token of the prompt changes when the answer follows",
    "unequal": "prompt and counterfactual have not as many tokens",
    "same": "prompt and counterfactual have the same tokens",
    "unanswered": "the answer has no token",
    "alike": "the answer begins as the wrong answer does",
    "wrong": "the model answers otherwise",
}
"""What became of a pair (the fields of `Tally`), in words."""

_SHOWN = 3
"""Pairs of each reason that are printed."""


@dataclass(frozen=True)
class Dropped:
    """A pair that is left out.

    Attributes:
        row: its row in the file, counted from 1.
        reason: a key of `REASONS`.
        pair: the texts.
        sides: what is compared.
        tokens: the texts of the tokens of both sides.
    """

    row: int
    reason: str
    pair: PromptPair
    sides: tuple[str, str]
    tokens: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def pieces(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The tokens in which the sides differ, between what they begin and end with alike."""
        one, other = self.tokens
        shorter = min(len(one), len(other))
        start = next((n for n in range(shorter) if one[n] != other[n]), shorter)
        left = shorter - start
        end = next((n for n in range(left) if one[-1 - n] != other[-1 - n]), left)
        return one[start : len(one) - end], other[start : len(other) - end]

    @property
    def text(self) -> str:
        """The pair in a line: which side has how many tokens, and where they differ."""
        counts, pieces = map(len, self.tokens), map(_joined, self.pieces)
        told = (
            f"{side} {count}: {piece}"
            for side, count, piece in zip(self.sides, counts, pieces, strict=True)
        )
        return f"row {self.row}, {self.pair.prompt!r}: tokens of {'; of '.join(told)}"


def dropped_pairs(pairs: Sequence[PromptPair], tokenizer: PreTrainedTokenizerBase) -> list[Dropped]:
    """The pairs that `tokenize_pairs` leaves out, in their order."""
    encode = encoder(tokenizer)

    def pieces(text: str) -> tuple[str, ...]:
        return _pieces(encode(text), tokenizer)

    found = []
    for row, (pair, reason) in enumerate(sorted_out(pairs, tokenizer), 1):
        if isinstance(reason, TokenPair):
            continue
        sides, texts = ("prompt", "counterfactual"), (pair.prompt, pair.counterfactual)
        if reason in ("joined", "trailing"):
            sides, texts = ("prompt", "prompt and answer"), (pair.prompt, pair.prompt + pair.answer)
        elif reason in ("alike", "unanswered"):
            sides, texts = ("answer", "wrong_answer"), (pair.answer, pair.wrong_answer or "")
        found.append(Dropped(row, reason, pair, sides, (pieces(texts[0]), pieces(texts[1]))))
    return found


def answered_wrong(
    pairs: Sequence[TokenPair],
    predicted_ids: Sequence[int],
    rows: Mapping[PromptPair, int],
    tokenizer: PreTrainedTokenizerBase,
) -> list[Dropped]:
    """The pairs that `keep_right` leaves out: the answer's first token, and the model's."""
    return [
        Dropped(
            rows.get(pair.source, 0),
            "wrong",
            pair.source,
            ("answer", "model"),
            (_pieces([pair.answer_id], tokenizer), _pieces([int(predicted)], tokenizer)),
        )
        for pair, predicted in zip(pairs, predicted_ids, strict=True)
        if int(predicted) != pair.answer_id
    ]


def dropped_text(dropped: Sequence[Dropped]) -> Iterator[str]:
    """Every reason with its number of pairs, and the first pairs of it."""
    for reason, words in REASONS.items():
        mine = [each for each in dropped if each.reason == reason]
        if mine:
            yield f"{len(mine)} dropped: {words}"
            yield from (f"  {each.text}" for each in mine[:_SHOWN])


def dropped_table(dropped: Sequence[Dropped]) -> pd.DataFrame:
    """All of them, with their tokens."""
    columns = ["row", "reason", "prompt", "counterfactual", "answer"]
    columns += [f"{side}_{what}" for side in ("first", "second") for what in ("tokens", "differs")]
    rows = [
        [each.row, REASONS[each.reason], each.pair.prompt, each.pair.counterfactual]
        + [each.pair.answer]
        + [
            cell
            for side, tokens, pieces in zip(each.sides, each.tokens, each.pieces, strict=True)
            for cell in (f"{side} {len(tokens)}", _joined(pieces))
        ]
        for each in dropped
    ]
    return pd.DataFrame(rows, columns=columns)


def _pieces(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    return tuple(tokenizer.decode([token]) for token in ids)


def _joined(pieces: Sequence[str]) -> str:
    return " ".join(f"[{piece}]" for piece in pieces) or "nothing"
