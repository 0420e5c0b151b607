"""Peak memory of ranking and masking: at most 1.5 times the largest matrix in float32.

Measured in a process of its own, in which every large block is mapped and unmapped by itself: what
glibc keeps of freed blocks (tens of megabytes, now more, now less) is not what we allocate.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from neurosurgery.models.devices import keep_freed_memory

MEBIBYTE = 1 << 20
SIDE = 4096
MATRIX = 4 * SIDE * SIDE
SLACK = 12 * MEBIBYTE
"""For the packed masks (2 MiB each) and what the allocator keeps."""

MEASURE = """
import sys
from pathlib import Path
import torch
from torch import nn
from neurosurgery.methods.ranking import TopK
from neurosurgery.models.targets import Target

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

side, dtype = int(sys.argv[1]), getattr(torch, sys.argv[2])

def ranked(rows, names):
    targets = [
        Target(name, nn.Linear(side, rows, bias=False).to(dtype), transposed=False)
        for name in names
    ]
    norms = {name: torch.rand(side, dtype=torch.float64) for name in names}
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    mask = TopK(targets, norms, [0.0001, 0.01, 0.15]).mask(0.15)
    assert mask.count() == len(names) * int(rows * side * 0.15)
    return status("VmHWM") - before

ranked(64, "s")  # so that libraries and threads have allocated what they keep
print(ranked(side, "ab"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_peak_while_ranking_and_masking(dtype):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(SIDE), dtype],
        cwd=ROOT,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(MEBIBYTE)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) <= 1.5 * MATRIX + SLACK


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_only_a_cpu_keeps_freed_memory(monkeypatch):
    called = []
    library = SimpleNamespace(mallopt=lambda option, value: called.append((option, value)))
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)
    keep_freed_memory(torch.device("cuda"))
    assert not called
    keep_freed_memory(torch.device("cpu"))
    # M_MMAP_THRESHOLD at its largest, M_TRIM_THRESHOLD beyond any heap; numbers of malloc.h.
    assert called == [(-3, 32 * MEBIBYTE), (-1, 2**31 - 1)]
