"""The command line that the scripts share. Imports no torch, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from neurosurgery.config import (
    DEMO,
    MATH,
    PUBLISHED_GRID,
    CalibrationSource,
    EvaluationConfig,
    ExperimentConfig,
    ModelConfig,
    name_calibration_sets,
)
from neurosurgery.errors import RunError, UsageError


class OneLineParser(argparse.ArgumentParser):
    """Reports a bad flag in one line, without the usage text in front."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def build_parser(description: str) -> argparse.ArgumentParser:
    """The published flags under their published names and defaults, then the new ones."""
    parser = OneLineParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model_flags(parser)
    add_calibration_flags(parser)
    data = parser.add_argument_group("scoring")
    data.add_argument(
        "--num_samples",
        type=int,
        default=500,
        help="samples drawn from each set, with replacement (default: %(default)s)",
    )
    data.add_argument(
        "--batch_tokens",
        type=int,
        help="tokens per batch of the scoring pass (default: 16384 on a GPU, 2048 on a CPU)",
    )

    grid = parser.add_argument_group("grid")
    grid.add_argument(
        "--proportion",
        nargs="+",
        type=float,
        help="top fractions of every weight matrix (default: .0001 .001 .005 .01 .025 .05 .1 .15)",
    )
    grid.add_argument(
        "--scalar",
        nargs="+",
        type=float,
        help="factors for the selected weights; 0 prunes (default: 0)",
    )
    grid.add_argument(
        "--num_repeats", type=int, help="independent draws of calibration samples (default: 5)"
    )
    grid.add_argument(
        "--random_state", type=int, default=42, help="seed of the draws (default: %(default)s)"
    )

    evaluation = parser.add_argument_group("evaluation (lm-eval)")
    evaluation.add_argument("--train_lm_eval_task", metavar="TASK", help="the math task")
    evaluation.add_argument("--eval_datasets", nargs="+", metavar="TASK", help="the other tasks")
    evaluation.add_argument(
        "--pre_train_eval", action="store_true", help="evaluate the unedited model first"
    )
    evaluation.add_argument(
        "--eval_dataset_subset",
        type=int,
        default=100,
        help="documents of the math task (default: %(default)s)",
    )
    evaluation.add_argument(
        "--eval_dataset_size", type=int, help="documents of each other task (default: all)"
    )
    evaluation.add_argument(
        "--eval_limit", type=int, help="at most so many documents of any task, math included"
    )
    evaluation.add_argument("--eval_batch_size", type=int, default=16, help="default: %(default)s")
    evaluation.add_argument("--num_fewshot", type=int, help="shots (default: each task's own)")
    evaluation.add_argument(
        "--apply_chat_template", action="store_true", help="prompt through the chat template"
    )
    evaluation.add_argument(
        "--include_path", type=Path, metavar="DIR", help="a folder with further task files"
    )

    output = parser.add_argument_group("output")
    output.add_argument("--save_path", help=f"results folder (default: {DEMO.save_path})")
    output.add_argument(
        "--text_file",
        default="results.txt",
        help="name of the verdict's text file beside the results (default: %(default)s)",
    )
    output.add_argument("--save_masks", action="store_true", help="write every cell's mask")
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the results in --save_path and start afresh",
    )
    output.add_argument(
        "--dry_run", action="store_true", help="print the plan and stop, without loading the model"
    )
    return parser


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Which model, in which number format, where."""
    model = parser.add_argument_group("model")
    model.add_argument("--model", help="hub id or local folder (default: the embedded demo)")
    model.add_argument("--revision", help="branch, tag or commit of a hub model")
    model.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="number format of the weights (default: bfloat16 on a GPU, float32 on a CPU)",
    )
    model.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    model.add_argument(
        "--device_map",
        choices=("auto", "balanced", "balanced_low_0", "sequential"),
        help="let accelerate split the model over devices",
    )
    model.add_argument(
        "--trust_remote_code", action="store_true", help="run model code from the hub"
    )


def add_calibration_flags(parser: argparse.ArgumentParser) -> None:
    """Files of calibration samples."""
    data = parser.add_argument_group("calibration data (CSV: a column qa, or question + solution)")
    data.add_argument("--train_dataset", metavar="CSV", help="math samples (default: the demo's)")
    data.add_argument(
        "--calibration_datasets", nargs="+", metavar="CSV", help="non-math samples, one file a set"
    )
    data.add_argument(
        "--calibration_dataset_names", nargs="+", metavar="NAME", help="names, in the same order"
    )


def parse_experiment(description: str, argv: Sequence[str] | None) -> ExperimentConfig:
    """Turn a command line into a checked configuration.

    Raises:
        UsageError: a value that cannot be used.
        SystemExit: status 2 for a malformed flag, 0 for `--help`.
    """
    arguments = build_parser(description).parse_args(argv)
    grid_left_out = (
        arguments.proportion is None and arguments.scalar is None and arguments.num_repeats is None
    )
    demo_grid = arguments.model is None and grid_left_out
    limit = arguments.eval_limit
    if limit is not None and limit < 1:
        raise UsageError("--eval_limit", limit, "expected a whole number of at least 1")
    return ExperimentConfig(
        model=model_config(arguments),
        math=CalibrationSource(MATH, Path(arguments.train_dataset or DEMO.train_dataset)),
        calibration=calibration_sets(arguments),
        evaluation=EvaluationConfig(
            math_task=arguments.train_lm_eval_task or DEMO.train_lm_eval_task,
            other_tasks=tuple(arguments.eval_datasets or DEMO.eval_datasets),
            math_documents=_smaller(arguments.eval_dataset_subset, limit),
            other_documents=_smaller(arguments.eval_dataset_size, limit),
            num_fewshot=arguments.num_fewshot,
            apply_chat_template=arguments.apply_chat_template,
            include_path=arguments.include_path,
            batch_size=arguments.eval_batch_size,
        ),
        save_path=Path(arguments.save_path or DEMO.save_path),
        text_file=arguments.text_file,
        proportions=unique(
            arguments.proportion or (DEMO.proportions if demo_grid else PUBLISHED_GRID)
        ),
        scalars=unique(arguments.scalar or (0.0,)),
        num_repeats=_given(arguments.num_repeats, DEMO.num_repeats if demo_grid else 5),
        num_samples=arguments.num_samples,
        random_state=arguments.random_state,
        pre_train_eval=arguments.pre_train_eval or demo_grid,
        batch_tokens=arguments.batch_tokens,
        save_masks=arguments.save_masks,
        overwrite=arguments.overwrite,
        dry_run=arguments.dry_run,
    )


def model_config(arguments: argparse.Namespace) -> ModelConfig:
    """What `add_model_flags` has read; the demo without `--model`."""
    return ModelConfig(
        name=arguments.model or DEMO.model,
        revision=arguments.revision,
        dtype=arguments.dtype,
        device=arguments.device,
        device_map=arguments.device_map,
        trust_remote_code=arguments.trust_remote_code,
    )


def calibration_sets(arguments: argparse.Namespace) -> tuple[CalibrationSource, ...]:
    """The non-math sets that `add_calibration_flags` has read; the demo's without them."""
    if arguments.calibration_datasets is None and arguments.calibration_dataset_names is None:
        return name_calibration_sets(DEMO.calibration_datasets, DEMO.calibration_dataset_names)
    paths = arguments.calibration_datasets or DEMO.calibration_datasets
    return name_calibration_sets(paths, arguments.calibration_dataset_names)


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _smaller(size: int | None, limit: int | None) -> int | None:
    return size if limit is None else limit if size is None else min(size, limit)


def unique(values: Sequence[float]) -> tuple[float, ...]:
    """Drop repeated values (a cell exists once) and turn -0.0 into 0.0."""
    return tuple(dict.fromkeys(value + 0.0 for value in values))


def run_script(
    run: Callable[[Sequence[str] | None], None],
    argv: Sequence[str] | None,
    program: str | None = None,
) -> int:
    """Call a script's body; an expected error becomes one line on stderr and an exit status.

    `program` is a command's name for its errors; without it the script's, which can be resumed.
    """
    try:
        run(argv)
    except (UsageError, RunError) as error:
        print(f"{program or Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        resume = "" if program else "; the same command goes on from here"
        print(f"interrupted{resume}", file=sys.stderr)
        return 130
    return 0
