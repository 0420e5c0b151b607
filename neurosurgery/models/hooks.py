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

    with attached(module.register_forward_pre_hook(adapt(hook)) for module, hook in hooks.items()):
        yield


@contextmanager
def output_hooks(hooks: Mapping[nn.Module, Observe]) -> Iterator[None]:
    """Call each hook with the output of its module after every forward pass."""

    def adapt(hook: Observe) -> Callable[[nn.Module, tuple, torch.Tensor], Any]:
        return lambda _module, _inputs, output: hook(output)

    with attached(module.register_forward_hook(adapt(hook)) for module, hook in hooks.items()):
        yield


@contextmanager
def attached(registrations: Iterator[RemovableHandle]) -> Iterator[None]:
    """Remove hooks after the block, those that were registered before an error, too."""
    handles: list[RemovableHandle] = []
    try:
        for handle in registrations:
            handles.append(handle)
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def hidden_hooks(hooks: Mapping[nn.Module, Observe]) -> Iterator[None]:
    """Call each hook with the hidden states that enter its module, however they are passed.

    The hidden states are the first positional input, or else the first keyword.
    """

    def adapt(hook: Observe) -> Callable[[nn.Module, tuple, dict], Any]:
        def before(_module: nn.Module, inputs: tuple, named: dict) -> Any:
            if inputs:
                replaced = hook(inputs[0])
                return None if replaced is None else ((replaced, *inputs[1:]), named)
            first = next(iter(named))
            replaced = hook(named[first])
            return None if replaced is None else (inputs, {**named, first: replaced})

        return before

    with attached(
        module.register_forward_pre_hook(adapt(hook), with_kwargs=True)
        for module, hook in hooks.items()
    ):
        yield


@contextmanager
def first_output_hooks(hooks: Mapping[nn.Module, Observe]) -> Iterator[None]:
    """Call each hook with the output of its module, or the first part of an output with parts."""

    def adapt(hook: Observe) -> Callable[[nn.Module, tuple, Any], Any]:
        def after(_module: nn.Module, _inputs: tuple, output: Any) -> Any:
            if isinstance(output, torch.Tensor):
                return hook(output)
            replaced = hook(output[0])
            return None if replaced is None else (replaced, *output[1:])

        return after

    with attached(module.register_forward_hook(adapt(hook)) for module, hook in hooks.items()):
        yield


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Run other functions in place of the modules inside the block; put the modules back after."""
    # A module's own `forward` is its class's, unless something else has put one there. Where
    # accelerate has, it loads weights before it calls what was there before.
    places = {m: "_old_forward" if hasattr(m, "_hf_hook") else "forward" for m in forwards}
    before = {module: vars(module).get(place) for module, place in places.items()}
    try:
        for module, forward in forwards.items():
            vars(module)[places[module]] = forward
        yield
    finally:
        for module, own in before.items():
            if own is None:
                vars(module).pop(places[module], None)
            else:
                vars(module)[places[module]] = own
