"""The command line of `FineTune.py`. Imports no torch, so that bad flags fail at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neurosurgery.activations.kinds import EFFECTS
from neurosurgery.cli.flags import read_settings
from neurosurgery.cli.parse import (
    chosen_methods,
    data_config,
    evaluation_config,
    model_config,
    needed_tasks,
    output_config,
    with_tasks,
    workers_config,
)
from neurosurgery.common.errors import UsageError
from neurosurgery.methods.registry import METHODS, TRAINED_BY_DEFAULT
from neurosurgery.settings.checks import check_path
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.training import TrainingConfig
from neurosurgery.studies.training_config import (
    OF_FILES,
    SCRIPT,
    FineTuneConfig,
    MaskSource,
    SelectionConfig,
    default_size,
    selections,
    sized_by,
)

if TYPE_CHECKING:
    # Studies need torch, which takes seconds to import.
    from neurosurgery.run.study import Study


def training_study(settings: Settings) -> Study:
    """Make the study of trainings from its settings, and read its samples.

    Raises:
        UsageError: a setting or a file that cannot be used.
    """
    config = config_of(settings)

    # Heavy imports come one by one, so that bad input is refused before the next import.
    from neurosurgery.data.calibration import read_calibration_sets

    sets = read_calibration_sets(config.data.sources, config.data.random_state)

    from neurosurgery.data.training_data import read_training_data

    data = read_training_data(config.training.data)

    from neurosurgery.studies.training import TrainingStudy

    return TrainingStudy(config, sets, data)


def parse(description: str, argv: Sequence[str] | None) -> FineTuneConfig:
    """Turn a command line into a checked configuration.

    Raises:
        UsageError: a value that cannot be used.
        SystemExit: status 2 for a malformed flag, 0 for `--help`.
    """
    return config_of(read_settings(SCRIPT, description, argv))


def config_of(settings: Settings) -> FineTuneConfig:
    """Turn settings into a checked configuration; errors as `parse`."""
    selection = _selection(settings)
    evaluation, output = evaluation_config(settings), output_config(settings)
    config = FineTuneConfig(
        model=model_config(settings),
        data=data_config(settings),
        selection=selection,
        training=settings.part(
            TrainingConfig,
            data=Path(settings.train_data or DEMO.train_data),
            learning_rates=settings.learning_rate,
        ),
        evaluation=evaluation,
        output=output,
        workers=workers_config(settings),
        settings=with_tasks(settings, evaluation, output).with_values(**_used(selection)),
    )
    settings.check_given_with_model(
        ("skill_data", "other_data", "train_data", *needed_tasks(evaluation), "save_path")
    )
    config.check()
    return config


def _used(selection: SelectionConfig) -> dict[str, tuple[float, ...]]:
    """The sizes that a chosen method has, by setting."""
    return {
        flag.removeprefix("--"): sizes
        for flag, sizes in selection.sizes.items()
        if set(sized_by()[flag]) & set(selection.methods)
    }


def _selection(settings: Settings) -> SelectionConfig:
    """The methods and the mask files of `--selection`.

    Raises:
        UsageError: a value that is neither, or a size that no chosen method has.
    """
    methods: list[str] = []
    files: list[MaskSource] = []
    for value in settings.selection:
        check_path("--selection", value)
        if value in selections():
            methods.append(value)
        elif Path(value).is_file():
            files.append(MaskSource(Path(value).stem, Path(value)))
        else:
            reason = (
                f"expected {', '.join(selections())}, or a mask file (--save_masks writes them)"
            )
            raise UsageError("--selection", value, reason)
    sizes = {}
    for flag, having in sized_by().items():
        size = settings.values[flag.removeprefix("--")]
        if size is not None and not set(having) & set(methods):
            reason = f"expected with it a --selection of {', '.join(having)}"
            raise UsageError(flag, f"{size[0]:g}", reason)
        of_demo = settings.of_demo and TRAINED_BY_DEFAULT[0] in having
        sizes[flag] = size or ((DEMO.trained_proportion,) if of_demo else default_size(flag))
    found_in = settings.path_patching
    if found_in is not None and not any(METHODS[name].statistics == EFFECTS for name in methods):
        reason = "expected with it heads, random_heads or mlps as --selection"
        raise UsageError("--path_patching", found_in, reason)
    chosen = chosen_methods(settings, [*methods, *([OF_FILES] if files else [])])
    of_files = tuple(name for name in chosen if METHODS[name].given)
    methods = [name for name in chosen if name not in of_files]
    return SelectionConfig(tuple(methods), of_files, tuple(files), sizes, found_in)
