"""`consistency`: measure how well masks from different samples agree."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neurosurgery.cli.flags import add_settings
from neurosurgery.cli.parse import calibration_sets, math_set, model_config
from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say
from neurosurgery.settings.checks import check_writable
from neurosurgery.settings.declare import FRACTION, Groups, Setting, resolve, whole
from neurosurgery.settings.demo import DEMO, PUBLISHED_GRID
from neurosurgery.settings.experiment import DataConfig, ModelConfig
from neurosurgery.settings.identity import Fact, Identity
from neurosurgery.settings.parts import (
    BATCH_TOKENS,
    CALIBRATION,
    CALIBRATION_TITLE,
    MODEL,
    RANDOM_STATE,
)

if TYPE_CHECKING:
    from neurosurgery.data.calibration import CalibrationSet
    from neurosurgery.models.load import LoadedModel

DEFAULT_SIZES = (1, 10, 50, 100, 500)
FILE = "consistency.csv"

_DESCRIPTION = f"""\
How well do math-specific masks from different samples agree (the paper's Fig. 6)?
Random subsets of several sizes are drawn without replacement from every set, math included; each
gives a mask, and every two masks of one size are compared, against what chance would give. All
subsets share one pass over the samples. With no flags the embedded demo runs, offline.

Subsets of most of a file agree because they share samples: choose much smaller sizes.

Writes {FILE} into --save_path, which may be the folder of a run of the same model.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add `consistency`."""
    parser = subparsers.add_parser(
        "consistency",
        help="agreement of masks found from different samples",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_settings(parser, _GROUPS)


_GROUPS: Groups = {
    "model": MODEL,
    CALIBRATION_TITLE: CALIBRATION,
    "subsets": (
        Setting(
            "sizes",
            int,
            "samples of a subset",
            many=True,
            range=whole(1),
            otherwise="1 10 50 100 500, as far as the files reach",
        ),
        Setting("num_subsets", int, "subsets of every size", default=5, range=whole(2)),
        Setting(
            "proportion",
            float,
            "top fractions of every weight matrix",
            default=PUBLISHED_GRID,
            demo=DEMO.proportions,
            many=True,
            once=True,
            range=FRACTION,
        ),
        RANDOM_STATE,
        BATCH_TOKENS,
    ),
    "output": (
        Setting(
            "save_path",
            str,
            "results folder",
            demo=DEMO.save_path,
            otherwise=f"without --model {DEMO.save_path}",
            is_file=True,
            travels=False,
        ),
        Setting("overwrite", bool, f"replace {FILE}, nothing else", travels=False),
    ),
}


def run(arguments: argparse.Namespace) -> None:
    """Check the input, measure the agreement of masks, and write consistency.csv.

    Raises:
        UsageError: a value, file, folder or model that cannot be used as asked.
        RunError: activations or weights are not finite.
    """
    settings = resolve("consistency", sys.argv, _GROUPS, vars(arguments))
    model = model_config(settings)
    data = DataConfig(
        math=math_set(settings),
        calibration=calibration_sets(settings),
        num_samples=max(settings.sizes or DEFAULT_SIZES),
        num_repeats=1,
        random_state=settings.random_state,
        batch_tokens=settings.batch_tokens,
    )
    proportions = settings.proportion
    save_path = Path(settings.save_path or DEMO.save_path)
    data.check()
    model.check()
    settings.check_given_with_model(("skill_data", "other_data", "save_path"))
    check_writable(save_path)
    file = save_path / FILE
    _check_file(file, overwrite=settings.overwrite)

    # Heavy imports come one by one, so that bad input is refused before the next import.
    from neurosurgery.data.calibration import read_calibration_sets

    sets = read_calibration_sets(data.sources, data.random_state)
    _check_sizes(settings.sizes or (), data, sets)

    from neurosurgery.models.devices import choose_device, keep_freed_memory
    from neurosurgery.results.lock import FolderLock

    device = choose_device(model)
    with FolderLock(save_path).held():
        _check_folder(save_path, model)

        from neurosurgery.common.files import write_atomically
        from neurosurgery.localisation.consistency import (
            consistency_text,
            measure_consistency,
            usable_sizes,
        )
        from neurosurgery.models.load import read_model_config
        from neurosurgery.results.provenance import describe_run, model_fingerprint
        from neurosurgery.results.store import ResultStore
        from neurosurgery.studies.checkpoint import SubsetCheckpoint

        commit = getattr(read_model_config(model), "_commit_hash", None)
        keep_freed_memory(device)
        loaded = _load(model, sets)
        sizes = usable_sizes(sorted(set(settings.sizes or DEFAULT_SIZES)), sets)
        basis = {
            "model": model_fingerprint(model.name, commit),
            "dtype": loaded.dtype,
            "device": str(device),
            "batch_tokens": data.batch_tokens,
            "sets": {name: of_set.sha256 for name, of_set in sets.items()},
            "sizes": sizes,
            "num_subsets": settings.num_subsets,
            "proportions": proportions,
            "seed": data.random_state,
        }
        store = ResultStore(save_path, model.label)
        if not store.identity:
            # It proves the folder ours, so that the same command may go on from what is kept.
            store.write_config(_facts(model), describe_run(settings, str(device)))
        checkpoint = SubsetCheckpoint(save_path / "statistics" / model.label, basis)
        table = measure_consistency(
            loaded, data, sets, sizes, settings.num_subsets, proportions, checkpoint
        )
        table.insert(0, "model", model.label)
        write_atomically(file, table.to_csv(index=False))
        checkpoint.clear()
    say(f"{consistency_text(table)}\n\n{file} has every pair")


def _load(config: ModelConfig, sets: Mapping[str, CalibrationSet]) -> LoadedModel:
    """Load the model, check that it can be scored on the sets, and say what was quantised."""
    from neurosurgery.models.checked import load_checked_model
    from neurosurgery.models.load import load_tokenizer

    texts = {name: of_set.samples for name, of_set in sets.items()}
    loaded = load_checked_model(config, load_tokenizer(config), texts)
    if loaded.quantised is not None:
        say(loaded.quantised)
    return loaded


def _check_sizes(
    sizes: Sequence[int], data: DataConfig, sets: Mapping[str, CalibrationSet]
) -> None:
    """Refuse subsets larger than a set."""
    for size in sizes:
        for source in data.sources:
            found = len(sets[source.name].samples)
            if size > found:
                raise UsageError("--sizes", size, f"{source.path} has only {found:,} samples")


def _check_file(file: Path, *, overwrite: bool) -> None:
    """Refuse a folder in the file's place, and a file that is not to be replaced."""
    if file.is_dir():
        raise UsageError(
            "--save_path", file.parent, f"holds a folder {FILE}; expected a file or none"
        )
    if file.exists() and not overwrite:
        raise UsageError("--save_path", file.parent, f"holds {FILE}; --overwrite replaces it")


def _check_folder(save_path: Path, model: ModelConfig) -> None:
    """Refuse a folder of another program or another model."""
    from neurosurgery.results.store import ResultStore

    store = ResultStore(save_path, model.label)
    store.check_folder()
    store.check(_facts(model))


def _facts(model: ModelConfig) -> Identity:
    """Which model it is; its number format does not matter, which masks are compared in."""
    return Identity([Fact("model", model.label), Fact("revision", model.revision)])
