"""Train only the selected weights of a model, with any training loop.

The trained numbers are float32 changes beside the weights, so that a step which is smaller than
half a unit in the last place of a bfloat16 weight is not lost. The optimiser sees nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from neurosurgery.common.arguments import checked
from neurosurgery.edit.delta import Delta, changed_values
from neurosurgery.edit.scale import check_fits
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.models.offload import check_on_devices
from neurosurgery.models.targets import find_matrix, holder

MODULE = "trainable_entries"
"""The name under which the trained numbers are part of the model."""

_LONG = 2**31
"""Indices of matrices with fewer entries are kept in four bytes."""


class TrainableEntries(nn.Module):
    """The trained numbers of a mask, and how they reach the weights.

    Its parameters are one float32 tensor, (entries,), per masked parameter, zero at first: the
    difference to the weight before training. Weight decay therefore pulls to that weight.

    Args:
        model: its selected weights are written in place.
        mask: the weights to train.

    Raises:
        ValueError: the mask names a parameter that the model does not have in that shape.
        UsageError: weights are off the devices.
    """

    def __init__(self, model: nn.Module, mask: ParameterMask) -> None:
        super().__init__()
        if hasattr(model, MODULE):
            raise ValueError("the model is being trained by a mask already")
        self._mask = mask
        counts = mask.counts()
        check_on_devices(model, "training")
        check_fits(model, mask)
        own = dict(model.named_parameters())
        self._weights = {name: find_matrix(model, own, name) for name in mask if counts[name]}
        # Autograd gives a parameter of many experts one gradient.
        self._holders: dict[nn.Parameter, dict[str, int | None]] = {}
        for name in self._weights:
            whole, expert = holder(name, own)
            self._holders.setdefault(own[whole], {})[name] = expert
        # Where every entry is selected, the weight itself is the index.
        self._places = {
            name: _places(mask, name, weight) if counts[name] < weight.numel() else None
            for name, weight in self._weights.items()
        }
        self._base = {name: self._selected(name).clone() for name in self._weights}
        self.changes = nn.ParameterList(
            torch.zeros(len(base), dtype=torch.float32, device=base.device)
            for base in self._base.values()
        )
        self._written = self._versions()

    @torch.no_grad()
    def write(self) -> None:
        """Write base plus change into the weights, rounded to their dtype."""
        for (name, base), change in zip(self._base.items(), self.changes, strict=True):
            self._write(name, changed_values(base, change))
        self._written = self._versions()

    @torch.no_grad()
    def restore(self) -> None:
        """Write the weights from before the training back, bit for bit."""
        for name, base in self._base.items():
            self._write(name, base)

    def delta(self) -> Delta:
        """A copy of what the training has changed so far, on the CPU."""
        found = {name: torch.empty(0) for name in self._mask}
        changes = zip(self._weights, self.changes, strict=True)
        return Delta(self._mask, found | {name: c.detach().cpu().clone() for name, c in changes})

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Make the changes the model's only trainable numbers inside the block."""
        wanted = {name: p.requires_grad for name, p in model.named_parameters()}
        mine = {id(parameter) for parameter in self._holders}
        changes = dict(zip(self._weights, self.changes, strict=True))
        handles: list[RemovableHandle] = []
        try:
            for parameter in model.parameters():
                parameter.requires_grad_(id(parameter) in mine)
            model.add_module(MODULE, self)
            for parameter, held in self._holders.items():
                handles.append(self._gather(parameter, held, changes))
            handles.append(model.register_forward_pre_hook(lambda *_: self._write_if_stale()))
            handles.append(register_optimizer_step_post_hook(lambda *_: self._mark_stale()))
            yield
        finally:
            for handle in handles:
                handle.remove()
            if hasattr(model, MODULE):
                delattr(model, MODULE)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(wanted[name])

    def _gather(
        self,
        parameter: nn.Parameter,
        held: Mapping[str, int | None],
        changes: Mapping[str, nn.Parameter],
    ) -> RemovableHandle:
        """After each backward pass take the gradient of the selected entries, free the whole."""

        def gather(weight: torch.Tensor) -> None:
            if weight.grad is None:
                return
            whole = weight.grad.detach()
            weight.grad = None
            for name, expert in held.items():
                places, change = self._places[name], changes[name]
                flat = (whole if expert is None else whole[expert]).reshape(-1)
                found = (flat if places is None else flat[places]).to(torch.float32)
                change.grad = found if change.grad is None else change.grad.add_(found)

        return parameter.register_post_accumulate_grad_hook(gather)

    def _selected(self, name: str) -> torch.Tensor:
        places, weight = self._places[name], self._weights[name].detach()
        # `reshape` copies a weight that is not contiguous, whose selected entries are read rarely.
        flat = weight.reshape(-1)
        return flat if places is None else flat[places]

    def _write(self, name: str, values: torch.Tensor) -> None:
        places, weight = self._places[name], self._weights[name].detach()
        if places is None:
            weight.copy_(values.view(weight.shape))
        elif weight.is_contiguous():
            weight.view(-1)[places] = values
        else:
            weight[torch.unravel_index(places.long(), weight.shape)] = values

    def _versions(self) -> list[int]:
        return [change._version for change in self.changes]

    def _mark_stale(self) -> None:
        # An optimiser that writes through `.data` leaves the versions as they are.
        self._written = []

    def _write_if_stale(self) -> None:
        if self._written != self._versions():
            self.write()


def _places(mask: ParameterMask, name: str, weight: torch.Tensor) -> torch.Tensor:
    indices = mask.indices(name)
    short = torch.int32 if weight.numel() < _LONG else torch.int64
    return indices.to(device=weight.device, dtype=short)


@checked
@contextmanager
def trainable(model: nn.Module, mask: ParameterMask) -> Iterator[TrainableEntries]:
    """Make the selected weights the only trainable part of a model inside the block.

    `model.parameters()` then holds float32 changes of the selected weights, one tensor per masked
    parameter, and any optimiser, `transformers.Trainer` or TRL's `SFTTrainer` trains these: the
    gradient of each weight matrix is gathered at the mask's entries and freed at once, and the
    weights are written before the next forward pass. All other weights keep every bit.

    After the block the weights are the trained ones, and hooks and flags are as before; if the
    block fails, the weights are those from before it. `restore()` of what is yielded undoes the
    training, `delta()` is its result.

    >>> with ns.trainable(model, mask) as entries:
    ...     optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ...     batch = tokenizer(problems[0], return_tensors="pt")
    ...     model(**batch, labels=batch["input_ids"]).loss.backward()
    ...     optimizer.step()
    >>> delta = entries.delta()
    >>> entries.restore()
    >>> delta.count == mask.count()
    True

    Args:
        model: a loaded model. Memory beside it: for each selected weight the change and its
            gradient (4 bytes each), its index (4), its base (as the weight), and the optimiser's
            state; at its peak the gradient of one weight matrix.
        mask: the weights to train, of any parameters of the model.

    Raises:
        ValueError: the mask names a parameter that the model does not have in that shape, or the
            model is in such a block already.

    Source: precise tuning of key units, arXiv 2409.01659, section 5; the float32 changes beside
    the weights are our own.
    """
    entries = TrainableEntries(model, mask)
    try:
        with entries.attached(model):
            yield entries
        entries.write()
    except BaseException:
        entries.restore()
        raise
