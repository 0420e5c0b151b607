"""Attention heads and whole MLPs as units, and their weights as a mask."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from neurosurgery.masks.kinds import UNIT_KINDS
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.units import Site, Slice, Unit, units_mask
from neurosurgery.models.heads import Block, find_blocks
from neurosurgery.models.targets import find_targets

HEAD, MLP = UNIT_KINDS["heads"], UNIT_KINDS["mlps"]


def find_heads(model: PreTrainedModel) -> list[Unit]:
    """Find every attention head of a model, by layer and head (`head_units`).

    Raises:
        UsageError: the model has no separable heads (`models.heads.find_blocks`).
    """
    return head_units(find_blocks(model))


def head_units(blocks: Sequence[Block]) -> list[Unit]:
    """Every attention head of a model as a unit, by layer and head.

    A head's site is its entries of the output projection's input; its slice is the columns of the
    projection's weight that read them (rows of a Conv1D). `module` names the projection.
    """
    units = []
    for block in blocks:
        attention = block.attention
        projection = attention.projection
        for head in range(attention.heads):
            start, stop = head * attention.head_dim, (head + 1) * attention.head_dim
            dimension = 0 if projection.transposed else 1
            part = Slice(projection.parameter_name, dimension, start, stop)
            site = Site(projection.name, "input", start, stop)
            units.append(Unit(HEAD, attention.index, projection.name, head, (part,), site))
    return units


def model_units(model: PreTrainedModel) -> list[Unit]:
    """Every head of a model, then every MLP.

    Raises:
        UsageError: the model has no separable heads (`models.heads.find_blocks`).
    """
    blocks = find_blocks(model)
    return [*head_units(blocks), *mlp_units(blocks)]


def mlp_units(blocks: Sequence[Block]) -> list[Unit]:
    """Every MLP of a model as one unit, by layer.

    An MLP's site is its output; its slice is its whole output projection. An MLP of experts has no
    slices.
    """
    units = []
    for block in blocks:
        mlp = block.mlp
        slices: tuple[Slice, ...] = ()
        if mlp.output is not None:
            rows = mlp.output.weight.shape[0]
            slices = (Slice(mlp.output.parameter_name, 0, 0, rows),)
        site = Site(mlp.name, "output", 0, mlp.size)
        units.append(Unit(MLP, mlp.index, mlp.name, 0, slices, site))
    return units


def zero_mask(model: PreTrainedModel, units: Sequence[Unit]) -> ParameterMask:
    """The weights which, set to zero, remove the units: the columns that read a head's output.

    What a bias of the output projection adds stays; it belongs to no head. The mask covers every
    scored parameter of the model.

    Raises:
        KeyError: a unit owns part of a parameter that is not scored.
    """
    shapes = {each.parameter_name: tuple(each.weight.shape) for each in find_targets(model)}
    return units_mask(units, shapes)
