"""Load a model, and find in it what can be scored: structurally, without a table of families."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from neurosurgery.common.errors import RunError, UsageError, first_line
from neurosurgery.config.experiment import ModelConfig
from neurosurgery.models.devices import choose_device, choose_dtype


@dataclass(frozen=True)
class Target:
    """A linear module whose weight is scored.

    The weight has shape (out_features, in_features), or (in_features, out_features) where
    `transposed` (GPT-2's Conv1D).
    """

    name: str
    module: nn.Module
    transposed: bool

    @property
    def parameter_name(self) -> str:
        """The weight's name in the model's state."""
        return f"{self.name}.weight"

    @property
    def weight(self) -> torch.Tensor:
        """The weight itself, not a copy."""
        return self.module.get_parameter("weight")

    @property
    def in_features(self) -> int:
        """Length of the module's input vectors."""
        return self.weight.shape[0 if self.transposed else 1]


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


def find_targets(model: PreTrainedModel) -> list[Target]:
    """Every linear module with a weight of its own, in the model's order.

    An output head that is tied to the embedding is not a parameter of its own and is left out;
    embeddings are no linear modules and never found. A weight that several modules share counts
    once, under the name by which the model lists it.
    """
    embedding = model.get_input_embeddings()
    own = {name for name, _ in model.named_parameters()}
    targets = []
    for name, module in model.named_modules():
        transposed = isinstance(module, Conv1D)
        if not transposed and not isinstance(module, nn.Linear):
            continue
        tied = embedding is not None and module.weight is embedding.weight
        if not tied and f"{name}.weight" in own:
            targets.append(Target(name, module, transposed))
    return targets


def scored_share(model: PreTrainedModel, targets: Sequence[Target]) -> float:
    """The targets' share of the parameters outside the embeddings, which are never scored."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    total = sum(p.numel() for p in model.parameters() if id(p) not in embeddings)
    return sum(target.weight.numel() for target in targets) / total


def context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that the model can read at once; samples longer than this are cut."""
    config = model.config.get_text_config()
    limits = [
        getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")
    ]
    # A tokenizer without a limit of its own reports an astronomically large one.
    return int(
        min([limit for limit in limits if isinstance(limit, int)] + [tokenizer.model_max_length])
    )


def base_forward(model: PreTrainedModel, batch: Sequence[Sequence[int]]) -> torch.Tensor:
    """One pass, padded on the right; returns the head's input, (samples, tokens, hidden).

    In a causal model no real token sees what stands to its right, so no attention mask is needed.
    Logits are never formed.
    """
    longest = max(map(len, batch))
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    for row, sample in enumerate(batch):
        ids[row, : len(sample)] = torch.tensor(sample)
    device = model.get_input_embeddings().weight.device
    return model.base_model(input_ids=ids.to(device), use_cache=False).last_hidden_state
