"""Turn settings into configurations, and run a script. Imports no torch."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from neurosurgery.cli.flags import as_typed, read_settings
from neurosurgery.cli.streams import OutputError, checked_output, usable_streams
from neurosurgery.common.errors import RunError, Stopped, UsageError, machine_error
from neurosurgery.common.hub import offline
from neurosurgery.common.terminal import PROGRAM, be_quiet, say_error
from neurosurgery.data.program_files import holds_programs
from neurosurgery.edit.kinds import KEPT, EditKey, edits_of, remove_experts_by, scale_by
from neurosurgery.masks.kinds import EXPERT
from neurosurgery.methods.registry import METHODS, methods_of, twin_of, with_twins
from neurosurgery.settings.budget import left_to_choose
from neurosurgery.settings.declare import Settings, is_given
from neurosurgery.settings.demo import DEMO, PROGRAM_TASK
from neurosurgery.settings.experiment import (
    CalibrationSource,
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    GridConfig,
    ModelConfig,
    OutputConfig,
    name_calibration_sets,
    skill_name_of,
)
from neurosurgery.settings.identity import MATH
from neurosurgery.settings.margins import Margins, recorded_margins, recorded_skill_name
from neurosurgery.settings.shard import Shard
from neurosurgery.settings.workers import WorkersConfig

if TYPE_CHECKING:
    # Studies need torch, which takes seconds to import.
    from neurosurgery.run.study import Study


def parse_experiment(script: str, description: str, argv: Sequence[str] | None) -> ExperimentConfig:
    """Turn a command line into a checked configuration.

    Raises:
        UsageError: a value that cannot be used, or `--model` without data, tasks or folder.
        SystemExit: status 2 for a malformed flag, 0 for `--help`.
    """
    return experiment_config(read_settings(script, description, argv))


def experiment_config(settings: Settings) -> ExperimentConfig:
    """Turn settings into a checked configuration; errors as `parse_experiment`."""
    methods = methods_of(settings.script)
    evaluation, output = evaluation_config(settings), output_config(settings)
    config = ExperimentConfig(
        model=model_config(settings),
        data=data_config(settings),
        grid=GridConfig(
            methods=chosen_methods(settings, settings.values.get("methods", methods)),
            skill=settings.skill,
            sizes=settings.values[METHODS[methods[0]].size_name],
            edits=edits_of(settings),
            pre_train_eval=settings.pre_train_eval,
            removals=_removals(settings),
        ),
        evaluation=evaluation,
        output=output,
        workers=workers_config(settings),
        settings=with_tasks(settings, evaluation, output),
    )
    config.check()
    matched = settings.values.get("topic_matched")
    others = [name for name in config.data.names if name != config.grid.skill]
    if matched is not None and matched not in others:
        reason = f"expected one of the other sets: {', '.join(others)}"
        raise UsageError("--topic_matched", matched, reason)
    settings.check_given_with_model(
        ("skill_data", "other_data", *needed_tasks(evaluation), "save_path")
    )
    return config


def _removals(settings: Settings) -> dict[str, EditKey]:
    """What removes units of a kind in the place of a scaling by 0.

    Raises:
        UsageError: it cannot do so in this run.
    """
    routing = settings.values.get("expert_routing", KEPT)
    if routing == KEPT:
        return {}
    reason = ""
    if not any(METHODS[name].unit == EXPERT for name in settings.methods):
        reason = "expected with it a method of --methods that selects experts"
    elif scale_by(0.0) not in edits_of(settings):
        reason = "expected with it --scalar 0, in whose place it removes experts"
    elif settings.save_model:
        reason = f"changes no weights, so that --save_model has nothing to save; expected {KEPT}"
    if reason:
        raise UsageError("--expert_routing", routing, reason)
    return {EXPERT: remove_experts_by(routing)}


def chosen_methods(settings: Settings, methods: Sequence[str]) -> tuple[str, ...]:
    """The methods, with the twins that are asked for.

    Raises:
        UsageError: no method has such a twin.
    """
    for draw in settings.twins or ():
        if not any(twin_of(name, draw) for name in methods):
            reason = f"expected with it a method that has such a twin, found {', '.join(methods)}"
            raise UsageError("--twins", draw, reason)
    return with_twins(methods, settings.twins or ())


def with_tasks(
    settings: Settings,
    evaluation: EvaluationConfig,
    output: OutputConfig,
    unused: Collection[str] = (),
) -> Settings:
    """The settings with what data and folder bring, where it is not given."""
    return settings.with_values(
        unused,
        skill_task=evaluation.math_task,
        other_tasks=evaluation.other_tasks,
        **output.judged,
    )


def needed_tasks(evaluation: EvaluationConfig) -> tuple[str, ...]:
    """The tasks that `--model` cannot go without; programs bring the skill's with them."""
    return ("other_tasks",) if evaluation.programs else ("skill_task", "other_tasks")


def model_config(settings: Settings) -> ModelConfig:
    """The model; the demo's without `--model`."""
    return settings.part(ModelConfig, name=settings.model or DEMO.model)


def data_config(settings: Settings) -> DataConfig:
    """The calibration sets and their draws."""
    return settings.part(
        DataConfig, math=math_set(settings), calibration=calibration_sets(settings)
    )


def evaluation_config(settings: Settings) -> EvaluationConfig:
    """Tasks and documents; by default the demo's tasks."""
    programs = _programs(settings)
    by_default = DEMO.train_lm_eval_task
    if programs is not None:
        by_default = DEMO.program_task if settings.of_demo else PROGRAM_TASK
    return settings.part(
        EvaluationConfig,
        math_task=settings.skill_task or by_default,
        other_tasks=settings.other_tasks or DEMO.eval_datasets,
        math_documents=settings.capped("skill_documents"),
        other_documents=settings.capped("other_documents"),
        batch_size=settings.eval_batch_size,
        programs=programs,
    )


def _programs(settings: Settings) -> Path | None:
    """The calibration file of math, if it holds programs."""
    file = settings.given.get("skill_data")
    return Path(file) if file is not None and holds_programs(Path(file)) else None


def output_config(settings: Settings) -> OutputConfig:
    """The results folder; by default the demo's."""
    return settings.part(
        OutputConfig,
        save_path=Path(settings.save_path or DEMO.save_path),
        shard=None if settings.shard is None else Shard.parse(settings.shard),
        margins=_margins(settings),
        skill_name=_skill_name(settings),
    )


def _margins(settings: Settings) -> Margins:
    """The margins that are given, or else those by which the folder was judged before."""
    folder = Path(settings.save_path or DEMO.save_path)
    there = None if settings.overwrite else recorded_margins(folder)
    if settings.given["margin"] is None and there is not None:
        return there
    return Margins.parse(settings.margin)


def _skill_name(settings: Settings) -> str:
    """The skill's name that is given, or that by which the folder calls it, or its file's."""
    if settings.given["skill_name"] is not None:
        return str(settings.skill_name)
    file = settings.given.get("skill_data") or settings.given.get("prompts")
    others = calibration_sets(settings) if "other_data" in settings.values else ()
    by_file = skill_name_of(file, [source.name for source in others])
    if settings.overwrite:
        return by_file
    return recorded_skill_name(Path(settings.save_path or DEMO.save_path), by_file)


def workers_config(settings: Settings) -> WorkersConfig | None:
    """The workers; None without `--workers`.

    Raises:
        UsageError: another setting of workers without `--workers`.
    """
    if settings.workers is None:
        for name in ("gpus_per_worker", "cpus_per_worker", "ray_address", "verbose"):
            if is_given(value := settings.given[name]):
                shown = f"{value:g}" if isinstance(value, float) else "" if value is True else value
                raise UsageError(f"--{name}", shown, "expected with it --workers")
        return None
    return WorkersConfig(
        settings.workers,
        settings.gpus_per_worker,
        settings.cpus_per_worker or 1,
        settings.ray_address,
        settings.verbose,
    )


def math_set(settings: Settings) -> CalibrationSource:
    """The skill's set; by default the demo's."""
    return CalibrationSource(MATH, Path(settings.skill_data or DEMO.train_dataset))


def calibration_sets(settings: Settings) -> tuple[CalibrationSource, ...]:
    """The other sets; by default the demo's."""
    names = settings.other_names
    if settings.other_data is None:
        names = names or DEMO.calibration_dataset_names
    return name_calibration_sets(settings.other_data or DEMO.calibration_datasets, names)


def grid_study(settings: Settings) -> Study:
    """Make the study of a grid from its settings, and read the calibration sets.

    Raises:
        UsageError: a setting or a file that cannot be used.
    """
    config = experiment_config(settings)

    # Heavy imports come one by one, so that bad input is refused before the next import.
    from neurosurgery.data.calibration import read_calibration_sets

    sets = read_calibration_sets(config.data.sources, config.data.random_state)

    from neurosurgery.studies.grid import GridStudy

    return GridStudy(config, sets)


def run_experiment_script(script: str, description: str, argv: Sequence[str] | None) -> int:
    """Run a grid under a script's name; return the exit status."""
    return run_study_script(script, description, argv, grid_study)


def run_study_script(
    script: str,
    description: str,
    argv: Sequence[str] | None,
    study_of: Callable[[Settings], Study],
    command: str | None = None,
) -> int:
    """Read a script's settings, and take its study through a run; return the exit status.

    Args:
        script: its name, by which the folder knows it.
        description: the text above its settings.
        argv: its command line; None for the process's.
        study_of: makes the study.
        command: the package's command that was called; None for the script itself.
    """
    call = (script,) if command is None else (PROGRAM, command)

    def run(argv: Sequence[str] | None) -> None:
        start = time.monotonic()
        settings = read_settings(script, description, argv, call)
        be_quiet(settings.quiet or settings.json)
        with offline() if settings.dry_run else nullcontext():
            run_settings(settings, start)

    def run_settings(settings: Settings, start: float) -> None:
        if settings.budget is not None:
            left_to_choose(settings)
        study = study_of(settings)
        if settings.budget is not None:
            from neurosurgery.run.budget import run_within

            run_within(study, settings, study_of, start)
            return

        from neurosurgery.run.run import run_study

        run_study(study)

    return run_script(run, argv, None if command is None else " ".join(call), resumes=True)


def run_script(
    run: Callable[[Sequence[str] | None], None],
    argv: Sequence[str] | None,
    program: str | None = None,
    *,
    resumes: bool = False,
) -> int:
    """Call a script's body; an expected error becomes one line on stderr and an exit status.

    Status 2 is bad input, 1 any other expected failure, including a full disk or too little memory,
    and 128 + N the end by signal N: also by SIGPIPE where nobody reads a script's output any more
    (`| head`), so that unfinished results are not taken for finished. A command, which is short,
    does its work to the end. Without standard error a run goes on. `NEUROSURGERY_TRACEBACK=1` adds
    a traceback.

    Args:
        run: the body.
        argv: the command line; None for the process's.
        program: the name in error messages; None for that of the process.
        resumes: whether the body is a run, which the same call continues, and which ends where its
            output has no reader any more.

    Raises:
        SystemExit: a malformed flag (2), or `--help` (0).
    """
    name = program or Path(sys.argv[0]).name
    be_quiet(False)
    resume = "; the same command goes on from here" if resumes else ""
    with usable_streams():
        try:
            with checked_output(needed=resumes):
                run(argv)
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, Stopped) else signal.SIGINT
            what = "interrupted" if number == signal.SIGINT else f"ended by {error}"
            say_error(f"{what}{resume}")
            return 128 + number
        except OutputError as error:
            # A command has done its work to the end by now.
            if error.is_closed and not resumes:
                return 0
            say_error(f"{name}: error: {error}{resume}")
            return error.status
        except Exception as error:
            known = isinstance(error, (UsageError, RunError))
            line = str(error) if known else machine_error(error)
            if line is None:
                raise
            if os.environ.get("NEUROSURGERY_TRACEBACK") == "1":
                traceback.print_exc()
            words = sys.argv[1:] if argv is None else argv
            say_error(f"{name}: error: {as_typed(line, words)}")
            return 2 if isinstance(error, UsageError) else 1
    return 0
