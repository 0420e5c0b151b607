"""Parse a command line, and run a script. Imports no torch, so that bad flags fail at once."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from neurosurgery.activations.program_files import holds_programs
from neurosurgery.cli.flags import build_parser
from neurosurgery.cli.streams import OutputError, checked_output, usable_streams
from neurosurgery.cli.worker_flags import workers_config
from neurosurgery.common.errors import RunError, Stopped, UsageError, machine_error
from neurosurgery.common.terminal import say_error
from neurosurgery.settings.checks import check_at_least
from neurosurgery.settings.demo import DEMO, PROGRAM_TASK, PUBLISHED_GRID
from neurosurgery.settings.experiment import (
    CalibrationSource,
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    GridConfig,
    ModelConfig,
    OutputConfig,
    name_calibration_sets,
)
from neurosurgery.settings.keys import MATH
from neurosurgery.settings.margins import Margins
from neurosurgery.settings.methods import methods_of

T = TypeVar("T")


def parse_experiment(script: str, description: str, argv: Sequence[str] | None) -> ExperimentConfig:
    """Turn a command line into a checked configuration.

    Raises:
        UsageError: a value that cannot be used, or `--model` without data, tasks or folder.
        SystemExit: status 2 for a malformed flag, 0 for `--help`.
    """
    arguments = build_parser(script, description).parse_args(argv)
    grid_left_out = (
        arguments.size is None and arguments.scalar is None and arguments.num_repeats is None
    )
    demo_grid = arguments.model is None and grid_left_out
    config = ExperimentConfig(
        model_config(arguments),
        DataConfig(
            math=math_set(arguments),
            calibration=calibration_sets(arguments),
            num_samples=arguments.num_samples,
            num_repeats=given(arguments.num_repeats, DEMO.num_repeats if demo_grid else 5),
            random_state=arguments.random_state,
            batch_tokens=arguments.batch_tokens,
            drop_used=arguments.drop_used,
        ),
        GridConfig(
            methods=tuple(dict.fromkeys(getattr(arguments, "methods", methods_of(script)))),
            skill=arguments.skill,
            sizes=unique(arguments.size or (DEMO.proportions if demo_grid else PUBLISHED_GRID)),
            scalars=unique(arguments.scalar or (0.0,)),
            pre_train_eval=arguments.pre_train_eval or demo_grid,
        ),
        evaluation_config(arguments),
        output_config(arguments),
        workers_config(arguments),
    )
    task = () if config.evaluation.programs else ("train_lm_eval_task",)
    check_given_with_model(
        arguments, "train_dataset", "calibration_datasets", *task, "eval_datasets", "save_path"
    )
    return config


def check_given_with_model(arguments: argparse.Namespace, *names: str) -> None:
    """Refuse `--model` without these flags: the demo's data say nothing about another model.

    Raises:
        UsageError: lists the flags that are missing.
    """
    missing = [f"--{name}" for name in names if getattr(arguments, name) is None]
    if arguments.model is not None and missing:
        reason = f"expected with it {', '.join(missing)}; only the demo brings its own"
        raise UsageError("--model", arguments.model, reason)


def model_config(arguments: argparse.Namespace) -> ModelConfig:
    """The model from the flags of `add_model_flags`; the demo's without `--model`."""
    return ModelConfig(
        name=given(arguments.model, DEMO.model),
        revision=arguments.revision,
        dtype=arguments.dtype,
        device=arguments.device,
        device_map=arguments.device_map,
        trust_remote_code=arguments.trust_remote_code,
    )


def evaluation_config(arguments: argparse.Namespace) -> EvaluationConfig:
    """Tasks and documents from the flags of `add_evaluation_flags`; by default the demo's tasks.

    Raises:
        UsageError: `--eval_limit` is below 1.
    """
    limit = arguments.eval_limit
    check_at_least(1, {"--eval_limit": limit})
    programs = _programs(arguments)
    by_default = DEMO.train_lm_eval_task
    if programs is not None:
        by_default = DEMO.program_task if arguments.model is None else PROGRAM_TASK
    return EvaluationConfig(
        math_task=given(arguments.train_lm_eval_task, by_default),
        other_tasks=tuple(given(arguments.eval_datasets, DEMO.eval_datasets)),
        math_documents=_smaller(arguments.eval_dataset_subset, limit),
        other_documents=_smaller(arguments.eval_dataset_size, limit),
        num_fewshot=arguments.num_fewshot,
        apply_chat_template=arguments.apply_chat_template,
        include_path=arguments.include_path,
        batch_size=arguments.eval_batch_size,
        programs=programs,
        random_state=arguments.random_state,
    )


def _programs(arguments: argparse.Namespace) -> Path | None:
    """The calibration file of math, if it holds programs."""
    file = getattr(arguments, "train_dataset", None)
    return Path(file) if file is not None and holds_programs(Path(file)) else None


def output_config(arguments: argparse.Namespace) -> OutputConfig:
    """The results folder from the flags of `add_output_flags`; by default the demo's."""
    return OutputConfig(
        save_path=Path(given(arguments.save_path, DEMO.save_path)),
        text_file=arguments.text_file,
        save_masks=arguments.save_masks,
        save_model=arguments.save_model,
        overwrite=arguments.overwrite,
        dry_run=arguments.dry_run,
        margins=Margins.parse(arguments.margin),
        report_to=tuple(dict.fromkeys(arguments.report_to)),
    )


def math_set(arguments: argparse.Namespace) -> CalibrationSource:
    """The math set from the flags of `add_calibration_flags`; by default the demo's."""
    return CalibrationSource(MATH, Path(given(arguments.train_dataset, DEMO.train_dataset)))


def calibration_sets(arguments: argparse.Namespace) -> tuple[CalibrationSource, ...]:
    """The other sets from the flags of `add_calibration_flags`; by default the demo's."""
    if arguments.calibration_datasets is None and arguments.calibration_dataset_names is None:
        return name_calibration_sets(DEMO.calibration_datasets, DEMO.calibration_dataset_names)
    paths = given(arguments.calibration_datasets, DEMO.calibration_datasets)
    return name_calibration_sets(paths, arguments.calibration_dataset_names)


def given(value: T | None, default: T) -> T:
    """The value of a flag, or what it is without one."""
    return default if value is None else value


def _smaller(size: int | None, limit: int | None) -> int | None:
    return size if limit is None else limit if size is None else min(size, limit)


def unique(values: Sequence[float]) -> tuple[float, ...]:
    """Drop repeated values (a cell exists once) and turn -0.0 into 0.0."""
    return tuple(dict.fromkeys(value + 0.0 for value in values))


def run_experiment_script(script: str, description: str, argv: Sequence[str] | None) -> int:
    """Run one of the scripts: parse, read the calibration sets, run; return the exit status."""

    def run(argv: Sequence[str] | None) -> None:
        config = parse_experiment(script, description, argv)

        # Heavy imports come one by one, so that bad input is refused before the next import.
        from neurosurgery.activations.calibration import read_calibration_sets

        sets = read_calibration_sets(config.data.sources, config.data.random_state)

        from neurosurgery.grid.experiment import Experiment

        command = sys.argv if argv is None else [script, *argv]
        Experiment(config, sets, command).run()

    return run_script(run, argv)


def run_script(
    run: Callable[[Sequence[str] | None], None],
    argv: Sequence[str] | None,
    program: str | None = None,
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
        program: the name of a command in error messages; None for a script, which can be resumed.

    Raises:
        SystemExit: a malformed flag (2), or `--help` (0).
    """
    name = program or Path(sys.argv[0]).name
    resume = "" if program else "; the same command goes on from here"
    with usable_streams():
        try:
            with checked_output(needed=program is None):
                run(argv)
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, Stopped) else signal.SIGINT
            what = "interrupted" if number == signal.SIGINT else f"ended by {error}"
            say_error(f"{what}{resume}")
            return 128 + number
        except OutputError as error:
            # A command has done its work to the end by now.
            if program and error.is_closed:
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
            say_error(f"{name}: error: {line}")
            return 2 if isinstance(error, UsageError) else 1
    return 0
