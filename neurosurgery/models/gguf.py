"""Load GGUF checkpoints as float weights, and say which of their tensors were quantised."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

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


def forget_quantisation(model: PreTrainedModel) -> None:
    """Take from a model with float weights what says that it is quantised.

    Otherwise transformers would refuse to move or to save it, or write a configuration with which
    the saved folder cannot be loaded.
    """
    for place, name in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(place, name):
            delattr(place, name)
    model.hf_quantizer = None
    model.is_quantized = False


def describe_gguf(file: Path) -> str:
    """Say in one line how many tensors of a GGUF file were quantised, and in which formats."""
    from gguf import GGUFReader

    kinds = Counter(tensor.tensor_type.name for tensor in GGUFReader(file).tensors)
    quantised = {kind: count for kind, count in kinds.most_common() if kind not in _FLOATS}
    if not quantised:
        return f"{file.name}: none of its {kinds.total()} tensors was quantised"
    formats = ", ".join(f"{count} {kind}" for kind, count in quantised.items())
    return (
        f"{file.name}: {sum(quantised.values())} of its {kinds.total()} tensors were quantised "
        f"({formats}); they are edited and evaluated as the float weights that they stand for"
    )
