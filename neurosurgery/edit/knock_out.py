"""Replace what attention heads and MLPs give by a fixed vector, and put everything back.

Source: Zhang et al., arXiv 2409.01659, §3: a head is knocked out by its mean over counterfactuals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from neurosurgery.edit.kinds import POSITIONS
from neurosurgery.masks.units import Unit
from neurosurgery.models.backbone import find_backbone
from neurosurgery.models.float32 import in_float32
from neurosurgery.models.forward import length_batches
from neurosurgery.models.hooks import Observe, input_hooks
from neurosurgery.models.sites import Place, site_hooks

ALL, END = POSITIONS


class _Part(NamedTuple):
    """Entries of a tensor and their new values, (stop − start,) or (rows, stop − start)."""

    start: int
    stop: int
    values: torch.Tensor


@contextmanager
def knocked_out(
    model: PreTrainedModel,
    units: Sequence[Unit],
    means: Mapping[Unit, torch.Tensor] | None = None,
    positions: str = ALL,
) -> Iterator[None]:
    """Replace the outputs of heads and MLPs by fixed vectors inside the block.

    Weights do not change; afterwards the model gives the same bits as before.

    Args:
        model: a causal language model.
        units: heads and MLPs (`masks.head_units`); a head's output is its part of the output
            projection's input.
        means: the vector of every unit, (size,); or one per row of the batch, (rows, size), as for
            resampling, where every pass must have that many rows. None: zeros.
        positions: `all` replaces at every position of every pass (in reading a prompt and in
            writing with a cache, padding included), `end` only at the last position of a pass.

    Raises:
        KeyError: a unit has no vector.
        ValueError: a vector has another size than its unit; a pass has another number of rows than
            the vectors; `positions` is something else.
    """
    if positions not in (ALL, END):
        raise ValueError(f"positions {positions!r}: expected all or end")
    parts: dict[Place, list[_Part]] = defaultdict(list)
    for unit in units:
        _, _, start, stop = unit.site
        values = torch.zeros(stop - start) if means is None else means[unit]
        if values.shape[-1] != stop - start or values.ndim > 2:
            raise ValueError(
                f"{unit.kind} {unit.index} of layer {unit.layer} has a vector of shape "
                f"{tuple(values.shape)}; expected ({stop - start},) or (rows, {stop - start})"
            )
        parts[unit.site.place].append(_Part(start, stop, values))
    rows = _Rows()
    hooks = {place: _replace(own, positions, rows) for place, own in parts.items()}
    with input_hooks({model.get_input_embeddings(): rows.note}), site_hooks(model, hooks):
        yield


class _Rows:
    """The number of rows of the pass that runs; some modules see prompts and tokens flattened."""

    def __init__(self) -> None:
        self.count = 1

    def note(self, ids: torch.Tensor) -> None:
        """Called with the ids, (rows, tokens)."""
        self.count = len(ids)


def _replace(parts: Sequence[_Part], positions: str, rows: _Rows) -> Observe:
    def replace(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone(memory_format=torch.contiguous_format)
        by_row = changed.view(rows.count, -1, changed.shape[-1])
        chosen = by_row[:, -1:] if positions == END else by_row
        for start, stop, values in parts:
            new = values.to(changed)
            if new.ndim == 2:
                if len(new) != rows.count:
                    raise ValueError(
                        f"there are vectors for {len(new)} rows, and the pass has {rows.count}"
                    )
                new = new[:, None]
            chosen[..., start:stop] = new
        return changed

    return replace


def end_vectors(
    model: PreTrainedModel,
    token_lists: Sequence[Sequence[int]],
    units: Sequence[Unit],
    batch_tokens: int = 4096,
) -> dict[Unit, torch.Tensor]:
    """Read what every unit gives at the last position of every prompt.

    The model computes in float32; prompts of one length run together, without padding.

    Args:
        model: a causal language model in evaluation mode.
        token_lists: prompts as token ids, at least one token each.
        units: heads and MLPs.
        batch_tokens: most tokens of a forward pass; one prompt is always allowed.

    Returns:
        Unit to (prompts, size), float32, on the CPU, in the prompts' order.

    Raises:
        ValueError: there are no prompts, or one is empty.
    """
    if not token_lists or not all(token_lists):
        raise ValueError("expected at least one prompt, and at least one token in each")
    run = find_backbone(model)
    sites = {unit: unit.site for unit in units}
    found = {
        unit: torch.empty(len(token_lists), site.stop - site.start) for unit, site in sites.items()
    }
    with torch.inference_mode(), in_float32(model):
        for batch in length_batches(token_lists, batch_tokens):
            with site_hooks(model, _watch(units, found, batch)):
                run([token_lists[number] for number in batch])
    return found


def _watch(
    units: Sequence[Unit], found: Mapping[Unit, torch.Tensor], batch: Sequence[int]
) -> dict[Place, Observe]:
    """Hooks that note the units' values at the last position."""
    at: dict[Place, list[Unit]] = defaultdict(list)
    for unit in units:
        at[unit.site.place].append(unit)

    def watch(own: Sequence[Unit]) -> Observe:
        def note(tensor: torch.Tensor) -> None:
            ends = tensor.reshape(len(batch), -1, tensor.shape[-1])[:, -1].float().cpu()
            for unit in own:
                found[unit][batch] = ends[:, unit.site.start : unit.site.stop]

        return note

    return {place: watch(own) for place, own in at.items()}


def head_means(
    model: PreTrainedModel,
    token_lists: Sequence[Sequence[int]],
    units: Sequence[Unit],
    batch_tokens: int = 4096,
) -> dict[Unit, torch.Tensor]:
    """Average what every unit gives at the last position, over counterfactuals; see `end_vectors`.

    Returns:
        Unit to (size,), float32, on the CPU.
    """
    vectors = end_vectors(model, token_lists, units, batch_tokens)
    return {unit: each.double().mean(dim=0).float() for unit, each in vectors.items()}


def resampled(
    vectors: Mapping[Unit, torch.Tensor], rows: int, seed: int
) -> dict[Unit, torch.Tensor]:
    """Draw a counterfactual for every row of a batch; all units of a row take theirs from one.

    Args:
        vectors: unit to (prompts, size), from `end_vectors`.
        rows: rows of the batch.
        seed: of the draw; equal seeds draw the same.

    Returns:
        Unit to (rows, size), for `knocked_out`.
    """
    prompts = {len(each) for each in vectors.values()}
    if len(prompts) != 1:
        raise ValueError(f"expected as many prompts for every unit, found {sorted(prompts)}")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(prompts.pop(), (rows,), generator=generator)
    return {unit: each[drawn] for unit, each in vectors.items()}
