"""What `--dry_run` says a run costs is what it costs: requests, masks, models, and what is free."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter

import huggingface_hub
import psutil
import pytest
import torch
from scripts import SCRIPTS

import FineTune
import PathPatching
from neurosurgery.common.hub import offline
from neurosurgery.common.json_files import read_sealed, sealed
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.evaluation.request_sizes import request_sizes
from neurosurgery.models.shapes import ModelSize
from neurosurgery.run import plan_cost
from neurosurgery.run.plan_text import FORMAT, size_text

CASE = SCRIPTS["mathneuro"]
OWN = ["--pre_train_eval", "--documents_from", "own", "--save_masks", "--save_model"]


def plan_of(capsys, run, *arguments) -> dict:
    capsys.readouterr()
    assert run(*arguments) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def counted(monkeypatch) -> Counter:
    """The requests that the harness makes of models."""
    found: Counter = Counter()
    for name in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        usual = getattr(LanguageModel, name)

        def count(self, requests, *more, usual=usual, **named):
            found["requests"] += len(requests)
            for request in requests:
                found["tokens"] += sum(
                    len(self.tokenizer.encode(text, add_special_tokens=False))
                    for text in request.args
                    if isinstance(text, str)
                )
            return usual(self, requests, *more, **named)

        monkeypatch.setattr(LanguageModel, name, count)
    return found


def test_what_is_said_is_what_is_asked_and_written(tiny_model, tmp_path, capsys, counted):
    folder = tmp_path / "r"
    told = plan_of(capsys, CASE.run, tiny_model, folder, *OWN, "--dry_run", "--json")
    assert told["format"] == FORMAT
    assert not folder.exists()
    assert CASE.run(tiny_model, folder, *OWN) == 0
    # Documents and requests to the number; the demo's tasks join no ends of prompt and option.
    assert told["in_all"]["requests"] == counted["requests"]
    assert told["in_all"]["tokens"] == counted["tokens"]
    answers = 0
    for path in (folder / "cells").rglob("*.json"):
        found = {(one["task"], one["doc_id"]) for one in read_sealed(path)["answers"]}
        answers += len(found)
        if path.stem == "pre_results":
            of_baseline = sum(one["of_baseline"]["documents"] for one in told["tasks"].values())
            assert len(found) == of_baseline
    assert told["in_all"]["documents"] == answers
    assert told["states_to_do"] == 9
    # Masks to the bit; their headers, and those of models with their cards, are not in it.
    masks = list((folder / "masks").rglob("*.safetensors"))
    said = told["disk"]["writes"]
    assert len(masks) == 8
    rest = sum(path.stat().st_size for path in masks) - said["--save_masks"]
    assert 0 < rest < 8 * 10_000
    models = [path for path in (folder / "models").rglob("*") if path.is_file()]
    weights = sum(p.stat().st_size for p in models if p.suffix == ".safetensors")
    rest = sum(path.stat().st_size for path in models) - said["--save_model"]
    assert 0 < rest < 8 * 10_000
    assert weights > 8 * told["memory"]["parts"]["weights"]
    statistics = [path for path in (folder / "statistics").rglob("*") if path.is_file()]
    rest = sum(path.stat().st_size for path in statistics) - said["statistics"]
    assert 0 < rest < len(statistics) * 10_000
    # And of a finished folder nothing is left.
    again = plan_of(capsys, CASE.run, tiny_model, folder, *OWN, "--dry_run", "--json")
    assert again["in_all"] == dict.fromkeys(again["in_all"], 0)
    assert set(again["disk"]["writes"].values()) <= {0}


def test_hours_come_from_the_cells_that_are_there(tiny_model, tmp_path, capsys):
    one = CASE.one("--pre_train_eval")
    assert CASE.run(tiny_model, tmp_path, *one) == 0
    for path in (tmp_path / "cells").rglob("*.json"):
        content = read_sealed(path) | {"seconds": 90.0 if path.stem == "pre_results" else 30.0}
        path.write_text(sealed(content))
    more = [*one, "--num_repeats", "4", "--dry_run"]
    told = plan_of(capsys, CASE.run, tiny_model, tmp_path, *more, "--json")
    # Six further cells; the baseline is there.
    assert told["time"]["left"] == 180.0
    assert told["time"]["cells_looked_at"] == 2
    assert CASE.run(tiny_model, tmp_path, *more) == 0
    assert "time         about 3 minutes for the cells alone" in capsys.readouterr().out


def test_without_a_cell_the_command_that_measures_it_is_said(tiny_model, tmp_path, capsys):
    folder = tmp_path / "new"
    told = plan_of(capsys, CASE.run, tiny_model, folder, "--dry_run", "--json")
    assert told["time"]["left"] is None
    command = told["time"]["measured_by"]
    assert command.startswith("timeout -s INT 15m python MathNeuro.py --model ")
    assert "--dry_run" not in command
    assert "--json" not in command
    assert CASE.run(tiny_model, folder, "--dry_run") == 0
    assert command in capsys.readouterr().out


def test_what_does_not_fit_is_warned_of(tiny_model, tmp_path, capsys, monkeypatch):
    Usage = type(psutil.disk_usage("/"))
    monkeypatch.setattr(plan_cost.shutil, "disk_usage", lambda _: Usage(10, 5, 200_000, 50.0))
    available = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(plan_cost.psutil, "virtual_memory", lambda: available)
    flags = ["--save_model", "--dry_run"]
    assert CASE.run(tiny_model, tmp_path / "r", *flags) == 0
    told = capsys.readouterr().out
    assert "WARNING: --save_model would write" in told
    assert "0.2 MB are free" in told
    assert "WARNING: it does not fit" in told
    found = plan_of(capsys, CASE.run, tiny_model, tmp_path / "r", *flags, "--json")
    assert found["disk"]["fits"] is False
    assert [one["fits"] for one in found["memory"]["devices"]] == [False]


def test_nothing_is_downloaded_and_what_is_missing_is_said(
    tiny_model, tmp_path, capsys, monkeypatch
):
    """A task whose data are not here is left out; nobody is asked for it."""

    def refuse(*_arguments, **_named):
        raise AssertionError("something was asked for on the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    flags = CASE.flags(tiny_model, tmp_path / "r")
    flags[flags.index("--eval_datasets") + 1] = "race"
    told = plan_of(capsys, CASE.main, [*flags, "--dry_run", "--json"])
    assert told["tasks_not_here"] == ["race"]
    assert "race" not in told["tasks"]
    assert told["tasks"]
    assert CASE.main([*flags, "--dry_run"]) == 0
    assert "race is left out here" in capsys.readouterr().out
    # Elsewhere the libraries ask again.
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert "HF_HUB_OFFLINE" not in os.environ
    with offline():
        assert huggingface_hub.constants.is_offline_mode()
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--json"], "--json: expected with it --dry_run"),
        (["--shard", "4/3"], "--shard 4/3: expected I/N with I from 1 to N"),
        (["--shard", "1"], "--shard 1: expected I/N"),
        (["--shard", "1/2", "--stop_early"], "cannot be had with --stop_early"),
        (["--shard", "1/2", "--budget", "5"], "cannot be had with --budget"),
    ],
)
def test_what_cannot_be_had_together_is_refused(flags, message, tiny_model, tmp_path, capsys):
    assert CASE.run(tiny_model, tmp_path / "r", *flags) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_a_shard_counts_its_own_cells(tiny_model, tmp_path, capsys):
    flags = ["--pre_train_eval", "--dry_run", "--json"]
    whole = plan_of(capsys, CASE.run, tiny_model, tmp_path / "r", *flags)
    of = [
        plan_of(capsys, CASE.run, tiny_model, tmp_path / "r", *flags, "--shard", f"{n}/3")
        for n in (1, 2, 3)
    ]
    assert [one["states_to_do"] for one in of] == [4, 4, 3]
    # Each asks the baseline, too.
    baseline = whole["a_state"]["requests"]
    every = sum(one["in_all"]["requests"] for one in of)
    assert every - 2 * baseline == whole["in_all"]["requests"]


def test_path_patching_and_trainings_say_what_they_cost(tmp_path, capsys):
    folder = str(tmp_path / "r")
    heads = plan_of(capsys, PathPatching.main, ["--save_path", folder, "--dry_run", "--json"])
    assert heads["memory"]["passing"]["prompts"] > 0
    flags = ["--save_path", folder, "--dry_run", "--json", "--selection", "wanda", "all"]
    flags += ["--proportion", "0.1"]
    told = plan_of(capsys, FineTune.main, flags)
    # A change in float32 of every weight, or of a tenth; a bit for every weight in each file.
    scored = 3_407_872
    expected = sum(scored // 8 + int(4 * share * scored) for share in (0.1, 1.0))
    assert told["disk"]["writes"]["trainings"] == expected
    shard = ["--model", "demo/model", "--save_path", folder, "--shard", "1/2"]
    assert PathPatching.main(shard) == 2
    assert "--shard 1/2: expected with it tasks" in capsys.readouterr().err


class Ask:
    """A request of the harness, as far as its size goes."""

    def __init__(self, kind, *arguments, repeats=1):
        self.request_type, self.arguments, self.repeats, self.doc_id = kind, arguments, repeats, 7


def test_the_tokens_of_a_request(tokenizer):
    text = "one two three four five six"
    length = len(tokenizer.encode(text, add_special_tokens=False))
    option = len(tokenizer.encode(" seven", add_special_tokens=False))
    asked = [
        Ask("loglikelihood", text, " seven"),
        Ask("loglikelihood_rolling", text),
        Ask("generate_until", text, {"until": ["."], "max_gen_toks": 5}, repeats=3),
    ]
    scored, rolling, generated = request_sizes(asked, tokenizer, 512)
    assert scored == (7, 1, length + option, 0, length + option, option)
    assert rolling == (7, 1, length, 0, length, length)
    assert generated == (7, 3, 3 * length, 15, length + 5, 1)
    # What is beyond the context is cut.
    cut = request_sizes(asked, tokenizer, length - 1)
    assert [one.tokens for one in cut] == [length, length, 3 * (length - 6)]


def test_memory_of_a_gpu_is_counted_by_device(tiny_model, tmp_path, capsys, monkeypatch):
    """Two GPUs and three workers of half a GPU each: two share one."""
    size = ModelSize(1000, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0)
    memory = plan_cost.Memory({"weights": size.weights, "statistics": 50}, {"a": 10, "b": 30})
    assert memory.total == 1080
    monkeypatch.setattr(plan_cost, "choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda n: (2000 + n, 4000))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)

    class Study:
        class config:
            class model:
                device_map = None
                device = None

    alone = plan_cost._devices(Study, memory, None)
    assert [(one.name, one.needed, one.free) for one in alone[:-1]] == [("cuda:1", 1080, 2001)]
    assert alone[-1].needed == 1000
    workers = plan_cost.WorkersConfig(3, 0.5)
    shared = plan_cost._devices(Study, memory, workers)
    assert [(one.name, one.needed, one.fits) for one in shared[:-1]] == [
        ("cuda:0", 2160, False),
        ("cuda:1", 2160, False),
    ]
    Study.config.model.device_map = "auto"
    split = plan_cost._devices(Study, memory, None)
    assert [one.needed for one in split[:-1]] == [580, 580]
    away = plan_cost._devices(Study, memory, plan_cost.WorkersConfig(3, address="auto"))
    assert [(one.needed, one.fits) for one in away] == [(1080, None)]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 MB"), (15_213_568, "15.2 MB"), (16_060_522_496, "16.1 GB"), (1.3e12, "1.3 TB")],
)
def test_sizes_are_told_in_their_unit(count, text):
    assert size_text(count) == text
