"""What a script does: check, plan, run the grid, report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from neurosurgery.activations.calibration import CalibrationSet
from neurosurgery.common.errors import UsageError
from neurosurgery.common.files import write_atomically
from neurosurgery.config.experiment import ExperimentConfig
from neurosurgery.config.keys import statistics_kind
from neurosurgery.evaluate.tasks import task_manager
from neurosurgery.grid.plan import describe_plan, make_plan
from neurosurgery.models.devices import choose_device, choose_dtype, keep_freed_memory
from neurosurgery.results import provenance
from neurosurgery.results.store import ResultStore

if TYPE_CHECKING:
    from neurosurgery.verdicts.table import VerdictTable


def run_experiment(
    config: ExperimentConfig, sets: Mapping[str, CalibrationSet], command: Sequence[str]
) -> None:
    """Do what a script was asked to do.

    Raises:
        UsageError: the model, the device, a task or the results folder cannot be used as asked.
    """
    store = ResultStore(config.save_path, config.model.label)
    device = choose_device(config.model)
    dtype = choose_dtype(config.model, device)
    format_name = str(dtype).removeprefix("torch.")
    kind = statistics_kind(config.methods[0])
    store.check_folder()
    meaning = provenance.meaning(config, sets, format_name, kind, commit=None)
    if not config.overwrite:
        store.check_meaning(meaning)
    evaluation = config.evaluation
    manager = task_manager(evaluation)

    # transformers and what builds on it take seconds to import: not before bad flags are refused.
    from neurosurgery.evaluate.harness import chatter_to, load_harnesses
    from neurosurgery.grid.gather import Gatherer
    from neurosurgery.grid.worker import Grid
    from neurosurgery.models.load import load_model, load_tokenizer, model_size, read_model_config
    from neurosurgery.verdicts.table import VerdictTable

    model_config = read_model_config(config.model)
    commit = getattr(model_config, "_commit_hash", None)
    meaning = provenance.meaning(config, sets, format_name, kind, commit)
    if not config.overwrite:
        store.check_meaning(meaning)
    tokenizer = load_tokenizer(config.model)
    if evaluation.apply_chat_template and tokenizer.chat_template is None:
        raise UsageError("--apply_chat_template", "", "the tokenizer has no chat template")
    plan = make_plan(config, store)
    if config.dry_run:
        size = model_size(model_config, dtype)
        print(describe_plan(config, plan, store, list(sets.values()), size, kind))
        return
    verdicts = VerdictTable(store, config.model.label)
    if plan.to_mask or plan.baseline_pending:
        # Kept in memory until it is sure that the run will start: bad input writes nothing.
        chatter = io.StringIO()
        with chatter_to(chatter):
            harnesses = load_harnesses(manager, evaluation)
        keep_freed_memory(device)
        loaded = load_model(config.model, tokenizer)
        if config.overwrite:
            store.clear()
        # First of all files, as it is what proves the folder ours.
        store.write_config(meaning, provenance.describe_run(list(command), str(device)))
        store.sweep()
        with store.open_log() as log:
            log.write(chatter.getvalue())
        gatherer = Gatherer(config, sets, store, loaded)
        Grid(config, store, loaded, gatherer, harnesses, verdicts).run(plan)
    else:
        # A run may have been killed after its last cell.
        store.sweep()
    verdicts.update()
    _publish(config, store, verdicts)


def _publish(config: ExperimentConfig, store: ResultStore, verdicts: VerdictTable) -> None:
    """Say what the whole folder holds: as text, as tables, as figures."""
    from neurosurgery.report import make_report
    from neurosurgery.verdicts.text import folder_text

    text = folder_text(verdicts, config.evaluation)
    write_atomically(store.text_file(config.text_file), text)
    print(text)
    print(
        f"results in {store.root}: results.csv has every cell, summary.csv and comparison.csv "
        "these tables in full"
    )
    print(f"figures in {make_report(store.root, config.model.label)}")
