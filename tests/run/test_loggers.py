"""Trackio and wandb are told of finished cells: the same run again, and never at a cell's cost."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
from conftest import ROOT
from scripts import SCRIPTS

from neurosurgery.results.store import ResultStore
from neurosurgery.run.loggers import cell_row, told_of_cells
from neurosurgery.settings import loggers as config
from neurosurgery.settings.identity import Fact, Identity
from neurosurgery.settings.loggers import LOGGERS

CASE = SCRIPTS["mathneuro"]
BOTH = ["--report_to", *LOGGERS]


class Fake(ModuleType):
    """A library that notes its calls in `calls`, and fails where it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple] = []
        self.fails: dict[str, Exception] = {}
        self.logged_in = True
        self.Settings = dict

    def _call(self, name, *content):
        print("chatter of", self.__name__)
        self.calls.append((name, *content))
        if name in self.fails:
            raise self.fails[name]

    def init(self, **arguments):
        self._call("init", arguments)
        return SimpleNamespace(
            log=lambda row, step: self._call("log", step, row),
            finish=lambda exit_code: self._call("finish", exit_code),
        )

    def finish(self):
        self._call("finish", 0)

    def login(self, prompt):
        assert prompt is False
        return self.logged_in

    def setup(self):
        return SimpleNamespace(settings=SimpleNamespace(mode=os.environ.get("WANDB_MODE")))

    def named(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


@pytest.fixture
def fakes(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    found = {name: Fake(name) for name in LOGGERS}
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        config.importlib.util, "find_spec", lambda name: found.get(name) or find_spec(name)
    )
    for name, fake in found.items():
        monkeypatch.setitem(sys.modules, name, fake)
    return found


@pytest.fixture
def store(tmp_path):
    store = ResultStore(tmp_path / "folder", "meta-llama/Llama")
    facts = [Fact("model", "m"), Fact("num_samples", 3, "norms")]
    store.write_config(Identity(facts), {"started": "today"})
    return store


ROWS = [
    {"method": "wanda", "repeat": 0, "against": None, "task": "race", "metric": "acc,none"}
    | {"value": 0.5, "difference": -0.25},
    {"method": "wanda", "repeat": 0, "task": "sums", "metric": "exact_match,strict", "value": 0.0},
]
ROW = {"method": "wanda", "repeat": 0, "race/acc": 0.5, "difference/race/acc": -0.25}
ROW |= {"sums/exact_match/strict": 0.0}


def test_a_cell_is_one_row():
    assert cell_row(ROWS) == ROW
    assert cell_row([]) == {}


def test_a_folder_has_one_run_in_each(fakes, store, capsys):
    for number in (1, 2):
        with told_of_cells(LOGGERS, store, print) as tell:
            tell(number, ROWS)
        store.write_config(Identity(), {"started": "tomorrow"})
    for name, fake in fakes.items():
        (first,), (second,) = fake.named("init")
        assert first == second
        assert first["resume"] == "allow"
        assert first["project"] == "neurosurgery"
        assert first["name"].startswith("folder meta-llama--Llama ")
        assert first["config"] == {"model": "m", "num_samples (norms)": 3}
        assert first.get("id") == (first["name"].split()[-1] if name == "wandb" else None)
        assert fake.named("log") == [(1, ROW), (2, ROW)]
        assert fake.named("finish") == [(0,), (0,)]
    assert capsys.readouterr().out == ""
    assert "chatter of wandb" in (store.root / "logs" / "report_to.log").read_text()
    # Another folder is another run.
    other = ResultStore(store.root.parent / "new" / "folder", store.model)
    other.write_config(Identity(), {"started": "yesterday"})
    with told_of_cells(["trackio"], other, print):
        pass
    assert fakes["trackio"].named("init")[-1][0]["name"] != first["name"]


def test_what_the_user_has_set_for_wandb_wins(fakes, store, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.setenv("WANDB_SILENT", "false")
    with told_of_cells(LOGGERS, store, print):
        pass
    (arguments,) = fakes["wandb"].named("init")[0]
    assert {"project", "id"}.isdisjoint(arguments)
    assert set(arguments["settings"]) == {"console", "finish_timeout"}
    assert fakes["trackio"].named("init")[0][0]["project"] == "neurosurgery"


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_failure_is_one_line_and_the_other_goes_on(fakes, store, where):
    told: list[str] = []
    # What fails once fails from then on, and is not said again.
    for name in ("init", "log", "finish")[("init", "log", "finish").index(where) :]:
        fakes["wandb"].fails[name] = OSError("the network is away\nand a traceback")
    with told_of_cells(LOGGERS, store, told.append) as tell:
        for number in range(3):
            tell(number, ROWS)
    line = "--report_to wandb: failed, and the run goes on without: the network is away"
    assert told == [line]
    assert len(fakes["trackio"].named("log")) == 3
    assert len(fakes["wandb"].named("log")) == {"init": 0, "log": 1, "finish": 3}[where]
    # What has started is finished, also where it failed since.
    assert len(fakes["wandb"].named("finish")) == (0 if where == "init" else 1)
    assert len(fakes["trackio"].named("finish")) == 1


def test_a_warning_of_a_library_is_no_error(fakes, store):
    told: list[str] = []
    fakes["trackio"].finish = lambda: warnings.warn("could not flush", stacklevel=1)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("error")
        with told_of_cells(LOGGERS, store, told.append):
            pass
    assert told == []
    assert [str(each.message) for each in found] == ["could not flush"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_both_are_finished_after_an_error(fakes, store, error):
    with pytest.raises(error), told_of_cells(LOGGERS, store, print):
        raise error
    assert fakes["wandb"].named("finish") == [(1,)]
    assert len(fakes["trackio"].named("finish")) == 1


def test_ctrl_c_while_the_second_one_starts_finishes_the_first(fakes, store):
    fakes["wandb"].fails["init"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), told_of_cells(LOGGERS, store, print):
        pass
    assert len(fakes["trackio"].named("finish")) == 1


def test_a_grid_tells_of_its_cells_and_goes_on_with_the_same_run(fakes, tiny_model, tmp_path):
    once = CASE.one("--pre_train_eval", *BOTH)
    assert CASE.run(tiny_model, tmp_path, *once) == 0
    assert CASE.run(tiny_model, tmp_path, *once, "--num_repeats", "2") == 0
    for fake in fakes.values():
        steps = [step for step, _ in fake.named("log")]
        assert steps == [1, 2, 3, 4, 5]
        (first,), (second,) = fake.named("init")
        assert first["name"] == second["name"]
        assert first["config"]["model"] == "tiny-llama"
        rows = [row for _, row in fake.named("log")]
        assert rows[0]["method"] == "baseline"
        assert {row["repeat"] for row in rows[3:]} == {1}
        assert all("demo_race/acc" in row for row in rows)
        assert "difference/demo_race/acc" in rows[1]
    # Nothing to do is nothing to tell.
    assert CASE.run(tiny_model, tmp_path, *once) == 0
    assert len(fakes["wandb"].named("init")) == 2


@pytest.mark.parametrize("name", LOGGERS)
def test_a_missing_library_is_one_line(name, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(config.importlib.util, "find_spec", lambda _name: None)
    assert CASE.run(tiny_model, tmp_path / "r", "--report_to", name) == 2
    told = capsys.readouterr().err
    assert told.endswith(f"error: --report_to {name}: expected with it pip install {name}\n")
    assert told.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_wandb_without_an_account_is_one_line(fakes, tiny_model, tmp_path, monkeypatch, capsys):
    fakes["wandb"].logged_in = False
    assert CASE.run(tiny_model, tmp_path / "r", *BOTH) == 2
    assert "--report_to wandb: expected with it wandb login, WANDB_API_KEY" in (
        capsys.readouterr().err
    )
    monkeypatch.setenv("WANDB_MODE", "offline")
    config.check_loggers(LOGGERS)


def test_without_their_flags_nothing_of_them_nor_of_ray_is_imported(tiny_model, tmp_path):
    code = (
        "import sys, MathNeuro\n"
        "assert MathNeuro.main(sys.argv[1:]) == 0\n"
        "assert not {'trackio', 'wandb', 'ray'} & {n.partition('.')[0] for n in sys.modules}\n"
    )
    flags = CASE.flags(tiny_model, tmp_path, *CASE.one())
    subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, LOGGERS)), reason="needs pip install trackio wandb"
)
def test_the_real_libraries_offline(tiny_model, tmp_path):
    folder, stored = tmp_path / "results", tmp_path / "stored"
    stored.mkdir()
    places = {"WANDB_DIR": str(stored), "TRACKIO_DIR": str(stored), "WANDB_MODE": "offline"}
    for more in ([], ["--num_repeats", "2"]):
        command = [sys.executable, "-W", "error", str(ROOT / CASE.file)]
        done = subprocess.run(
            [*command, *CASE.flags(tiny_model, folder, *CASE.one(*BOTH, *more))],
            env=os.environ | places,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not [n for n in (*LOGGERS, "failed") if n in (done.stdout + done.stderr).lower()]
    with sqlite3.connect(stored / "neurosurgery.db") as database:
        rows = database.execute("select run_id, step, metrics from metrics order by id").fetchall()
    assert [step for _, step, _ in rows] == [1, 2, 3, 4]
    assert len({run for run, _, _ in rows}) == 1
    assert json.loads(rows[0][2])["method"] == "mathneuro"
    runs = [path.name.rpartition("-")[2] for path in (stored / "wandb").glob("offline-run-*")]
    assert len(runs) == 2
    assert len(set(runs)) == 1
