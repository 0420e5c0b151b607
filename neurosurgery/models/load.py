"""Load a model and its tokenizer, or size it up from its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from neurosurgery.common.errors import RunError, UsageError, first_line
from neurosurgery.config.experiment import ModelConfig
from neurosurgery.models.devices import choose_device, choose_dtype
from neurosurgery.models.targets import find_targets


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be scored, edited and evaluated."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: str


def _source(config: ModelConfig) -> dict[str, Any]:
    return {"revision": config.revision, "trust_remote_code": config.trust_remote_code}


@contextmanager
def _loading(config: ModelConfig) -> Iterator[None]:
    """Turn what transformers raises for a model that cannot be had into one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise RunError(f"{config.name} does not fit on the device; try --device_map auto") from None
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise UsageError("--model", config.name, f"cannot be loaded: {reason}") from None


def read_model_config(config: ModelConfig) -> PretrainedConfig:
    """Fetch the model's own configuration, the cheapest proof that there is a model.

    Raises:
        UsageError: it cannot be had, or the checkpoint is quantised.
    """
    with _loading(config):
        found = AutoConfig.from_pretrained(config.name, **_source(config))
    if getattr(found, "quantization_config", None) is not None:
        raise UsageError("--model", config.name, "is quantised; expected float weights to edit")
    return found


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer.

    Raises:
        UsageError: there is none.
    """
    with _loading(config):
        return AutoTokenizer.from_pretrained(config.name, **_source(config))


def load_model(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase, dtype: str | None = None
) -> LoadedModel:
    """Load the weights for inference.

    `dtype` in place of the configuration's; `auto` is the checkpoint's own, which changes no bit.

    Raises:
        UsageError: they cannot be loaded, or part of the model would be off the devices.
    """
    device = choose_device(config)
    wanted = dtype or choose_dtype(config, device)
    with _loading(config):
        model = AutoModelForCausalLM.from_pretrained(
            config.name, dtype=wanted, device_map=config.device_map, **_source(config)
        )
        if config.device_map is None:
            model = model.to(device)
    offloaded = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if offloaded:
        raise UsageError(
            "--device_map",
            config.device_map,
            f"leaves {len(offloaded)} weights off the devices ({offloaded[0]}, …), where they "
            "cannot be edited; expected a model that fits",
        )
    found = model.dtype if wanted == "auto" else wanted
    return LoadedModel(model.eval(), tokenizer, str(found).removeprefix("torch."))


class ModelSize(NamedTuple):
    """Bytes of a model's weights in its dtype, and of its largest scored matrix in float32."""

    weights: int
    largest_matrix: int


def model_size(config: PretrainedConfig, dtype: torch.dtype) -> ModelSize:
    """Size a model up from its configuration alone, without its weights."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    matrices = [target.weight.numel() for target in find_targets(model)]
    return ModelSize(
        sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize,
        4 * max(matrices, default=0),
    )


class ModelShapes(NamedTuple):
    """Parameter name to shape: of all parameters, and of those that are scored."""

    parameters: dict[str, tuple[int, ...]]
    targets: dict[str, tuple[int, ...]]


def model_shapes(config: ModelConfig) -> ModelShapes:
    """The shapes of a model's parameters, from its configuration alone.

    Raises:
        UsageError: there is no such model, or it is quantised.
    """
    found = read_model_config(config)
    with _loading(config), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(found, trust_remote_code=config.trust_remote_code)
    model.tie_weights()
    return ModelShapes(
        {name: tuple(parameter.shape) for name, parameter in model.named_parameters()},
        {target.parameter_name: tuple(target.weight.shape) for target in find_targets(model)},
    )
