"""Peak memory of a call."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_bytes(function: Callable[[], object], device: str = "cpu") -> int | None:
    """How far memory rises above what is held before; None where nobody tells (off Linux).

    On the CPU that is the process's resident memory, so that the call has to come before others
    have left freed memory behind, and what it needs once (libraries) has to be there.
    """
    gc.collect()
    if device == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        return torch.cuda.max_memory_allocated() - held
    if not STATUS.is_file():
        return None
    if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
    before = _resident("VmRSS")
    # Only the peak from here on counts.
    Path("/proc/self/clear_refs").write_text("5")
    function()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    """`VmRSS` or `VmHWM` of this process in bytes."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
