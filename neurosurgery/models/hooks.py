"""Attach forward hooks inside a block and remove them afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

Observe = Callable[[torch.Tensor], "torch.Tensor | None"]
"""Called with the tensor; a returned tensor replaces it."""


@contextmanager
def input_hooks(hooks: Mapping[nn.Module, Observe]) -> Iterator[None]:
    """Call each hook with the first positional input of its module before every forward pass.

    Only these hooks are removed afterwards; other hooks on the same modules stay.
    """

    def adapt(hook: Observe) -> Callable[[nn.Module, tuple], Any]:
        def before(_module: nn.Module, inputs: tuple) -> Any:
            replaced = hook(inputs[0])
            return None if replaced is None else (replaced, *inputs[1:])

        return before

    with _attached(module.register_forward_pre_hook(adapt(hook)) for module, hook in hooks.items()):
        yield


@contextmanager
def output_hooks(hooks: Mapping[nn.Module, Observe]) -> Iterator[None]:
    """Call each hook with the output of its module after every forward pass."""

    def adapt(hook: Observe) -> Callable[[nn.Module, tuple, torch.Tensor], Any]:
        return lambda _module, _inputs, output: hook(output)

    with _attached(module.register_forward_hook(adapt(hook)) for module, hook in hooks.items()):
        yield


@contextmanager
def _attached(registrations: Iterator[RemovableHandle]) -> Iterator[None]:
    handles: list[RemovableHandle] = []
    try:
        for handle in registrations:
            handles.append(handle)
        yield
    finally:
        for handle in handles:
            handle.remove()
