"""Run a model in float32 whatever the number format of its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from neurosurgery.models.offload import check_on_devices

_SHORT = (torch.float16, torch.bfloat16)
"""Formats that are widened. Quantised weights keep theirs: their modules bring their own kernels.

bfloat16 resolves .3 % of a logit, which is as much as many effects of path patching."""


@contextmanager
def in_float32(model: nn.Module, *, at_once: bool = False) -> Iterator[None]:
    """Make the model compute in float32 inside the block; what it stores does not change.

    1. A module with 16-bit tensors of its own has float32 copies of them while it runs: memory
       grows by the largest module, not by the model. What it is given is widened, too.
    2. An embedding, the largest of them, only has its output widened, which is the same.
    3. At the end, also after an error, every tensor is what it was.

    Args:
        model: the model.
        at_once: every module has its copies for the whole block, for models that look at the
            weights of modules that do not run.
    """
    if any(p.is_meta and p.dtype in _SHORT for p in model.parameters()):
        check_on_devices(model, "computing in float32 with 16-bit weights")
    copies = _Copies()
    with ExitStack() as stack:
        stack.callback(copies.give_back)
        for module in model.modules():
            tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
            own = [tensor for tensor in tensors if tensor.dtype in _SHORT]
            if not own:
                continue
            if at_once:
                copies.take(own)
            elif type(module) is nn.Embedding:
                # One of a subclass may compute with its weight: Gemma's scales it.
                stack.callback(module.register_forward_hook(_widened_output).remove)
            else:
                # The copy is taken after other hooks have set the input, and given back before
                # they see the output.
                taken = module.register_forward_pre_hook(partial(copies.before, own))
                stack.callback(taken.remove)
                released = module.register_forward_hook(
                    partial(copies.after, own), always_call=True
                )
                stack.callback(released.remove)
        yield


class _Copies:
    """The tensors of the modules that run, and how many runs of each are under way.

    A module may run within itself, and modules within each other may share a parameter: the copy
    goes with the last of them.
    """

    def __init__(self) -> None:
        self._stored: dict[torch.Tensor, torch.Tensor] = {}
        self._runs: Counter[torch.Tensor] = Counter()

    def take(self, own: Sequence[torch.Tensor]) -> None:
        """Copy tensors that are not copied yet."""
        for tensor in own:
            self._runs[tensor] += 1
            if self._runs[tensor] == 1:
                self._stored[tensor] = tensor.data
                tensor.data = tensor.data.float()

    def before(self, own: Sequence[torch.Tensor], _module: nn.Module, inputs: tuple) -> tuple:
        """The hook before a module; gives its inputs, widened."""
        self.take(own)
        return tuple(map(_widened, inputs))

    def after(self, own: Sequence[torch.Tensor], *_of_hook: object) -> None:
        """The hook after a module."""
        for tensor in own:
            if self._runs[tensor] == 1:
                tensor.data = self._stored.pop(tensor)
            # After an error in an earlier hook nothing was taken.
            self._runs[tensor] = max(0, self._runs[tensor] - 1)

    def give_back(self) -> None:
        """At the end, and after an error inside a module, whose own hook may not have run."""
        for tensor, stored in self._stored.items():
            tensor.data = stored


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in _SHORT else value


def _widened_output(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return output.float()
