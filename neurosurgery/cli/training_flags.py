"""The flags of `FineTune.py` for selections and trainings. Imports no torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.fine_tuning import SELECTIONS
from neurosurgery.settings.methods import TRAINED_BY_DEFAULT
from neurosurgery.settings.training import TrainingConfig


def add_selection_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for what is trained."""
    selection = parser.add_argument_group("what is trained")
    selection.add_argument(
        "--selection",
        nargs="+",
        metavar="NAME",
        default=list(TRAINED_BY_DEFAULT),
        help=f"{', '.join(SELECTIONS)}, or mask files (default: mathneuro random; heads and MLPs "
        "are what PathPatching.py has found; lora and shira, by PEFT, train about "
        "as many values as the mask of mathneuro has)",
    )
    sized = {
        "--proportion": "of mathneuro, random, wanda, lora, shira: top fractions of every weight "
        "matrix (default: .01; demo: %(const)s)",
        "--ratio": "of lape: fractions of the model's neurons (default: .01)",
        "--top": "of heads, random_heads, mlps: numbers of units (default: 5)",
    }
    for flag, text in sized.items():
        selection.add_argument(
            flag,
            nargs="+",
            type=float,
            metavar=flag.removeprefix("--").upper(),
            help=text.replace("%(const)s", f"{DEMO.trained_proportion:g}"),
        )
    selection.add_argument(
        "--path_patching",
        type=Path,
        metavar="DIR",
        help="results folder of PathPatching.py, for heads and MLPs (default: --save_path)",
    )
    selection.add_argument(
        "--num_repeats",
        type=int,
        help="draws of calibration samples; each is trained with a seed of its own (default: 3; "
        "demo: 1)",
    )
    selection.add_argument(
        "--random_state", type=int, default=42, help="seed of the draws (default: %(default)s)"
    )


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the training itself."""
    default = TrainingConfig(Path())
    training = parser.add_argument_group("training (transformers' Trainer and its defaults)")
    training.add_argument(
        "--train_data",
        metavar="CSV",
        help="samples to train on: qa (the whole text counts), or prompt + answer, or question + "
        "solution (the answer alone counts); those that calibration or tests use are left out "
        "(default without --model: the demo's new kinds of word problems)",
    )
    training.add_argument(
        "--learning_rate",
        nargs="+",
        type=float,
        help=f"one training each (default: {default.learning_rates[0]:g}; demo: "
        f"{DEMO.learning_rate:g})",
    )
    training.add_argument(
        "--epochs", type=float, help=f"default: {default.epochs:g}; demo: {DEMO.epochs:g}"
    )
    training.add_argument(
        "--max_steps", type=int, default=default.max_steps, help="steps in place of --epochs"
    )
    training.add_argument("--train_batch_size", type=int, default=8, help="default: %(default)s")
    training.add_argument(
        "--gradient_accumulation_steps", type=int, default=1, help="batches of one step"
    )
    training.add_argument(
        "--warmup_ratio",
        type=float,
        default=default.warmup_ratio,
        help="share of the steps in which the rate rises; then it falls to 0 (default: 0)",
    )
    training.add_argument(
        "--weight_decay",
        type=float,
        default=default.weight_decay,
        help="AdamW's; pulls to the weights from before the training (default: 0)",
    )
    training.add_argument(
        "--max_length", type=int, default=1024, help="tokens of a sample (default: %(default)s)"
    )
    training.add_argument(
        "--train_seed", type=int, default=42, help="of the order of samples; repeat r has seed + r"
    )
    training.add_argument(
        "--held_out",
        type=float,
        default=default.held_out,
        help="share of the samples that only measures the loss (default: %(default)s)",
    )
    training.add_argument(
        "--save_steps",
        type=float,
        default=default.save_steps,
        help="steps, or a share of them below 1, between checkpoints and held-out losses "
        "(default: %(default)s)",
    )
