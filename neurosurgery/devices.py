"""Where a model runs and in which number format. Imports torch, but not transformers."""

from __future__ import annotations

import torch

from neurosurgery.config import ModelConfig
from neurosurgery.errors import UsageError


def choose_device(config: ModelConfig) -> torch.device:
    """The device asked for, else a GPU if there is one, else the CPU.

    Raises:
        UsageError: no such device on this machine.
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
    """The number format asked for, else bfloat16 on a GPU and float32 on a CPU."""
    if config.dtype is not None:
        return getattr(torch, config.dtype)
    return torch.float32 if device.type == "cpu" else torch.bfloat16
