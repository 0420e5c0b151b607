"""Eight masks of a weight matrix: time per parameter, against torch.topk once per proportion.

    python -m benchmarks.select
    python -m benchmarks.select --quick --json select.json
    python -m benchmarks.select --device cuda

Measured is all that lies between a matrix with its activation norms and the eight packed masks of a
grid of proportions: forming scores, finding thresholds, forming and packing masks. The matrices are
random, as those of a trained model nearly are; the norms spread over two orders of magnitude.
`--quick` leaves out bfloat16.

On a GPU there are a billion weights of every shape, in bfloat16. `thresholds_ms` is what finding
the exact top-K of all of them at eight proportions takes, without the masks (goal: 100 ms), the
slowest shape's. Masks, which the processor packs, are formed for the last shape alone, and
torch.topk does not run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import nn

from benchmarks.common import PROPORTIONS, finish, interleaved, parse, table
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.methods.importance import importance_scores
from neurosurgery.methods.ranking import TopK
from neurosurgery.models.targets import Target

SHAPES = ((256, 256), (256, 768), (1024, 1024), (1536, 512), (2048, 2048), (2048, 8192))
SHAPES_ON_GPU = ((2048, 2048), (8192, 2048), (8192, 8192))
MILLION = 1 << 20
BILLION = 1 << 30


@dataclass(frozen=True)
class Row:
    """A shape's seconds, all its matrices together; masks include finding their thresholds."""

    shape: str
    dtype: str
    parameters: int
    thresholds: float
    masks: float | None
    topk: float | None

    def cells(self) -> tuple[object, ...]:
        """As the table shows it."""
        found = [
            "" if seconds is None else seconds / self.parameters * 1e9
            for seconds in (self.masks, self.topk)
        ]
        speedup = self.topk / self.masks if self.topk and self.masks else ""
        return self.shape, self.dtype, self.parameters, *found, speedup, self.thresholds * 1e3


def make_targets(
    shape: tuple[int, int], dtype: torch.dtype, device: str, parameters: int
) -> tuple[list[Target], dict[str, torch.Tensor]]:
    """Random matrices of so many parameters, one at least, and norms of their inputs."""
    generator = torch.Generator(device).manual_seed(0)
    targets = []
    norms = {}
    for number in range(max(parameters // (shape[0] * shape[1]), 1)):
        module = nn.Linear(shape[1], shape[0], bias=False, dtype=dtype, device="meta")
        weight = torch.randn(shape, generator=generator, device=device).mul_(0.02).to(dtype)
        module.weight = nn.Parameter(weight)
        target = Target(f"matrix{number}", module, transposed=False)
        targets.append(target)
        draw = torch.randn(shape[1], generator=generator, dtype=torch.float64, device=device)
        norms[target.name] = draw.exp().cpu()
    return targets, norms


def thresholds(targets: list[Target], norms: dict[str, torch.Tensor]) -> TopK:
    """The exact top-K of every matrix for every proportion, each as two numbers."""
    return TopK(targets, norms, PROPORTIONS)


def ours(targets: list[Target], norms: dict[str, torch.Tensor]) -> list[ParameterMask]:
    """As `methods.evidence.Evidence` asks for them."""
    ranking = thresholds(targets, norms)
    return [ranking.mask(proportion) for proportion in PROPORTIONS]


def by_topk(targets: list[Target], norms: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """The obvious way; which of equal scores are selected is up to torch."""
    packed = []
    for target in targets:
        scores = importance_scores(target.weight, norms[target.name]).view(-1)
        for proportion in PROPORTIONS:
            count = int(len(scores) * proportion)
            mask = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
            mask[torch.topk(scores, count, sorted=False).indices] = True
            packed.append(np.packbits(mask.cpu().numpy()))
    return packed


def measure(
    shape: tuple[int, int], dtype: torch.dtype, device: str, parameters: int, rounds: int
) -> Row:
    """A row; on a GPU without what would take it minutes."""
    targets, norms = make_targets(shape, dtype, device, parameters)
    functions: dict[str, Callable[[], object]] = {"thresholds": partial(thresholds, targets, norms)}
    if device == "cpu" or shape == SHAPES_ON_GPU[-1]:
        functions["masks"] = partial(ours, targets, norms)
    if device == "cpu":
        functions["topk"] = partial(by_topk, targets, norms)
    times = interleaved(functions, rounds)
    return Row(
        f"{shape[0]}x{shape[1]}",
        str(dtype).removeprefix("torch."),
        sum(target.weight.numel() for target in targets),
        median(times["thresholds"]),
        *(median(times[name]) if name in times else None for name in ("masks", "topk")),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = parse("Time of selecting eight masks from a weight matrix.", argv, with_device=True)
    on_gpu, quick = arguments.device == "cuda", arguments.quick
    shapes: Sequence[tuple[int, int]] = SHAPES_ON_GPU if on_gpu else SHAPES
    parameters = BILLION if on_gpu else MILLION
    dtypes = (torch.bfloat16,) if on_gpu else (torch.float32, torch.bfloat16)[: 1 if quick else 2]
    if arguments.smallest:
        shapes, parameters = shapes[-1:] if on_gpu else shapes[:1], 1
    rounds = 1 if arguments.smallest else 3 if quick or on_gpu else 9
    rows = [
        measure(shape, dtype, arguments.device, parameters, rounds)
        for dtype in dtypes
        for shape in shapes
    ]
    print(
        "all eight masks, nanoseconds per parameter; their thresholds alone, milliseconds; medians"
    )
    header = ("shape", "dtype", "parameters", "ns", "topk_ns", "speedup", "thresholds_ms")
    print(table(header, [row.cells() for row in rows]))
    masks = [(row.masks, row.parameters) for row in rows if row.masks is not None]
    ratios: dict[str, float | None] = {
        "select_ns_per_parameter": sum(s for s, _ in masks) / sum(n for _, n in masks) * 1e9,
        "select_ns_per_parameter_slowest": max(seconds / numel for seconds, numel in masks) * 1e9,
    }
    if on_gpu or arguments.smallest:
        ratios["thresholds_ms"] = max(row.thresholds for row in rows) * 1e3
    finish(arguments, ratios, [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
