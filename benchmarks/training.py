"""A step that trains selected weights, against full tuning: time and memory.

    python -m benchmarks.training
    python -m benchmarks.training --quick --json training.json
    python -m benchmarks.training --device cuda

A Llama of random weights, AdamW, 8 samples of 128 tokens. Masks are random entries of every weight
matrix in the layers. One after the other in every round:

- `bare`: forward and backward pass of full tuning, no optimiser;
- `full`: the same with AdamW on all weights;
- `masked`: a whole step of `trainable` at three shares of the weights.

`masked_over_bare` is the largest ratio of a masked step's time to `bare` (goal: at most 1.15).

`peak` is how far memory rises above the weights in a step; `bound` is the largest dense gradient,
four float32 numbers for each trained weight (change, gradient, two moments of AdamW) and the
activations with their gradients, which are the peak of a step that trains one norm of the first
layer alone. `peak_over_bound` is the largest ratio (goal: at most 1); an index and a base value for
each weight are not in the bound.
On a CPU, `peak` is the process's resident memory, which is rougher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

import torch
from transformers import PreTrainedModel

from benchmarks.common import finish, interleaved, paired_ratio, parse, table
from benchmarks.llamas import (
    LLAMA_1B,
    LLAMA_1M,
    LLAMA_13M,
    LLAMA_36M,
    parameter_count,
    random_llama,
)
from benchmarks.memory import peak_bytes
from neurosurgery.edit.training import trainable
from neurosurgery.masks.mask import ParameterMask

SHARES = (0.001, 0.01, 0.1)
SAMPLES, TOKENS = 8, 128


def random_mask(model: PreTrainedModel, share: float) -> ParameterMask:
    """Random entries of every weight matrix in the layers."""
    draw = torch.Generator().manual_seed(0)
    return ParameterMask.from_tensors(
        {
            name: torch.rand(p.shape, generator=draw) < share
            for name, p in model.named_parameters()
            if p.ndim == 2 and ".layers." in name
        }
    )


class Step:
    """One training step of a model, whatever is trainable in it."""

    def __init__(self, model: PreTrainedModel, optimiser: torch.optim.Optimizer | None) -> None:
        draw = torch.Generator().manual_seed(1)
        ids = torch.randint(1, model.config.vocab_size, (SAMPLES, TOKENS), generator=draw)
        self._model = model
        self._ids = ids.to(model.device)
        self._optimiser = optimiser

    def __call__(self) -> None:
        """Forward and backward pass, and the optimiser's part."""
        loss = self._model(input_ids=self._ids, labels=self._ids, use_cache=False).loss
        loss.backward()
        if self._optimiser is not None:
            self._optimiser.step()
        for parameter in self._model.parameters():
            parameter.grad = None


@contextmanager
def masked_step(model: PreTrainedModel, share: float) -> Iterator[tuple[Step, int]]:
    """A step that trains a share of the weights, and their number."""
    mask = random_mask(model, share)
    with trainable(model, mask):
        trained = [p for p in model.parameters() if p.requires_grad and p.dtype == torch.float32]
        yield Step(model, torch.optim.AdamW(trained, lr=1e-4)), mask.count()


def activation_bytes(model: PreTrainedModel, device: str) -> int | None:
    """The peak of a step that trains next to nothing, but goes back through all layers."""
    first = next(p for n, p in model.named_parameters() if ".layers.0." in n and p.ndim == 1)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is first)
    step = Step(model, None)
    step()
    peak = peak_bytes(step, device)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return peak


def times(model: PreTrainedModel, rounds: int, share: float) -> dict[str, float]:
    """Seconds of a step of each kind, and the masked one's ratio to `bare`.

    Each kind sets up its own trainable part, once, and then runs by turns.
    """
    bare = Step(model, None)
    found: dict[str, float] = {}
    with ExitStack() as stack:
        step, _ = stack.enter_context(masked_step(model, share))
        masked_flags = [p.requires_grad for p in model.parameters()]

        def run(step: Callable[[], None], *, masked: bool) -> None:
            for parameter, flag in zip(model.parameters(), masked_flags, strict=True):
                parameter.requires_grad_(flag if masked else True)
            step()

        seconds = interleaved(
            {"bare": lambda: run(bare, masked=False), "masked": lambda: run(step, masked=True)},
            rounds,
        )
    found |= {name: median(values) for name, values in seconds.items()}
    return found | {"ratio": paired_ratio(seconds["masked"], seconds["bare"])}


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write where `--json` says."""
    arguments = parse(__doc__.splitlines()[0], argv, with_device=True)
    device, quick = arguments.device, arguments.quick
    on_gpu = device == "cuda"
    size = LLAMA_1B if on_gpu else LLAMA_13M if quick else LLAMA_36M
    if arguments.smallest:
        size = LLAMA_1M
    dtype = torch.bfloat16 if on_gpu else torch.float32
    model = random_llama(size, dtype, device)
    weights = parameter_count(model)
    largest = max(p.numel() * p.element_size() for p in model.parameters() if p.ndim == 2)
    in_layers = max(
        p.numel() * p.element_size() for n, p in model.named_parameters() if ".layers." in n
    )
    activations = activation_bytes(model, device)
    print(f"{weights / 1e6:.0f}M weights, {dtype}, {SAMPLES} × {TOKENS} tokens, on {device}\n")
    rows: list[tuple[object, ...]] = []
    ratios: dict[str, float | None] = {}
    over = []
    for share in SHARES:
        with masked_step(model, share) as (step, count):
            step()
            peak = peak_bytes(step, device)
        if peak is None or activations is None:
            continue
        # The moments of AdamW are there before the step that is measured.
        peak += 3 * 4 * count
        bound = in_layers + 16 * count + activations
        over.append(peak / bound)
        rows.append((f"masked {share:g}", count, peak / 1e6, bound / 1e6, peak / bound))
    full = Step(model, torch.optim.AdamW(model.parameters(), lr=1e-4))
    full()
    peak = peak_bytes(full, device)
    if peak is not None:
        state = 2 * weights * model.dtype.itemsize
        rows.append(("full AdamW", weights, (peak + state) / 1e6, float("nan"), float("nan")))
    print(table(("step", "trained", "peak MB", "bound MB", "peak/bound"), rows))
    del full
    rounds = 1 if arguments.smallest else 3 if quick else 7
    timed = {share: times(model, rounds, share) for share in SHARES}
    lines = [
        (f"masked {share:g}", found["bare"], found["masked"], found["ratio"])
        for share, found in timed.items()
    ]
    print()
    print(table(("step", "bare s", "masked s", "ratio"), lines))
    ratios["masked_over_bare"] = max(found["ratio"] for found in timed.values())
    ratios["peak_over_bound"] = max(over) if over else None
    details = {"weights": weights, "largest_gradient": largest, "memory": rows, "time": lines}
    finish(arguments, ratios, details)


if __name__ == "__main__":
    main()
