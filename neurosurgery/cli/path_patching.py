"""The command line of `PathPatching.py`. Imports no torch, so that bad flags fail at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from neurosurgery.cli.flags import (
    add_evaluation_flags,
    add_model_flags,
    add_output_flags,
    script_parser,
)
from neurosurgery.cli.parse import (
    evaluation_config,
    given,
    model_config,
    output_config,
    run_script,
    unique,
)
from neurosurgery.cli.worker_flags import add_worker_flags, workers_config
from neurosurgery.common.errors import UsageError
from neurosurgery.prompts.templates import DEMO_FAMILY, FAMILIES, OPERATORS, WORDED
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.experiment import OutputConfig
from neurosurgery.settings.patching import (
    ABLATIONS,
    METRICS,
    POSITIONS,
    SCRIPT,
    UNIT_KINDS,
    CellsConfig,
    PatchingConfig,
    PromptConfig,
)


def run_path_patching(description: str, argv: Sequence[str] | None) -> int:
    """Run the script: parse, check, find, knock out; return the exit status."""

    def run(argv: Sequence[str] | None) -> None:
        config = parse(description, argv)

        # Heavy imports come one by one, so that bad input is refused before the next import.
        from neurosurgery.prompts.read import read_prompts

        pairs = None if config.prompts.file is None else read_prompts(config.prompts.file)

        from neurosurgery.grid.patching import Patching

        command = sys.argv if argv is None else [SCRIPT, *argv]
        Patching(config, pairs, command).run()

    return run_script(run, argv)


def parse(description: str, argv: Sequence[str] | None) -> PatchingConfig:
    """Turn a command line into a checked configuration.

    Raises:
        UsageError: a value that cannot be used.
        SystemExit: status 2 for a malformed flag, 0 for `--help`.
    """
    parser = _parser(description)
    flags = parser.parse_args(argv)
    if flags.model is not None and flags.save_path is None:
        raise UsageError("--model", flags.model, "expected with it --save_path")
    _check_prompt_flags(flags)
    of_demo = flags.model is None
    output = output_config(flags)
    config = PatchingConfig(
        model=model_config(flags),
        prompts=PromptConfig(
            file=flags.prompts,
            operators=tuple(dict.fromkeys(flags.operators or (("+",) if of_demo else OPERATORS))),
            templates=tuple(
                dict.fromkeys(flags.templates or ((DEMO_FAMILY,) if of_demo else WORDED))
            ),
            digits=(2 if of_demo else 1) if flags.digits is None else flags.digits,
            number_words=flags.number_words,
            shots=(0 if of_demo else 2) if flags.shots is None else flags.shots,
            number=given(flags.num_prompts, 96),
            held_out=flags.held_out,
        ),
        metric=flags.metric,
        freeze_mlps=flags.freeze_mlps,
        units=tuple(dict.fromkeys(flags.units)),
        top=None if flags.top is None else tuple(sorted(dict.fromkeys(flags.top))),
        ablation=flags.ablation,
        positions=flags.positions,
        draws=flags.num_draws,
        random_state=flags.random_state,
        save_path=output.save_path,
        overwrite=output.overwrite,
        dry_run=output.dry_run,
        cells=_cells(parser, flags, output),
    )
    config.check()
    return config


_OF_CELLS = (
    "scalar num_repeats pre_train_eval eval_dataset_subset eval_dataset_size eval_limit "
    "eval_batch_size num_fewshot apply_chat_template include_path save_masks save_model margin "
    "text_file workers gpus_per_worker cpus_per_worker ray_address verbose report_to"
).split()
"""Flags that do nothing without tasks."""


def _cells(
    parser: argparse.ArgumentParser, flags: argparse.Namespace, output: OutputConfig
) -> CellsConfig | None:
    """The cells of the grid: asked for by tasks, which the demo brings with it.

    Raises:
        UsageError: a flag of the cells without tasks, or one kind of task without the other.
    """
    of_demo = flags.model is None
    math, others = flags.train_lm_eval_task, flags.eval_datasets
    if of_demo and flags.ablation == "resample" and (math, others) == (None, None):
        return None
    if not of_demo and (math is None or others is None):
        alone = [
            *(["--train_lm_eval_task"] if math else []),
            *(["--eval_datasets"] if others else []),
            *(f"--{n}" for n in _OF_CELLS if vars(flags)[n] != parser.get_default(n)),
        ]
        if alone:
            reason = "expected with it --train_lm_eval_task and --eval_datasets"
            raise UsageError(alone[0], "", reason)
        return None
    return CellsConfig(
        evaluation=evaluation_config(flags),
        output=output,
        scalars=unique(flags.scalar or ()),
        num_repeats=given(flags.num_repeats, DEMO.num_repeats if of_demo else 5),
        pre_train_eval=flags.pre_train_eval or of_demo,
        workers=workers_config(flags),
    )


def _check_prompt_flags(flags: argparse.Namespace) -> None:
    """Refuse flags that make prompts beside a file of prompts."""
    if flags.prompts is None:
        return
    for name in ("operators", "templates", "digits", "shots", "num_prompts"):
        if getattr(flags, name) is not None:
            raise UsageError("--prompts", flags.prompts, f"cannot be had with --{name}")
    if flags.number_words:
        raise UsageError("--prompts", flags.prompts, "cannot be had with --number_words")


def _parser(description: str) -> argparse.ArgumentParser:
    parser = script_parser(description)
    add_model_flags(parser)
    prompts = parser.add_argument_group("prompts (default: arithmetic, made for the tokenizer)")
    prompts.add_argument(
        "--prompts",
        type=Path,
        metavar="CSV",
        help="columns prompt, counterfactual, answer, optional wrong_answer, operator, family",
    )
    prompts.add_argument("--operators", nargs="+", choices=OPERATORS, help="default: all; demo: +")
    prompts.add_argument(
        "--templates",
        nargs="+",
        choices=FAMILIES,
        help="families of wordings (default: all; demo: the form that its model was trained on)",
    )
    prompts.add_argument("--digits", type=int, help="of an operand, 1 to 4 (default: 1; demo: 2)")
    prompts.add_argument("--number_words", action="store_true", help="operands as number words")
    prompts.add_argument(
        "--shots", type=int, help="solved examples before each prompt (default: 2; demo: 0)"
    )
    prompts.add_argument("--num_prompts", type=int, help="per operator (default: 96)")
    prompts.add_argument(
        "--held_out",
        type=float,
        default=0.5,
        help="share of the prompts to knock out on, none found with them (default: %(default)s)",
    )
    effects = parser.add_argument_group("effects")
    effects.add_argument(
        "--metric",
        choices=METRICS,
        default=METRICS[0],
        help="of the answer's first token (default: %(default)s, effects in nats; effects on the "
        "others are shares of the clean value, which must be well above 0)",
    )
    effects.add_argument(
        "--freeze_mlps", action="store_true", help="keep later MLPs too: the direct path alone"
    )
    effects.add_argument(
        "--units", nargs="+", choices=UNIT_KINDS, default=list(UNIT_KINDS), help="default: both"
    )
    knock_out = parser.add_argument_group("knock-out")
    knock_out.add_argument(
        "--top",
        nargs="+",
        type=float,
        help="numbers of units, or shares of all below 1, one unit at least (default: 1 2 5 10 20 "
        "50, as far as there are so many)",
    )
    knock_out.add_argument(
        "--ablation",
        choices=ABLATIONS,
        default="mean",
        help="what replaces a unit: its mean over counterfactuals, zero, or its value on a random "
        "counterfactual (default: %(default)s)",
    )
    knock_out.add_argument(
        "--positions",
        choices=POSITIONS,
        default="all",
        help="where: at every position, or at the last one (default: %(default)s)",
    )
    knock_out.add_argument(
        "--num_draws", type=int, default=5, help="of random units (default: %(default)s)"
    )
    knock_out.add_argument(
        "--random_state", type=int, default=42, help="seed of prompts and draws (default: 42)"
    )
    cells = parser.add_argument_group(
        "grid: the same units edited and evaluated on tasks, beside the other methods "
        "(with --train_lm_eval_task and --eval_datasets; the demo brings its own)"
    )
    cells.add_argument(
        "--scalar",
        nargs="+",
        type=float,
        help="factors for the weights that read a unit, 0 to prune them (default: the units are "
        "knocked out by --ablation, at every position)",
    )
    cells.add_argument(
        "--num_repeats",
        type=int,
        help="draws of prompts, with replacement, and of random heads (default: 5; demo: 3)",
    )
    add_evaluation_flags(parser)
    add_output_flags(parser, "replace what this script left in --save_path")
    add_worker_flags(parser)
    return parser
