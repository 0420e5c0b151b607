"""Find the attention heads and the MLP of every layer by experiments, without a list of families.

Nothing is read from the configuration: a model says itself where its heads are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from neurosurgery.common.errors import UsageError
from neurosurgery.models.backbone import Backbone, find_backbone
from neurosurgery.models.float32 import in_float32
from neurosurgery.models.head_probe import (
    Parts,
    Removal,
    Seen,
    count_heads,
    is_convolution,
    mixing_projection,
    remove_parts,
    watch_blocks,
)
from neurosurgery.models.targets import Target, find_targets

_EXPECTED = (
    "has no separable attention heads in {where} ({why}); expected a decoder whose every layer has "
    "softmax attention with one output projection"
)
_NOT_THE_MLP = (
    "has a layer {index} in which no module is the MLP: {name}, which comes last, is not, for "
    "{why}; expected a decoder whose every layer is attention and one MLP"
)
_MORE = "without it and the heads the layer still adds what depends on its input"
_HEADS_TOO = "without it the heads have no effect"
_SEVERAL_RUNS = (
    "runs layer {index}, or its attention or MLP, {runs} times in one pass; expected a decoder "
    "whose every layer runs once"
)


@dataclass(frozen=True)
class AttentionLayer:
    """The attention of one layer.

    Attributes:
        index: the number of the layer, from 0.
        module: the module that holds the output projection.
        projection: the output projection; head h owns entries `h · head_dim` to `(h + 1) ·
            head_dim` of its input. These are query heads, also with grouped queries.
        heads: the number of query heads.
        head_dim: entries per head; `heads · head_dim` need not be the hidden size.
        kv_heads: the number of heads that have values of their own.
    """

    index: int
    module: nn.Module
    projection: Target
    heads: int
    head_dim: int
    kv_heads: int


@dataclass(frozen=True)
class BlockMlp:
    """The MLP of one layer.

    Attributes:
        index: the number of the layer, from 0.
        name: the module's name in the model.
        module: its output, (…, hidden), is what the MLP adds to the residual stream (before a norm
            or a factor, if the layer has those).
        output: the MLP's last linear module; None where experts share that work.
        size: length of its output.
    """

    index: int
    name: str
    module: nn.Module
    output: Target | None
    size: int


@dataclass(frozen=True)
class Block:
    """A decoder layer: its module, its attention and its MLP."""

    module: nn.Module
    attention: AttentionLayer
    mlp: BlockMlp


def find_blocks(model: PreTrainedModel) -> list[Block]:
    """Find the decoder layers, their heads and their MLPs, in the model's order.

    Three passes of 2, 3 and 24 tokens; every layer gets the same hidden state at all earlier
    positions, and another at the last one, so that

    - the output projection is the first linear module whose input at the last position depends on
      how many earlier positions there are;
    - a head's output there is a mixture of two values, with one weight per head: between passes it
      moves along one line, and the heads are the parts in which this is so. Layers of one width
      have as many heads as the one where most are seen.

    Then passes of 24 tokens without the heads and what may be the MLP, and without the latter
    alone: with both set to 0, a layer adds the same vector whatever enters it.

    Raises:
        UsageError: a layer has no such heads (Mamba, linear attention, a norm across heads), or no
            MLP; no one module is its MLP (a gate or an adapter beside it, experts beside a dense
            MLP without a module for their sum); it runs several times in a pass.
    """
    name = model.name_or_path
    run = find_backbone(model)
    targets = {target.module: target for target in find_targets(model) if target.expert is None}
    with torch.inference_mode(), in_float32(model):
        seen = watch_blocks(model, run, targets)
    if not seen:
        raise UsageError("--model", name, _EXPECTED.format(where="it", why="no list of layers"))
    for index, each in enumerate(seen):
        if each.runs > 1:
            raise UsageError("--model", name, _SEVERAL_RUNS.format(index=index, runs=each.runs))
    names = {module: module_name for module_name, module in model.named_modules()}
    widest: dict[int, int] = {}
    for each in seen:
        projection = mixing_projection(each)
        if projection is None or _convolves(model, each, targets[projection]):
            continue
        if found := count_heads(each.inputs[projection]):
            width = targets[projection].in_features
            widest[width] = max(widest.get(width, 1), found.heads)
    candidates = []
    for index, each in enumerate(seen):
        attention = _attention(model, index, each, targets, widest)
        projection = attention.projection.module
        candidates.append((attention, _mlps(model, index, each, projection, targets, names)))
    with torch.inference_mode(), in_float32(model):
        return _chosen(model, run, [each.block for each in seen], candidates)


def _chosen(
    model: PreTrainedModel,
    run: Backbone,
    blocks: Sequence[nn.Module],
    candidates: Sequence[tuple[AttentionLayer, Sequence[BlockMlp]]],
) -> list[Block]:
    """The layers, each with the first module of those that may be its MLP that is it."""
    settled: dict[int, Block] = {}
    first: list[Removal] = []
    for attempt in range(max(len(mlps) for _, mlps in candidates)):
        tried = [
            settled.get(index, Block(block, attention, mlps[min(attempt, len(mlps) - 1)]))
            for index, (block, (attention, mlps)) in enumerate(zip(blocks, candidates, strict=True))
        ]
        parts = [
            Parts(b.module, b.attention.module, b.attention.projection.module, b.mlp.module)
            for b in tried
        ]
        removals = remove_parts(model, run, parts)
        first = first or removals
        for index, found in enumerate(removals):
            if found.runs == 1 and found.is_constant and found.keeps_heads:
                settled.setdefault(index, tried[index])
        if len(settled) == len(blocks):
            return [settled[index] for index in range(len(blocks))]
    index = next(index for index in range(len(blocks)) if index not in settled)
    found = first[index]
    if found.runs > 1:
        why = _SEVERAL_RUNS.format(index=index, runs=found.runs)
    else:
        likeliest = candidates[index][1][0].name
        reason = _HEADS_TOO if found.is_constant else _MORE
        why = _NOT_THE_MLP.format(index=index, name=likeliest, why=reason)
    raise UsageError("--model", model.name_or_path, why)


def _no_heads(model: PreTrainedModel, index: int, seen: Seen, why: str) -> UsageError:
    parts = [type(c).__name__ for c in seen.children if any(p.ndim > 1 for p in c.parameters())]
    where = f"layer {index}, {' and '.join(parts) or type(seen.block).__name__}"
    expected = _EXPECTED.format(where=where, why=why)
    return UsageError("--model", model.name_or_path, expected)


def _convolves(model: PreTrainedModel, seen: Seen, projection: Target) -> bool:
    mixer = model.get_submodule(projection.name.rpartition(".")[0])
    return is_convolution(mixer, seen.inputs[projection.module])


def _attention(
    model: PreTrainedModel,
    index: int,
    seen: Seen,
    targets: dict[nn.Module, Target],
    widest: dict[int, int],
) -> AttentionLayer:
    projection = mixing_projection(seen)
    if projection is None:
        raise _no_heads(model, index, seen, "no linear module gathers from earlier tokens")
    target = targets[projection]
    if _convolves(model, seen, target):
        raise _no_heads(model, index, seen, "a convolution gathers from the nearest tokens")
    found = count_heads(seen.inputs[projection], widest.get(target.in_features, 1))
    if found is None:
        why = "what it gathers from earlier tokens does not come in parts"
        raise _no_heads(model, index, seen, why)
    return AttentionLayer(
        index,
        model.get_submodule(target.name.rpartition(".")[0]),
        target,
        found.heads,
        target.in_features // found.heads,
        found.kv_heads,
    )


def _mlps(
    model: PreTrainedModel,
    index: int,
    seen: Seen,
    projection: nn.Module,
    targets: dict[nn.Module, Target],
    names: dict[nn.Module, str],
) -> list[BlockMlp]:
    """What may be the MLP of a layer, the likeliest first.

    These are its children with matrices beside the attention, the last one first; then what comes
    after them, for the sum of experts and a dense MLP may have a module of its own (a norm).
    """
    attention = [projection in child.modules() for child in seen.children]
    beside = [c for c, holds_heads in zip(seen.children, attention, strict=True) if not holds_heads]
    with_matrices = [c for c in beside if any(p.ndim > 1 for p in c.parameters())]
    if not with_matrices:
        raise _no_heads(model, index, seen, "it has no MLP")
    last = with_matrices[-1]
    sums = [c for c in beside[beside.index(last) + 1 :] if seen.outputs[c].shape[-1] == seen.width]
    found = [_mlp(index, child, seen, targets, names) for child in with_matrices[::-1]]
    found += [BlockMlp(index, names[child], child, None, seen.width) for child in sums[::-1]]
    return [found[0], *(mlp for mlp in found[1:] if mlp.size == seen.width)]


def _mlp(
    index: int,
    mlp: nn.Module,
    seen: Seen,
    targets: dict[nn.Module, Target],
    names: dict[nn.Module, str],
) -> BlockMlp:
    inside = set(mlp.modules())
    linears = [linear for linear in seen.order if linear in inside]
    experts = any(p.ndim > 2 for p in mlp.parameters()) or not seen.listed.isdisjoint(linears)
    size = seen.outputs[mlp].shape[-1]
    if not linears or experts:
        return BlockMlp(index, names[mlp], mlp, None, size)
    last = linears[-1]
    # Bloom's MLP adds the residual stream to its output; what it computes is its projection's.
    ours, theirs = (seen.outputs[module].reshape(-1) for module in (mlp, last))
    site = mlp if ours.shape == theirs.shape and torch.allclose(ours, theirs) else last
    return BlockMlp(index, names[site], site, targets[last], size)
