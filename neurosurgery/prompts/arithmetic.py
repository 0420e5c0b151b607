"""Make arithmetic prompts with their answers and counterfactuals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from neurosurgery.common.arguments import checked
from neurosurgery.common.errors import UsageError
from neurosurgery.prompts.number_words import number_words
from neurosurgery.prompts.operands import Operands, result
from neurosurgery.prompts.pairs import PromptPair, Tally
from neurosurgery.prompts.replacements import replacement
from neurosurgery.prompts.templates import WORDINGS, Wording
from neurosurgery.settings.checks import check_at_least
from neurosurgery.settings.patching import FAMILIES, OPERATORS, WORDED

MOST_DIGITS = 4
"""Longer operands are no arithmetic that a model does in its head."""
MOST_DIGITS_IN_WORDS = 2
MOST_SHOTS = 16


@dataclass(frozen=True)
class ArithmeticPair(PromptPair):
    """A calculation in words or signs: the pair, its wording and its operands."""

    wording: str = ""
    left: int = 0
    right: int = 0

    @property
    def content(self) -> tuple[object, ...]:
        """Wording, operator and operands; 3 + 5 and 5 + 3 are the same."""
        operands = (self.left, self.right)
        if self.operator in ("+", "*"):
            operands = (min(operands), max(operands))
        return (self.wording, self.operator, *operands)


@checked
def arithmetic_pairs(
    tokenizer: PreTrainedTokenizerBase,
    *,
    operators: Sequence[str] = OPERATORS,
    families: Sequence[str] = WORDED,
    digits: int = 1,
    count_per_operator: int = 100,
    shots: int = 2,
    words: bool = False,
    seed: int = 0,
) -> tuple[list[ArithmeticPair], Tally]:
    """Make prompts that ask for a calculation, and counterfactuals that ask for none.

    The counterfactual has a sign or word without meaning in the operator's place, one that gives it
    as many tokens as the prompt has, if there is one. Before both stand the same `shots` solved
    examples of the same wording and operator, one a line, with other operands and, where there are
    such, with other answers. Results are whole and not negative. The wrong answer differs from the
    answer in its first digit, by one, and has as many digits. The prompts are spread evenly over
    the wordings. Each operator's prompts are the same whatever other operators are asked for.

    >>> made, tally = ns.arithmetic_pairs(tokenizer, operators=["+"], families=["demo"], shots=0)
    >>> made[0].prompt, made[0].counterfactual, made[0].answer
    ('4+2=', '4?2=', '6')

    Args:
        tokenizer: the model's; counterfactuals are chosen for it.
        operators: some of `OPERATORS`.
        families: some of `FAMILIES`.
        digits: the most digits of an operand.
        count_per_operator: prompts of each operator.
        shots: solved examples before each prompt.
        words: write operands and answers as number words (digits up to 2).
        seed: the same seed gives the same prompts.

    Returns:
        The pairs, no two alike, and a tally of how many were asked for and made: all there are, if
        these are fewer. Source: Zhang et al., arXiv 2409.01659, section 3.

    Raises:
        UsageError: an argument is out of its range, or no wording is left to write.
    """
    _check(operators, families, digits, count_per_operator, shots, words, seed)
    pairs: list[ArithmeticPair] = []
    for operator in dict.fromkeys(operators):
        maker = [
            _Maker(wording, digits, shots, words, seed, tokenizer)
            for wording in WORDINGS
            if wording.operator == operator
            and wording.family in families
            and not (words and wording.digits_only)
        ]
        generator = np.random.default_rng([seed, OPERATORS.index(operator)])
        counts = _spread(count_per_operator, [len(one) for one in maker], generator)
        for one, count in zip(maker, counts, strict=True):
            pairs += one.pairs(count)
    asked = count_per_operator * len(set(operators))
    return pairs, Tally(asked=asked, made=len(pairs))


class _Maker:
    """Makes the prompts of one wording."""

    def __init__(
        self,
        wording: Wording,
        digits: int,
        shots: int,
        words: bool,
        seed: int,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._wording = wording
        self._operands = Operands(wording, digits)
        self._shots = shots
        self._words = words
        self._tokenizer = tokenizer
        name = hashlib.sha256(f"{wording.text}\0{wording.sign}".encode()).digest()
        self._generator = np.random.default_rng([seed, int.from_bytes(name[:8], "big")])

    def __len__(self) -> int:
        """How many prompts there are; none where the operands do not suffice for the shots."""
        return len(self._operands) if len(self._operands) > self._shots else 0

    def pairs(self, count: int) -> Iterator[ArithmeticPair]:
        """Draw so many prompts, no two with the same operands."""
        for number in self._generator.choice(len(self._operands), count, replace=False):
            yield self._pair(int(number))

    def _pair(self, number: int) -> ArithmeticPair:
        wording = self._wording
        left, right = self._operands[number]
        value = result(wording.operator, left, right)
        examples = "".join(f"{self._question(*shot)}\n" for shot in self._drawn_shots(number))
        operands = self._number(left), self._number(right)
        prompt = examples + wording.prompt(*operands)
        length = self._length(prompt)

        def counterfactual(sign: str) -> str:
            return examples + wording.prompt(*operands, sign)

        sign = replacement(
            wording.sign,
            lambda sign: self._length(counterfactual(sign)) == length,
            self._generator,
        )
        return ArithmeticPair(
            prompt,
            counterfactual(sign),
            self._answer(value),
            self._answer(self._slip(value)),
            wording.operator,
            wording.family,
            wording.text.replace("{op}", wording.sign),
            left,
            right,
        )

    def _drawn_shots(self, number: int) -> list[tuple[int, int]]:
        """Operands of the shots: never the prompt's; another result where there is one."""
        total = len(self._operands)
        value = result(self._wording.operator, *self._operands[number])
        some = self._generator.choice(total, min(total, 8 * (self._shots + 1)), replace=False)
        others = [self._operands[int(other)] for other in some if other != number]
        others.sort(key=lambda shot: result(self._wording.operator, *shot) == value)
        return others[: self._shots]

    def _question(self, left: int, right: int) -> str:
        """A solved example."""
        prompt = self._wording.prompt(self._number(left), self._number(right))
        return prompt + self._answer(result(self._wording.operator, left, right))

    def _slip(self, value: int) -> int:
        """A number as long as the value whose first digit is one more or one less."""
        step = 10 ** (len(str(value)) - 1)
        near = [
            other
            for other in (value - step, value + step)
            if other >= 0 and len(str(other)) == len(str(value))
        ]
        return near[int(self._generator.integers(len(near)))]

    def _answer(self, value: int) -> str:
        return self._wording.space + self._number(value)

    def _number(self, value: int) -> str:
        return number_words(value) if self._words else str(value)

    def _length(self, text: str) -> int:
        return len(self._tokenizer.encode(text, verbose=False))


def _spread(count: int, most: Sequence[int], generator: np.random.Generator) -> list[int]:
    """Spread a count evenly over places that hold only so many; random places take the rest."""
    counts = [0] * len(most)
    order = generator.permutation(len(most)).tolist()
    left = min(count, sum(most))
    while left:
        for place in order:
            if left and counts[place] < most[place]:
                counts[place] += 1
                left -= 1
    return counts


def _check(
    operators: Sequence[str],
    families: Sequence[str],
    digits: int,
    count: int,
    shots: int,
    words: bool,
    seed: int,
) -> None:
    for flag, values, known in (
        ("--operators", operators, OPERATORS),
        ("--templates", families, FAMILIES),
    ):
        for value in values:
            if value not in known:
                raise UsageError(flag, value, f"is unknown; expected some of {' '.join(known)}")
        if not values:
            raise UsageError(flag, "", f"names none; expected some of {' '.join(known)}")
    for flag, number, least, largest in (
        ("--digits", digits, 1, MOST_DIGITS_IN_WORDS if words else MOST_DIGITS),
        ("--shots", shots, 0, MOST_SHOTS),
    ):
        if not least <= number <= largest:
            with_words = " with number words" if words and flag == "--digits" else ""
            raise UsageError(
                flag, number, f"expected a whole number from {least} to {largest}{with_words}"
            )
    check_at_least(1, {"--num_prompts": count})
    check_at_least(0, {"--random_state": seed})
    if words and set(families) <= {"demo"}:
        raise UsageError(
            "--templates", "demo", "has no number words; expected another family with them"
        )
