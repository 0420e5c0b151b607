"""A prompt and its counterfactual: as texts, as token ids, and what became of how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from transformers import PreTrainedTokenizerBase


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
    prompts end with.
    """

    prompt_ids: tuple[int, ...]
    counterfactual_ids: tuple[int, ...]
    answer_id: int
    wrong_id: int | None
    source: PromptPair
    rest_ids: tuple[int, ...] = ()
    blanks: int = 0

    @property
    def answer_tokens(self) -> int:
        """How many tokens the answer has, without blank ones before it."""
        return 1 + len(self.rest_ids)


@dataclass(frozen=True)
class Tally:
    """How many prompts were made, how many were dropped and why, how many are kept.

    A prompt with several faults counts under the first, in the order of the fields.
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

    def text(self) -> str:
        """The tally in one plain line."""
        asked = f"{self.asked} asked for, " if self.asked is not None else ""
        parts = [f"prompts: {asked}{self.made} made"]
        if self.asked is not None and self.made < self.asked:
            parts[0] += " (there are no more that differ)"
        dropped = [
            (self.joined, "whose last token changes when the answer follows"),
            (self.unequal, "with a counterfactual of another length in tokens"),
            (self.same, "with a counterfactual of the same tokens"),
            (self.unanswered, "with an answer of no token"),
            (self.alike, "whose answer begins as the wrong answer does"),
            (self.wrong, "that the model answers wrong"),
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


def tokenize_pairs(
    pairs: Sequence[PromptPair], tokenizer: PreTrainedTokenizerBase, tally: Tally | None = None
) -> tuple[list[TokenPair], Tally]:
    """Turn texts into tokens and drop the pairs that path patching cannot use.

    Prompt and answer are tokenised together, for a tokenizer may treat a space otherwise at the end
    of a text than before a word. Where the answer begins with a token that is only blank (a space
    before digits), that token is put at the end of prompt and counterfactual: it says nothing about
    the answer. Dropped are pairs whose prompt is tokenised otherwise when an answer follows, whose
    counterfactual has another number of tokens or the same tokens, whose answer yields no token, or
    whose wrong answer has the same first token.

    Args:
        pairs: the texts.
        tokenizer: the model's; its special tokens are added as it adds them to any text.
        tally: what is known of the pairs so far (how many were asked for).

    Returns:
        The pairs that are kept, in order, and the tally of all. Source: Zhang et al., arXiv
        2409.01659, section 3 (counterfactuals of the same length).
    """
    counts = dict.fromkeys(("joined", "unequal", "same", "unanswered", "alike"), 0)
    kept: list[TokenPair] = []
    for pair in pairs:
        found = _tokenize(pair, tokenizer)
        if isinstance(found, str):
            counts[found] += 1
        else:
            kept.append(found)
    return kept, _with_kept(replace(tally or Tally(), made=len(pairs), **counts), kept)


def _tokenize(pair: PromptPair, tokenizer: PreTrainedTokenizerBase) -> TokenPair | str:
    """The pair's tokens; or the tally's field that counts the reason why it is dropped."""

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, verbose=False))

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
    )


def keep_right(
    pairs: Sequence[TokenPair], predicted_ids: Sequence[int], tally: Tally
) -> tuple[list[TokenPair], Tally]:
    """Drop the pairs that the model answers wrong, and count them.

    Args:
        pairs: pairs that `tokenize_pairs` kept.
        predicted_ids: for each pair the token with the model's largest logit after `prompt_ids`.
        tally: the tally of the pairs before.

    Raises:
        ValueError: there are not as many predictions as pairs.
    """
    right = [
        pair
        for pair, predicted in zip(pairs, predicted_ids, strict=True)
        if int(predicted) == pair.answer_id
    ]
    return right, _with_kept(replace(tally, wrong=tally.wrong + len(pairs) - len(right)), right)


def _with_kept(tally: Tally, kept: Sequence[TokenPair]) -> Tally:
    return replace(
        tally,
        kept=len(kept),
        several=sum(pair.answer_tokens > 1 for pair in kept),
        blank=sum(pair.blanks > 0 for pair in kept),
    )
