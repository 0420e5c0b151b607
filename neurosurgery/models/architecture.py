"""The parts of a loaded model, each found when it is first asked for."""

from __future__ import annotations

from functools import cached_property

from transformers import PreTrainedModel

from neurosurgery.models.heads import Block, find_blocks
from neurosurgery.models.neurons import NeuronLayer, find_neuron_layers
from neurosurgery.models.targets import Target, find_targets


class Architecture:
    """A loaded model and its parts.

    Args:
        model: the model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @cached_property
    def targets(self) -> list[Target]:
        """The weight matrices that are scored."""
        return find_targets(self.model)

    @cached_property
    def neuron_layers(self) -> list[NeuronLayer]:
        """The MLPs whose neurons can be told apart."""
        return find_neuron_layers(self.model)

    @cached_property
    def blocks(self) -> list[Block]:
        """The layers, each with its attention and its MLP.

        Raises:
            UsageError: the model has no separable heads.
        """
        return find_blocks(self.model)
