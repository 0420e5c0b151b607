"""Compare what was read of a model with what happens in a forward pass.

Scores take a linear module for weight · input + bias. A module of a class of its own may do
something else with its weight (clip it, scale it, add a path beside it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from neurosurgery.models.backbone import find_backbone
from neurosurgery.models.hooks import attached
from neurosurgery.models.targets import Target

_TOKENS = 8
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
"""Largest difference, as a share of the largest output; of 16-bit formats `_COARSE`."""
_COARSE = 0.05


def misread_targets(model: PreTrainedModel, targets: Sequence[Target]) -> list[str]:
    """The names of the linear modules that give something else than weight · input + bias.

    One pass over a few tokens; modules that no token reaches are not judged.

    Args:
        model: in evaluation mode.
        targets: the result of `find_targets`; those of experts are left out (`check_experts`).
    """
    misread: dict[str, None] = {}

    def compare(target: Target) -> Callable[[nn.Module, tuple, object], None]:
        def after(_module: nn.Module, inputs: tuple, output: object) -> None:
            if inputs and not _is_product(target, inputs[0], output):
                misread[target.name] = None

        return after

    run = find_backbone(model)
    rows = model.get_input_embeddings().weight.shape[0]
    handles = (t.module.register_forward_hook(compare(t)) for t in targets if t.expert is None)
    with torch.inference_mode(), attached(handles):
        run([[(5 * place + 2) % rows for place in range(_TOKENS)]])
    return list(misread)


def _is_product(target: Target, inputs: torch.Tensor, output: object) -> bool:
    if not isinstance(output, torch.Tensor):
        return False
    weight = target.weight.T if target.transposed else target.weight
    bias = getattr(target.module, "bias", None)
    expected = linear(inputs.to(weight.dtype), weight, bias)
    if output.shape != expected.shape:
        return False
    if not (torch.isfinite(output).all() and torch.isfinite(expected).all()):
        # The scoring pass names the module where this begins.
        return True
    allowed = _TOLERANCE.get(weight.dtype, _COARSE) * float(expected.abs().max())
    return float((output - expected).abs().max()) <= max(allowed, 1e-12)
