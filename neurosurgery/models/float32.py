"""Compute in float32 with a model whose weights are stored in a smaller number format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def float32_arithmetic(model: nn.Module) -> Iterator[None]:
    """Make the model compute in float32 inside the block; the stored weights do not change.

    Every module with weights of its own takes a float32 copy of them while it runs, and gives it
    back at its end: memory grows by the largest module, not by the model. An embedding only
    converts its output. A model in float32 or float64 is left as it is. bfloat16 resolves .3 % of a
    logit, which is as much as many effects.
    """
    held: dict[nn.Parameter, torch.Tensor] = {}
    with ExitStack() as stack:
        stack.callback(_give_back, held)
        for module in model.modules():
            own = [p for p in module.parameters(recurse=False) if _is_small(p)]
            if not own:
                continue
            if isinstance(module, nn.Embedding):
                stack.callback(module.register_forward_hook(_widened_output).remove)
                continue
            # The copy is taken after other hooks have set the input, and given back before they
            # see the output.
            stack.callback(module.register_forward_pre_hook(_take(own, held)).remove)
            stack.callback(
                module.register_forward_hook(_release(own, held), always_call=True).remove
            )
        yield


def _is_small(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize < torch.float32.itemsize


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and _is_small(value) else value


def _widened_output(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return output.float()


def _take(
    own: list[nn.Parameter], held: dict[nn.Parameter, torch.Tensor]
) -> Callable[[nn.Module, tuple], tuple]:
    def take(_module: nn.Module, inputs: tuple) -> tuple:
        for parameter in own:
            held[parameter] = parameter.data
            parameter.data = parameter.data.float()
        return tuple(map(_widened, inputs))

    return take


def _release(
    own: list[nn.Parameter], held: dict[nn.Parameter, torch.Tensor]
) -> Callable[[nn.Module, tuple, Any], None]:
    def release(_module: nn.Module, _inputs: tuple, _output: Any) -> None:
        for parameter in own:
            parameter.data = held.pop(parameter)

    return release


def _give_back(held: dict[nn.Parameter, torch.Tensor]) -> None:
    """After an error inside a module: its own hook may not have run."""
    for parameter, stored in held.items():
        parameter.data = stored
