"""Variables of the environment that libraries read as settings of a run.

A run depends on its flags and on what it records. A launcher (torchrun, `accelerate launch`, MPI)
or a shell profile sets such variables for other programs, and they stay.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_PREFIXES = (
    # accelerate: number format, gradient accumulation, compilation, device, other trainers.
    *("ACCELERATE_", "DEEPSPEED_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_"),
    # What launchers say of the number of processes.
    *("MPI_LOCAL", "MV2_COMM_WORLD_", "OMPI_COMM_WORLD_", "PMI_", "TORCHELASTIC_"),
    # Services that transformers' Trainer adapts itself to.
    *("KUBEFLOW_", "SAGEMAKER_", "SMDATAPARALLEL_", "SM_"),
    "XLA_",
)
_NAMES = frozenset(
    (
        *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK"),
        *("MASTER_ADDR", "MASTER_PORT", "FORK_LAUNCHED"),
        # transformers: another way of computing attention, which rounds otherwise.
        *("TRANSFORMERS_SDPA_FORCE_GQA", "FLASH_ATTENTION_DETERMINISTIC"),
    )
)

_OF_ARITHMETIC = (
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_BLAS_PREFER_CUBLASLT"),
    *("CUBLAS_WORKSPACE_CONFIG", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA"),
    "DNNL_MAX_CPU_ISA",
)
"""What torch and its libraries read once, as they start: it cannot be hidden, so it is recorded."""


def is_setting(name: str) -> bool:
    """Whether a library takes a variable of this name for a setting of a run."""
    return name in _NAMES or name.startswith(_PREFIXES)


def settings_found() -> list[str]:
    """The names of such variables that are set."""
    return sorted(filter(is_setting, os.environ))


def arithmetic_settings() -> Mapping[str, str]:
    """Variables that change how torch rounds, as far as they are set."""
    return {name: os.environ[name] for name in _OF_ARITHMETIC if name in os.environ}


@contextmanager
def settings_hidden() -> Iterator[None]:
    """Hide such variables inside the block; afterwards all of them are as before."""
    before = {name: os.environ.pop(name) for name in settings_found()}
    try:
        yield
    finally:
        # Libraries also set some, to tell themselves what to do next.
        for name in settings_found():
            del os.environ[name]
        os.environ.update(before)
