"""Train the demo's tokenizer and model from scratch, on a CPU, in about forty minutes.

    python -m demo.train --output demo/model

The recipe and its results are in demo/README.md.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.mixture import FAMILIES, Example, documents, echoes, encode, examples
from demo.muon import Muon

CONTEXT = 512
VOCABULARY = 1536
END_OF_TEXT = "<|endoftext|>"
BATCH_TOKENS = 4096
"""Padded tokens of one training batch."""
ECHO_LOSS = 0.05
"""The training begins with echoes (`mixture.echoes`), until their loss has fallen below this."""
ECHO_LEARNING_RATE = 4e-3
LEARNING_RATE = 3e-3
"""Of the mixture; falls linearly to zero from its first batch to its last. At a constant rate the
noise hides for millions of tokens what the model has learned."""
WARMUP_STEPS = 30


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE that never merges digits, so that numbers are read place by place."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (
        document.text
        for family in FAMILIES
        for document in itertools.islice(documents(family, "train", seed), 2000)
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of 3.8M parameters with tied embeddings."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def batches(source: Iterator[Example], seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Length-bucketed batches: ids and loss weights, both (samples, tokens); padding weighs 0."""
    rng = random.Random(seed)
    while True:
        pool = sorted(itertools.islice(source, 4000), key=lambda example: len(example.ids))
        groups: list[list[Example]] = [[]]
        for example in pool:
            if (len(groups[-1]) + 1) * len(example.ids) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            yield collate(group)


def collate(group: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad a group on the right and cut it at the context."""
    length = min(CONTEXT, max(len(example.ids) for example in group))
    ids = torch.zeros(len(group), length, dtype=torch.long)
    weights = torch.zeros(len(group), length)
    for row, example in enumerate(group):
        end = min(length, len(example.ids))
        ids[row, :end] = torch.tensor(example.ids[:end])
        weights[row, :end] = torch.tensor(example.weights[:end])
    return ids, weights


@torch.inference_mode()
def reproduced(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, family: str) -> float:
    """Share of held-out documents whose last answer the model gives word for word, greedily."""
    right = 0
    held_out = list(itertools.islice(documents(family, "test", 1), 100))
    for document in held_out:
        example = encode(document, tokenizer)
        answer = len(tokenizer.encode(document.spans[-1].text, add_special_tokens=False))
        ids = torch.tensor(example.ids[:CONTEXT])
        guesses = model(input_ids=ids[None, :-1]).logits[0].argmax(-1)
        right += bool((guesses[-answer - 1 : -1] == ids[-answer - 1 : -1]).all())
    return right / len(held_out)


def train(tokens: int, seed: int, output: Path, start_from: Path | None = None) -> None:
    """Train on `tokens` tokens and write a Hugging Face model folder in bfloat16.

    With `start_from`, a folder that this function wrote, the weights and the tokenizer are that
    model's and the mixture begins at once.
    """
    torch.manual_seed(seed)
    if start_from is None:
        tokenizer = train_tokenizer(seed)
        model = build_model(tokenizer)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(start_from)
        model = LlamaForCausalLM.from_pretrained(start_from, dtype=torch.float32)
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(hidden, lr=LEARNING_RATE),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    done = step = lesson_start = 0
    start = time.monotonic()
    next_report = tokens // 30
    copies = start_from is not None
    lesson = batches(examples(tokenizer, seed) if copies else echoes(VOCABULARY, seed), seed)
    while done < tokens:
        ids, weights = next(lesson)
        warm = (step + 1 - lesson_start) / WARMUP_STEPS
        rate = LEARNING_RATE * (1 - done / tokens) if copies else ECHO_LEARNING_RATE
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate * min(1.0, warm)
        logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
        losses = cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        target_weights = weights[:, 1:].flatten()
        loss = (losses * target_weights).sum() / target_weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        done += int((weights > 0).sum())
        if not copies and loss.item() < ECHO_LOSS:
            print(f"copies after {step} steps", flush=True)
            copies, lesson_start = True, step
            lesson = batches(examples(tokenizer, seed), seed)
        if done >= next_report or done >= tokens:
            next_report += tokens // 30
            scores = ", ".join(
                f"{family} {reproduced(model, tokenizer, family):.2f}"
                for family in ("word problems", "drills", "lookups", "passages", "fact questions")
            )
            minutes = (time.monotonic() - start) / 60
            print(
                f"step {step}, {done / 1e6:.2f}M tokens, {minutes:.1f} min, "
                f"loss {loss.item():.3f}; reproduced: {scores}",
                flush=True,
            )
            copy.deepcopy(model).to(torch.bfloat16).save_pretrained(output)
            tokenizer.save_pretrained(output)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument(
        "--tokens", type=int, default=7_000_000, help="training tokens (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of data and weights")
    parser.add_argument("--start_from", type=Path, help="a folder that this command has written")
    arguments = parser.parse_args(argv)
    train(arguments.tokens, arguments.seed, arguments.output, arguments.start_from)


if __name__ == "__main__":
    main()
