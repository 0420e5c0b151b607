"""Find the neurons of a model's MLPs by structure, without a list of architectures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from neurosurgery.models.backbone import find_backbone
from neurosurgery.models.experts import Experts, find_experts
from neurosurgery.models.hooks import Observe, input_hooks, output_hooks
from neurosurgery.models.targets import Target, expert_targets, find_targets

_PROBE_TOKENS = 8

_IDENTITIES = (nn.Dropout, nn.Identity)
"""Modules without effect in inference: the search would mistake them for the activation."""


@dataclass(frozen=True)
class NeuronLayer:
    """An MLP's activation module, and the output projection whose inputs are the neurons.

    Scaling the activation of neuron j equals scaling column j of the projection's weight, or row j
    if the weight is stored transposed.

    An expert is such an MLP, too, for the tokens that are routed to it: `experts` are those of its
    layer, and `models.experts` sees its activation, which no module of its own gives.
    """

    name: str
    activation: nn.Module | None
    output: Target
    experts: Experts | None = None

    @property
    def neurons(self) -> int:
        """The number of neurons."""
        return self.output.in_features


def expert_name(experts: str, index: int) -> str:
    """The name of one expert of a module."""
    return f"{experts}.{index}"


def expert_layers(experts: Experts) -> list[NeuronLayer]:
    """Every expert of a layer as an MLP of its own."""
    _, last = expert_targets(experts)
    return [
        NeuronLayer(expert_name(experts.name, index), None, output, experts)
        for index, output in enumerate(last)
    ]


@dataclass
class _Probe:
    """Observations of a forward pass: a candidate activation and the linear modules beside it."""

    activation: nn.Module
    linears: dict[nn.Module, Target]
    calls: int = 0
    activated: torch.Tensor | None = None
    last: Target | None = None
    projected: torch.Tensor | None = None


def find_neuron_layers(model: PreTrainedModel) -> list[NeuronLayer]:
    """Find every MLP with an activation module between linear modules, in the model's order.

    A candidate is a module with linear modules and a module without parameters among its direct
    children. A first forward pass over a few tokens gives the order of calls: the output projection
    is the last linear module after the activation. A second pass multiplies the activation of every
    neuron by 1 or 2, at random, and checks that the projection's input changes by the same factors.
    This works with and without gates, and with fused or separate input projections. Experts follow,
    whose parts are known (`models.experts`).
    """
    targets = {target.module: target for target in find_targets(model) if target.expert is None}
    probes = {
        f"{name}.{child_name}": _Probe(child, own)
        for name, parent in model.named_modules()
        if (own := {module: targets[module] for module in parent.children() if module in targets})
        for child_name, child in parent.named_children()
        if not isinstance(child, _IDENTITIES) and not [*child.parameters()]
    }
    run = find_backbone(model)
    vocabulary = model.get_input_embeddings().num_embeddings
    tokens = [[position % vocabulary for position in range(_PROBE_TOKENS)]]
    activations = {probe.activation: _watch_activation(probe) for probe in probes.values()}
    linears = {
        linear: _watch_linear(linear, list(probes.values()))
        for probe in probes.values()
        for linear in probe.linears
    }
    with torch.inference_mode():
        with output_hooks(activations), input_hooks(linears):
            run(tokens)
        plausible = {name: probe for name, probe in probes.items() if _is_plausible(probe)}
        proven: set[str] = set()
        scaled: dict[nn.Module, Observe] = {}
        undone: dict[nn.Module, Observe] = {}
        for name, probe in plausible.items():
            scaled[probe.activation], undone[_projection(probe).module] = _proof(
                name, probe, proven
            )
        with output_hooks(scaled), input_hooks(undone):
            run(tokens)
    dense = list(_layers(plausible, proven))
    return dense + [layer for experts in find_experts(model) for layer in expert_layers(experts)]


def _projection(probe: _Probe) -> Target:
    if probe.last is None:
        raise ValueError("no linear module runs after the activation")
    return probe.last


def _watch_activation(probe: _Probe) -> Observe:
    def watch(output: torch.Tensor) -> None:
        probe.calls += 1
        probe.activated = output if isinstance(output, torch.Tensor) else None
        probe.last = probe.projected = None

    return watch


def _watch_linear(linear: nn.Module, probes: list[_Probe]) -> Observe:
    mine = [probe for probe in probes if linear in probe.linears]

    def watch(inputs: torch.Tensor) -> None:
        for probe in mine:
            if probe.activated is not None:
                probe.last, probe.projected = probe.linears[linear], inputs

    return watch


def _is_plausible(probe: _Probe) -> bool:
    return (
        probe.calls == 1
        and probe.activated is not None
        and probe.projected is not None
        and probe.activated.shape == probe.projected.shape
    )


def _proof(name: str, probe: _Probe, proven: set[str]) -> tuple[Observe, Observe]:
    """Two hooks: one scales the activation, one checks and restores the projection's input.

    Scaling by powers of two is exact, so that later layers see no change and one pass checks all.
    """
    before = probe.projected
    if before is None:
        raise ValueError("the first pass has not reached the output projection")
    bits = torch.randint(2, before.shape[-1:], generator=torch.Generator().manual_seed(0))
    factors = (1 + bits).to(before.device, before.dtype)

    def scale(output: torch.Tensor) -> torch.Tensor:
        return output * factors.to(output.device)

    def check_and_undo(inputs: torch.Tensor) -> torch.Tensor:
        if inputs.shape == before.shape and torch.allclose(inputs, before * factors, rtol=1e-2):
            proven.add(name)
        return inputs / factors

    return scale, check_and_undo


def _layers(probes: dict[str, _Probe], proven: set[str]) -> Iterator[NeuronLayer]:
    for name, probe in probes.items():
        if name in proven:
            yield NeuronLayer(name, probe.activation, _projection(probe))
