"""Eight masks of a weight matrix: time per parameter, against torch.topk once per proportion.

    python -m benchmarks.select
    python -m benchmarks.select --quick --json select.json

Measured is all that lies between a matrix with its activation norms and the eight packed masks of a
grid of proportions: forming scores, finding thresholds, forming and packing masks. The matrices are
random, as those of a trained model nearly are; the norms spread over two orders of magnitude.
`--quick` leaves out bfloat16.
"""

from __future__ import annotations

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
MILLION = 1 << 20


def make_targets(
    shape: tuple[int, int], dtype: torch.dtype
) -> tuple[list[Target], dict[str, torch.Tensor]]:
    """Random matrices, a million parameters at least, and norms of their inputs."""
    generator = torch.Generator().manual_seed(0)
    targets = []
    norms = {}
    for number in range(max(MILLION // (shape[0] * shape[1]), 1)):
        module = nn.Linear(shape[1], shape[0], bias=False)
        with torch.no_grad():
            module.weight.normal_(std=0.02, generator=generator)
        target = Target(f"matrix{number}", module.to(dtype), transposed=False)
        targets.append(target)
        norms[target.name] = torch.randn(shape[1], generator=generator, dtype=torch.float64).exp()
    return targets, norms


def ours(targets: list[Target], norms: dict[str, torch.Tensor]) -> list[ParameterMask]:
    """As `methods.evidence.Evidence` asks for them."""
    ranking = TopK(targets, norms, PROPORTIONS)
    return [ranking.mask(proportion) for proportion in PROPORTIONS]


def by_topk(targets: list[Target], norms: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """The obvious way; which of equal scores are selected is up to torch."""
    packed = []
    for target in targets:
        scores = importance_scores(target.weight, norms[target.name]).view(-1)
        for proportion in PROPORTIONS:
            count = int(len(scores) * proportion)
            mask = torch.zeros(len(scores), dtype=torch.bool)
            mask[torch.topk(scores, count, sorted=False).indices] = True
            packed.append(np.packbits(mask.numpy()))
    return packed


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = parse("Time of selecting eight masks from a weight matrix.", argv)
    rounds = 3 if arguments.quick else 9
    rows = []
    seconds, parameters = 0.0, 0
    slowest = 0.0
    for dtype in (torch.float32,) if arguments.quick else (torch.float32, torch.bfloat16):
        for shape in SHAPES:
            targets, norms = make_targets(shape, dtype)
            times = interleaved(
                {"ours": partial(ours, targets, norms), "topk": partial(by_topk, targets, norms)},
                rounds,
            )
            numel = sum(target.weight.numel() for target in targets)
            seconds += median(times["ours"])
            parameters += numel
            mine, theirs = (median(values) / numel * 1e9 for values in times.values())
            slowest = max(slowest, mine)
            name = str(dtype).removeprefix("torch.")
            rows.append((f"{shape[0]}x{shape[1]}", name, mine, theirs, theirs / mine))
    header = ("shape", "dtype", "ns", "topk_ns", "speedup")
    print("nanoseconds per parameter for all eight masks, medians")
    print(table(header, rows))
    ratios = {
        "select_ns_per_parameter": seconds / parameters * 1e9,
        "select_ns_per_parameter_slowest": slowest,
    }
    finish(arguments, ratios, [dict(zip(header, row, strict=True)) for row in rows])


if __name__ == "__main__":
    main()
