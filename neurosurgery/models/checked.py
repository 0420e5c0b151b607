"""Load a model that calibration samples can be run through, and whose weights can be scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transformers import PreTrainedTokenizerBase

from neurosurgery.models import load
from neurosurgery.models.backbone import check_backbone
from neurosurgery.models.vocabulary import check_vocabulary
from neurosurgery.settings.experiment import ModelConfig


def load_checked_model(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Iterable[str]]
) -> load.LoadedModel:
    """Load the weights, and check that they fit the tokenizer, the samples and the scoring pass.

    Args:
        config: the model's settings.
        tokenizer: its tokenizer.
        texts: name of a set to its samples.

    Raises:
        UsageError: the model cannot be used.
    """
    loaded = load.load_model(config, tokenizer)
    check_vocabulary(loaded.model, tokenizer, config.name, texts)
    check_backbone(loaded.model)
    return loaded
