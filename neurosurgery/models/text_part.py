"""The text part of a model that reads images or sound, and what is outside of it.

Such a model is loaded whole, so that an export is whole, too. Skills are looked for in its text
part: the language model and its head. Towers and projectors see no token of a text.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)


def auto_class(
    config: PretrainedConfig,
) -> type[AutoModelForCausalLM] | type[AutoModelForImageTextToText]:
    """The class of transformers that loads the whole model of a configuration.

    `AutoModelForCausalLM` gives the text part alone of some (Llama 4, Qwen 3.5), drops the towers'
    weights without a word, and knows others not at all (Qwen-VL, Mistral 3). A checkpoint that
    says that it is the text part alone (`architectures`) is loaded as that.
    """
    images = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    if images is None or config.get_text_config() is config:
        return AutoModelForCausalLM
    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    is_text = causal is not None and causal.__name__ in (config.architectures or ())
    return AutoModelForCausalLM if causal is images or is_text else AutoModelForImageTextToText


def outside_text(model: nn.Module) -> dict[str, nn.Module]:
    """The towers and projectors of a model, by name: what neither holds nor is in its text part.

    Empty for a model of texts alone. The text part is the outermost model inside it that has the
    text configuration and the input embeddings.
    """
    if not isinstance(model, PreTrainedModel):
        return {}
    text = model.config.get_text_config()
    if text is model.config:
        return {}
    inputs = model.get_input_embeddings()
    found = next(
        (
            name
            for name, module in model.named_modules()
            if name
            and isinstance(module, PreTrainedModel)
            and isinstance(module.config, type(text))
            and any(inner is inputs for inner in module.modules())
        ),
        None,
    )
    if found is None:
        return {}
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in _beside(model, found)
        if module is not head and any(True for _ in module.parameters())
    }


def _beside(model: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules, outermost first, that neither are, hold, nor are inside the named one."""
    prefix, module = "", model
    for part in name.split("."):
        for child_name, child in module.named_children():
            if child_name != part:
                yield f"{prefix}{child_name}", child
        prefix, module = f"{prefix}{part}.", module.get_submodule(part)


def modules_outside_text(model: nn.Module) -> set[nn.Module]:
    """Every module inside of `outside_text`."""
    return {inner for module in outside_text(model).values() for inner in module.modules()}


def embedded_or_outside(model: nn.Module) -> set[int]:
    """The ids of the parameters that shares do not count: embeddings, and what is outside."""
    embeddings = (module for module in model.modules() if isinstance(module, nn.Embedding))
    return {
        id(parameter)
        for module in (*embeddings, *modules_outside_text(model))
        for parameter in module.parameters(recurse=False)
    }
