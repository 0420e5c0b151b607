"""The command line of `PathPatching.py`. Imports no torch, so that bad flags fail at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neurosurgery.cli.flags import read_settings
from neurosurgery.cli.parse import (
    chosen_methods,
    evaluation_config,
    model_config,
    output_config,
    with_tasks,
    workers_config,
)
from neurosurgery.cli.scripts import HEAD_CELLS
from neurosurgery.common.errors import UsageError
from neurosurgery.edit.kinds import BY_POSITION
from neurosurgery.methods.registry import methods_of
from neurosurgery.settings.declare import Settings, is_given
from neurosurgery.settings.experiment import EvaluationConfig, OutputConfig
from neurosurgery.settings.parts import EVALUATION, OUTPUT, PROMPTS
from neurosurgery.settings.patching import SCRIPT, PromptConfig
from neurosurgery.studies.patching_config import CellsConfig, PatchConfig, PatchingConfig

if TYPE_CHECKING:
    # Studies need torch, which takes seconds to import.
    from neurosurgery.run.study import Study


def patching_study(settings: Settings) -> Study:
    """Make the study of heads and MLPs from its settings, and read a file of prompts.

    Raises:
        UsageError: a setting or a file that cannot be used.
    """
    config = config_of(settings)

    # Heavy imports come one by one, so that bad input is refused before the next import.
    from neurosurgery.prompts.read import read_prompts

    pairs = None if config.prompts.file is None else read_prompts(config.prompts.file)

    from neurosurgery.studies.patching import PatchingStudy

    return PatchingStudy(config, pairs)


def parse(description: str, argv: Sequence[str] | None) -> PatchingConfig:
    """Turn a command line into a checked configuration.

    Raises:
        UsageError: a value that cannot be used.
        SystemExit: status 2 for a malformed flag, 0 for `--help`.
    """
    return config_of(read_settings(SCRIPT, description, argv))


def config_of(settings: Settings) -> PatchingConfig:
    """Turn settings into a checked configuration; errors as `parse`."""
    if not settings.of_demo and settings.save_path is None:
        raise UsageError("--model", settings.model, "expected with it --save_path")
    _check_prompt_flags(settings)
    cells = _cells(settings)
    evaluation = None if cells is None else evaluation_config(settings)
    output = output_config(settings)
    config = PatchingConfig(
        model=model_config(settings),
        prompts=settings.part(PromptConfig, file=settings.prompts, number=settings.num_prompts),
        patch=settings.part(PatchConfig, top=settings.top and tuple(sorted(settings.top))),
        cells=cells,
        evaluation=evaluation,
        output=output,
        workers=workers_config(settings),
        settings=_written(settings, evaluation, output),
    )
    config.check()
    return config


_OF_FILE = tuple(one.name for one in PROMPTS if one.name != "prompts")
"""Settings that make prompts, which a file brings."""


def _of_cells() -> tuple[str, ...]:
    """Settings that do nothing without tasks."""
    groups = (HEAD_CELLS, EVALUATION, OUTPUT)
    return ("pre_train_eval", *(one.name for group in groups for one in group))


def _written(
    settings: Settings, evaluation: EvaluationConfig | None, output: OutputConfig
) -> Settings:
    """The settings with the tasks that hold; those that say nothing beside others are unused."""
    unused = _OF_FILE if settings.prompts is not None else ()
    if evaluation is None:
        return settings.with_values((*unused, *_of_cells(), "skill_task", "other_tasks"))
    return with_tasks(settings, evaluation, output, unused)


def _cells(settings: Settings) -> CellsConfig | None:
    """The cells of the grid: asked for by tasks, which the demo brings with it.

    Raises:
        UsageError: a flag of the cells without tasks, or one kind of task without the other.
    """
    tasks = [settings.given["skill_task"], settings.given["other_tasks"]]
    if settings.of_demo and settings.ablation == BY_POSITION and tasks == [None, None]:
        return None
    if not settings.of_demo and None in tasks:
        of_cells = ("skill_task", "other_tasks", *_of_cells())
        flags = {one.name: one.flag for one in settings.declared}
        alone = [flags[name] for name in of_cells if is_given(settings.given[name])]
        if alone:
            reason = "expected with it --train_lm_eval_task and --eval_datasets"
            raise UsageError(alone[0], "", reason)
        return None
    return settings.part(
        CellsConfig,
        scalars=settings.scalar or (),
        methods=chosen_methods(settings, methods_of(SCRIPT)),
    )


def _check_prompt_flags(settings: Settings) -> None:
    """Refuse flags that make prompts beside a file of prompts."""
    if settings.prompts is None:
        return
    for name in _OF_FILE:
        if is_given(settings.given[name]):
            raise UsageError("--prompts", settings.prompts, f"cannot be had with --{name}")
