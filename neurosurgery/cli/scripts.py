"""Which settings each script has; imports no torch.

What methods, units and edits can be asked for comes from their registries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from neurosurgery.edit.kinds import ABLATIONS, KEPT, POSITIONS, ROUTINGS, edit_settings
from neurosurgery.masks.kinds import EXPERT, units_by_effects
from neurosurgery.methods.base import DRAWS
from neurosurgery.methods.registry import METHODS, TRAINED_BY_DEFAULT, methods_of
from neurosurgery.settings import parts
from neurosurgery.settings.declare import FINITE, FRACTION, Groups, Setting, number, shown, whole
from neurosurgery.settings.demo import DEMO, PUBLISHED_GRID
from neurosurgery.settings.identity import CELLS, EFFECTS, MATH
from neurosurgery.settings.patching import METRICS, TOP
from neurosurgery.settings.patching import SCRIPT as PATH_PATCHING
from neurosurgery.studies.training_config import SCRIPT as FINE_TUNE
from neurosurgery.studies.training_config import default_size, selections, sized_by

_TASKS_TITLE = "evaluation (lm-eval)"
_WORKERS_TITLE = "workers (Ray: pip install ray)"

SCRIPTS = ("MathNeuro.py", "MathNeuro_Ablations.py", "LAPE.py", PATH_PATCHING, FINE_TUNE)
"""The scripts, in the order of the reference page."""


def patching() -> tuple[Setting, ...]:
    """How effects are measured, and of which kinds of units."""
    kinds = tuple(units_by_effects())
    return (
        Setting(
            "metric",
            str,
            "of the answer's first token; effects on logprob are in nats, those on the others "
            "shares of the clean value, which must be well above 0",
            default=METRICS[0],
            choices=METRICS,
            identity=EFFECTS,
        ),
        Setting(
            "freeze_mlps", bool, "keep later MLPs too: the direct path alone", identity=EFFECTS
        ),
        Setting(
            "units",
            str,
            "kinds of units",
            default=kinds,
            many=True,
            once=True,
            choices=kinds,
            otherwise="all",
            identity=EFFECTS,
            ordered=False,
        ),
    )


KNOCK_OUT = (
    Setting(
        "top",
        float,
        "numbers of units, or shares of all below 1, one unit at least",
        many=True,
        once=True,
        range=number(
            "numbers of units, or shares below 1",
            lambda value: 0 < value < 1 or (value >= 1 and value.is_integer()),
        ),
        otherwise=f"{' '.join(f'{one:g}' for one in TOP)}, as far as there are so many",
    ),
    Setting(
        "ablation",
        str,
        "what replaces a unit: its mean at the last position over counterfactuals, its means by "
        "position (counted from the last one; not for cells), zero, or its value at the last "
        "position of a random counterfactual (one for every prompt, and for every repeat of cells)",
        default="mean",
        choices=ABLATIONS,
    ),
    Setting(
        "positions",
        str,
        "where: at every position, or at the last one",
        default="all",
        choices=POSITIONS,
    ),
    Setting("num_draws", int, "of random units", default=5, range=whole(1, 10_000)),
    Setting(
        "random_state",
        int,
        "seed of prompts and draws",
        default=42,
        range=whole(0, None),
        identity=EFFECTS,
    ),
)

TWINS = Setting(
    "twins",
    str,
    "controls beside every method, each of as many weights or units: random ones, or the least "
    "important ones",
    many=True,
    once=True,
    choices=DRAWS,
    otherwise="none but those that a script has of itself",
)

HEAD_CELLS = (
    TWINS,
    Setting(
        "scalar",
        float,
        "factors for the weights that read a unit, 0 to prune them",
        many=True,
        once=True,
        range=FINITE,
        otherwise="the units are knocked out by --ablation, at every position",
    ),
    Setting(
        "num_repeats",
        int,
        "draws of prompts, with replacement, and of random heads",
        default=5,
        demo=DEMO.num_repeats,
        range=parts.REPEATS,
    ),
)


def groups_of(script: str) -> Groups:
    """The settings of a script, by the titles of its help."""
    if script == PATH_PATCHING:
        return _of_path_patching()
    if script == FINE_TUNE:
        return _of_fine_tuning()
    own = grid(script)
    size = METHODS[methods_of(script)[0]].size_name
    return {
        "model": parts.MODEL,
        parts.CALIBRATION_TITLE: parts.CALIBRATION,
        "scoring": parts.drawing(METHODS[methods_of(script)[0]].num_samples),
        "grid": own,
        _TASKS_TITLE: parts.evaluation(whole_demo=(size, parts.SCALAR.name, "num_repeats")),
        "output": parts.output(DEMO.save_path),
        _WORKERS_TITLE: parts.WORKERS,
    }


def _of_path_patching() -> Groups:
    return {
        "model": parts.MODEL,
        "prompts (default: arithmetic, made for the tokenizer)": (
            *parts.PROMPTS,
            parts.HELD_OUT_PROMPTS,
        ),
        "effects": patching(),
        "knock-out": KNOCK_OUT,
        "grid: the same units edited and evaluated on tasks, beside the other methods "
        "(with --skill_task and --other_tasks; the demo brings its own)": HEAD_CELLS,
        _TASKS_TITLE: parts.evaluation(),
        "output": parts.output(DEMO.save_path),
        _WORKERS_TITLE: parts.WORKERS,
    }


def _of_fine_tuning() -> Groups:
    tasks = {"skill_task": DEMO.trained_math_task, "other_tasks": DEMO.trained_tasks}
    return {
        "model": parts.MODEL,
        parts.CALIBRATION_TITLE: parts.CALIBRATION,
        "scoring": parts.drawing(METHODS[TRAINED_BY_DEFAULT[0]].num_samples),
        "what is trained": selection(),
        "training (transformers' Trainer and its defaults)": parts.TRAINING,
        _TASKS_TITLE: (
            *(replace(one, demo=tasks[one.name]) for one in parts.TASKS),
            *parts.EVALUATION,
        ),
        "output": parts.output(DEMO.trained_save_path),
        _WORKERS_TITLE: parts.WORKERS,
    }


def selection() -> tuple[Setting, ...]:
    """What `FineTune.py` trains, with a setting for every kind of size."""
    return (
        Setting(
            "selection",
            str,
            f"{', '.join(selections())}, or mask files; heads and MLPs are what PathPatching.py "
            "has found; lora and shira, by PEFT, train about as many values as the mask of "
            "mathneuro has",
            default=TRAINED_BY_DEFAULT,
            many=True,
            once=True,
            metavar="NAME",
        ),
        TWINS,
        *(_size(flag, names) for flag, names in sized_by().items()),
        Setting(
            "path_patching",
            Path,
            "results folder of PathPatching.py, for heads and MLPs",
            metavar="DIR",
            otherwise="--save_path",
        ),
        Setting(
            "num_repeats",
            int,
            "draws of calibration samples; each is trained with a seed of its own",
            default=3,
            demo=1,
            range=parts.REPEATS,
        ),
        parts.RANDOM_STATE,
    )


def _size(flag: str, methods: Sequence[str]) -> Setting:
    """The sizes of the selections of some methods."""
    first = METHODS[methods[0]]
    of_demo = f"; demo: {DEMO.trained_proportion:g}" if TRAINED_BY_DEFAULT[0] in methods else ""
    return Setting(
        first.size_name,
        float,
        f"of {', '.join(methods)}: {first.size_help}",
        many=True,
        once=True,
        range=_UNITS if first.counts_units else FRACTION,
        otherwise=f"{shown(default_size(flag))}{of_demo}",
    )


_UNITS = number("numbers of units", lambda value: value >= 1 and value.is_integer())


OF_EXPERTS = (
    Setting(
        "expert_routing",
        str,
        "how experts are removed: their weights are pruned, and the routing is kept; or they are "
        "masked in the routing, biases too; or masked, and the other experts of a token get their "
        "weight",
        default=KEPT,
        choices=tuple(ROUTINGS),
        identity=CELLS,
    ),
    Setting(
        "topic_matched",
        str,
        "which of the other sets has the skill's words and another task (`data matched` makes "
        "one): the report says what it leaves of every expert's excess",
        metavar="NAME",
        otherwise="none",
    ),
)


def grid(script: str) -> tuple[Setting, ...]:
    """The cells of a script that finds weights or neurons on calibration sets."""
    methods = methods_of(script)
    first = METHODS[methods[0]]
    size = first.size_name
    left_out = (size, parts.SCALAR.name, "num_repeats")
    twins = TWINS
    if script == SCRIPTS[0]:
        # The first command of a new user shows a control.
        twins = replace(TWINS, demo=DRAWS[:1], whole_demo=(*left_out, "skill_data"))
    choice = Setting(
        "methods",
        str,
        "which baselines to run; wanda is the paper's, wanda_rows the original",
        default=tuple(name for name in methods if METHODS[name].by_default),
        many=True,
        once=True,
        choices=methods,
    )
    return (
        *((choice,) if len(methods) > 1 else ()),
        twins,
        Setting(
            "skill",
            str,
            "the set whose parameters are sought: math stands for that of --skill_data, whatever "
            "the skill; as a control the name of a set of other text, --skill_data then being one "
            "of the others",
            default=MATH,
            metavar="NAME",
        ),
        Setting(
            size,
            float,
            first.size_help,
            default=PUBLISHED_GRID,
            demo=DEMO.proportions,
            whole_demo=left_out,
            many=True,
            once=True,
            range=FRACTION,
        ),
        *edit_settings(),
        *(OF_EXPERTS if any(METHODS[name].unit == EXPERT for name in methods) else ()),
        Setting(
            "num_repeats",
            int,
            "independent draws of calibration samples",
            default=5,
            demo=DEMO.num_repeats,
            whole_demo=left_out,
            range=parts.REPEATS,
        ),
        parts.RANDOM_STATE,
    )
