"""Forward hooks that are gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def input_hooks(hooks: Mapping[nn.Module, Callable[[torch.Tensor], None]]) -> Iterator[None]:
    """Call each hook with the first positional input of its module before every forward pass.

    Only the hooks attached here are removed; others on the same modules stay.
    """

    def adapt(hook: Callable[[torch.Tensor], None]) -> Callable[[nn.Module, tuple], None]:
        return lambda _module, inputs: hook(inputs[0])

    handles = []
    try:
        for module, hook in hooks.items():
            handles.append(module.register_forward_pre_hook(adapt(hook)))
        yield
    finally:
        for handle in handles:
            handle.remove()
