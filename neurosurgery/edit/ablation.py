"""Replace what attention heads and MLPs give by fixed vectors, and put everything back.

Source: Zhang et al., arXiv 2409.01659, §3: a head is knocked out by its mean over counterfactuals.
Means by position: Wang et al., arXiv 2211.00593, §2, whose prompts have a template's positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from neurosurgery.common.arguments import checked
from neurosurgery.edit.kinds import POSITIONS
from neurosurgery.masks.units import Unit
from neurosurgery.models.backbone import find_backbone
from neurosurgery.models.float32 import in_float32
from neurosurgery.models.forward import length_batches
from neurosurgery.models.hooks import Observe, input_hooks
from neurosurgery.models.sites import Place, site_hooks

ALL, END = POSITIONS


class _Part(NamedTuple):
    """Entries of a tensor and their new values, (stop − start,) or with rows and positions."""

    start: int
    stop: int
    values: torch.Tensor


@checked
@contextmanager
def ablated(
    model: PreTrainedModel,
    units: Sequence[Unit],
    vectors: Mapping[Unit, torch.Tensor] | None = None,
    positions: str = ALL,
    after: int = 0,
) -> Iterator[None]:
    """Replace the outputs of heads and MLPs by fixed vectors inside the block.

    Weights do not change; afterwards the model gives the same bits as before.

    >>> heads = ns.find_heads(model)[:2]
    >>> with ns.ablated(model, heads):  # by zeros
    ...     without = ns.next_tokens(model, [[1, 2, 3]], batch_tokens=64)

    Args:
        model: a causal language model.
        units: heads and MLPs (`masks.head_units`); a head's output is its part of the output
            projection's input.
        vectors: the vector of every unit, (size,); or one per row of the batch, (rows, size), as
            for resampling, where every pass must have that many rows; or one per position, (1,
            positions, size), of which the last is for the end of a prompt. None: zeros.
        positions: `all` replaces at every position of every pass (in reading a prompt and in
            writing with a cache, padding included), `end` only at the last position of a pass.
        after: how many positions of a pass come after the prompt's end; vectors by position are
            counted back from there, and what is outside of them takes the nearest one.

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
        if vectors is not None and unit not in vectors:
            raise KeyError(f"{unit.name} has no vector; expected one for every unit")
        values = torch.zeros(stop - start) if vectors is None else vectors[unit]
        if values.shape[-1] != stop - start or values.ndim > 3:
            raise ValueError(
                f"{unit.kind} {unit.index} of layer {unit.layer} has a vector of shape "
                f"{tuple(values.shape)}; expected ({stop - start},), (rows, {stop - start}) or "
                f"(1, positions, {stop - start})"
            )
        parts[unit.site.place].append(_Part(start, stop, values))
    rows = _Rows()
    hooks = {place: _replace(own, positions, after, rows) for place, own in parts.items()}
    with input_hooks({model.get_input_embeddings(): rows.note}), site_hooks(model, hooks):
        yield


class _Rows:
    """The number of rows of the pass that runs; some modules see prompts and tokens flattened."""

    def __init__(self) -> None:
        self.count = 1

    def note(self, ids: torch.Tensor) -> None:
        """Called with the ids, (rows, tokens)."""
        self.count = len(ids)


def _replace(parts: Sequence[_Part], positions: str, after: int, rows: _Rows) -> Observe:
    def replace(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone(memory_format=torch.contiguous_format)
        by_row = changed.view(rows.count, -1, changed.shape[-1])
        chosen = by_row[:, -1:] if positions == END else by_row
        for start, stop, values in parts:
            new = _spread(values.to(changed), rows.count, by_row.shape[1], after)
            chosen[..., start:stop] = new[:, -1:] if positions == END else new
        return changed

    return replace


def _spread(values: torch.Tensor, rows: int, length: int, after: int) -> torch.Tensor:
    """What takes a unit's place in a pass, to broadcast over (rows, length, size)."""
    if values.ndim == 1:
        return values[None, None]
    if values.ndim == 2:
        if len(values) != rows:
            raise ValueError(f"there are vectors for {len(values)} rows, and the pass has {rows}")
        return values[:, None]
    there = values.shape[1]
    end = length - 1 - after
    from_end = torch.arange(length, device=values.device) - end
    return values[:, (from_end + there - 1).clamp(0, there - 1)]


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
    found = {unit: torch.empty(len(token_lists), _size(unit)) for unit in units}

    def take(unit: Unit, batch: Sequence[int], values: torch.Tensor) -> None:
        found[unit][batch] = values[:, -1].float().cpu()

    _watch(model, token_lists, units, batch_tokens, take)
    return found


def _size(unit: Unit) -> int:
    _, _, start, stop = unit.site
    return stop - start


def _watch(
    model: PreTrainedModel,
    token_lists: Sequence[Sequence[int]],
    units: Sequence[Unit],
    batch_tokens: int,
    take: Callable[[Unit, Sequence[int], torch.Tensor], None],
) -> None:
    """Run prompts; `take` is given a unit, the prompts of a batch, and (prompts, tokens, size)."""
    if not token_lists or not all(token_lists):
        raise ValueError("expected at least one prompt, and at least one token in each")
    run = find_backbone(model)
    at: dict[Place, list[Unit]] = defaultdict(list)
    for unit in units:
        at[unit.site.place].append(unit)

    def watch(own: Sequence[Unit], batch: Sequence[int]) -> Observe:
        def note(tensor: torch.Tensor) -> None:
            by_prompt = tensor.reshape(len(batch), -1, tensor.shape[-1])
            for unit in own:
                take(unit, batch, by_prompt[..., unit.site.start : unit.site.stop])

        return note

    with torch.inference_mode(), in_float32(model):
        for batch in length_batches(token_lists, batch_tokens):
            with site_hooks(model, {place: watch(own, batch) for place, own in at.items()}):
                run([token_lists[number] for number in batch])


@checked
def head_means(
    model: PreTrainedModel,
    token_lists: Sequence[Sequence[int]],
    units: Sequence[Unit],
    batch_tokens: int = 4096,
) -> dict[Unit, torch.Tensor]:
    """Average what every unit gives at the last position, over counterfactuals; see `end_vectors`.

    >>> heads = ns.find_heads(model)[:1]
    >>> ns.head_means(model, [[1, 2, 3], [4, 5]], heads)[heads[0]].shape
    torch.Size([64])

    Returns:
        Unit to (size,), float32, on the CPU.
    """
    vectors = end_vectors(model, token_lists, units, batch_tokens)
    return {unit: each.double().mean(dim=0).float() for unit, each in vectors.items()}


def position_means(
    model: PreTrainedModel,
    token_lists: Sequence[Sequence[int]],
    units: Sequence[Unit],
    batch_tokens: int = 4096,
) -> dict[Unit, torch.Tensor]:
    """Average what every unit gives at every position, counted back from the last one.

    A position is averaged over the prompts that are so long; see `end_vectors`.

    Returns:
        Unit to (1, positions of the longest prompt, size), float32, on the CPU.
    """
    longest = max(map(len, token_lists), default=0)
    sums = {unit: torch.zeros(longest, _size(unit), dtype=torch.float64) for unit in units}

    def take(unit: Unit, _batch: Sequence[int], values: torch.Tensor) -> None:
        sums[unit][longest - values.shape[1] :] += values.double().sum(dim=0).cpu()

    _watch(model, token_lists, units, batch_tokens, take)
    lengths = torch.tensor([len(tokens) for tokens in token_lists])
    counts = (lengths >= torch.arange(longest, 0, -1)[:, None]).sum(dim=1)
    return {unit: (each / counts[:, None])[None].float() for unit, each in sums.items()}


def resampled(
    vectors: Mapping[Unit, torch.Tensor], rows: int, seed: int
) -> dict[Unit, torch.Tensor]:
    """Draw a counterfactual for every row of a batch; all units of a row take theirs from one.

    Args:
        vectors: unit to (prompts, size), from `end_vectors`.
        rows: rows of the batch.
        seed: of the draw; equal seeds draw the same.

    Returns:
        Unit to (rows, size), for `ablated`.
    """
    prompts = {len(each) for each in vectors.values()}
    if len(prompts) != 1:
        raise ValueError(f"expected as many prompts for every unit, found {sorted(prompts)}")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(prompts.pop(), (rows,), generator=generator)
    return {unit: each[drawn] for unit, each in vectors.items()}
