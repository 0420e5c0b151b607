"""The command line of `FineTune.py`. Imports no torch, so that bad flags fail at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from neurosurgery.cli.flags import (
    add_calibration_flags,
    add_drawing_flags,
    add_evaluation_flags,
    add_model_flags,
    add_output_flags,
    script_parser,
)
from neurosurgery.cli.parse import (
    calibration_sets,
    check_given_with_model,
    evaluation_config,
    given,
    math_set,
    model_config,
    output_config,
    run_script,
    unique,
)
from neurosurgery.cli.training_flags import add_selection_flags, add_training_flags
from neurosurgery.cli.worker_flags import add_worker_flags, workers_config
from neurosurgery.common.errors import UsageError
from neurosurgery.settings.checks import check_path
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.experiment import DataConfig
from neurosurgery.settings.fine_tuning import (
    SCRIPT,
    SELECTIONS,
    SIZES,
    FineTuneConfig,
    MaskSource,
    SelectionConfig,
    has_sizes,
)
from neurosurgery.settings.methods import EFFECTS, METHODS, TRAINED_BY_DEFAULT
from neurosurgery.settings.training import TrainingConfig


def run_fine_tuning(description: str, argv: Sequence[str] | None) -> int:
    """Run the script: parse, check, train, evaluate; return the exit status."""

    def run(argv: Sequence[str] | None) -> None:
        config = parse(description, argv)

        # Heavy imports come one by one, so that bad input is refused before the next import.
        from neurosurgery.activations.calibration import read_calibration_sets

        sets = read_calibration_sets(config.data.sources, config.data.random_state)

        from neurosurgery.activations.training_data import read_training_data

        data = read_training_data(config.training.data)

        from neurosurgery.grid.fine_tuning import FineTuning

        command = sys.argv if argv is None else [SCRIPT, *argv]
        FineTuning(config, sets, data, command).run()

    return run_script(run, argv)


def parse(description: str, argv: Sequence[str] | None) -> FineTuneConfig:
    """Turn a command line into a checked configuration.

    Raises:
        UsageError: a value that cannot be used.
        SystemExit: status 2 for a malformed flag, 0 for `--help`.
    """
    flags = _parser(description).parse_args(argv)
    of_demo = flags.model is None
    given_task = flags.train_lm_eval_task
    if of_demo:
        flags.train_lm_eval_task = given(given_task, DEMO.trained_math_task)
        flags.eval_datasets = given(flags.eval_datasets, list(DEMO.trained_tasks))
        flags.save_path = given(flags.save_path, DEMO.trained_save_path)
    defaults = TrainingConfig(Path())
    config = FineTuneConfig(
        model=model_config(flags),
        data=DataConfig(
            math=math_set(flags),
            calibration=calibration_sets(flags),
            num_samples=flags.num_samples,
            num_repeats=given(flags.num_repeats, 1 if of_demo else 3),
            random_state=flags.random_state,
            batch_tokens=flags.batch_tokens,
            drop_used=flags.drop_used,
        ),
        selection=_selection(flags, of_demo=of_demo),
        training=TrainingConfig(
            data=Path(given(flags.train_data, DEMO.train_data)),
            learning_rates=unique(
                flags.learning_rate
                or ((DEMO.learning_rate,) if of_demo else defaults.learning_rates)
            ),
            epochs=given(flags.epochs, DEMO.epochs if of_demo else defaults.epochs),
            max_steps=flags.max_steps,
            train_batch_size=flags.train_batch_size,
            gradient_accumulation_steps=flags.gradient_accumulation_steps,
            warmup_ratio=flags.warmup_ratio,
            weight_decay=flags.weight_decay,
            max_length=flags.max_length,
            train_seed=flags.train_seed,
            held_out=flags.held_out,
            save_steps=flags.save_steps,
        ),
        evaluation=evaluation_config(flags),
        output=output_config(flags),
        workers=workers_config(flags),
    )
    task = () if config.evaluation.programs else ("train_lm_eval_task",)
    names = ("train_dataset", "calibration_datasets", "train_data", *task, "eval_datasets")
    check_given_with_model(flags, *names, "save_path")
    config.check()
    return config


def _selection(flags: argparse.Namespace, *, of_demo: bool) -> SelectionConfig:
    """The methods and the mask files of `--selection`.

    Raises:
        UsageError: a value that is neither, or a size that no chosen method has.
    """
    methods: list[str] = []
    files: list[MaskSource] = []
    for value in dict.fromkeys(flags.selection):
        check_path("--selection", value)
        if value in SELECTIONS:
            methods.append(value)
        elif Path(value).is_file():
            files.append(MaskSource(Path(value).stem, Path(value)))
        else:
            reason = f"expected {', '.join(SELECTIONS)}, or a mask file (--save_masks writes them)"
            raise UsageError("--selection", value, reason)
    sizes = {}
    for flag, default in SIZES.items():
        size = getattr(flags, flag.removeprefix("--"))
        if size is not None and not any(has_sizes(name, flag) for name in methods):
            having = ", ".join(n for n in SELECTIONS if has_sizes(n, flag))
            raise UsageError(flag, f"{size[0]:g}", f"expected with it a --selection of {having}")
        by_default = (DEMO.trained_proportion,) if of_demo and flag == "--proportion" else default
        sizes[flag] = unique(size or by_default)
    found_in = flags.path_patching
    if found_in is not None and not any(METHODS[name].statistics == EFFECTS for name in methods):
        reason = "expected with it heads, random_heads or mlps as --selection"
        raise UsageError("--path_patching", found_in, reason)
    return SelectionConfig(tuple(methods), tuple(files), sizes, found_in)


def _parser(description: str) -> argparse.ArgumentParser:
    parser = script_parser(description)
    add_model_flags(parser)
    add_calibration_flags(parser)
    add_drawing_flags(parser, METHODS[TRAINED_BY_DEFAULT[0]])
    add_selection_flags(parser)
    add_training_flags(parser)
    add_evaluation_flags(parser, baseline_is_a_choice=False)
    add_output_flags(parser, by_default=DEMO.trained_save_path)
    add_worker_flags(parser)
    return parser
