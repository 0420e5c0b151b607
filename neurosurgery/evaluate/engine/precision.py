"""Run a model in float32 whatever the dtype of its weights, a module at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from neurosurgery.models.hooks import output_hooks

_SHORT = (torch.float16, torch.bfloat16)
"""Dtypes that are widened. Quantised weights keep theirs: their modules bring their own kernels."""

_Held = dict[str, "torch.Tensor | None"]


@contextmanager
def in_float32(model: nn.Module, *, at_once: bool = False) -> Iterator[None]:
    """Give every module float32 copies of its 16-bit tensors while it runs.

    Only modules that run at the moment hold copies, so a large model needs little more memory.
    `at_once` gives all modules their copies for the whole block, for models that look at the
    weights of modules that do not run. The model's own tensors are put back, also after an error.
    """
    kept: dict[nn.Module, list[tuple[_Held, _Held]]] = {}
    runs: Counter[nn.Module] = Counter()

    def widen(module: nn.Module, _inputs: object) -> None:
        runs[module] += 1
        if runs[module] > 1:
            # It runs within itself.
            return
        kept[module] = []
        for tensors in (cast(_Held, module._parameters), module._buffers):
            short = {n: t for n, t in tensors.items() if t is not None and t.dtype in _SHORT}
            tensors.update({name: _float32(tensor) for name, tensor in short.items()})
            kept[module].append((tensors, dict(short)))

    def restore(module: nn.Module, *_: object) -> None:
        # After an error in an earlier hook it was not widened.
        runs[module] = max(0, runs[module] - 1)
        if runs[module]:
            return
        for tensors, short in kept.pop(module, []):
            tensors.update(short)

    handles = []
    try:
        for module in model.modules():
            if at_once:
                widen(module, None)
                continue
            handles.append(module.register_forward_pre_hook(widen))
            handles.append(module.register_forward_hook(restore, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        runs.clear()
        for module in list(kept):
            restore(module)


def _float32(tensor: torch.Tensor) -> torch.Tensor:
    copy = tensor.detach().float()
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy


@contextmanager
def perturbed_by_rounding(embedding: nn.Module) -> Iterator[None]:
    """Multiply what an embedding gives by 1 ± one unit of rounding, with fixed random signs.

    The logits then move by what rounding in the first operation alone may move them.
    """
    generator = torch.Generator().manual_seed(0)

    def perturb(embedded: torch.Tensor) -> torch.Tensor | None:
        if not (isinstance(embedded, torch.Tensor) and embedded.is_floating_point()):
            return None
        signs = torch.randint(0, 2, embedded.shape, generator=generator).mul_(2).sub_(1)
        eps = torch.finfo(embedded.dtype).eps
        return embedded * (1 + eps * signs.to(embedded.device)).to(embedded.dtype)

    with output_hooks({embedding: perturb}):
        yield
