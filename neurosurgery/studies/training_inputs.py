"""What `FineTune.py` is given: masks, effects, samples; checked before the model is loaded."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from neurosurgery.activations.kinds import EFFECTS
from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say
from neurosurgery.data.training_data import TrainingData, encode_training
from neurosurgery.edit.adapters import check_adapter
from neurosurgery.masks.files import read_mask_file
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.overlap import first_misfit
from neurosurgery.methods.registry import METHODS
from neurosurgery.models.shapes import model_shapes, model_without_weights
from neurosurgery.models.targets import find_targets
from neurosurgery.models.vocabulary import embedding_rows
from neurosurgery.results.effects import counted_units, effects_file, read_effects
from neurosurgery.results.file_hashes import file_hash
from neurosurgery.results.provenance import facts_of_model, model_fingerprint
from neurosurgery.results.store import ResultStore
from neurosurgery.run.plan import check_sizes
from neurosurgery.run.training import TrainingRecipe
from neurosurgery.settings.experiment import ModelConfig
from neurosurgery.settings.identity import TRAININGS, Fact, Identity, content_of
from neurosurgery.studies.training_config import FineTuneConfig, SelectionConfig


def read_masks(
    selection: SelectionConfig, model: ModelConfig, commit: str | None
) -> dict[str, ParameterMask]:
    """Read the user's mask files, and check them against the model's configuration.

    A mask that was found in other weights is told of, and used.

    Raises:
        UsageError: a file is unreadable, empty, or a mask of another model.
    """
    if not selection.files:
        return {}
    shapes = model_shapes(model)
    content = model_fingerprint(model.name, commit)
    found = {}
    for file in selection.files:
        read = read_mask_file(file.path, "--selection")
        mask = read.mask
        misfit = first_misfit(mask.shapes, shapes.parameters, shapes.targets)
        if misfit is not None:
            reason = f"is a mask of another model than {model.name}: {misfit}"
            raise UsageError("--selection", file.path, reason)
        if not mask.count():
            raise UsageError("--selection", file.path, "selects nothing; expected weights to train")
        found[file.name] = mask
        if read.provenance.get("model_content") not in (None, content):
            # A mask of a relative is a valid start, but the user must know about it.
            say(
                f"warning: --selection {file.path}: the mask was found in "
                f"{read.provenance.get('model', 'a model')}, with other weights than {model.name}",
                file=sys.stderr,
            )
    return found


def facts_of_masks(selection: SelectionConfig, masks: Mapping[str, ParameterMask]) -> Identity:
    """Which weights the name of each of the user's masks stands for.

    The provenance in a file does not count.
    """
    found = []
    for file in selection.files:
        mask = masks[file.name]
        digest = hashlib.sha256()
        for parameter in sorted(mask):
            digest.update(json.dumps([parameter, mask.shapes[parameter]]).encode())
            digest.update(mask.packed[parameter].tobytes())
        content = content_of(digest.hexdigest())
        found.append(Fact("selection", content, file.name, file.path.name))
    return Identity(found)


def check_effects(
    config: FineTuneConfig, store: ResultStore, architecture: PretrainedConfig, commit: str | None
) -> Identity:
    """Refuse methods that take effects where there are none, or fewer units than `--top`.

    Effects that were found in other weights are told of, and used.

    Args:
        config: the settings.
        store: the folder that is written.
        architecture: the result of `read_model_config`.
        commit: the commit of a hub model.

    Returns:
        The content of these effects.

    Raises:
        UsageError: names what to run first, how many units there are, or a unit that the model has
            not; or the effects would be deleted.
    """
    selection, model = config.selection, config.model
    by_effects = [name for name in selection.methods if METHODS[name].statistics == EFFECTS]
    if not by_effects:
        return Identity()
    found_in = _found_in(selection, store)
    root, path = found_in.root, effects_file(found_in)
    if config.output.overwrite and root.resolve() == store.root.resolve():
        reason = "would delete what PathPatching.py has found; expected with it --path_patching"
        raise UsageError("--overwrite", "", reason)
    units = counted_units(found_in)
    if not units:
        has = "a damaged file of it" if path.exists() else "none for this model"
        reason = (
            f"expected what PathPatching.py finds, and {root} has {has}: "
            "run it first, and give its folder by --path_patching"
        )
        raise UsageError("--selection", by_effects[0], reason)
    for name in by_effects:
        largest, count = max(selection.sizes_of(name)), units.get(METHODS[name].unit, 0)
        if largest > count:
            reason = f"expected at most the {count} units of {name}"
            raise UsageError("--top", f"{largest:g}", reason)
    modules = {name for name, _ in model_without_weights(model, architecture).named_modules()}
    for name in read_effects(found_in) or {}:
        if (module := name.split("/")[1]) not in modules:
            reason = f"has effects of {module}, which {model.name} has not"
            raise UsageError("--path_patching", root, reason)
    there = found_in.identity.value("model", "files")
    mine = facts_of_model(model, "", commit).value("model", "files")
    if None not in (there, mine) and there != mine:
        say(
            f"warning: --path_patching {root}: the effects were found with other weights than "
            f"those of {model.name}",
            file=sys.stderr,
        )
    return Identity([Fact("path_patching", content_of(file_hash(path)), "effects", path.name)])


def effects_of(selection: SelectionConfig, store: ResultStore) -> dict[str, torch.Tensor] | None:
    """The effects that units are selected by; None where no method takes them."""
    if not any(METHODS[name].statistics == EFFECTS for name in selection.methods):
        return None
    return read_effects(_found_in(selection, store))


def _found_in(selection: SelectionConfig, store: ResultStore) -> ResultStore:
    """The folder in which `PathPatching.py` has found them."""
    return ResultStore(selection.found_in or store.root, store.model)


def facts_of_training(config: FineTuneConfig, new: TrainingData) -> Identity:
    """What every training of a folder depends on, besides its rate and selection.

    Args:
        config: the settings.
        new: the samples that neither calibration nor tests use.
    """
    content = content_of(new.sha256, samples=len(new.samples))
    data = Fact("train_data", content, source=config.training.data.name)
    return Identity([data]) | config.settings.facts(TRAININGS)


@dataclass(frozen=True)
class EncodedSamples:
    """The tokens of a file's new samples; `notes` say what was cut or left out."""

    train: list[dict[str, list[int]]]
    held_out: list[dict[str, list[int]]]
    notes: tuple[str, ...]


def encode_samples(
    config: FineTuneConfig, new: TrainingData, tokenizer: PreTrainedTokenizerBase, context: int
) -> EncodedSamples:
    """Split and tokenise the samples.

    Args:
        config: the settings.
        new: the samples that neither calibration nor tests use.
        tokenizer: the model's.
        context: the most tokens that the model takes; longer samples are cut there, too.

    Raises:
        UsageError: no sample has an answer within the length, or the chat template cannot be used.
    """
    training = config.training
    length = min(training.max_length, context)
    train, held_out = (
        encode_training(
            part.samples,
            tokenizer,
            length,
            with_chat_template=config.evaluation.apply_chat_template,
        )
        for part in new.split(training.held_out, training.train_seed)
    )
    limit = f"--max_length, {length} tokens"
    if context < training.max_length:
        limit = f"{context} tokens, the model's context (--max_length {training.max_length})"
    if not (train.samples and held_out.samples):
        reason = "expected more tokens than the prompts of the samples have"
        if context < training.max_length:
            reason = f"the prompts of the samples fill the model's context of {context} tokens"
        raise UsageError("--max_length", training.max_length, reason)
    counts = {
        f"are cut at {limit}": train.cut + held_out.cut,
        f"are left out: their prompt alone has {limit}": (
            train.without_answer + held_out.without_answer
        ),
        "have a prompt that ends otherwise than in the tests: the chat template asks with a text "
        "(a thought's beginning) that a written answer lacks": (
            train.other_prompt + held_out.other_prompt
        ),
        "have an answer that the chat template changes; the changed one is trained": (
            train.rewritten + held_out.rewritten
        ),
    }
    notes = tuple(
        f"--train_data: {count:,} samples {what}" for what, count in counts.items() if count
    )
    return EncodedSamples(train.samples, held_out.samples, notes)


def check_trainable(
    config: FineTuneConfig, architecture: PretrainedConfig, samples: EncodedSamples
) -> None:
    """Refuse what this model cannot be trained with, from its configuration alone.

    Args:
        config: the settings.
        architecture: the result of `read_model_config`.
        samples: the tokens to train on.

    Raises:
        UsageError: PEFT cannot add an adapter to the model, a token has no row in its embedding, or
            a size that the model's matrices cannot have.
    """
    rows = embedding_rows(model_without_weights(config.model, architecture))
    largest = max(max(each["input_ids"]) for each in [*samples.train, *samples.held_out])
    if largest >= rows:
        reason = f"holds a token with the id {largest}, and the model knows {rows} tokens"
        raise UsageError("--train_data", config.training.data, reason)
    selection = config.selection
    sizes = {name: selection.sizes_of(name) for name in selection.methods}
    check_sizes(sizes, config.model, architecture)
    for name in selection.methods:
        if METHODS[name].adapter:
            model = model_without_weights(config.model, architecture)
            check_adapter(name, model, [each.parameter_name for each in find_targets(model)])


def training_recipe(
    config: FineTuneConfig,
    samples: EncodedSamples,
    commit: str | None,
    identity: Identity,
) -> TrainingRecipe:
    """Put together what every process trains with.

    Args:
        config: the settings.
        samples: the tokens to train on.
        commit: the commit of a hub model.
        identity: `facts_of_training`, for the provenance.
    """
    origin = {
        "model": config.model.name,
        "revision": config.model.revision,
        "model_content": model_fingerprint(config.model.name, commit),
        "training": {
            fact.setting: fact.text if isinstance(fact.value, Mapping) else fact.value
            for fact in identity
        },
    }
    path = config.output.save_path
    return TrainingRecipe(config.training, samples.train, samples.held_out, path, origin)
