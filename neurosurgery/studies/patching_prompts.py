"""The prompts of path patching: read or made, tokenised, answered by the model, split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say
from neurosurgery.localisation.patching_metrics import LOGIT_DIFF
from neurosurgery.models.forward import context_length, next_tokens
from neurosurgery.models.load import LoadedModel
from neurosurgery.prompts.arithmetic import arithmetic_pairs
from neurosurgery.prompts.dropped import Dropped, answered_wrong, dropped_pairs, dropped_text
from neurosurgery.prompts.pairs import PromptPair, Tally, TokenPair, keep_right, tokenize_pairs
from neurosurgery.prompts.split import split_held_out
from neurosurgery.settings.patching import PromptConfig
from neurosurgery.studies.patching_config import PatchConfig, PatchingConfig

LEAST = 4
"""Prompts that each part needs, for a standard error and an interval to say anything."""


@dataclass(frozen=True)
class TokenisedPrompts:
    """What is asked of the model, as plain data, which travels to other processes.

    Attributes:
        patch: what is found with the prompts, and knocked out.
        held_out: the share of the prompts that no unit is found with.
        source: the flag that the prompts come from, and its value.
        tokens: the prompts.
        tally: how many were made and dropped before.
        rows: the rows of given prompts in their file.
        dropped: those of them that cannot be used.
    """

    patch: PatchConfig
    held_out: float
    source: tuple[str, str]
    tokens: Sequence[TokenPair]
    tally: Tally
    rows: Mapping[PromptPair, int] = field(default_factory=dict)
    dropped: Sequence[Dropped] = ()


class Prompts(NamedTuple):
    """Prompts that the model answers right: those to find units with, and those held out.

    `dropped` are given prompts that are neither, because of their tokens or a wrong answer.
    """

    found_on: list[TokenPair]
    held_out: list[TokenPair]
    text: str
    dropped: Sequence[Dropped] = ()


def tokenised_prompts(
    tokenizer: PreTrainedTokenizerBase, config: PatchingConfig, given: Sequence[PromptPair] | None
) -> TokenisedPrompts:
    """Make or take the prompts, as tokens; the model is not needed.

    Args:
        tokenizer: the model's.
        config: the settings.
        given: the prompts of `--prompts`; None to make arithmetic.

    Raises:
        UsageError: a flag asks for prompts that there are not, too few can be used, or the metric
            needs wrong answers that there are not.
    """
    tokens, tally = _tokenised(tokenizer, config, given)
    dropped = dropped_pairs(given or (), tokenizer)
    file = config.prompts.file
    source = ("--prompts", str(file)) if file else ("--model", config.model.name)
    if len(tokens) < 2 * LEAST:
        _tell(dropped)
        raise UsageError(*source, f"{tally.text()}; expected at least {2 * LEAST} to be kept")
    if config.patch.metric == LOGIT_DIFF and any(pair.wrong_id is None for pair in tokens):
        raise UsageError("--metric", LOGIT_DIFF, "expected a wrong_answer for every prompt")
    rows = {pair: row for row, pair in reversed(list(enumerate(given or (), 1)))}
    held_out = config.prompts.held_out
    return TokenisedPrompts(config.patch, held_out, source, tokens, tally, rows, dropped)


def _tell(dropped: Sequence[Dropped]) -> None:
    """Print what is wrong with prompts before the line that says that too few are left."""
    for line in dropped_text(dropped):
        say(line)


def _tokenised(
    tokenizer: PreTrainedTokenizerBase, config: PatchingConfig, given: Sequence[PromptPair] | None
) -> tuple[list[TokenPair], Tally]:
    if given is not None:
        return tokenize_pairs(given, tokenizer)
    made: PromptConfig = config.prompts
    pairs, tally = arithmetic_pairs(
        tokenizer,
        operators=made.operators,
        families=made.templates,
        digits=made.digits,
        count_per_operator=made.number,
        shots=made.shots,
        words=made.number_words,
        seed=config.patch.random_state,
    )
    return tokenize_pairs(pairs, tokenizer, tally)


def prepare_prompts(loaded: LoadedModel, asked: TokenisedPrompts, batch_tokens: int) -> Prompts:
    """Keep the prompts with a right answer, hold a part out.

    Args:
        loaded: the unedited model.
        asked: the prompts.
        batch_tokens: tokens per batch.

    Raises:
        UsageError: too few prompts are left, or a prompt is longer than the context.
    """
    longest = max((len(pair.prompt_ids) for pair in asked.tokens), default=0)
    context = context_length(loaded.model, loaded.tokenizer)
    if longest > context:
        reason = f"a prompt has {longest} tokens; expected at most {context}, the context"
        raise UsageError(*asked.source, reason)
    answers = next_tokens(loaded.model, [pair.prompt_ids for pair in asked.tokens], batch_tokens)
    tokens, tally = keep_right(asked.tokens, answers, asked.tally)
    dropped = list(asked.dropped)
    if asked.rows:
        dropped += answered_wrong(asked.tokens, answers, asked.rows, loaded.tokenizer)
    found_on, held_out = split_held_out(tokens, asked.held_out, asked.patch.random_state)
    if min(len(found_on), len(held_out)) < LEAST:
        _tell(dropped)
        raise UsageError(
            *asked.source,
            f"{tally.text()}; expected at least {LEAST} right answers to find units with and "
            f"{LEAST} held out, found {len(found_on)} and {len(held_out)}",
        )
    counterfactuals = [pair.counterfactual_ids for pair in tokens]
    alike = sum(
        token == pair.answer_id
        for token, pair in zip(
            next_tokens(loaded.model, counterfactuals, batch_tokens), tokens, strict=True
        )
    )
    text = (
        f"{tally.text()}; to the counterfactuals of {alike} of them the model gives the same "
        "answer (these say less)"
    )
    return Prompts(found_on, held_out, text, dropped)
