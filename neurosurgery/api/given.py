"""What a caller of the API gives: a model, texts, prompts. Errors name arguments, not flags."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neurosurgery.common.arguments import shown
from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.models.load import LoadedModel, load_model, load_tokenizer, read_model_config
from neurosurgery.prompts.pairs import PromptPair
from neurosurgery.prompts.read import NEEDED, OPTIONAL
from neurosurgery.settings.experiment import ModelConfig
from neurosurgery.settings.identity import MATH as SKILL

OTHER = "other"
"""The name of the one set of other text that has none."""

Model: TypeAlias = PreTrainedModel | LoadedModel | str | Path
"""A loaded model, or its name on the hub, or its folder."""

Texts: TypeAlias = Iterable[str | tuple[str, str]]
"""Texts, each as it stands or as (prompt, response)."""

_ARGUMENTS = {
    "train_lm_eval_task": "tasks",
    "eval_datasets": "tasks",
    "train_dataset": "skill",
    "calibration_datasets": "against",
    "eval_batch_size": "batch_size",
    "ratio": "proportion",
}
"""Flags that arguments of the API are not called by."""


@contextmanager
def python_names() -> Iterator[None]:
    """Let the one-line errors of the block name arguments where the scripts have flags."""
    try:
        yield
    except (UsageError, RunError) as error:
        text = str(error)
        named = re.sub(r"--(\w+)", lambda flag: _ARGUMENTS.get(flag[1], flag[1]), text)
        if named != text:
            error.args = (named,)
        raise


def given_model(
    model: Model, tokenizer: PreTrainedTokenizerBase | None, **settings: Any
) -> LoadedModel:
    """The model with its tokenizer; loaded, if it is given by name.

    Args:
        model: a model, or a name, for which the tokenizer may be left out.
        tokenizer: the model's own.
        settings: fields of `ModelConfig`, for a model that is given by name.

    Raises:
        UsageError: it is no causal language model with float weights in memory; its tokenizer is
            missing.
    """
    if isinstance(model, (str, Path)):
        config = ModelConfig(str(model), **settings)
        config.check()
        read_model_config(config)
        return load_model(config, tokenizer or load_tokenizer(config))
    if isinstance(model, LoadedModel):
        return model
    _check_model(model)
    if tokenizer is None:
        name = model.name_or_path or "NAME"
        reason = f'expected the model\'s own, as AutoTokenizer.from_pretrained("{name}")'
        raise UsageError("tokenizer None", "", reason)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        inner = getattr(tokenizer, "tokenizer", None)
        mend = "its .tokenizer" if inner is not None else "a tokenizer of transformers"
        raise UsageError("tokenizer", shown(tokenizer) or _kind(tokenizer), f"expected {mend}")
    return LoadedModel(model, tokenizer, str(model.dtype).removeprefix("torch."))


def _check_model(model: object) -> None:
    """Refuse what is no causal language model of transformers with float weights in memory."""
    reason = None
    if hasattr(model, "merge_and_unload"):
        reason = "is wrapped by PEFT; expected model.merge_and_unload()"
    elif hasattr(model, "_orig_mod"):
        reason = "is compiled; expected the model before torch.compile (model._orig_mod)"
    elif not isinstance(model, PreTrainedModel):
        reason = (
            "expected a causal language model of transformers "
            "(AutoModelForCausalLM.from_pretrained), or its name or folder"
        )
    elif getattr(model.config, "quantization_config", None) is not None:
        reason = "is quantised; expected float weights to edit, as from its name or folder"
    elif model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        reason = "has no head of a causal language model; expected AutoModelForCausalLM"
    elif any(parameter.is_meta for parameter in model.parameters()):
        reason = "has weights that are not in memory; expected all on a device"
    if reason is not None:
        raise UsageError("model", shown(model) or _kind(model), reason)


def _kind(value: object) -> str:
    return type(value).__name__


@contextmanager
def in_evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout inside the block; every module is then in the mode that it was in."""
    before = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in before.items():
            module.training = training


def given_texts(argument: str, name: str, given: object) -> CalibrationSet:
    """The texts of a set.

    Args:
        argument: what errors call it.
        name: of the set; draws of samples depend on it.
        given: texts, or pairs (prompt, response), of which a loss counts the response alone.

    Raises:
        UsageError: something else; names the first that is.
    """
    texts, prompts = [], []
    for place, each in enumerate(_several(argument, given)):
        parts = (each,) if isinstance(each, str) else each
        if (
            not isinstance(parts, (tuple, list))
            or not 1 <= len(parts) <= 2
            or not all(isinstance(part, str) for part in parts)
        ):
            reason = f"expected a text or (prompt, response), found {_kind(each)}"
            raise UsageError(f"{argument}[{place}]", shown(each), reason)
        if not parts[-1].strip():
            raise UsageError(f"{argument}[{place}]", repr(each), "expected more than blanks")
        texts.append("".join(parts))
        prompts.append(parts[0] if len(parts) == 2 else None)
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    known = tuple(prompt for prompt in prompts if prompt is not None)
    return CalibrationSet(
        name,
        tuple(texts),
        digest,
        prompts=known if len(known) == len(texts) else (),
        no_prompts=f"{argument} has texts that are no (prompt, response)",
    )


def _several(argument: str, given: object) -> list[Any]:
    """The members of a list, a column or anything else that holds several.

    Raises:
        UsageError: it is one text, a mapping, no collection, or empty.
    """
    if isinstance(given, (str, bytes)):
        reason = "expected a list of texts, found one text; put it into [ ]"
        raise UsageError(argument, shown(given), reason)
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        reason = f"expected a list of texts, found {_kind(given)}"
        raise UsageError(argument, shown(given), reason)
    found = list(given)
    if not found:
        raise UsageError(argument, "", "expected a list of texts, found none")
    return found


def given_prompts(argument: str, given: object, why: str) -> list[PromptPair]:
    """Prompts with counterfactuals and answers: `PromptPair`s, mappings, or a DataFrame of them.

    Raises:
        UsageError: something else; says `why` they are needed.
    """
    records = getattr(given, "to_dict", None)
    rows = records("records") if callable(records) else _several(argument, given)
    pairs = []
    for place, row in enumerate(rows):
        if isinstance(row, PromptPair):
            pairs.append(row)
            continue
        named = dict(row) if isinstance(row, Mapping) else {}
        wanted = {name: named[name] for name in (*NEEDED, *OPTIONAL) if name in named}
        if not set(NEEDED) <= wanted.keys() or not all(isinstance(v, str) for v in wanted.values()):
            reason = (
                f"{why}; expected a dict of texts with {', '.join(NEEDED)}, as "
                "{'prompt': '47+25=', 'counterfactual': '47@25=', 'answer': '72'}"
            )
            raise UsageError(f"{argument}[{place}]", shown(row), reason)
        pairs.append(PromptPair(**wanted))
    return pairs


def given_sets(against: object) -> list[CalibrationSet]:
    """The sets of other text: one, or several by name; none where nothing is given.

    Raises:
        UsageError: a name or a set that cannot be used.
    """
    if against is None or (isinstance(against, Sequence) and not len(against)):
        return []
    if not isinstance(against, Mapping):
        return [given_texts("against", OTHER, against)]
    for name in against:
        if not isinstance(name, str) or not name or name == SKILL:
            reason = f"expected a dict from names to lists of texts, no name being {SKILL!r}"
            raise UsageError("against", repr(name), reason)
    return [given_texts(f"against[{name!r}]", name, each) for name, each in against.items()]
