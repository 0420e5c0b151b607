"""Neurons, attention heads, whole MLPs and experts as units, and their weights as a mask."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import PreTrainedModel

from neurosurgery.common.arguments import checked
from neurosurgery.masks.kinds import EXPERT, HEAD, MLP, NEURON, UNITS
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.units import Site, Slice, Unit, place_of, units_mask
from neurosurgery.models.architecture import Architecture
from neurosurgery.models.experts import Experts
from neurosurgery.models.heads import Block, find_blocks
from neurosurgery.models.neurons import NeuronLayer
from neurosurgery.models.sites import ROUTING
from neurosurgery.models.targets import expert_targets, find_targets


@checked
def find_heads(model: PreTrainedModel) -> list[Unit]:
    """Find every attention head of a model, by layer and head (`head_units`).

    >>> len(ns.find_heads(model)), ns.find_heads(model)[5].layer, ns.find_heads(model)[5].index
    (16, 1, 1)

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


def neuron_units(layers: Sequence[NeuronLayer]) -> list[Unit]:
    """Every neuron of the MLPs as a unit, MLP by MLP."""
    return [neuron_unit(layer, index) for layer in layers for index in range(layer.neurons)]


def neuron_unit(layer: NeuronLayer, index: int) -> Unit:
    """A neuron: its entry of the output projection's input, and the column that reads it."""
    dimension = 0 if layer.output.transposed else 1
    part = Slice(layer.output.parameter_name, dimension, index, index + 1)
    site = Site(layer.output.name, "input", index, index + 1)
    return Unit(NEURON, place_of(layer.name).layer, layer.name, index, (part,), site)


def model_units(architecture: Architecture, kinds: Collection[str]) -> list[Unit]:
    """Every unit of some kinds, kind by kind in the registry's order.

    Raises:
        UsageError: the model has no separable heads (`models.heads.find_blocks`).
    """
    return [
        unit for kind in UNITS.values() if kind.name in kinds for unit in kind.find(architecture)
    ]


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
            rows = mlp.output.shape[0]
            slices = (Slice(mlp.output.parameter_name, 0, 0, rows),)
        site = Site(mlp.name, "output", 0, mlp.size)
        units.append(Unit(MLP, mlp.index, mlp.name, 0, slices, site))
    return units


def expert_units(layers: Sequence[Experts]) -> list[Unit]:
    """Every routed expert of a model as a unit, layer by layer.

    An expert's site is its place in the routing; its slices are its whole matrices, without biases.
    """
    units = []
    for experts in layers:
        layer = place_of(experts.name).layer
        for index, matrices in enumerate(zip(*expert_targets(experts), strict=True)):
            slices = tuple(Slice(m.parameter_name, 0, 0, m.shape[0]) for m in matrices)
            site = Site(experts.name, ROUTING, index, index + 1)
            units.append(Unit(EXPERT, layer, experts.name, index, slices, site))
    return units


@checked
def zero_mask(model: PreTrainedModel, units: Sequence[Unit]) -> ParameterMask:
    """The weights which, set to zero, remove the units: the columns that read a head's output.

    What a bias of the output projection adds stays; it belongs to no head. The mask covers every
    scored parameter of the model.

    >>> ns.zero_mask(model, ns.find_heads(model)[:1])
    ParameterMask(16,384 of 3.41 M weights in 28 matrices, 0.48%)

    Raises:
        KeyError: a unit owns part of a parameter that is not scored.
    """
    shapes = {each.parameter_name: each.shape for each in find_targets(model)}
    return units_mask(units, shapes)
