"""How much faster evaluation is than through lm-eval's own Hugging Face backend.

    python -m benchmarks.evaluate --quick
    python -m benchmarks.evaluate --json evaluate.json
    python -m benchmarks.evaluate --device cuda --quick

Both backends hold the same loaded model and answer the same requests, in turns; the table shows
medians. The first turn is not counted: a grid evaluates the same documents again and again, and
what we remember between calls (prompts and token ids, nothing else) is there from the second cell
on. Freed memory is kept, as by the scripts, for both. Both are given a batch size of 16: for HFLM
that is rows, for us a bound on tokens and memory, so that more rows decode together.

Three shapes of request run on a Llama with random weights, whose head has about the share of the
parameters that it has in Llama-3.2-1B, a fifth; the others are the demo's tasks on its own model,
as many documents as in a cell of its grid. No row of the random Llama's texts stops before its
limit, which is the worst case for us: rows that stop leave our batches, while HFLM runs a batch
until its last row is done. Without `--quick`, and on a GPU, all of it comes in bfloat16 too, where
rounding may change what is answered: the table says for how many documents it did not. On a GPU the
Llama has the shape of Llama-3.2-1B, and both are given a batch size of 64. Both answer with the
same edited modules: a hundredth of the weights, drawn at random, are zero. Needs no network.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from benchmarks.common import finish, interleaved, paired_ratio, parse, table
from benchmarks.llamas import LLAMA_1B, Size, demo_model
from benchmarks.training import random_mask
from neurosurgery.edit.scale import scaled
from neurosurgery.evaluation.documents import document_records
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.evaluation.harness import Harness
from neurosurgery.evaluation.isolation import chatter_to
from neurosurgery.models.devices import keep_freed_memory
from neurosurgery.settings.demo import DEMO, TASKS_FOLDER
from neurosurgery.settings.experiment import EvaluationConfig

BATCH_SIZE = {"cpu": 16, "cuda": 64}
EDITED = 0.01
"""The share of the weights that are zero while both backends answer."""

SIZES = {"cpu": Size(256, 6, 688, 4096, tied=True), "cuda": LLAMA_1B._replace(vocabulary=4096)}
"""Of the Llama with random weights; of its vocabulary the tokenizer knows a part."""

STORIES = "demo_stories"
WORDS = (
    "Anna Victor Elena Mia works plays lives counts buys finds reads near the river in Oakham on "
    "Sunday with 12 red apples 7 friends 34 stickers and a yellow bag while it is raining"
).split()

Answer = tuple[Any, Any]
"""What must be equal (an option, a text) and what may be rounded otherwise (log-likelihoods)."""


@dataclass(frozen=True)
class Shape:
    """A kind of evaluation: how one backend answers its documents."""

    name: str
    description: str
    answers: Callable[[HFLM], list[Answer]]
    of_demo: bool = False


@dataclass(frozen=True)
class Line:
    """A row of the table; seconds are medians."""

    name: str
    description: str
    dtype: str
    documents: int
    agreeing: int
    largest_deviation: float
    stock_seconds: float
    our_seconds: float
    ratio: float


def random_llama(device: str = "cpu", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A Llama of random weights: six million on a CPU."""
    size = SIZES[device]
    heads = size.hidden // 64
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=size.key_value_heads or heads,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=True,
        # Wider than the default, with which every token looks alike.
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    # A head row of zeros never wins over another, so no row ends before its limit.
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = 0
    return model.eval()


def edited(model: PreTrainedModel) -> AbstractContextManager[object]:
    """The model with some of its weights set to zero while the block runs."""
    return scaled(model, random_mask(model, EDITED), 0.0)


def text(generator: random.Random, words: int) -> str:
    """So many words in random order."""
    return " ".join(generator.choices(WORDS, k=words))


def multiple_choice(documents: Sequence[tuple[str, list[str]]]) -> Callable[[HFLM], list[Answer]]:
    """Answers to (context, options) pairs, as the harness asks for them."""
    requests = [
        Instance("loglikelihood", {}, (context, option), index)
        for index, (context, options) in enumerate(documents)
        for option in options
    ]

    def answers(lm: HFLM) -> list[Answer]:
        scores = iter(lm.loglikelihood(requests, disable_tqdm=True))
        found = [[next(scores)[0] for _ in options] for _, options in documents]
        return [(max(range(len(each)), key=each.__getitem__), each) for each in found]

    return answers


def race(documents: int) -> Shape:
    """A long article and four options of several tokens."""
    generator = random.Random(1)
    pairs = [
        (text(generator, generator.randint(210, 260)), [f" {text(generator, 6)}" for _ in "ABCD"])
        for _ in range(documents)
    ]
    return Shape("race", "long context, four options of several tokens", multiple_choice(pairs))


def mmlu(documents: int) -> Shape:
    """A short question and four options of one token."""
    generator = random.Random(2)
    pairs = [
        (f"{text(generator, generator.randint(30, 90))}\nAnswer:", [" A", " B", " C", " D"])
        for _ in range(documents)
    ]
    return Shape("mmlu", "short context, four options of one token", multiple_choice(pairs))


def gsm8k(documents: int) -> Shape:
    """Eight worked examples that all prompts share, a question, a text of 96 tokens."""
    generator = random.Random(3)
    shots = "\n\n".join(f"Q: {text(generator, 22)}\nA: {text(generator, 44)}" for _ in range(8))
    arguments = {"until": ["Q:", "</s>"], "do_sample": False, "max_gen_toks": 96}
    requests = [
        Instance("generate_until", {}, (f"{shots}\n\nQ: {question}\nA:", arguments), index)
        for index in range(documents)
        for question in [text(generator, generator.randint(30, 50))]
    ]

    def answers(lm: HFLM) -> list[Answer]:
        return [(text, []) for text in lm.generate_until(requests, disable_tqdm=True)]

    return Shape("gsm8k", "eight shots, 96 new tokens", answers)


def demo(name: str, description: str, tasks: Sequence[str], documents: int) -> Shape:
    """Tasks of the demo, so many documents of each.

    The stock backend runs as it does for `lm_eval`, which forms the prompts at every call.
    """
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
    return task_shape(name, description, tasks, documents, manager, of_demo=True)


def task_shape(
    name: str,
    description: str,
    tasks: Sequence[str],
    documents: int,
    manager: TaskManager,
    *,
    of_demo: bool = False,
) -> Shape:
    """The harness's tasks, so many documents of each, as either backend answers them."""
    config = EvaluationConfig(tasks[0], (), None, documents, None, False, None, BATCH_SIZE["cpu"])
    harness = Harness(manager, "other_tasks", tasks, config)
    plain = manager.load(list(tasks))

    def found(lm: HFLM) -> list[dict[str, Any]]:
        if isinstance(lm, LanguageModel):
            return harness.evaluate(lm).documents
        result = evaluate(lm, plain, limit=documents, log_samples=True)
        return document_records(result["samples"], plain["tasks"], {})

    def answers(lm: HFLM) -> list[Answer]:
        # What a story is given is a likelihood, no choice.
        return [
            ((), [document["answer"]])
            if document["task"] == STORIES
            else (document.get("generated", document["answer"]), document.get("loglikelihoods", []))
            for document in found(lm)
        ]

    return Shape(name, description, answers, of_demo=of_demo)


def shapes(quick: bool, *, smallest: bool = False, device: str = "cpu") -> Iterator[Shape]:
    """What is measured, in the order of the table."""
    # A GPU answers as many in the time.
    counts = (8, 32, 8) if quick and device == "cpu" else (32, 200, 64)
    for make, documents in zip((race, mmlu, gsm8k), counts, strict=True):
        yield make(2 if smallest else documents)
    if smallest:
        return
    choices = [task for task in DEMO.eval_datasets if task != STORIES]
    documents = 100 if quick else 200
    yield demo(
        "demo",
        "the demo's three tasks, its own model",
        [DEMO.train_lm_eval_task, *choices],
        documents,
    )
    yield demo("stories", "the demo's texts, every token scored", [STORIES], documents)


def measure(shape: Shape, dtype: torch.dtype, ours: HFLM, stock: HFLM, rounds: int) -> Line:
    """Both backends in turns, what they answered compared."""
    answers: dict[str, list[Answer]] = {}
    backends = {"stock": stock, "ours": ours}

    def answering(name: str) -> Callable[[], None]:
        def answer() -> None:
            answers[name] = shape.answers(backends[name])

        return answer

    seconds = interleaved({name: answering(name) for name in backends}, rounds)
    pairs = list(zip(answers["ours"], answers["stock"], strict=True))
    deviations = [
        abs(mine - theirs)
        for (_, found), (_, expected) in pairs
        for mine, theirs in zip(found, expected, strict=True)
    ]
    return Line(
        name=shape.name,
        description=shape.description,
        dtype=str(dtype).removeprefix("torch."),
        documents=len(pairs),
        agreeing=sum(mine == theirs for (mine, _), (theirs, _) in pairs),
        largest_deviation=max(deviations, default=0.0),
        stock_seconds=median(seconds["stock"]),
        our_seconds=median(seconds["ours"]),
        ratio=paired_ratio(seconds["stock"], seconds["ours"]),
    )


def backends(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[LanguageModel, HFLM]:
    """Ours and lm-eval's own, of the same model."""
    rows = BATCH_SIZE[model.device.type]
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=rows, max_length=None)
    return LanguageModel(model, tokenizer, rows), stock


def lines_of(arguments: argparse.Namespace, dtype: torch.dtype, rounds: int) -> Iterator[Line]:
    """Every shape in one dtype, with edited models."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO.model)
    device = arguments.device
    llama, own = random_llama(device, dtype), demo_model(dtype, device)
    with (
        Path(os.devnull).open("w") as nowhere,
        chatter_to(nowhere),
        edited(llama),
        edited(own),
    ):
        of_llama, of_demo = backends(llama, tokenizer), backends(own, tokenizer)
        for shape in shapes(arguments.quick, smallest=arguments.smallest, device=device):
            yield measure(shape, dtype, *(of_demo if shape.of_demo else of_llama), rounds)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    # The demo's cells are as wide as the machine, the two backends alike.
    arguments = parse(
        "Time of evaluation beside lm-eval's own Hugging Face backend.",
        argv,
        threads=torch.get_num_threads(),
        with_device=True,
    )
    # As the scripts do.
    keep_freed_memory(torch.device(arguments.device))
    rounds = 1 if arguments.smallest else 2 if arguments.quick else 5
    dtypes = [torch.float32, torch.bfloat16]
    if arguments.smallest or (arguments.quick and arguments.device == "cpu"):
        dtypes.pop()
    lines = [line for dtype in dtypes for line in lines_of(arguments, dtype, rounds)]
    rows = [
        (
            line.description,
            line.dtype,
            line.stock_seconds,
            line.our_seconds,
            line.ratio,
            "" if line.name == "stories" else f"{line.agreeing} of {line.documents}",
            "" if line.name == "gsm8k" else line.largest_deviation,
        )
        for line in lines
    ]
    print(
        table(
            ("shape", "dtype", "HFLM s", "ours s", "ratio", "documents that agree", "deviation"),
            rows,
        )
    )
    finish(
        arguments,
        {f"{line.name}_speedup": line.ratio for line in lines if line.dtype == "float32"},
        [asdict(line) for line in lines],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
