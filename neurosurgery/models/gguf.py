"""Load GGUF checkpoints as float weights, and say which of their tensors were quantised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

AS_FLOATS = "they are edited and evaluated as the float weights that they stand for"
_FLOATS = {"F64", "F32", "F16", "BF16"}


def gguf_source(file: Path) -> dict[str, Any]:
    """The arguments that make `from_pretrained` read a GGUF file."""
    return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}


def as_floats() -> dict[str, Any]:
    """The arguments that make `from_pretrained` turn quantised blocks into float weights.

    Releases of transformers that have no such setting never keep the blocks.
    """
    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def describe_gguf(file: Path) -> str:
    """Say in one line how many tensors of a GGUF file were quantised, and in which formats."""
    from gguf import GGUFReader

    kinds = Counter(tensor.tensor_type.name for tensor in GGUFReader(file).tensors)
    quantised = {kind: count for kind, count in kinds.most_common() if kind not in _FLOATS}
    return line_about(file.name, kinds.total(), quantised)


def line_about(name: str, total: int, quantised: Mapping[str, int], method: str = "") -> str:
    """Say in one line what of a checkpoint was quantised.

    Args:
        name: what the checkpoint is called.
        total: its tensors.
        quantised: those that were quantised, by number format.
        method: what the formats belong to, if they do not say it.
    """
    if not quantised:
        return f"{name}: none of its {total} tensors was quantised"
    formats = ", ".join(f"{count} {kind}" for kind, count in quantised.items())
    return (
        f"{name}: {sum(quantised.values())} of its {total} tensors were quantised "
        f"({f'{method}: ' if method else ''}{formats}); {AS_FLOATS}"
    )
