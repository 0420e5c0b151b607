"""Is any family of transformers scored in part, or evaluated otherwise than row by row?

    python -m benchmarks.families
    python -m benchmarks.families --json families.json
    python -m benchmarks.families --only mixtral qwen2_vl
    python -m benchmarks.families --quick

For every family in transformers' mapping of causal models, and every other class in that of models
for images and text that has a text part, a tiny model with random weights is scored on a few
samples of text. `scored` is the share of its parameters outside embeddings, or of those of its text
part, in matrices that the samples reach; `unreached` is the number of matrices that they do not
(Mamba's time step), `experts` that of its routed experts, `text` its text part, `quantised` how its
configuration says that weights are stored (a model of random weights is made in floats). Then it
answers options and prompts through our language model, in float32 and in bfloat16. What it answers
is compared with the plain model on one unpadded row at a time (`forward` for options, `generate`
for texts). In float32 answers must be equal up to rounding; in bfloat16 they may be off by as much
as the plain model's own answers are off its float32 ones. A text may differ from where two tokens
are equally likely up to rounding. `--quick` takes the families of the tests. Needs no network. What
cannot be built, scored or evaluated is named with its reason.
"""

from __future__ import annotations

import copy
import math
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.utils import postprocess_generated_text
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.common import finish, parse, table
from benchmarks.evaluate import text
from benchmarks.llamas import random_ids
from benchmarks.tiny_families import (
    LONGEST,
    RAISED,
    SAMPLE,
    VOCABULARY,
    NotBuilt,
    build,
    families,
)
from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.evaluation.isolation import chatter_to
from neurosurgery.models.experts import find_experts
from neurosurgery.models.targets import find_targets, scored_share
from neurosurgery.settings.demo import DEMO

NEW_TOKENS = 6
FLOAT32_TOLERANCE = 1e-3
"""Nats per option; a window that loses tokens is off by tenths."""

SECONDS = 300
"""The longest that a family may take, in both dtypes."""

TIMES_BFLOAT16 = 4
"""How many times as far from the plain model as that is from its own float32 answers."""


@dataclass(frozen=True)
class Facts:
    """What is scored of a family in float32; `stops` is why nothing is."""

    scored: float = math.nan
    unreached: int = 0
    experts: int = 0
    text: str = ""
    quantised: str = ""
    stops: str = ""


@dataclass(frozen=True)
class Line:
    """One family in one dtype. `deviation` and `allowed` are nats; `texts` counts equal ones."""

    family: str
    dtype: str
    status: str
    options: str
    generation: str
    deviation: float
    allowed: float
    texts: str
    times_rounding: float
    seconds: float
    why: str = ""
    facts: Facts = Facts()

    def cells(self) -> list[object]:
        """As the table shows it."""
        own = asdict(self)
        facts = own.pop("facts")
        del own["why"], facts["stops"]
        return [*own.values(), *facts.values()]


class Recording(LanguageModel):
    """Ours, which remembers the tokens behind its texts."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.decoded: list[tuple[str, list[int]]] = []

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        """The text of tokens."""
        found = super().tok_decode(tokens, skip_special_tokens)
        self.decoded.append((found, tokens if isinstance(tokens, list) else [tokens]))
        return found


def option_requests() -> list[Instance]:
    """Contexts with shared examples and without, short and long, three options each."""
    generator = random.Random(3)
    shots = text(generator, 45)
    contexts = [f"{shots} {text(generator, words)}" for words in (3, 8, 20, 45)]
    contexts += [text(generator, words) for words in (2, 70)]
    pairs = [(context, f" {text(generator, n)}") for context in contexts for n in (1, 1, 4)]
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]


def prompt_requests() -> list[Instance]:
    """Prompts with shared examples, short and long."""
    generator = random.Random(4)
    shots = text(generator, 45)
    prompts = [f"{shots} {text(generator, words)}" for words in (2, 9, 45)]
    prompts.append(text(generator, 3))
    arguments = {"until": ["\x00"], "do_sample": False, "max_gen_toks": NEW_TOKENS}
    return [Instance("generate_until", {}, (p, arguments), i) for i, p in enumerate(prompts)]


def plain_option(model: PreTrainedModel, context: list[int], option: list[int]) -> float:
    """The option's log-likelihood from one unpadded row."""
    ids = torch.tensor([(context + option)[:-1]])
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, -len(option) :].float()
    chosen = logits.log_softmax(-1)[torch.arange(len(option)), torch.tensor(option)]
    return float(chosen.sum())


def plain_tokens(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    """What the model's own `generate` adds to one unpadded prompt."""
    ids = torch.tensor([prompt])
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=model.generation_config.eos_token_id,
    )
    with torch.inference_mode():
        return model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )[0, len(prompt) :].tolist()


def tie(model: PreTrainedModel, prompt: list[int], ours: list[int], plain: list[int]) -> bool:
    """Whether the first token that differs is as likely as the plain one, up to rounding."""
    pairs = list(zip(ours, plain, strict=False))
    at = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
    if at is None:
        return False
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt + plain[:at]])).logits[0, -1]
    margin = abs(float(logits[plain[at]]) - float(logits[ours[at]]))
    digits = torch.finfo(logits.dtype).eps ** 0.5
    return margin <= 2 * digits * float(logits[logits.isfinite()].float().std())


def measure(
    family: str, model: PreTrainedModel, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase
) -> Line:
    """Ours beside one plain row at a time; the model is float32 and stays so."""
    start = time.perf_counter()
    wide = model
    if dtype != torch.float32:
        model = copy.deepcopy(model).to(dtype)
        # The same weights, so that only the arithmetic differs.
        wide = copy.deepcopy(model).float()
    ours = Recording(model, tokenizer, 4)
    ours._max_length = LONGEST
    options, prompts = option_requests(), prompt_requests()
    try:
        found = [score for score, _ in ours.loglikelihood(options, disable_tqdm=True)]
        ours.decoded.clear()
        texts = ours.generate_until(prompts, disable_tqdm=True)
    except RAISED as error:
        return _line(family, dtype, ours, "fails", (0.0, 0.0), "", start, _reason(error))
    encoded = [ours._encode_pair(*request.args) for request in options]
    expected = [plain_option(model, *pair) for pair in encoded]
    deviation = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    allowed = FLOAT32_TOLERANCE
    if wide is not model:
        exact = [plain_option(wide, *pair) for pair in encoded]
        own = max(abs(a - b) for a, b in zip(expected, exact, strict=True))
        allowed = max(TIMES_BFLOAT16 * own, 0.05)
    equal, wrong = 0, 0
    for request, mine in zip(prompts, texts, strict=True):
        prompt = ours._prompt(request.args[0], LONGEST - NEW_TOKENS)
        plain = plain_tokens(model, prompt)
        stops = ["\x00", ours.tok_decode(ours.eot_token_id, skip_special_tokens=False)]
        theirs = postprocess_generated_text(tokenizer.decode(plain), stops, None)
        equal += mine == theirs
        if mine != theirs:
            tokens = next(ids for whole, ids in ours.decoded if whole.startswith(mine))
            wrong += not tie(model, prompt, tokens, plain)
    agrees = deviation <= allowed and not wrong
    status = ("refused" if ours.checks.refused else "agrees") if agrees else "differs"
    notes = "; ".join(ours.checks.take_notes())
    return _line(
        family, dtype, ours, status, (deviation, allowed), f"{equal} of {len(texts)}", start, notes
    )


def _line(
    family: str,
    dtype: torch.dtype,
    ours: LanguageModel,
    status: str,
    deviations: tuple[float, float],
    texts: str,
    start: float,
    why: str,
) -> Line:
    refused = ours.checks.refused
    options, generation = "parts", "parts"
    if "parts" in refused:
        options = "rows" if "whole" in refused else "whole"
        generation = "rows" if "generated" in refused else "batches"
    return Line(
        family=family,
        dtype=str(dtype).removeprefix("torch."),
        status=status,
        options=options,
        generation=generation,
        deviation=deviations[0],
        allowed=deviations[1],
        texts=texts,
        times_rounding=ours.checks.times_rounding,
        seconds=time.perf_counter() - start,
        why=why,
    )


def facts_of(model: PreTrainedModel) -> Facts:
    """Score a model on a few samples of random tokens, in one pass."""
    targets = find_targets(model)
    config = model.config
    text = config.get_text_config()
    stored = getattr(config, "quantization_config", None) or {}
    facts = Facts(
        experts=sum(experts.count for experts in find_experts(model)),
        text="" if text is config else text.model_type,
        quantised=str(stored.get("quant_method", "")),
    )
    samples = random_ids(VOCABULARY - 1, 4, 16, 64)
    try:
        [norms] = collect_activation_norms(model, targets, samples, np.ones((1, 4), dtype=int))
    except (*RAISED, UsageError, RunError) as error:
        return replace(facts, stops=_reason(error))
    reached = [target for target in targets if target.name in norms]
    part = model.get_decoder() if facts.text else model
    inside = set(part.modules())
    share = scored_share(part, [target for target in reached if target.module in inside])
    return replace(facts, scored=share, unreached=len(targets) - len(reached))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def lines_of(family: str, tokenizer: PreTrainedTokenizerBase) -> list[Line]:
    """A family in both dtypes.

    Raises:
        NotBuilt: there is no tiny model of it.
    """
    model = build(family)
    facts = facts_of(model)
    return [
        replace(measure(family, model, dtype, tokenizer), facts=facts)
        for dtype in (torch.float32, torch.bfloat16)
    ]


class TooSlow(BaseException):
    """A family takes too long; no library may take this for an error of its own."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise `TooSlow` inside the block once it has taken so long; needs POSIX signals.

    Some families run token by token in Python, and would hold up all others.
    """

    def stop(_signal: int, _frame: object) -> None:
        raise TooSlow(f"stopped after {seconds} s")

    usual = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, usual)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit status is 1 where a family differs or fails."""
    arguments = parse(
        "Families of models, scored, and evaluated beside one plain row at a time.",
        argv,
        names=families(),
    )
    tokenizer = AutoTokenizer.from_pretrained(DEMO.model)
    lines: list[Line] = []
    unmeasured: dict[str, str] = {}
    for family in arguments.only or (SAMPLE if arguments.quick else families()):
        with Path(os.devnull).open("w") as nowhere, chatter_to(nowhere):
            try:
                with at_most(SECONDS):
                    lines += lines_of(family, tokenizer)
            except (NotBuilt, TooSlow) as error:
                unmeasured[family] = str(error)
        done = "not measured" if family in unmeasured else lines[-1].status
        print(f"{family}: {done}", flush=True)
    header = "family dtype status options generation deviation allowed texts rounding s".split()
    header += "scored unreached experts text quantised".split()
    print(table(header, [line.cells() for line in lines]))
    for line in lines:
        if line.why:
            print(f"{line.family}, {line.dtype}: {line.why}")
    stops = {line.family: line.facts.stops for line in lines if line.facts.stops}
    for family, why in stops.items():
        print(f"{family}: not scored: {why}")
    for family, why in unmeasured.items():
        print(f"{family}: not measured: {why}")
    counts: dict[str, float | None] = {
        "not measured": float(len(unmeasured)),
        "not scored": float(len(stops)),
    }
    for status in ("agrees", "refused", "differs", "fails"):
        counts[status] = float(sum(line.status == status for line in lines))
    finish(
        arguments, counts, {"lines": [asdict(line) for line in lines], "not measured": unmeasured}
    )
    return 1 if counts["differs"] or counts["fails"] else 0


if __name__ == "__main__":
    sys.exit(main())
