"""The settings that scripts share, declared once; `cli/scripts.py` adds their own. No torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from neurosurgery.common.hub import FORM
from neurosurgery.settings.checks import DEVICE_MAPS
from neurosurgery.settings.declare import FINITE, Range, Setting, all_of, number, whole
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.identity import CELLS, EFFECTS, MATH, TRAININGS
from neurosurgery.settings.loggers import LOGGERS
from neurosurgery.settings.margins import Margins
from neurosurgery.settings.patching import DEMO_FAMILY, FAMILIES, OPERATORS, WORDED
from neurosurgery.settings.shard import Shard
from neurosurgery.settings.training import TrainingConfig

REPEATS = whole(1, 10_000)
_ABOVE_ZERO = number("a number above 0", lambda value: value > 0)
_SHARE = number("a share between 0 and 1", lambda value: 0 < value < 1)
MOST_OF_NAME = 40


def _refuse_name(name: str) -> str | None:
    """Names that no table or figure could show."""
    fits = 0 < len(name.strip()) == len(name) <= MOST_OF_NAME and name.isprintable()
    return None if fits else f"expected a name of one line, up to {MOST_OF_NAME} characters"


_OF_THE_DEMO = "without --model the demo's"
_TRAINING = TrainingConfig(Path())

MODEL = (
    Setting("model", str, "hub id, local folder or GGUF file", otherwise="the embedded demo"),
    Setting("revision", str, "branch, tag or commit of a hub model"),
    Setting(
        "dtype",
        str,
        "number format of the weights",
        choices=("float32", "bfloat16", "float16"),
        otherwise="bfloat16 on a GPU, float32 on a CPU",
    ),
    Setting("device", str, "cpu, cuda, cuda:1, mps", otherwise="a GPU if there is one"),
    Setting(
        "device_map",
        str,
        "let accelerate split the model over devices, memory and disk: "
        f"{', '.join(DEVICE_MAPS)}, or a JSON object of modules and places",
        metavar="MAP",
    ),
    Setting(
        "trust_remote_code",
        bool,
        "run the Python code that comes with a model, on this machine: use it only for a model "
        "that you trust",
        travels=False,
    ),
)

CALIBRATION = (
    Setting(
        "skill_data",
        str,
        "samples of the skill; with a column answer beside question and solution also the "
        "tests of the task sgsm",
        published="train_dataset",
        metavar="TABLE",
        demo=DEMO.train_dataset,
        otherwise=_OF_THE_DEMO,
        is_file=True,
    ),
    Setting(
        "other_data",
        str,
        "samples of other text, one file a set",
        published="calibration_datasets",
        many=True,
        metavar="TABLE",
        otherwise=_OF_THE_DEMO,
        is_file=True,
    ),
    Setting(
        "other_names",
        str,
        "names of those sets, in the same order",
        published="calibration_dataset_names",
        many=True,
        metavar="NAME",
        otherwise="the files'",
    ),
)

BATCH_TOKENS = Setting(
    "batch_tokens",
    int,
    "tokens per batch of the scoring pass",
    range=whole(1),
    otherwise="16384 on a GPU, 2048 on a CPU",
)
MIN_EXPERT_TOKENS = Setting(
    "min_expert_tokens",
    int,
    "experts that fewer tokens of a set reach are named: a norm over 32 has a standard error of "
    "about an eighth (1/√(2 · 32), of Gaussian activations)",
    default=32,
    range=whole(0),
)
RANDOM_STATE = Setting(
    "random_state",
    int,
    "seed of the draws",
    default=42,
    range=whole(0, None),
    identity=CELLS,
)


def drawing(num_samples: int) -> tuple[Setting, ...]:
    """How calibration samples are drawn."""
    return (
        Setting(
            "num_samples",
            int,
            "samples drawn from each set, with replacement",
            default=num_samples,
            range=whole(1),
        ),
        Setting(
            "drop_used",
            bool,
            "leave out samples that a document of the tasks asks, too; they are counted anyway",
        ),
        MIN_EXPERT_TOKENS,
        BATCH_TOKENS,
    )


SCALAR = Setting(
    "scalar",
    float,
    "factors for the selected weights; 0 prunes",
    default=(0.0,),
    many=True,
    once=True,
    range=FINITE,
)


def evaluation(*, whole_demo: tuple[str, ...] = ()) -> tuple[Setting, ...]:
    """Tasks of the harness, the baseline included."""
    baseline = Setting(
        "pre_train_eval",
        bool,
        "evaluate the unedited model first",
        demo=True,
        whole_demo=whole_demo,
    )
    documents = {
        "skill_documents": DEMO.documents,
        "other_documents": DEMO.documents,
        "documents_from": OWN,
    }
    # A file of programs has problems of its own, and few.
    of_demo = (
        replace(one, demo=documents[one.name], whole_demo=("skill_data",))
        if one.name in documents
        else one
        for one in EVALUATION
    )
    return (*TASKS, baseline, *of_demo)


FIRST, RANDOM, OWN = "first", "random", "own"
SHARED_DOCUMENTS = (FIRST, RANDOM)
"""Where documents come from that every state of a model is asked."""
"""Which documents of a task are asked (`evaluation/asked.py`)."""

TASKS = (
    Setting(
        "skill_task",
        str,
        "the task of the skill",
        published="train_lm_eval_task",
        metavar="TASK",
        otherwise=f"sgsm where --skill_data has programs with answers; else {_OF_THE_DEMO}",
        identity=CELLS,
    ),
    Setting(
        "other_tasks",
        str,
        "the other tasks",
        published="eval_datasets",
        many=True,
        metavar="TASK",
        demo=DEMO.eval_datasets,
        identity=CELLS,
        ordered=False,
    ),
)

EVALUATION = (
    Setting(
        "skill_documents",
        int,
        "documents of the skill's task",
        published="eval_dataset_subset",
        default=100,
        range=whole(1),
        identity=CELLS,
        capped_by="documents",
    ),
    Setting(
        "other_documents",
        int,
        "documents of each other task",
        published="eval_dataset_size",
        range=whole(1),
        otherwise="all",
        identity=CELLS,
        capped_by="documents",
    ),
    Setting(
        "documents",
        int,
        "at most so many documents of any task, the skill's included",
        published="eval_limit",
        range=whole(1),
    ),
    Setting(
        "documents_from",
        str,
        "which documents: the first ones of a task, random ones, or other random ones for every "
        "repeat, which decide more (the baseline answers those of all repeats)",
        default=FIRST,
        choices=(FIRST, RANDOM, OWN),
        identity=CELLS,
    ),
    Setting(
        "stop_early",
        bool,
        "ask the documents of a task in up to four parts, and stop for all repeats of a point as "
        "soon as its verdict is there, or will hardly come; intervals allow for it",
        identity=CELLS,
    ),
    Setting(
        "cluster",
        str,
        "a field of the tasks' documents, as passage: those with the same value vary together, "
        "and intervals count them as one",
        metavar="FIELD",
        identity=CELLS,
    ),
    Setting(
        "budget",
        float,
        "cells are timed first, and those of --num_repeats, --skill_documents and "
        "--other_documents that are not given are chosen so that the run ends in time",
        metavar="MINUTES",
        range=all_of(_ABOVE_ZERO.text, FINITE, _ABOVE_ZERO),
        travels=False,
    ),
    Setting("eval_batch_size", int, "requests at once", default=16, range=whole(1)),
    Setting(
        "num_fewshot", int, "shots", range=whole(0), otherwise="each task's own", identity=CELLS
    ),
    Setting("apply_chat_template", bool, "prompt through the chat template", identity=CELLS),
    Setting(
        "include_path",
        Path,
        "a folder with further task files; they can run code on this machine (!function, "
        "templates): use only those that you trust",
        metavar="DIR",
        travels=False,
    ),
)


def output(save_path: str) -> tuple[Setting, ...]:
    """The results folder; `save_path` is the demo's."""
    return (
        Setting(
            "save_path",
            str,
            "results folder",
            demo=save_path,
            otherwise=f"without --model {save_path}",
            is_file=True,
            travels=False,
        ),
        *OUTPUT,
        Setting(
            "overwrite",
            bool,
            "delete the results in --save_path and start afresh",
            travels=False,
        ),
        Setting(
            "shard",
            str,
            "compute every N-th cell alone, from the I-th on, in a --save_path of its own; "
            "`merge` puts the folders of all N shards together",
            metavar="I/N",
            range=Range("I/N, like 1/4 to 4/4", Shard.refuse),
            otherwise="all cells",
            travels=False,
        ),
        Setting(
            "dry_run",
            bool,
            "print the plan and its cost, and stop: nothing is loaded, downloaded or written",
            travels=False,
        ),
        Setting("json", bool, "with --dry_run: print it as a JSON object", travels=False),
        Setting("quiet", bool, "print errors only; the verdict is in --text_file", travels=False),
    )


OUTPUT = (
    Setting(
        "text_file",
        str,
        "name, without a folder, of the text file with the verdict and, where programs are run, "
        "the published lines",
        default="results.txt",
    ),
    Setting(
        "margin",
        str,
        "a difference within this is small: of an accuracy, in nats per word of a perplexity; "
        "TASK=NUMBER for one task alone",
        default=(f"{Margins.default:g}",),
        many=True,
        metavar="NUMBER or TASK=NUMBER",
    ),
    Setting(
        "skill_name",
        str,
        "what texts, tables and figures call the skill; file names and records say math",
        default=MATH,
        metavar="NAME",
        otherwise="the folder's; else that of the file of --skill_data, and math for GSM8K, MATH, "
        "SGSM and the demo",
        range=Range("a name of one line, up to 40 characters", _refuse_name),
    ),
    Setting("save_masks", bool, "write every cell's mask"),
    Setting("save_model", bool, "write every cell's edited model as a Hugging Face folder"),
    Setting(
        "report_to",
        str,
        "send every finished cell there, too (pip install trackio or wandb)",
        default=(),
        many=True,
        once=True,
        choices=LOGGERS,
    ),
)

WORKERS = (
    Setting(
        "workers",
        int,
        "compute cells in N processes",
        metavar="N",
        range=whole(1, 10_000),
        otherwise="in this",
    ),
    Setting(
        "gpus_per_worker",
        float,
        "GPUs of a worker, or a share of one",
        metavar="G",
        range=number("a number of GPUs, 0 or more", lambda value: 0 <= value < float("inf")),
        otherwise="1 if there are any",
    ),
    Setting(
        "cpus_per_worker",
        int,
        "processors and torch threads of a worker",
        metavar="C",
        range=whole(1),
        otherwise="1",
    ),
    Setting(
        "ray_address",
        str,
        "auto, or HOST:PORT of a running cluster",
        metavar="ADDRESS",
        otherwise="start Ray on this machine",
    ),
    Setting("verbose", bool, "a line for every job that a worker begins"),
)


PROMPTS = (
    Setting(
        "prompts",
        Path,
        "columns prompt, counterfactual, answer, optional wrong_answer, operator, family",
        metavar="TABLE",
    ),
    Setting(
        "operators",
        str,
        "which calculations",
        default=OPERATORS,
        demo=("+",),
        many=True,
        once=True,
        choices=OPERATORS,
        otherwise="all",
        identity=EFFECTS,
    ),
    Setting(
        "templates",
        str,
        "families of wordings",
        default=WORDED,
        demo=(DEMO_FAMILY,),
        many=True,
        once=True,
        choices=FAMILIES,
        otherwise=f"all but {DEMO_FAMILY}, the form that the demo's model was trained on",
        identity=EFFECTS,
    ),
    Setting(
        "digits",
        int,
        "of an operand, 1 to 4",
        default=1,
        demo=2,
        range=whole(1, 10_000),
        identity=EFFECTS,
    ),
    Setting("number_words", bool, "operands as number words", identity=EFFECTS),
    Setting(
        "shots",
        int,
        "solved examples before each prompt",
        default=2,
        demo=0,
        range=whole(0, 10_000),
        identity=EFFECTS,
    ),
    Setting(
        "num_prompts", int, "per operator", default=96, range=whole(4, 1_000_000), identity=EFFECTS
    ),
)
"""Prompts of a file, or arithmetic that is made for the model's tokenizer."""

HELD_OUT_PROMPTS = Setting(
    "held_out",
    float,
    "share of the prompts to knock out on, none found with them",
    default=0.5,
    range=_SHARE,
    identity=EFFECTS,
)

TRAINING = (
    Setting(
        "train_data",
        str,
        "samples to train on: qa or text (the whole text counts), or prompt + answer, or question "
        "+ solution (the answer alone counts); those that calibration or tests use are left out",
        metavar="TABLE",
        demo=DEMO.train_data,
        otherwise=f"{_OF_THE_DEMO} new kinds of word problems",
        is_file=True,
    ),
    Setting(
        "learning_rate",
        float,
        "one training each",
        default=_TRAINING.learning_rates,
        demo=(DEMO.learning_rate,),
        many=True,
        once=True,
        range=all_of(_ABOVE_ZERO.text, FINITE, _ABOVE_ZERO),
    ),
    Setting(
        "epochs",
        float,
        "passes over the samples",
        default=_TRAINING.epochs,
        demo=DEMO.epochs,
        range=number("a number above 0 and up to 1,000,000", lambda value: 0 < value <= 1e6),
        identity=TRAININGS,
    ),
    Setting(
        "max_steps",
        int,
        "steps in place of --epochs",
        default=_TRAINING.max_steps,
        range=all_of(
            "1 or more, or -1 for epochs",
            number("1 or more, or -1 for epochs", lambda value: value == -1 or value >= 1),
            whole(-1),
        ),
        otherwise="-1, for epochs",
        identity=TRAININGS,
    ),
    Setting(
        "train_batch_size",
        int,
        "samples of one batch",
        default=_TRAINING.train_batch_size,
        range=whole(1),
        identity=TRAININGS,
    ),
    Setting(
        "gradient_accumulation_steps",
        int,
        "batches of one step",
        default=_TRAINING.gradient_accumulation_steps,
        range=whole(1),
        identity=TRAININGS,
    ),
    Setting(
        "warmup_ratio",
        float,
        "share of the steps in which the rate rises; then it falls to 0",
        default=_TRAINING.warmup_ratio,
        range=number("a share of the steps, 0 or more and below 1", lambda value: 0 <= value < 1),
        identity=TRAININGS,
    ),
    Setting(
        "weight_decay",
        float,
        "AdamW's; pulls to the weights from before the training",
        default=_TRAINING.weight_decay,
        range=number("a number of 0 or more", lambda value: 0 <= value < float("inf")),
        identity=TRAININGS,
    ),
    Setting(
        "max_length",
        int,
        "tokens of a sample",
        default=_TRAINING.max_length,
        range=whole(2),
        identity=TRAININGS,
    ),
    Setting(
        "train_seed",
        int,
        "of the order of samples; repeat r has seed + r",
        default=_TRAINING.train_seed,
        # numpy takes seeds below 2^32, and every repeat has one of its own.
        range=whole(0, 2**32 - 10_001),
        identity=TRAININGS,
    ),
    Setting(
        "held_out",
        float,
        "share of the samples that only measures the loss",
        default=_TRAINING.held_out,
        range=number("a share of the samples between 0 and 1", lambda value: 0 < value < 1),
        identity=TRAININGS,
    ),
    Setting(
        "save_steps",
        float,
        "steps, or a share of them below 1, between checkpoints and held-out losses",
        default=_TRAINING.save_steps,
        range=all_of(
            "a number of steps, or a share of them below 1",
            _ABOVE_ZERO,
            number(
                "a number of steps, or a share of them below 1",
                lambda value: value < 1 or value.is_integer(),
            ),
        ),
    ),
)

CALIBRATION_TITLE = (
    "calibration data: a CSV or JSONL file with qa, question + solution, or text; a text file, its "
    f"samples between blank lines; or a data set, {FORM}"
)


def flag_of(name: str) -> str:
    """What messages call the setting that a fact names; a library has no flag."""
    renamed = {one.name: one for one in (*CALIBRATION, *TASKS, *EVALUATION)}
    parts = [name, renamed[name].capped_by] if name in renamed else [name]
    flags = [renamed[part].flag if part in renamed else f"--{part}" for part in parts if part]
    return "/".join(flags) if name.isidentifier() else name
