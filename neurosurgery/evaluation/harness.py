"""Run lm-eval tasks: each task is built once, and the loaded model is reused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate.utils.memory import should_reduce_batch_size
from jinja2 import UndefinedError
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable
from transformers import PreTrainedTokenizerBase

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.data.overlap import Record
from neurosurgery.evaluation.aggregation import aggregate_to_infinity, errors_of_large_values
from neurosurgery.evaluation.asked import WHOLE, Asked, Part
from neurosurgery.evaluation.checks import UnfitTaskError, check_task
from neurosurgery.evaluation.documents import (
    Guessing,
    asked_records,
    cluster_of,
    document_records,
    without_broken_numbers,
)
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.evaluation.identity import group_identity, task_identity
from neurosurgery.evaluation.isolation import FEWSHOT_SEED, preserved_generators
from neurosurgery.evaluation.remembered import Remembered, Responses
from neurosurgery.evaluation.request_sizes import RequestSize, request_sizes
from neurosurgery.evaluation.requests import Prompts, build_requests
from neurosurgery.evaluation.tasks import task_manager
from neurosurgery.models.devices import empty_cache
from neurosurgery.models.load import LoadedModel
from neurosurgery.settings.experiment import EvaluationConfig
from neurosurgery.settings.identity import Fact, Identity
from neurosurgery.settings.parts import flag_of


class Harness:
    """A set of harness tasks, loaded once and evaluated for any number of model states.

    Args:
        manager: the index of tasks.
        setting: what names them.
        names: the tasks.
        config: how they are asked.
        not_here: takes the names of those whose data would have to be downloaded, which are left
            out; None where that is an error.

    Raises:
        UsageError: a task cannot be loaded, runs generated code or needs a multimodal model.
    """

    def __init__(
        self,
        manager: TaskManager,
        setting: str,
        names: Sequence[str],
        config: EvaluationConfig,
        not_here: list[str] | None = None,
    ) -> None:
        self._config = config
        self._setting = setting
        self._flag = flag = flag_of(setting)
        self._guessing: Guessing = {}
        self._notes: list[str] = []
        self._records: dict[bool, dict[str, list[Record]]] = {}
        self._prompts: dict[str, Prompts] = {}
        of_skill = setting == "skill_task"
        limit = config.math_documents if of_skill else config.other_documents
        if not_here is not None:
            names = [name for name in names if not _is_left_out(manager, flag, name, not_here)]
        self._loaded = _load(manager, flag, names)
        for name, task in self._loaded["tasks"].items():
            if getattr(task, "UNSAFE_CODE", False):
                raise UsageError(flag, name, "runs generated code in this process; refused")
            if getattr(task, "MULTIMODAL", False):
                raise UsageError(flag, name, "needs a multimodal model")
        self._names = tuple(names)
        self._groups = {
            name: _leaves(name, self._loaded["group_map"]) for name in self._loaded["groups"]
        }
        for name, task in self._loaded["tasks"].items():
            self._prompts[name] = Prompts(task, limit, config)
            aggregate_to_infinity(task)
            default = task.get_config("num_fewshot")
            # The harness's own rule: a task that fixes zero shots keeps them.
            if config.num_fewshot and default == 0:
                self._notes.append(
                    f"{name} fixes zero shots: not changed by --num_fewshot {config.num_fewshot}"
                )
            if config.num_fewshot is not None and default != 0:
                task.set_config(key="num_fewshot", value=config.num_fewshot)
            elif default is None:
                task.set_config(key="num_fewshot", value=0)

    @property
    def leaves(self) -> set[str]:
        """The names of the tasks that run, including the members of groups and tags."""
        return set(self._loaded["tasks"])

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user about these tasks: ignored flags, and what `prepare` found."""
        return tuple(self._notes)

    @property
    def asked(self) -> dict[str, Asked]:
        """The documents of each task that model states are asked."""
        return {name: prompts.asked for name, prompts in self._prompts.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """How many documents each task has."""
        return {name: len(task.eval_docs) for name, task in self._loaded["tasks"].items()}

    def request_sizes(self) -> dict[str, list[RequestSize]]:
        """The requests of each task, of the documents of all repeats; `prepare` has built them."""
        return {
            name: request_sizes(prompts.built, self._tokenizer, self._longest)
            for name, prompts in self._prompts.items()
        }

    def fields(self) -> dict[str, list[str]]:
        """The fields of each task's documents."""
        found = {}
        for name, task in self._loaded["tasks"].items():
            first = next(iter(task.eval_docs))
            found[name] = list(first) if isinstance(first, Mapping) else []
        return found

    def clusters(self) -> dict[str, list[int]]:
        """How many clusters the documents are in: all that are asked, then those of each repeat.

        Only of tasks with the field; a document without it is a cluster of its own.
        """
        found = {}
        for name, task in self._loaded["tasks"].items():
            documents, asked = task.eval_docs, self._prompts[name].asked
            of = {n: cluster_of(documents[n], self._config.cluster) for n in asked.order}
            if any(of.values()):
                states = (None, *range(self._config.num_repeats))
                found[name] = [len({of[n] or n for n in asked.of(state)}) for state in states]
        return found

    def records(self, *, of_all: bool = False) -> dict[str, list[Record]]:
        """The documents of each task that are asked, or all, as records to compare with samples.

        Raises:
            UsageError: a task's own code fails.
        """
        if of_all not in self._records:
            found = {}
            with preserved_generators():
                for name, task in self._loaded["tasks"].items():
                    with _refused(self._flag, name, "cannot be asked"):
                        asked = None if of_all else self._prompts[name].asked.of(None)
                        found[name] = asked_records(task, asked)
            self._records[of_all] = found
        return self._records[of_all]

    def prepare(self, tokenizer: PreTrainedTokenizerBase, longest: int) -> Identity:
        """Build and check the requests of the documents that are asked.

        Args:
            tokenizer: the model's tokenizer.
            longest: the model's context, in tokens.

        Returns:
            What results of these tasks depend on (`task_identity`).

        Raises:
            UsageError: the requests cannot be built or scored (`check_task`).
        """
        facts = self._membership()
        self._tokenizer, self._longest = tokenizer, longest
        with preserved_generators():
            for name, task in self._loaded["tasks"].items():
                with _refused(self._flag, name, "cannot be asked"):
                    requests = build_requests(
                        task, tokenizer, with_chat_template=self._config.apply_chat_template
                    )
                    asked = self._prompts[name].asked
                    cut = check_task(task, requests, tokenizer, longest, asked.order)
                if cut:
                    self._notes.append(
                        f"{name}: {cut} of {len(requests)} prompts are longer than the model's "
                        f"context of {longest} tokens; their start is cut"
                    )
                for part, value in task_identity(task, requests, asked).items():
                    facts.append(Fact(self._setting, {part: value}, f"{name} {part}", name))
        return Identity(facts)

    def _membership(self) -> list[Fact]:
        """Which tasks the groups and tags stand for: a new task file can add one."""
        found = [
            Fact(self._setting, {"group": digest}, f"{name} group", name)
            for name, group in self._loaded["groups"].items()
            for digest in [group_identity(group, self._groups[name])]
        ]
        if tags := [
            name for name in self._names if name not in self._loaded["tasks"] | self._groups
        ]:
            in_groups = {member for members in self._groups.values() for member in members}
            of_tags = sorted(self.leaves - in_groups - set(self._names))
            found.append(Fact(self._setting, {"tasks": of_tags}, "tags", " ".join(tags)))
        return found

    @property
    def units(self) -> dict[str, list[str]]:
        """What is judged as one, with its tasks: tasks and groups as given, members of a tag."""
        found = {name: self._groups.get(name, [name]) for name in self._names}
        there = {unit: leaves for unit, leaves in found.items() if set(leaves) <= self.leaves}
        covered = {leaf for leaves in there.values() for leaf in leaves}
        return there | {leaf: [leaf] for leaf in sorted(self.leaves - covered)}

    def evaluate(
        self,
        lm: HFLM,
        repeat: int | None = None,
        parts: Mapping[str, Part] | None = None,
        responses: Responses | None = None,
    ) -> Evaluation:
        """Evaluate the model.

        Args:
            lm: the model.
            repeat: of whose documents; None for those of all repeats.
            parts: which part of them, by unit (`units`); None for all.
            responses: what this state has answered before; new answers are added.
        """
        start = time.monotonic()
        answering = lm if responses is None else Remembered(lm, responses)
        of = {leaf: unit for unit, leaves in self.units.items() for leaf in leaves}
        for leaf, prompts in self._prompts.items():
            prompts.choose(repeat, parts[of[leaf]] if parts else WHOLE)
        while True:
            for task in self._loaded["tasks"].values():
                task.set_fewshot_seed(seed=FEWSHOT_SEED)
            try:
                with errors_of_large_values():
                    found = evaluate(
                        lm=answering,
                        task_dict=self._loaded,
                        log_samples=True,
                        apply_chat_template=self._config.apply_chat_template,
                        fewshot_as_multiturn=self._config.apply_chat_template,
                    )
                break
            except Exception as error:
                if lm.batch_size == 1 or not should_reduce_batch_size(error):
                    raise
            # Outside of the except block, where the traceback no longer holds the activations.
            lm.batch_size_per_gpu = lm.batch_size // 2
            empty_cache()
        documents = _plain(
            document_records(
                found["samples"], self._loaded["tasks"], self._guessing, self._config.cluster
            )
        )
        return Evaluation(
            without_broken_numbers(_plain(found["results"]), documents, self._groups),
            documents,
            self._groups,
            _plain(found["higher_is_better"]),
            time.monotonic() - start,
        )


def load_harnesses(
    manager: TaskManager, config: EvaluationConfig, not_here: list[str] | None = None
) -> dict[str, Harness]:
    """Load the math task (under `math`) and the other tasks (under `other`).

    `not_here` is that of `Harness`.

    Raises:
        UsageError: a task cannot be used, or is both the math task and another task.
    """
    of_math = manager if config.programs is None else task_manager(config, of_math=True)
    harnesses = {
        "math": Harness(of_math, "skill_task", [config.math_task], config, not_here),
        "other": Harness(manager, "other_tasks", config.other_tasks, config, not_here),
    }
    twice = sorted(harnesses["math"].leaves & harnesses["other"].leaves)
    if twice:
        raise UsageError("--eval_datasets", twice[0], "is (part of) the task of the skill already")
    return harnesses


def _load(manager: TaskManager, flag: str, names: Sequence[str]) -> dict[str, Any]:
    """Load tasks and groups; if that fails, find the one that is at fault."""
    # Some tasks shuffle while they load, so the generators are seeded first.
    with preserved_generators():
        try:
            return manager.load(list(names))
        except Exception:
            for name in names:
                with _refused(flag, name, "cannot be loaded"):
                    manager.load([name])
            raise


def _is_left_out(manager: TaskManager, flag: str, name: str, not_here: list[str]) -> bool:
    """Whether a task's data would have to be downloaded; its name is noted then."""
    with preserved_generators(), _refused(flag, name, "cannot be loaded"):
        try:
            manager.load([name])
        except ConnectionError:
            # What `datasets` raises of a data set that is neither on the hub nor in its cache.
            not_here.append(name)
            return True
    return False


@contextmanager
def _refused(flag: str, name: str, what: str) -> Iterator[None]:
    """Turn any error of a task file's own into one line: its templates and functions are code."""
    try:
        yield
    except MemoryError:
        raise
    except UnfitTaskError as error:
        raise UsageError(flag, name, str(error)) from error
    except UsageError as error:
        raise UsageError(flag, name, f"{what}: {error}") from error
    except Exception as error:
        raise UsageError(flag, name, f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What a task file's own error says, and what was expected."""
    if isinstance(error, StopIteration):
        return "it has no documents; expected one or more"
    if isinstance(error, ModuleNotFoundError):
        # lm-eval's own text says what to install.
        return f"expected {error.name}: pip install {error.name}" if error.name else str(error)
    expected = "expected a task file that runs; NEUROSURGERY_TRACEBACK=1 shows where it fails"
    if isinstance(error, UndefinedError):
        expected = "expected in its templates fields that every document has"
    elif isinstance(error, KeyError):
        expected = "expected a split or a field that its data have"
    elif isinstance(error, IndexError):
        expected = "expected documents with options, the right answer one of them"
    elif "malformed node" in str(error):
        expected = "expected as doc_to_choice a field of every document, or a template of a list"
    return f"{type(error).__name__}: {first_line(error)}; {expected}"


def harness_model(loaded: LoadedModel, batch_size: int) -> LanguageModel:
    """Wrap the loaded model for the harness; later edits of its weights take effect at once."""
    return LanguageModel(loaded.model, loaded.tokenizer, batch_size)


def _plain(content: Any) -> Any:
    """Convert content to JSON types, for files and other processes."""
    return json.loads(json.dumps(content, default=handle_non_serializable))


def _leaves(group: str, children: dict[str, list[str]]) -> list[str]:
    """The tasks in a group and in all of its subgroups."""
    found: list[str] = []
    for child in children.get(group, []):
        found += _leaves(child, children) if child in children else [child]
    return found
