"""Choose a model's device and number format. Imports torch, but not transformers."""

from __future__ import annotations

import ctypes
import platform

import torch

from neurosurgery.common.errors import UsageError
from neurosurgery.settings.experiment import ModelConfig


def choose_device(config: ModelConfig) -> torch.device:
    """The configured device, else a GPU if available, else the CPU.

    Raises:
        UsageError: this machine does not have the device.
    """
    if config.device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(config.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError("--device", config.device, "expected a device of this machine") from None
    return device


def choose_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The configured number format, else bfloat16 on a GPU and float32 on a CPU."""
    if config.dtype is not None:
        return getattr(torch, config.dtype)
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def keep_freed_memory(device: torch.device) -> None:
    """On a CPU, make glibc keep freed memory in this process; otherwise do nothing.

    By default glibc returns large blocks to the system after every layer and clears new ones page
    by page, which takes a tenth of a forward pass.
    """
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3  # from malloc.h
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, 1 << 25)
        library.mallopt(trim_threshold, (1 << 31) - 1)


def empty_cache() -> None:
    """Give the GPU memory that torch holds but does not use back, so that larger blocks fit.

    Call it after the `except` block of an out-of-memory error: inside, the traceback keeps the
    failed pass's tensors alive, and nothing of them would be freed.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
