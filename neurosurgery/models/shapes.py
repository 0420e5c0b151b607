"""A model's size and shapes, computed from its configuration without loading weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PretrainedConfig, PreTrainedModel

from neurosurgery.models.experts import find_experts
from neurosurgery.models.load import loading, read_model_config
from neurosurgery.models.targets import Target, expert_targets, find_targets, matrix_shapes
from neurosurgery.models.text_part import auto_class
from neurosurgery.settings.experiment import ModelConfig


class ModelSize(NamedTuple):
    """What a model takes, from its configuration alone.

    Attributes:
        weights: bytes of its weights, in its dtype.
        largest_matrix: bytes of its largest scored matrix in float32.
        scored: weights in scored matrices, in number.
        packed: bytes of a mask of all of them, a bit each (`numpy.packbits` by matrix).
        inputs: the input features of all scored matrices, in number.
        itemsize: bytes of a weight.
        layers: their number.
        remembered: bytes of a token's keys and values in all layers.
        passing: bytes of what a token is inside of a layer, at most: all that its matrices read
            and write.
        logits: bytes of a token's logits in the model's dtype and again in float32.
        in_float32: bytes of its largest parameter in float32; 0 for a float32 model.
    """

    weights: int
    largest_matrix: int
    scored: int
    packed: int
    inputs: int
    itemsize: int
    layers: int
    remembered: int
    passing: int
    logits: int
    in_float32: int


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
    targets = find_targets(model)
    matrices = [target.numel for target in targets]
    text = architecture.get_text_config()
    layers = text.num_hidden_layers
    # A model without attention remembers no keys, and others remember as much for every head.
    heads = getattr(text, "num_attention_heads", None) or 1
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    kept = getattr(text, "num_key_value_heads", None) or heads
    parameters = [parameter.numel() for parameter in model.parameters()]
    return ModelSize(
        weights=sum(parameters) * dtype.itemsize,
        largest_matrix=4 * max(matrices, default=0),
        scored=sum(matrices),
        packed=sum(-(-count // 8) for count in matrices),
        inputs=sum(target.in_features for target in targets),
        itemsize=dtype.itemsize,
        layers=layers,
        remembered=2 * layers * kept * width * dtype.itemsize,
        passing=_features_of_a_token(model, targets, text) // layers * dtype.itemsize,
        logits=text.vocab_size * (dtype.itemsize + torch.float32.itemsize),
        in_float32=0 if dtype == torch.float32 else 4 * max(parameters),
    )


def _features_of_a_token(
    model: PreTrainedModel, targets: Sequence[Target], text: PretrainedConfig
) -> int:
    """How many numbers the matrices read and write of a token, in all layers.

    Of experts those that it is routed to count, or all where tokens reach all (Llama 4).
    """
    features = sum(sum(target.shape) for target in targets if target.expert is None)
    routed = getattr(text, "num_experts_per_tok", None)
    for experts in find_experts(model):
        several = experts.count if experts.scaled_inputs else routed or experts.count
        features += several * sum(sum(own.shape) for own, *_ in expert_targets(experts))
    return features


def model_without_weights(config: ModelConfig, architecture: PretrainedConfig) -> PreTrainedModel:
    """The model on the meta device: names and shapes, no memory.

    Raises:
        UsageError: the configuration does not describe a causal language model.
    """
    with loading(config), torch.device("meta"):
        model = auto_class(architecture).from_config(
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
        matrix_shapes(model),
        {target.parameter_name: target.shape for target in find_targets(model)},
    )
