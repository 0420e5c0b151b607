"""Ask a loaded model the tasks of the lm-eval harness, by the suite's own engine."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from neurosurgery.api.given import Model, given_model, in_evaluation_mode, python_names
from neurosurgery.common.arguments import shown
from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.evaluation.tasks import task_manager
from neurosurgery.models.load import check_chat_template
from neurosurgery.models.vocabulary import check_end_token
from neurosurgery.settings.declare import whole
from neurosurgery.settings.experiment import EvaluationConfig
from neurosurgery.settings.parts import FIRST, SHARED_DOCUMENTS


def evaluate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    tasks: Sequence[str],
    limit: int | None = None,
    num_fewshot: int | None = None,
    apply_chat_template: bool = False,
    include_path: str | Path | None = None,
    documents_from: str = FIRST,
    seed: int = 42,
    batch_size: int = 16,
) -> Evaluation:
    """Ask a model tasks of the lm-eval harness.

    Answers are those of `lm_eval --model hf`, from fewer tokens. Inside `ns.scaled` or `ns.ablated`
    it is the edited model that is asked.

    >>> before = ns.evaluate(model, tokenizer, tasks=["demo_gsm8k_cot", "demo_mmlu"], limit=40)
    >>> before.values
    {'demo_gsm8k_cot': 0.875, 'demo_mmlu': 1.0}

    Args:
        model: a causal language model of transformers, or its name on the hub or its folder.
        tokenizer: the model's; may be left out where `model` is a name.
        tasks: names of tasks, groups or tags of the harness, of this package (`small_sums`,
            `demo_gsm8k_cot`, …), or of `include_path`.
        limit: how many documents of every task; None asks all.
        num_fewshot: how many examples stand before every document; None is the task's own number.
        apply_chat_template: put the tokenizer's chat template around prompts.
        include_path: a folder of task files. **They are code**: give only files that you trust.
        documents_from: `first` takes the first documents, as the harness does, `random` others.
        seed: of random documents.
        batch_size: a bound on the rows of a forward pass; it is halved where memory is short.

    Returns:
        The numbers (`values`, `results`) and an answer per document (`documents`, `to_frame()`).

    Raises:
        UsageError: an argument or a task that cannot be used; names it, and what was expected.
    """
    with python_names():
        names = _names(tasks)
        _check_numbers(limit=(limit, 1), num_fewshot=(num_fewshot, 0), batch_size=(batch_size, 1))
        if documents_from not in SHARED_DOCUMENTS:
            reason = f"expected {' or '.join(SHARED_DOCUMENTS)}"
            raise UsageError("documents_from", shown(documents_from), reason)
        config = EvaluationConfig(
            math_task=names[0],
            other_tasks=tuple(names[1:]),
            math_documents=limit,
            other_documents=limit,
            num_fewshot=num_fewshot,
            apply_chat_template=apply_chat_template,
            include_path=None if include_path is None else Path(include_path),
            batch_size=batch_size,
            random_state=seed,
            documents_from=documents_from,
        )
        config.check()
        manager = task_manager(config)
        loaded = given_model(model, tokenizer)
        if apply_chat_template:
            check_chat_template(loaded.tokenizer)
        check_end_token(loaded.tokenizer, loaded.model.name_or_path)

        # These import the harness, which takes seconds.
        from lm_eval.models.utils import resolve_max_length

        from neurosurgery.evaluation.harness import Harness, harness_model
        from neurosurgery.evaluation.isolation import chatter_to, preserved_generators

        longest = resolve_max_length(loaded.model.config, loaded.tokenizer)
        with in_evaluation_mode(loaded.model), chatter_to(io.StringIO()), preserved_generators():
            harness = Harness(manager, "other_tasks", names, config)
            harness.prepare(loaded.tokenizer, longest)
            asked = harness_model(loaded, batch_size)
            found = harness.evaluate(asked)
        for note in (*harness.notes, *asked.checks.take_notes()):
            say(note)
        return found


def _names(tasks: object) -> list[str]:
    """The names of the tasks.

    Raises:
        UsageError: something else, or a name twice.
    """
    if isinstance(tasks, str) or not isinstance(tasks, Sequence) or not len(tasks):
        found = "one text; put it into [ ]" if isinstance(tasks, str) else type(tasks).__name__
        raise UsageError("tasks", shown(tasks), f"expected a list of names of tasks, found {found}")
    for name in tasks:
        if not isinstance(name, str) or not name:
            reason = f"expected names of tasks, found {type(name).__name__}"
            raise UsageError("tasks", shown(name), reason)
        if list(tasks).count(name) > 1:
            raise UsageError("tasks", shown(name), "expected every task once")
    return list(tasks)


def _check_numbers(**values: tuple[object, int]) -> None:
    """Refuse what is no whole number of at least so much; None is no number at all."""
    for name, (value, least) in values.items():
        if value is None and name != "batch_size":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or whole(least).refuse(value):
            raise UsageError(name, repr(value), f"expected {whole(least).text}")
