"""Tokenizers that treat digits and spaces as the demo's does not; nothing is downloaded."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from neurosurgery.prompts.number_words import number_words
from neurosurgery.prompts.replacements import REPLACEMENTS
from neurosurgery.prompts.templates import WORDINGS

START = "<s>"


def _corpus() -> Iterator[str]:
    for number in range(2000):
        yield f"{number} {number}"
    for number in range(100):
        yield f"{number_words(number)} {number_words(number)}"
    for text in (*(wording.text for wording in WORDINGS), *REPLACEMENTS):
        yield f"{text} {text}"
    for wording in WORDINGS:
        yield f"{wording.sign} {wording.sign}"


@functools.cache
def word_tokenizer(
    *, leading_space: bool = False, start: bool = False, end: bool = False
) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for a word of the prompts and for a number up to 1999.

    A space is part of the word after it (`leading_space`) or a token of its own. `start` puts a
    start token before every text, `end` one after it.
    """
    space = " ?" if leading_space else ""
    pattern = Regex(rf"{space}\d+|{space}[A-Za-z]+|{space}[^\s\dA-Za-z]|\s")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=20_000,
        show_progress=False,
        special_tokens=[START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if start or end:
        parts = [START] * start + ["$A"] + [START] * end
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(parts), special_tokens=[(START, tokenizer.token_to_id(START))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=START, eos_token=START)
