"""Find the attention heads and the MLP of every layer by experiments, without a list of families.

Nothing is read from the configuration: a model says itself where its heads are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from neurosurgery.common.errors import UsageError
from neurosurgery.models.backbone import find_backbone
from neurosurgery.models.float32 import float32_arithmetic
from neurosurgery.models.head_probe import Seen, count_heads, mixing_projection, watch_blocks
from neurosurgery.models.targets import Target, find_targets

_EXPECTED = (
    "has no separable attention heads in {where} ({why}); expected a decoder whose every layer has "
    "softmax attention with one output projection"
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

    Raises:
        UsageError: a layer has no such heads (Mamba, linear attention, a norm across heads), or no
            MLP.
    """
    name = model.name_or_path
    run = find_backbone(model)
    targets = {target.module: target for target in find_targets(model)}
    with torch.inference_mode(), float32_arithmetic(model):
        seen = watch_blocks(model, run, targets)
    if not seen:
        raise UsageError("--model", name, _EXPECTED.format(where="it", why="no list of layers"))
    names = {module: module_name for module_name, module in model.named_modules()}
    widest: dict[int, int] = {}
    for each in seen:
        projection = mixing_projection(each)
        if projection is not None and (found := count_heads(each.inputs[projection])):
            width = targets[projection].in_features
            widest[width] = max(widest.get(width, 1), found.heads)
    return [_block(model, index, each, targets, names, widest) for index, each in enumerate(seen)]


def _block(
    model: PreTrainedModel,
    index: int,
    seen: Seen,
    targets: dict[nn.Module, Target],
    names: dict[nn.Module, str],
    widest: dict[int, int],
) -> Block:
    def refuse(why: str) -> UsageError:
        expected = _EXPECTED.format(where=f"layer {index}", why=why)
        return UsageError("--model", model.name_or_path, expected)

    projection = mixing_projection(seen)
    if projection is None:
        raise refuse("no linear module gathers from earlier tokens")
    target = targets[projection]
    found = count_heads(seen.inputs[projection], widest.get(target.in_features, 1))
    if found is None:
        raise refuse("what it gathers from earlier tokens does not come in parts")
    attention = AttentionLayer(
        index,
        model.get_submodule(target.name.rpartition(".")[0]),
        target,
        found.heads,
        target.in_features // found.heads,
        found.kv_heads,
    )
    children = [
        child
        for child in seen.children
        if projection not in child.modules() and any(p.ndim > 1 for p in child.parameters())
    ]
    if not children:
        raise refuse("it has no MLP")
    mlp = _mlp(index, children[-1], seen, targets, names)
    return Block(seen.block, attention, mlp)


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
