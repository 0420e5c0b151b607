"""The seams are real: a method, an edit and a worker of our own need no other changes."""

from __future__ import annotations

import copy
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest
import torch
from scripts import (
    COMMON,
    DEMO_DATA,
    DEMO_TASKS,
    MODEL,
    SCRIPTS,
    files_with_times,
    without_timings,
)
from weights import bits

import FineTune
import MathNeuro
from neurosurgery.cli.parse import parse_experiment, run_experiment_script
from neurosurgery.data.calibration import read_calibration_set
from neurosurgery.edit.kinds import KINDS, EditKey, EditKind, scale_by
from neurosurgery.edit.scale import changed_weights
from neurosurgery.masks.files import load_mask
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.selection import Selection
from neurosurgery.methods.base import Method, Needed
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS
from neurosurgery.results.keys import CellKey
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.store import ResultStore
from neurosurgery.run.executors import LocalExecutor
from neurosurgery.run.host import Host, Recipe
from neurosurgery.run.observations import Observations, make_evidence
from neurosurgery.run.observe import observe_sets
from neurosurgery.run.recorder import Recorder
from neurosurgery.run.tasks import Tasks
from neurosurgery.run.worker import Worker
from neurosurgery.settings.declare import Setting, whole
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.experiment import OutputConfig
from neurosurgery.verdicts.points import VerdictTable

TOY = "first_rows"


class FirstRows(Method):
    """The first share of every matrix's entries: a method that no paper has."""

    def select(self, evidence, key):
        masks = {}
        for target in evidence.targets:
            mask = torch.zeros(target.weight.numel(), dtype=torch.bool)
            mask[: int(key.size * mask.numel())] = True
            masks[target.parameter_name] = mask.view(target.weight.shape)
        return Selection(ParameterMask.from_tensors(masks))


@pytest.fixture
def toy_method(monkeypatch):
    """A class with its facts, and nothing else."""
    method = FirstRows(TOY, "First rows", "Toy.py", against_a_set=True, size_flag="--part")
    monkeypatch.setitem(METHODS, TOY, method)


def run_toy(model: Path, save_path: Path, *more: str) -> int:
    where = ["--model", str(model), "--save_path", str(save_path), *DEMO_DATA, *DEMO_TASKS]
    return run_experiment_script("Toy.py", "A toy.", [*where, *COMMON, *more])


def test_a_method_is_a_class_of_its_own(tiny_model, tmp_path, toy_method, capsys):
    part = tmp_path / "part"
    assert run_toy(tiny_model, part, "--part", ".2", "--pre_train_eval") == 0
    before = files_with_times(part)
    assert run_toy(tiny_model, part, "--part", ".2", ".4", "--pre_train_eval") == 0
    after = files_with_times(part)
    kept = [p for p in before if p.relative_to(part).parts[0] in ("cells", "statistics")]
    assert len(kept) > 4
    for path in kept:
        assert after[path] == before[path], f"{path} was made again"
    output = capsys.readouterr().out
    whole = tmp_path / "whole"
    assert run_toy(tiny_model, whole, "--part", ".2", ".4", "--pre_train_eval") == 0
    assert without_timings(part) == without_timings(whole)
    assert (part / "eval_results" / MODEL / TOY / "Race_calculate0.4_run1.json").is_file()
    rows = pd.read_csv(part / "results.csv").query("method == @TOY")
    assert set(rows["size"]) == {0.2, 0.4}
    assert set(rows["against"]) == {"Race", "MMLU"}
    assert "First rows" in output
    assert "First rows" in (part / "report" / "report.html").read_text(encoding="utf-8")


def test_a_method_of_ours_is_compared_on_equal_terms(tmp_path, toy_method):
    """On the demo model, for a comparison takes a model that is better than guessing."""
    few = "--num_repeats 1 --num_samples 5 --eval_limit 12 --pre_train_eval".split()
    save_path = tmp_path / "r"
    flags = ["--part", ".1", ".5", *few, "--save_path", str(save_path)]
    assert run_experiment_script("Toy.py", "A toy.", flags) == 0
    assert TOY in set(pd.read_csv(save_path / "comparison.csv")["method"])
    assert (save_path / "report" / "isolation.png").is_file()


def test_a_method_of_ours_is_trained_by_fine_tune(tiny_model, tmp_path, toy_method, capsys):
    """Its name and its size's flag come from the descriptor."""
    with pytest.raises(SystemExit, match="0"):
        FineTune.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--part PART [PART ...] of first_rows: top fractions of every weight matrix" in told
    where = ["--model", str(tiny_model), "--save_path", str(tmp_path), *DEMO_DATA, *DEMO_TASKS]
    argv = [*where, "--train_data", DEMO.train_data, "--num_repeats", "1", "--num_samples", "5"]
    argv += "--eval_limit 4 --max_steps 2 --train_batch_size 2 --part .2".split()
    assert FineTune.main([*argv, "--selection", "wanda"]) == 2
    assert "--part 0.2: expected with it a --selection of first_rows" in capsys.readouterr().err
    assert FineTune.main([*argv, "--selection", TOY]) == 0
    rows = pd.read_csv(tmp_path / "results.csv").query("method == @TOY")
    assert set(rows["size"]) == {0.2}
    assert set(rows["edit"]) == {"train"}


class Noise:
    """A toy edit: noise on the selected weights."""

    def __init__(self, key: EditKey, selection: Selection, _change) -> None:
        self.key = key
        self.edited = selection.mask.count()
        self._mask = selection.mask

    @contextmanager
    def applied(self, model):
        generator = torch.Generator().manual_seed(int(self.key.value))

        def add_noise(_name, values):
            return values + torch.randn(values.shape, generator=generator)

        with changed_weights(model, self._mask, add_noise):
            yield None


NOISE = EditKind(
    "noise",
    "noise",
    Noise,
    "seed",
    Setting(
        "noise", int, "seeds of noise on the selected weights", many=True, range=whole(0, None)
    ),
    text=lambda value: f"drowned in noise {value:g}",
)


@pytest.fixture
def noise(monkeypatch):
    """A class and its facts, and nothing else."""
    monkeypatch.setitem(KINDS, "noise", NOISE)


def test_an_edit_of_ours_is_asked_for_judged_shown_and_resumed(tiny_model, tmp_path, noise, capsys):
    with pytest.raises(SystemExit, match="0"):
        MathNeuro.main(["--help"])
    assert "--noise NOISE [NOISE ...]" in capsys.readouterr().out
    case = SCRIPTS["mathneuro"]
    flags = [*case.one("--noise", "3", "4"), "--pre_train_eval"]
    assert case.run(tiny_model, tmp_path, *case.one("--noise", "-1")) == 2
    assert "--noise -1: expected a whole number" in capsys.readouterr().err
    assert case.run(tiny_model, tmp_path, *flags) == 0
    assert "drowned in noise 3" in capsys.readouterr().out
    for name in ("results.csv", "summary.csv"):
        rows = pd.read_csv(tmp_path / name).query("edit == 'noise'")
        assert set(rows["edit_value"]) == {3, 4}
    scaled = pd.read_csv(tmp_path / "results.csv").query("edit == 'scale'")
    assert set(scaled["edit_value"]) == {0}
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert ">drowned in noise 3</td>" in page
    before = files_with_times(tmp_path)
    assert case.run(tiny_model, tmp_path, *flags, "--noise", "3", "4", "5") == 0
    after = files_with_times(tmp_path)
    cells = [path for path in before if path.relative_to(tmp_path).parts[0] == "cells"]
    assert len(cells) == 7  # two sets, pruned and two noises, and the baseline
    assert all(after[path] == before[path] for path in cells)
    assert len([path for path in after if path.relative_to(tmp_path).parts[0] == "cells"]) == 9


def prepare(model: Path, save_path: Path):
    """What a worker is made of: settings, evidence and harnesses; statistics from the folder."""
    where = ["--model", str(model), "--save_path", str(save_path), *DEMO_DATA, *DEMO_TASKS]
    config = parse_experiment("MathNeuro.py", "", [*where, "--proportion", ".05", *COMMON])
    sets = {source.name: read_calibration_set(source) for source in config.data.sources}
    host = Host(Recipe(config.model, config.evaluation, {}))
    executor = LocalExecutor(host)
    executor.facts()
    loaded = host.loaded
    store = ResultStore(save_path, config.model.label)
    needed = [Needed("activation_norms", name) for name in ("math", "Race")]
    statistics = observe_sets(executor, config.data, sets, needed, store)
    evidence = make_evidence(loaded, Observations(statistics, [0.05], config.data.random_state))
    tasks = Tasks(config.evaluation)
    tasks.load(loaded.model.config, loaded.tokenizer)
    return config, loaded, store, Worker(loaded, evidence, tasks)


def key(edit: EditKey) -> CellKey:
    return CellKey(SelectionKey("mathneuro", against="Race", size=0.05), edit)


def test_an_edit_of_ours_goes_through_a_worker_and_is_undone_bit_for_bit(
    tiny_model, tmp_path, noise
):
    _, loaded, store, worker = prepare(tiny_model, tmp_path / "r")
    before = {name: bits(value) for name, value in copy.deepcopy(loaded.model.state_dict()).items()}
    noisy = key(EditKey("noise", (("seed", 3),)))
    result = worker.run(noisy)
    unedited = worker.run(CellKey())
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(bits(value), before[name]), name
    assert result.record.edited == result.selection.mask.count() > 0
    assert noisy.stem == "Race_calculate0.05_run0_noise_seed3"
    assert CellKey.from_record(noisy.record()) == noisy
    # The noise was there while the model answered.
    stories = [
        next(d["metrics"] for d in each.other.documents if d["task"] == "demo_stories")
        for each in (result, unedited)
    ]
    assert stories[0] != stories[1]
    store.write_cell(result)
    assert list(store.keys()) == [noisy]


def test_a_worker_prints_and_writes_nothing(tiny_model, tmp_path, capfd):
    _, _, _, worker = prepare(tiny_model, tmp_path / "r")
    before = files_with_times(tmp_path)
    capfd.readouterr()
    worker.run(key(scale_by(0.0)))
    assert capfd.readouterr() == ("", "")
    assert files_with_times(tmp_path) == before


def record(result, save_path: Path, config, store: ResultStore) -> None:
    lock = FolderLock(save_path)
    with lock.held():
        verdicts = VerdictTable(store, config.model.label)
        output = OutputConfig(save_path, save_masks=True)
        Recorder(store, lock, verdicts, output, {"model": "m"}).record(result)


def run_and_record(model: Path, save_path: Path):
    """In one process: load everything, compute one cell, record it. Sends the cell back, too."""
    torch.set_num_threads(1)
    config, _, store, worker = prepare(model, save_path)
    result = worker.run(key(scale_by(0.0)))
    record(result, save_path, config, store)
    return result


def test_a_cell_from_another_process_is_recorded_in_the_same_bytes(tiny_model, tmp_path):
    """The very same cell: the last digits of two computations may differ between processes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(run_and_record, tiny_model, tmp_path / "there").result()
    config, _, store, worker = prepare(tiny_model, tmp_path / "here")
    record(result, tmp_path / "here", config, store)
    assert store.is_done(key(scale_by(0.0)))
    names = [
        {p.relative_to(tmp_path / place) for p in files_with_times(tmp_path / place)}
        for place in ("here", "there")
    ]
    assert names[0] == names[1]
    assert without_timings(tmp_path / "here") == without_timings(tmp_path / "there")
    recorded = [n for n in names[0] if n.parts[0] in ("eval_results", "cells", "masks")]
    assert len({n.parts[0] for n in recorded}) == 3
    for name in recorded:
        here, there = (tmp_path / place / name for place in ("here", "there"))
        if name.parts[0] == "masks":  # safetensors may order its tensors as it likes
            assert load_mask(here) == load_mask(there)
        else:
            assert here.read_bytes() == there.read_bytes(), name
    # And a cell that is computed here says the same.
    own = worker.run(key(scale_by(0.0)))
    assert own.selection.mask == result.selection.mask
    assert [d["prompt_hash"] for d in own.math.documents] == [
        d["prompt_hash"] for d in result.math.documents
    ]
