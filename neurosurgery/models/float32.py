"""Compute in float32 with a model whose weights are stored in a smaller number format."""

from __future__ import annotations

from collections import Counter
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
    copies = _Copies()
    with ExitStack() as stack:
        stack.callback(copies.give_back)
        for module in model.modules():
            own = [p for p in module.parameters(recurse=False) if _is_small(p)]
            if not own:
                continue
            if isinstance(module, nn.Embedding):
                stack.callback(module.register_forward_hook(_widened_output).remove)
                continue
            # The copy is taken after other hooks have set the input, and given back before they
            # see the output.
            stack.callback(module.register_forward_pre_hook(copies.taking(own)).remove)
            stack.callback(
                module.register_forward_hook(copies.releasing(own), always_call=True).remove
            )
        yield


class _Copies:
    """The parameters of the modules that run, and how many runs of each are under way.

    A module may run within itself, and modules within each other may share a parameter: the copy
    goes with the last of them.
    """

    def __init__(self) -> None:
        self._stored: dict[nn.Parameter, torch.Tensor] = {}
        self._runs: Counter[nn.Parameter] = Counter()

    def taking(self, own: list[nn.Parameter]) -> Callable[[nn.Module, tuple], tuple]:
        """A hook before a module."""

        def take(_module: nn.Module, inputs: tuple) -> tuple:
            for parameter in own:
                self._runs[parameter] += 1
                if self._runs[parameter] == 1:
                    self._stored[parameter] = parameter.data
                    parameter.data = parameter.data.float()
            return tuple(map(_widened, inputs))

        return take

    def releasing(self, own: list[nn.Parameter]) -> Callable[[nn.Module, tuple, Any], None]:
        """A hook after a module."""

        def release(_module: nn.Module, _inputs: tuple, _output: Any) -> None:
            for parameter in own:
                if self._runs[parameter] == 1:
                    parameter.data = self._stored.pop(parameter)
                # After an error in an earlier hook nothing was taken.
                self._runs[parameter] = max(0, self._runs[parameter] - 1)

        return release

    def give_back(self) -> None:
        """After an error inside a module: its own hook may not have run."""
        for parameter, stored in self._stored.items():
            parameter.data = stored


def _is_small(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize < torch.float32.itemsize


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and _is_small(value) else value


def _widened_output(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return output.float()
