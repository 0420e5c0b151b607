"""A model's size and shapes, computed from its configuration without loading weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from neurosurgery.models.load import loading, read_model_config
from neurosurgery.models.targets import find_targets
from neurosurgery.settings.experiment import ModelConfig


class ModelSize(NamedTuple):
    """Bytes of a model's weights in its dtype, and of its largest scored matrix in float32."""

    weights: int
    largest_matrix: int


def model_size(
    config: ModelConfig, architecture: PretrainedConfig, dtype: torch.dtype
) -> ModelSize:
    """Compute a model's size from its configuration, without loading weights.

    Args:
        config: the settings; they say whether code from the hub may run.
        architecture: the result of `read_model_config`.
        dtype: the number format of the weights.

    Raises:
        UsageError: the configuration does not describe a causal language model.
    """
    model = model_without_weights(config, architecture)
    matrices = [target.weight.numel() for target in find_targets(model)]
    return ModelSize(
        sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize,
        4 * max(matrices, default=0),
    )


def model_without_weights(config: ModelConfig, architecture: PretrainedConfig) -> PreTrainedModel:
    """The model on the meta device: names and shapes, no memory.

    Raises:
        UsageError: the configuration does not describe a causal language model.
    """
    with loading(config), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            architecture, trust_remote_code=config.trust_remote_code
        )
    model.tie_weights()
    return model


class ModelShapes(NamedTuple):
    """Parameter name to shape, for all parameters and for the scored ones."""

    parameters: dict[str, tuple[int, ...]]
    targets: dict[str, tuple[int, ...]]


def model_shapes(config: ModelConfig) -> ModelShapes:
    """Read the parameter shapes from a model's configuration, without loading weights.

    Raises:
        UsageError: the model does not exist, or it is quantised.
    """
    model = model_without_weights(config, read_model_config(config))
    return ModelShapes(
        {name: tuple(parameter.shape) for name, parameter in model.named_parameters()},
        {target.parameter_name: tuple(target.weight.shape) for target in find_targets(model)},
    )
