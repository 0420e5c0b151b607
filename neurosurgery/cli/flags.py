"""The flags of the scripts. Imports no torch, so that `--help` answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from neurosurgery.cli.worker_flags import add_worker_flags
from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import error_line
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.keys import MATH
from neurosurgery.settings.loggers import LOGGERS
from neurosurgery.settings.margins import Margins
from neurosurgery.settings.methods import METHODS, Method, methods_of


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports a bad flag in one line, and refuses empty values of any flag."""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        # An unset shell variable must not stand for a default, or for the working directory. A
        # flag with `type=str` checks its text itself; a command's own parser knows its flags.
        checks_itself = action.type is str or isinstance(action, argparse._SubParsersAction)
        if not (arg_string.strip() or checks_itself):
            name = action.option_strings[0] if action.option_strings else str(action.metavar)
            raise UsageError(name, "", f"expected a value, found {arg_string!r}")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{error_line(f'{self.prog}: error: {message}')}\n")


def script_parser(description: str) -> OneLineParser:
    """The parser of a script, still without flags; the description keeps its lines."""
    return OneLineParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def build_parser(script: str, description: str) -> argparse.ArgumentParser:
    """Build a script's parser; published flags keep their names and defaults."""
    parser = script_parser(description)
    add_model_flags(parser)
    add_calibration_flags(parser)
    methods = methods_of(script)
    add_drawing_flags(parser, METHODS[methods[0]])
    _add_grid_flags(parser, METHODS[methods[0]], methods)
    add_evaluation_flags(parser)
    add_output_flags(parser)
    add_worker_flags(parser)
    return parser


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the model, its dtype and its device."""
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", help="hub id, local folder or GGUF file (default: the embedded demo)"
    )
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
        "--trust_remote_code",
        action="store_true",
        help="run the Python code that comes with a model, on this machine: use it only for a "
        "model that you trust",
    )


def add_calibration_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the files of calibration samples."""
    data = parser.add_argument_group("calibration data (CSV: a column qa, or question + solution)")
    data.add_argument(
        "--train_dataset",
        metavar="CSV",
        help="math samples; with a column answer beside question and solution also the tests of "
        "the task sgsm (default without --model: the demo's)",
    )
    data.add_argument(
        "--calibration_datasets",
        nargs="+",
        metavar="CSV",
        help="non-math samples, one file a set (default without --model: the demo's)",
    )
    data.add_argument(
        "--calibration_dataset_names", nargs="+", metavar="NAME", help="names, in the same order"
    )


def add_drawing_flags(parser: argparse.ArgumentParser, method: Method) -> None:
    """Add the flags for the draws of calibration samples."""
    data = parser.add_argument_group("scoring")
    data.add_argument(
        "--num_samples",
        type=int,
        default=method.num_samples,
        help="samples drawn from each set, with replacement (default: %(default)s)",
    )
    data.add_argument(
        "--drop_used",
        action="store_true",
        help="leave out samples that a document of the tasks asks, too; they are counted anyway",
    )
    data.add_argument(
        "--batch_tokens",
        type=int,
        help="tokens per batch of the scoring pass (default: 16384 on a GPU, 2048 on a CPU)",
    )


def _add_grid_flags(
    parser: argparse.ArgumentParser, method: Method, methods: tuple[str, ...]
) -> None:
    grid = parser.add_argument_group("grid")
    if len(methods) > 1:
        grid.add_argument(
            "--methods",
            nargs="+",
            choices=methods,
            default=list(methods),
            help="which baselines to run (default: all)",
        )
    grid.add_argument(
        "--skill",
        metavar="NAME",
        default=MATH,
        help="the set whose parameters are sought: math, or the name of a calibration set, math "
        "then being one of the others (default: %(default)s)",
    )
    grid.add_argument(
        method.size_flag,
        dest="size",
        metavar=method.size_name.upper(),
        nargs="+",
        type=float,
        help=f"{method.size_help} (default: .0001 .001 .005 .01 .025 .05 .1 .15)",
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


def add_evaluation_flags(
    parser: argparse.ArgumentParser, *, baseline_is_a_choice: bool = True
) -> None:
    """Add the flags for tasks of the harness."""
    evaluation = parser.add_argument_group("evaluation (lm-eval)")
    evaluation.add_argument(
        "--train_lm_eval_task",
        metavar="TASK",
        help="the math task (default: sgsm where --train_dataset has programs with answers; else "
        "without --model the demo's)",
    )
    evaluation.add_argument(
        "--eval_datasets",
        nargs="+",
        metavar="TASK",
        help="the other tasks (default without --model: the demo's)",
    )
    if baseline_is_a_choice:
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
        "--include_path",
        type=Path,
        metavar="DIR",
        help="a folder with further task files; they can run code on this machine (!function, "
        "templates): use only those that you trust",
    )


def add_output_flags(
    parser: argparse.ArgumentParser,
    overwritten: str = "delete the results in --save_path and start afresh",
    by_default: str = DEMO.save_path,
) -> None:
    """Add the flags for the results folder; `overwritten` is what `--overwrite` does."""
    output = parser.add_argument_group("output")
    output.add_argument(
        "--save_path", help=f"results folder (default without --model: {by_default})"
    )
    output.add_argument(
        "--text_file",
        default="results.txt",
        help="name, without a folder, of the text file with the verdict and, where math is "
        "measured by programs, the published lines (default: %(default)s)",
    )
    output.add_argument(
        "--margin",
        nargs="+",
        default=[f"{Margins.default:g}"],
        metavar="NUMBER or TASK=NUMBER",
        help="a difference within this is small: of an accuracy, in nats per word of a perplexity "
        f"(default: {Margins.default:g}); TASK=NUMBER for one task alone",
    )
    output.add_argument("--save_masks", action="store_true", help="write every cell's mask")
    output.add_argument(
        "--save_model",
        action="store_true",
        help="write every cell's edited model as a Hugging Face folder",
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help=overwritten,
    )
    output.add_argument(
        "--report_to",
        nargs="+",
        choices=LOGGERS,
        default=[],
        help="send every finished cell to these, too (pip install trackio or wandb)",
    )
    output.add_argument(
        "--dry_run", action="store_true", help="print the plan and stop, without loading the model"
    )
