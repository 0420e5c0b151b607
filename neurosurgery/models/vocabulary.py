"""Check that a tokenizer and a model fit each other: every token has its row in the embedding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neurosurgery.common.errors import RunError, UsageError


def embedding_rows(model: PreTrainedModel) -> int:
    """The number of tokens that the model knows: ids run from 0 to one less."""
    return model.get_input_embeddings().weight.shape[0]


def check_end_token(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer without an end token; `name` is the model's.

    The harness starts texts with it, where there is no start token, and ends answers at it.

    Raises:
        UsageError: there is none.
    """
    if tokenizer.eos_token_id is None:
        raise UsageError("--model", name, "has a tokenizer without an end token (eos_token)")


def check_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    texts: Mapping[str, Iterable[str]],
) -> None:
    """Refuse a tokenizer whose ids, as far as texts can use them, go beyond the embedding.

    Tokens that were added to a vocabulary (an image's place) may lie beyond it, as in Gemma 3, if
    no text holds them.

    Args:
        model: the loaded model.
        tokenizer: its tokenizer.
        name: the model's name, for the error.
        texts: name of a set to its samples.

    Raises:
        UsageError: an ordinary token, the start or end token, or a token of a sample has no row.
    """
    rows = embedding_rows(model)
    vocabulary = tokenizer.get_vocab()
    if max(vocabulary.values()) < rows:
        return
    added = tokenizer.get_added_vocab()
    inserted = (tokenizer.bos_token, tokenizer.eos_token)
    always = {
        token: place
        for token, place in vocabulary.items()
        if token not in added or token in inserted
    }
    largest = max(always, key=lambda token: always[token])
    _check("the tokenizer", largest, always[largest], rows, name)
    for set_name, samples in texts.items():
        for number, sample in enumerate(samples, start=1):
            place = max(tokenizer.encode(sample, verbose=False), default=0)
            token = tokenizer.convert_ids_to_tokens(place)
            _check(f"sample {number} of {set_name}", token, place, rows, name)


def _check(where: str, token: str, place: int, rows: int, name: str) -> None:
    if place >= rows:
        raise UsageError(
            "--model",
            name,
            f"knows {rows} tokens, but {where} has {token!r} with the id {place}; expected the "
            "model's own tokenizer",
        )


def check_known(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]
) -> None:
    """Refuse a token without a row in the embedding: on a GPU it would end the process.

    Raises:
        RunError: names the token.
    """
    rows = embedding_rows(model)
    place = max(ids, default=0)
    if place >= rows:
        token = tokenizer.convert_ids_to_tokens(place)
        raise RunError(
            f"the model knows {rows} tokens, but a prompt of the tasks holds {token!r} with the id "
            f"{place}"
        )
