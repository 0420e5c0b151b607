"""Peak memory of ranking and masking: at most 1.5 times the largest matrix in float32."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from neurosurgery.masks import TopK
from neurosurgery.models import Target

MEBIBYTE = 1 << 20
SIDE = 4096
MATRIX = 4 * SIDE * SIDE
SLACK = 12 * MEBIBYTE
"""For the packed masks (2 MiB each) and what the allocator keeps."""


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_while_ranking_and_masking(dtype):
    targets = [
        Target(name, nn.Linear(SIDE, SIDE, bias=False).to(dtype), transposed=False)
        for name in ("a", "b")
    ]
    norms = {target.name: torch.rand(SIDE, dtype=torch.float64) for target in targets}
    # One small call first, so that libraries have allocated what they keep.
    small = Target("s", nn.Linear(SIDE, 64), transposed=False)
    TopK([small], {"s": torch.rand(SIDE)}, [0.5]).mask(0.5)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    mask = TopK(targets, norms, [0.0001, 0.01, 0.15]).mask(0.15)
    assert status("VmHWM") - before <= 1.5 * MATRIX + SLACK
    assert mask.count() == 2 * int(SIDE * SIDE * 0.15)
