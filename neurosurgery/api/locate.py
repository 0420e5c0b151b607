"""Find what carries a skill, from texts and a loaded model: one call for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from operator import and_
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from neurosurgery.activations.collect import collect_from_set
from neurosurgery.activations.kinds import EFFECTS
from neurosurgery.api.given import (
    Model,
    Texts,
    given_model,
    given_prompts,
    given_sets,
    given_texts,
    in_evaluation_mode,
    python_names,
)
from neurosurgery.common.errors import UsageError
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.evaluation.task_files import did_you_mean
from neurosurgery.localisation.patching_metrics import PromptPairs
from neurosurgery.localisation.path_patching import head_effects
from neurosurgery.masks.kinds import UNITS
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.methods.base import Method
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import DEFAULT_METHOD, METHODS
from neurosurgery.models.backbone import check_backbone
from neurosurgery.models.load import LoadedModel
from neurosurgery.models.targets import find_targets
from neurosurgery.models.vocabulary import check_vocabulary
from neurosurgery.prompts.pairs import PromptPair, tokenize_pairs
from neurosurgery.results.keys import shown_set
from neurosurgery.run.jobs import mask_provenance
from neurosurgery.run.observations import Observations, make_evidence, observed_parts
from neurosurgery.settings.declare import FRACTION, whole
from neurosurgery.settings.identity import MATH as SKILL

PROPORTION = 0.01
"""The proportion where none is given."""


def locate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    skill: Texts | Sequence[PromptPair] | Sequence[Mapping[str, str]],
    against: Texts | Mapping[str, Texts] = (),
    proportion: float | None = None,
    top: int | None = None,
    method: str = DEFAULT_METHOD,
    num_samples: int | None = None,
    seed: int = 42,
    batch_tokens: int | None = None,
) -> ParameterMask:
    """Find the weights of a model that carry a skill.

    >>> mask = ns.locate(model, tokenizer, skill=problems, against=passages, proportion=0.05)
    >>> mask
    ParameterMask(57,8... of 3.41 M weights in 28 matrices, 1.7%: mathneuro, 0.05 against other)
    >>> ns.locate(model, tokenizer, skill=problems, method="wanda", proportion=0.05).count()
    170376

    Args:
        model: a causal language model of transformers (which is left as it is), or its name on the
            hub or its folder, which is then loaded for this call.
        tokenizer: the model's; may be left out where `model` is a name.
        skill: texts that need the skill, each as it stands (no chat template is put around it), or
            as (prompt, response), of which SNIP's loss counts the response alone. For heads and
            MLPs prompts: a dict with `prompt`, `counterfactual` (as long in tokens, without the
            skill) and `answer` each.
        against: texts that the skill is told apart from; or several sets of them by name. Of
            MathNeuro and SNIP every set takes off its own top-K: what is left matters for the skill
            and for none of the sets. LAPE compares all sets by name. Methods that compare with no
            other text do not read it.
        proportion: what share of every matrix's weights is in a top-K, or for LAPE, of the model's
            neurons; .01 if nothing is given.
        top: how many heads or MLPs.
        method: mathneuro, wanda, wanda_rows, snip, magnitude, lape, heads, mlps; with `random_` or
            `bottom_` before it as many weights or units at random, or of the least important
            (MathNeuro's twin is called `random`).
        num_samples: how many samples are drawn of every set, with replacement, as the scripts do
            (of prompts for heads and MLPs as many as there are); None counts every sample once.
        seed: of draws and of random selections.
        batch_tokens: tokens of a forward pass, padding included; None chooses by device.

    Returns:
        The mask over all scored matrices. Of heads, MLPs and neurons it holds the weights that read
        their outputs, so that `ns.scaled(model, mask, 0)` removes them. `mask.provenance` says how
        it was found.

    Raises:
        UsageError: an argument that cannot be used; names it, and what was expected.
        RunError: weights or activations are not finite, or the model lacks what is observed.
    """
    with python_names():
        chosen = _chosen(method)
        size = _size(chosen, proportion, top)
        _check_draw(num_samples, seed)
        others = given_sets(against)
        if chosen.statistics == EFFECTS:
            units = UNITS[chosen.unit].plural
            pairs = given_prompts("skill", skill, f"{units} are found by prompts")
            samples = []
        else:
            pairs = []
            samples = [given_texts("skill", SKILL, skill)] if chosen.statistics else []
        _check_others(chosen, others)
        if chosen.against_a_set or chosen.over_all_sets:
            _check_different(samples, others)
        loaded = given_model(model, tokenizer)
        _check_size(chosen, size, loaded)
        used = [*samples, *others] if chosen.against_a_set or chosen.over_all_sets else samples
        check_vocabulary(
            loaded.model, loaded.tokenizer, _name(loaded), {one.name: one.samples for one in used}
        )
        draw = _Draw(num_samples, seed, batch_tokens)
        names = [one.name for one in others] if chosen.against_a_set else [""]
        keys = [SelectionKey(chosen.name, SKILL, name, size) for name in names]
        with in_evaluation_mode(loaded.model):
            check_backbone(loaded.model)
            if pairs:
                observed = _effects(loaded, chosen, pairs, draw)
            else:
                observed = _statistics(loaded, chosen, keys, used, draw)
            return _mask(make_evidence(loaded, observed), keys, loaded, draw, used)


class _Draw:
    """How samples are drawn and run."""

    def __init__(self, num_samples: int | None, seed: int, batch_tokens: int | None) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self.batch_tokens = batch_tokens

    def of(self, samples: CalibrationSet) -> np.ndarray:
        """How often every sample counts, (1, samples)."""
        if self.num_samples is None:
            return np.ones((1, len(samples.samples)), dtype=np.int64)
        return samples.multiplicities(self.num_samples, 1, self.seed)


def _statistics(
    loaded: LoadedModel,
    method: Method,
    keys: Sequence[SelectionKey],
    sets: Sequence[CalibrationSet],
    draw: _Draw,
) -> Observations:
    """What the method selects by, from a pass over every set."""
    names = [one.name for one in sets]
    needed = dict.fromkeys(need for key in keys for need in method.needs(key, names))
    found: dict[str, dict[Any, Any]] = {}
    for kind, name, size in needed:
        parts = observed_parts(kind, loaded)
        one = sets[names.index(name)]
        sizes = [] if size is None else [size]
        how = (draw.of(one), draw.batch_tokens, sizes)
        shown = replace(one, name=shown_set(name, "skill"))
        computed = collect_from_set(kind, loaded, parts, shown, *how)
        found.setdefault(kind, {})[name if size is None else (name, size)] = computed[size]
    return Observations(found, [keys[0].size], draw.seed)


def _effects(
    loaded: LoadedModel, method: Method, pairs: Sequence[PromptPair], draw: _Draw
) -> Observations:
    """The effects of a kind of units on the prompts.

    Raises:
        UsageError: no prompt is left that can be used; says what became of them.
    """
    kept, tally = tokenize_pairs(pairs, loaded.tokenizer)
    if not kept:
        raise UsageError("skill", "", f"expected prompts that can be patched; {tally.text()}")
    found = head_effects(
        loaded.model, PromptPairs.of(kept), units=[UNITS[method.unit].plural.lower()]
    )
    effects = {unit.name: row for unit, row in zip(found.units, found.effects, strict=True)}
    return Observations(effects=effects, seed=draw.seed, draws_prompts=draw.num_samples is not None)


def _mask(
    evidence: Evidence,
    keys: Sequence[SelectionKey],
    loaded: LoadedModel,
    draw: _Draw,
    sets: Sequence[CalibrationSet],
) -> ParameterMask:
    """What every key selects, and how it was found."""
    found = [METHODS[key.method].select(evidence, key) for key in keys]
    # A less b, and a less c, have in common a less b and c.
    mask = reduce(and_, (selection.mask for selection in found))
    key = replace(keys[0], against=", ".join(key.against for key in keys))
    origin = {
        "model": _name(loaded),
        "revision": getattr(loaded.model.config, "_commit_hash", None),
        "seed": draw.seed,
        "num_samples": draw.num_samples,
        "samples": {shown_set(one.name, "skill"): len(one.samples) for one in sets},
        "sha256": {shown_set(one.name, "skill"): one.sha256 for one in sets},
    }
    told = mask_provenance(origin, key, replace(found[0], mask=mask))
    # The scripts call any skill by one name; here nothing says that it is that.
    return mask.with_provenance(told | {"skill": shown_set(SKILL, "skill")})


def _name(loaded: LoadedModel) -> str:
    return loaded.model.name_or_path or type(loaded.model).__name__


def _chosen(name: str) -> Method:
    """The method of this name.

    Raises:
        UsageError: there is none, or none that selects weights of a model.
    """
    selecting = {key: one for key, one in METHODS.items() if not (one.given or one.adapter)}
    if isinstance(name, str) and name in METHODS and name not in selecting:
        reason = "takes masks or weights that are given, and finds none"
        raise UsageError("method", repr(name), reason)
    if name not in selecting:
        known = ", ".join(key for key, one in selecting.items() if one.is_named)
        near = did_you_mean(str(name), selecting)
        raise UsageError("method", repr(name), f"expected one of {known}{near}")
    return selecting[name]


def _size(method: Method, proportion: float | None, top: int | None) -> float:
    """The method's size.

    Raises:
        UsageError: it is missing, or of another kind, or out of range.
    """
    if method.of_one_size:
        return 0.0
    if method.counts_units:
        units = UNITS[method.unit].plural
        if top is None or proportion is not None:
            reason = f"expected a number of {units} for {method.name}, and no proportion"
            raise UsageError("top", repr(top), reason)
        if isinstance(top, bool) or not isinstance(top, int) or whole(1).refuse(top):
            raise UsageError("top", repr(top), f"expected {whole(1).text}")
        return float(top)
    if top is not None:
        reason = f"expected none for {method.name}, which takes a proportion"
        raise UsageError("top", repr(top), reason)
    size = PROPORTION if proportion is None else proportion
    if isinstance(size, bool) or not isinstance(size, (int, float)) or FRACTION.refuse(size):
        raise UsageError("proportion", repr(size), f"expected {FRACTION.text}")
    return float(size)


def _check_size(method: Method, size: float, loaded: LoadedModel) -> None:
    """Refuse a size that the model cannot have."""
    targets = find_targets(loaded.model)
    if not targets:
        raise UsageError("model", _name(loaded), "expected a model with linear modules")
    method.check_sizes([size], lambda: {one.parameter_name: one.in_features for one in targets})


def _check_draw(num_samples: int | None, seed: int) -> None:
    for name, value in {"num_samples": num_samples, "seed": seed}.items():
        least = 1 if name == "num_samples" else 0
        is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and (not is_whole or whole(least).refuse(value)):
            raise UsageError(name, repr(value), f"expected {whole(least).text}")
    if seed is None:
        raise UsageError("seed", "None", f"expected {whole(0).text}")


def _check_different(samples: Sequence[CalibrationSet], others: Sequence[CalibrationSet]) -> None:
    """Refuse the same texts on both sides: nothing is left of a top-K without itself."""
    for skill, other in product(samples, others):
        if set(skill.samples) == set(other.samples):
            reason = "holds the texts of skill; expected others, that do without the skill"
            raise UsageError("against", other.name, reason)


def _check_others(method: Method, others: Sequence[CalibrationSet]) -> None:
    """Refuse too few sets of other text, or too many."""
    compares = method.against_a_set or method.over_all_sets
    if compares and not others:
        alone = (
            name
            for name, one in METHODS.items()
            if one.is_named
            and one.statistics != EFFECTS
            and not one.of_one_size
            and not (one.against_a_set or one.over_all_sets)
        )
        reason = (
            f"expected a list of texts, or a dict of several, that {method.name} tells the skill "
            f"apart from; without: {', '.join(alone)}"
        )
        raise UsageError("against", "", reason)
    if method.against_a_set and method.draw and len(others) > 1:
        reason = (
            f"expected one set for {method.name}; ns.random_twin(mask, seed) draws as many weights "
            "as any mask has"
        )
        raise UsageError("against", " ".join(one.name for one in others), reason)
