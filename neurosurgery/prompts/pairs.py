"""A prompt and its counterfactual: as texts, as token ids, and what became of how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from neurosurgery.common.arguments import checked, checked_fields

Encode = Callable[[str], list[int]]
"""Turns a text into token ids, without special tokens after it."""


@checked_fields
@dataclass(frozen=True)
class PromptPair:
    """A prompt with a known answer, and the same prompt without the operation.

    The answers are what follows the prompt's last character, with the space before them where there
    is one: prompt and answer, written one after the other, are the whole text. Source: Zhang et
    al., arXiv 2409.01659, section 3.
    """

    prompt: str
    counterfactual: str
    answer: str
    wrong_answer: str | None = None
    operator: str | None = None
    family: str | None = None

    @property
    def content(self) -> tuple[object, ...]:
        """What the pair asks for: a split keeps pairs of one content together."""
        return (self.prompt,)


@dataclass(frozen=True)
class TokenPair:
    """A pair as token ids, with the special tokens that the tokenizer puts before a text.

    `prompt_ids` and `counterfactual_ids` have the same length and differ. `answer_id` is the
    answer's first token that is more than blank, `wrong_id` the wrong answer's at the same place.
    `rest_ids` are the answer's tokens after that, `blanks` counts those before it, which both
    prompts end with. `respaced_id` is the first token of the answer with a space before it, or
    without the one that it has.
    """

    prompt_ids: tuple[int, ...]
    counterfactual_ids: tuple[int, ...]
    answer_id: int
    wrong_id: int | None
    source: PromptPair
    rest_ids: tuple[int, ...] = ()
    blanks: int = 0
    respaced_id: int | None = None

    @property
    def answer_tokens(self) -> int:
        """How many tokens the answer has, without blank ones before it."""
        return 1 + len(self.rest_ids)


@dataclass(frozen=True)
class Tally:
    """How many prompts were made, how many were dropped and why, how many are kept.

    A prompt with several faults counts under the first, in the order of the fields; but `trailing`
    are those that would be `joined`, had they not a space at their end that belongs to the answer,
    and `repeated`, which comes before all, are those that say what one before them says.
    `no_space` and `space` count what is `wrong` only for a space before the answer: the answer
    lacks one that the model writes, or has one that it does not.
    """

    asked: int | None = None
    made: int = 0
    joined: int = 0
    unequal: int = 0
    same: int = 0
    unanswered: int = 0
    alike: int = 0
    wrong: int = 0
    kept: int = 0
    several: int = 0
    blank: int = 0
    trailing: int = 0
    no_space: int = 0
    space: int = 0
    repeated: int = 0

    def text(self) -> str:
        """The tally in one plain line."""
        asked = f"{self.asked} asked for, " if self.asked is not None else ""
        parts = [f"prompts: {asked}{self.made} made"]
        if self.asked is not None and self.made < self.asked:
            parts[0] += " (there are no more that differ)"
        dropped = [
            (self.repeated, "repeated rows (the same prompt, counterfactual and answer)"),
            (
                self.trailing,
                "that end with a space, which belongs to the answer's token: begin answer and "
                "wrong_answer with it instead",
            ),
            (self.joined, "whose last token changes when the answer follows"),
            (self.unequal, "with a counterfactual of another length in tokens"),
            (self.same, "with a counterfactual of the same tokens"),
            (self.unanswered, "with an answer of no token"),
            (self.alike, "whose answer begins as the wrong answer does"),
            (self.wrong, f"that the model answers wrong{self._for_a_space()}"),
        ]
        reasons = [f"{count} {reason}" for count, reason in dropped if count]
        if reasons:
            parts.append("dropped " + ", ".join(reasons))
        parts.append(f"{self.kept} kept")
        if self.several:
            parts.append(
                f"{self.several} of these with an answer of several tokens: the first counts"
            )
        if self.blank:
            parts.append(
                f"{self.blank} with a blank token before the answer: the prompt ends with it"
            )
        return "; ".join(parts)

    def _for_a_space(self) -> str:
        """How many answers are wrong only for a space, and what to do about it."""
        notes = []
        if self.no_space:
            mend = "" if self.asked is not None else ": begin answer and wrong_answer with it"
            notes.append(f"{self.no_space} for a space that it writes before the answer{mend}")
        if self.space:
            mend = "" if self.asked is not None else ": begin answer and wrong_answer without it"
            notes.append(f"{self.space} for a space before the answer that it does not write{mend}")
        return f" ({', '.join(notes)})" if notes else ""


@checked
def tokenize_pairs(
    pairs: Sequence[PromptPair], tokenizer: PreTrainedTokenizerBase, tally: Tally | None = None
) -> tuple[list[TokenPair], Tally]:
    """Turn texts into tokens and drop the pairs that path patching cannot use.

    Prompt and answer are tokenised together, for a tokenizer may treat a space otherwise at the end
    of a text than before a word, and without the special tokens that it puts after a text. Where
    the answer begins with a token that is only blank (a space before digits), that token is put at
    the end of prompt and counterfactual: it says nothing about the answer. Dropped are pairs with
    prompt, counterfactual and answer of one before them, which would make a standard error too
    small, and pairs whose
    prompt is tokenised otherwise when an answer follows, whose counterfactual has another number of
    tokens or the same tokens, whose answer yields no token, or whose wrong answer has the same
    first token.

    >>> sums = [ns.PromptPair("47+25=", "47@25=", "72"), ns.PromptPair("1+1=", "1@11=", "2")]
    >>> tokens, tally = ns.tokenize_pairs(sums, tokenizer)
    >>> len(tokens), tally.unequal  # the second counterfactual is longer in tokens
    (1, 1)

    Args:
        pairs: the texts.
        tokenizer: the model's; its special tokens are added as it adds them before any text.
        tally: what is known of the pairs so far (how many were asked for).

    Returns:
        The pairs that are kept, in order, and the tally of all. Source: Zhang et al., arXiv
        2409.01659, section 3 (counterfactuals of the same length).
    """
    reasons = ("repeated", "trailing", "joined", "unequal", "same", "unanswered", "alike")
    counts = dict.fromkeys(reasons, 0)
    kept: list[TokenPair] = []
    for _, found in sorted_out(pairs, tokenizer):
        if isinstance(found, str):
            counts[found] += 1
        else:
            kept.append(found)
    return kept, _with_kept(replace(tally or Tally(), made=len(pairs), **counts), kept)


def sorted_out(
    pairs: Sequence[PromptPair], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[PromptPair, TokenPair | str]]:
    """Every pair with its tokens, or with the tally's field that counts why it is dropped."""
    encode = encoder(tokenizer)
    # The first of equal pairs stays, in its place.
    seen = set[tuple[str, str, str]]()
    for pair in pairs:
        content = (pair.prompt, pair.counterfactual, pair.answer)
        found = "repeated" if content in seen else _tokenize(pair, encode, tokenizer)
        seen.add(content)
        if found == "joined" and _ends_blank(pair, encode, tokenizer):
            found = "trailing"
        yield pair, found


def encoder(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """Turns a text into token ids, with the special tokens before it and without those after."""
    closing = _closing_tokens(tokenizer)

    def encode(text: str) -> list[int]:
        ids = list(tokenizer.encode(text, verbose=False))
        return ids[: len(ids) - closing]

    return encode


def _closing_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many special tokens the tokenizer puts after a text: an answer is to follow there."""
    whole = list(tokenizer.encode("1", verbose=False))
    plain = list(tokenizer.encode("1", add_special_tokens=False, verbose=False))
    rests = range(len(whole) - len(plain) + 1)
    start = next((place for place in rests if whole[place : place + len(plain)] == plain), None)
    return 0 if start is None else len(whole) - start - len(plain)


def _ends_blank(pair: PromptPair, encode: Encode, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the blank at the prompts' ends is what is wrong: it belongs to the answers."""
    prompt = pair.prompt.rstrip()
    blank = pair.prompt[len(prompt) :]
    if not blank or not pair.counterfactual.endswith(blank):
        return False
    moved = replace(
        pair,
        prompt=prompt,
        counterfactual=pair.counterfactual.removesuffix(blank),
        answer=blank + pair.answer,
        wrong_answer=None if pair.wrong_answer is None else blank + pair.wrong_answer,
    )
    return _tokenize(moved, encode, tokenizer) != "joined"


def _tokenize(
    pair: PromptPair, encode: Encode, tokenizer: PreTrainedTokenizerBase
) -> TokenPair | str:
    """The pair's tokens; or the tally's field that counts the reason why it is dropped."""
    prompt, joint = encode(pair.prompt), encode(pair.prompt + pair.answer)
    after = joint[len(prompt) :]
    blanks = list(takewhile(lambda token: not tokenizer.decode([token]).strip(), after))
    answer = after[len(blanks) :]
    prompt += blanks
    counterfactual = encode(pair.counterfactual) + blanks
    whole = [(joint, prompt), (encode(pair.counterfactual + pair.answer), counterfactual)]
    wrong = None
    if pair.wrong_answer is not None:
        wrong = encode(pair.prompt + pair.wrong_answer)
        whole.append((wrong, prompt))

    fault = None
    if any(text[: len(start)] != start for text, start in whole):
        fault = "joined"
    elif len(prompt) != len(counterfactual):
        fault = "unequal"
    elif prompt == counterfactual:
        fault = "same"
    elif not answer or wrong == prompt:
        fault = "unanswered"
    elif wrong is not None and wrong[len(prompt)] == answer[0]:
        fault = "alike"
    if fault is not None:
        return fault
    return TokenPair(
        tuple(prompt),
        tuple(counterfactual),
        answer_id=answer[0],
        wrong_id=None if wrong is None else wrong[len(prompt)],
        source=pair,
        rest_ids=tuple(answer[1:]),
        blanks=len(blanks),
        respaced_id=None if blanks else _respaced_id(pair, prompt, encode),
    )


def _respaced_id(pair: PromptPair, prompt: list[int], encode: Encode) -> int | None:
    """The first token after the prompt if the answer began with a space, or lost its own."""
    stripped = pair.answer.lstrip()
    ids = encode(pair.prompt + (f" {pair.answer}" if stripped == pair.answer else stripped))
    return ids[len(prompt)] if ids[: len(prompt)] == prompt and len(ids) > len(prompt) else None


@checked
def keep_right(
    pairs: Sequence[TokenPair], predicted_ids: Sequence[int], tally: Tally
) -> tuple[list[TokenPair], Tally]:
    """Drop the pairs that the model answers wrong, and count them.

    >>> found = ns.next_tokens(model, [one.prompt_ids for one in tokens], batch_tokens=512)
    >>> right, tally = ns.keep_right(tokens, found, tally)
    >>> len(right) == tally.kept
    True

    Args:
        pairs: pairs that `tokenize_pairs` kept.
        predicted_ids: for each pair the token with the model's largest logit after `prompt_ids`.
        tally: the tally of the pairs before.

    Raises:
        ValueError: there are not as many predictions as pairs.
    """
    if len(pairs) != len(predicted_ids):
        found = f"found {len(predicted_ids)}"
        raise ValueError(f"expected a prediction for each of {len(pairs)} pairs, {found}")
    right: list[TokenPair] = []
    spaces = Counter[bool]()
    for pair, predicted in zip(pairs, predicted_ids, strict=True):
        if int(predicted) == pair.answer_id:
            right.append(pair)
        elif int(predicted) == pair.respaced_id:
            spaces[pair.source.answer[:1].isspace()] += 1
    tally = replace(
        tally,
        wrong=tally.wrong + len(pairs) - len(right),
        no_space=tally.no_space + spaces[False],
        space=tally.space + spaces[True],
    )
    return right, _with_kept(tally, right)


def _with_kept(tally: Tally, kept: Sequence[TokenPair]) -> Tally:
    return replace(
        tally,
        kept=len(kept),
        several=sum(pair.answer_tokens > 1 for pair in kept),
        blank=sum(pair.blanks > 0 for pair in kept),
    )
