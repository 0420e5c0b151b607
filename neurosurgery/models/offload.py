"""Weights that accelerate keeps off the devices, in memory or on a disk.

Such a parameter is on the meta device. A hook of its module loads its values before every pass, and
drops them after it, so that what is written to a loaded weight is lost.

1. Values are read where the hook reads them: `stored`.
2. An edit is kept as the new values of the selected entries, and put into every copy that the hook
   loads: `edited_store`. Nothing is written to the store, which may be the user's own checkpoint;
   what was there is there after the edit, bit for bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import nn

from neurosurgery.common.errors import RestoreError, UsageError


def offloaded(model: nn.Module) -> list[str]:
    """The names of the parameters that are off the devices."""
    return [name for name, parameter in model.named_parameters() if parameter.is_meta]


def check_on_devices(model: nn.Module, wanted_by: str) -> None:
    """Refuse a model with weights off the devices.

    Raises:
        UsageError: says what needs them there.
    """
    if names := offloaded(model):
        raise UsageError(
            "--device_map",
            "",
            f"leaves {len(names)} weights off the devices ({names[0]}, …); {wanted_by} needs all "
            "of them there: expected a model that fits",
        )


def input_device(model: nn.Module) -> torch.device:
    """The device that token ids are to be on."""
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    if not embedding.weight.is_meta:
        return embedding.weight.device
    return torch.device(_loading_hook(embedding).execution_device)


def stored(module: nn.Module, name: str) -> torch.Tensor:
    """A parameter's values: the parameter itself, or a copy of what its hook loads.

    Args:
        module: holds the parameter.
        name: the parameter's name in the module.

    Raises:
        ValueError: the parameter has no values anywhere (a model that was never loaded).
    """
    parameter = module.get_parameter(name)
    hook = _loading_hook(module) if parameter.is_meta else None
    return parameter if hook is None else _last_read(hook.weights_map, name)


def _last_read(weights: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """What a hook loads; the last is kept, for the matrices of many experts are one parameter."""
    if isinstance(weights, dict):
        return weights[name]
    if _kept.get("from", _nothing)() is not weights or _kept["name"] != name:
        _kept.clear()
        # A weak reference: a model that nobody holds any more goes.
        _kept.update({"from": ref(weights), "name": name, "tensor": weights[name]})
    return _kept["tensor"]


_kept: dict[str, Any] = {}


def _nothing() -> None:
    return None


def _loading_hook(module: nn.Module) -> Any:
    """The hook of accelerate's that loads a module's weights; None without one."""
    hook: Any = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", (hook,)):
        if getattr(each, "offload", False) and each.weights_map is not None:
            return each
    return None


class NewValues(NamedTuple):
    """New values of some entries of a parameter, or of one of its slices.

    Attributes:
        expert: the index of the slice; None for the whole parameter.
        entries: ascending indices into it, flattened, int64.
        values: (entries,), of the parameter's dtype.
    """

    expert: int | None
    entries: torch.Tensor
    values: torch.Tensor


class _Edited(Mapping):
    """The weights that a hook loads, with new values in copies of some of them."""

    def __init__(
        self, weights: Mapping[str, torch.Tensor], edits: Mapping[str, list[NewValues]]
    ) -> None:
        self._weights = weights
        self._edits = edits

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._weights[name]
        if name not in self._edits:
            return tensor
        edited = tensor.clone(memory_format=torch.contiguous_format)
        for each in self._edits[name]:
            part = edited if each.expert is None else edited[each.expert]
            part.view(-1)[each.entries] = each.values
        return edited

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


@contextmanager
def edited_store(edits: Mapping[tuple[nn.Module, str], list[NewValues]]) -> Iterator[None]:
    """Load other values inside the block.

    Args:
        edits: by module and name of its parameter.

    Raises:
        RestoreError: something else has replaced what a hook loads from.
    """
    by_module: dict[nn.Module, dict[str, list[NewValues]]] = defaultdict(dict)
    for (module, name), of_parameter in edits.items():
        by_module[module][name] = of_parameter
    replaced = []
    try:
        for module, of_module in by_module.items():
            hook = _loading_hook(module)
            edited = _Edited(hook.weights_map, of_module)
            replaced.append((hook, hook.weights_map, edited))
            hook.weights_map = edited
        yield
    finally:
        lost = [hook for hook, _, edited in replaced if hook.weights_map is not edited]
        for hook, before, _ in replaced:
            hook.weights_map = before
        if lost:
            raise RestoreError(
                "the model was not restored after an edit: something else has replaced its "
                "offloaded weights"
            )
