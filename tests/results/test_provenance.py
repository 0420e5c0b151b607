"""Whatever a number depends on is part of a folder's identity."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from neurosurgery.cli.scripts import SCRIPTS, groups_of
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.results import file_hashes, provenance
from neurosurgery.results.provenance import (
    facts_of_model,
    facts_of_sets,
    facts_of_tasks,
    model_fingerprint,
)
from neurosurgery.settings.declare import Setting, resolve
from neurosurgery.settings.experiment import (
    CalibrationSource,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
)
from neurosurgery.settings.identity import CELLS, EFFECTS, TRAININGS, Fact, Identity
from neurosurgery.settings.parts import flag_of

CSV = Path("some.csv")
SOURCES = (CalibrationSource("Race", CSV), CalibrationSource("MMLU", CSV))
MODEL = ModelConfig("some/model")
DATA = DataConfig(CalibrationSource("math", CSV), SOURCES, 500, 5, 42)
SETS = {
    name: CalibrationSet(name, ("a", "b"), sha256)
    for name, sha256 in (("math", "a" * 64), ("Race", "b" * 64), ("MMLU", "c" * 64))
}

COMPUTED = {
    "model, revision and dtype, once they are resolved": "model revision dtype",
    "by content": "skill_data other_data train_data prompts",
    "with a kind of statistics, of a method over all sets": "num_samples other_names",
    "of files and folders, by content": "selection path_patching",
    "of the units that are removed": "ablation",
    "as far as it lowers other counts": "documents",
    "by the samples that stay": "drop_used",
}
"""Settings that are part of the identity in another form than their value."""

OTHERS = {
    "more of them add cells": "methods twins skill proportion ratio top scalar num_repeats "
    "pre_train_eval learning_rate",
    "how cells are computed": "device device_map batch_tokens eval_batch_size workers "
    "gpus_per_worker cpus_per_worker ray_address verbose save_steps",
    "points of the curve, which say them themselves": "positions num_draws",
    "where to, what else is written, how it is shown": "save_path text_file margin skill_name "
    "topic_matched min_expert_tokens save_masks save_model report_to overwrite dry_run json quiet",
    "which cells are computed here": "shard",
    "it chooses others, which are compared": "budget",
    "what is trusted; its task files are part of the tasks": "trust_remote_code include_path",
}
"""Settings in which the runs of a folder may differ."""


def declared(script: str) -> list[Setting]:
    return [one for group in groups_of(script).values() for one in group]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_setting_is_judged_here(script):
    without = {name for names in (COMPUTED | OTHERS).values() for name in names.split()}
    for one in declared(script):
        assert (one.name in without) != bool(one.identity) or (
            # Of path patching the seed makes prompts; elsewhere it draws samples of every cell.
            one.name == "random_state"
        ), one.name


def facts(script: str, **given: object) -> Identity:
    """The facts that the settings of a script tell of."""
    nothing = {one.name: None for one in declared(script)}
    # Without a model the demo's values would hold.
    settings = resolve(script, [], groups_of(script), nothing | {"model": "m"} | given)
    return settings.facts(CELLS) | settings.facts(EFFECTS) | settings.facts(TRAININGS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_changed_setting_is_another_identity(script):
    """Exactly the settings that are declared so; one fact is named."""
    samples = {bool: [True], int: [7], float: [0.25, 3.0], str: ["x", "1/2"], Path: [Path("x")]}
    for one in declared(script):
        values = [value for value in one.choices or samples[one.kind] if value != one.default]
        value = next(v for v in values if one.range is None or one.range.refuse(v) is None)
        changed = facts(script, **{one.name: [value] if one.many else value})
        before = facts(script)
        different = [fact.setting for fact in changed if fact not in list(before)]
        caps = [other.name for other in declared(script) if other.capped_by == one.name]
        assert different == ([one.name] if one.identity else caps), one.name


def test_the_order_of_tasks_does_not_count():
    first, second = (
        facts("MathNeuro.py", other_tasks=names) for names in (["race", "mmlu"], ["mmlu", "race"])
    )
    assert first.difference(second) is None


def test_the_number_of_documents_is_the_smaller_one():
    names = ("skill_documents", "other_documents")
    for given, expected in (
        ({}, (100, None)),
        ({"documents": 20}, (20, 20)),
        ({"documents": 200, "other_documents": 30}, (100, 30)),
        ({"skill_documents": 7, "documents": 9}, (7, 9)),
    ):
        found = facts("MathNeuro.py", **given)
        assert tuple(found.value(name) for name in names) == expected
    assert flag_of("skill_documents") == "--eval_dataset_subset/--eval_limit"


def test_number_format_commit_and_harness(monkeypatch):
    def of(dtype: str, commit: str | None) -> Identity:
        return facts_of_model(MODEL, dtype, commit)

    assert of("bfloat16", None).difference(of("float32", None))[0].setting == "dtype"
    assert of("float32", "abc").difference(of("float32", "def"))[0].name == "model (files)"
    assert of("float32", "abc").difference(of("float32", None)) is None, "unknown is no difference"
    asked = EvaluationConfig("t", (), None, None, None, False, None, 4)
    before = facts_of_tasks(asked)
    monkeypatch.setattr(provenance.importlib.metadata, "version", lambda _name: "9.9")
    assert before.difference(facts_of_tasks(asked))[0].setting == "lm-eval"


def of_sets(sets=SETS, *, data=DATA, methods=("mathneuro",)) -> Identity:
    return facts_of_sets(data, methods, sets)


@pytest.mark.parametrize("name", SETS)
def test_the_contents_of_every_calibration_set(name):
    changed = of_sets(SETS | {name: replace(SETS[name], sha256="d" * 64)})
    (different,) = [fact for fact in of_sets() if fact not in list(changed)]
    expected = ("skill_data", "") if name == "math" else ("other_data", name)
    assert (different.setting, different.about) == expected
    # Where it comes from is told, and does not count.
    elsewhere = replace(DATA, math=CalibrationSource("math", Path("else.csv")))
    assert of_sets(data=elsewhere).difference(of_sets()) is None


def test_another_set_adds_cells_but_changes_those_of_a_method_over_all_sets():
    fewer = replace(DATA, calibration=SOURCES[:1])
    assert of_sets(data=fewer).difference(of_sets()) is None
    whole, part = (of_sets(data=data, methods=("lape",)) for data in (DATA, fewer))
    assert part.difference(whole)[0].name == "other_names (lape)"


def test_a_kind_of_statistics_has_its_own_number_of_samples():
    other = of_sets(data=replace(DATA, num_samples=100), methods=("lape",))
    assert other.difference(of_sets()) is None
    assert of_sets(data=replace(DATA, num_samples=100)).difference(of_sets())


def test_an_identity_is_read_as_it_was_written():
    whole = Identity(
        [Fact("a", (1, 2)), Fact("b", {"content": "x", "left out": 3}, "set", "f.csv")]
    )
    again = Identity.from_json(json.loads(json.dumps(whole.to_json())))
    assert whole.difference(again) is None
    assert again.difference(whole) is None
    assert again.sha256 == whole.sha256 == (Identity() | reversed(list(whole))).sha256
    assert again.value("b", "set") == {"content": "x", "left out": 3}
    changed = whole | [Fact("b", {"content": "y"}, "set", "g.csv")]
    assert [fact.text for fact in whole.difference(changed)] == [
        "f.csv (content x, left out 3)",
        "g.csv (content y)",
    ]
    values = (None, True, False, 0, 1, 0.5, "x", ["a", "b"])
    texts = ["no value", "on", "off", "0", "1", "0.5", "x", "a b"]
    assert [Fact("a", value).text for value in values] == texts
    assert changed.sha256 != whole.sha256
    assert len(whole | changed) == 2


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "model.safetensors", "pytorch_model.bin", "chat_template.jinja"),
        *("tokenizer.model", "merges.txt", "qwen.tiktoken", "modeling_own.py"),
    ],
)
def test_a_changed_file_of_a_local_model(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text("one")
    before = model_fingerprint(str(tmp_path), None)
    (tmp_path / name).write_text("two")
    assert model_fingerprint(str(tmp_path), None) != before
    (tmp_path / name).write_text("one")
    assert model_fingerprint(str(tmp_path), "commit") == before
    (tmp_path / "README.md").write_text("no matter")
    assert model_fingerprint(str(tmp_path), None) == before
    (tmp_path / name).unlink()
    assert model_fingerprint(str(tmp_path), None) != before
    assert facts_of_model(ModelConfig(str(tmp_path)), "float32", None).value("model", "files")


LARGE = 20_000_000


def set_back(path: Path, seconds: int) -> None:
    """Let a file be older, as one is that was downloaded yesterday."""
    now = time.time_ns() - seconds * 10**9
    os.utime(path, ns=(now, now))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache's folder, empty, of a process that remembers nothing; files are at rest at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "_remembered", {})
    monkeypatch.setattr(file_hashes, "_AT_REST_NS", -(10**12))
    return tmp_path / "cache" / "neurosurgery" / "fingerprints"


@pytest.fixture
def large(tmp_path, cache):
    """A folder with a large file of weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(LARGE))
    return folder


def edit(path: Path, at: int) -> None:
    """Change one byte in place, as a sparse edit of a weight does."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\1")


def read_anew(monkeypatch) -> list[Path]:
    """The files that are read from now on."""
    read, found = file_hashes._read, []
    monkeypatch.setattr(file_hashes, "_read", lambda path: found.append(path) or read(path))
    return found


def test_every_byte_of_a_large_file_counts(large):
    """One byte in each of 20 places, none of which 16 MiB of samples would have to hit."""
    found = {model_fingerprint(str(large), None)}
    for place in np.random.default_rng(0).integers(LARGE, size=20):
        edit(large / "model.safetensors", int(place))
        found.add(model_fingerprint(str(large), None))
    assert len(found) == 21


def test_a_large_file_is_read_once_in_all_processes(large, cache, monkeypatch):
    read = read_anew(monkeypatch)
    first = model_fingerprint(str(large), None)
    assert model_fingerprint(str(large), None) == first
    monkeypatch.setattr(file_hashes, "_remembered", {})
    assert model_fingerprint(str(large), None) == first
    assert len(read) == 1
    assert len(list(cache.iterdir())) == 1
    # The same with nothing in the cache.
    shutil.rmtree(cache)
    monkeypatch.setattr(file_hashes, "_remembered", {})
    assert model_fingerprint(str(large), None) == first
    assert len(read) == 2


@pytest.mark.parametrize("kind", ["edited", "time set back", "replaced", "longer"])
def test_a_changed_file_is_read_again(kind, large, tmp_path):
    file = large / "model.safetensors"
    set_back(file, 10_000)
    before = model_fingerprint(str(large), None)
    stat = file.stat()
    if kind == "replaced":
        (tmp_path / "other").write_bytes(bytes([1]) * LARGE)
        os.utime(tmp_path / "other", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        (tmp_path / "other").replace(file)
    elif kind == "longer":
        file.write_bytes(bytes(LARGE + 1))
    else:
        edit(file, 5_000_000)
    if kind == "time set back":
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert model_fingerprint(str(large), None) != before


def test_nothing_is_remembered_of_a_file_that_was_just_written(large, cache, monkeypatch):
    """A second write within one tick of the clock would leave size and times as they are."""
    monkeypatch.setattr(file_hashes, "_AT_REST_NS", 2_000_000_000)
    read = read_anew(monkeypatch)
    assert model_fingerprint(str(large), None) == model_fingerprint(str(large), None)
    assert len(read) == 2
    assert not cache.exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "[" * 100_000, "\xff\xfe", '{"sha256": 3}', '{"sha256": "../x"}'],
)
def test_a_damaged_cache_is_as_good_as_none(content, large, cache, monkeypatch):
    before = model_fingerprint(str(large), None)
    (entry,) = cache.iterdir()
    entry.write_bytes(content.encode("latin-1"))
    monkeypatch.setattr(file_hashes, "_remembered", {})
    assert model_fingerprint(str(large), None) == before
    # It is whole again.
    assert json.loads(entry.read_text())["size"] == LARGE


def test_an_entry_of_another_file_is_not_trusted(large, cache, monkeypatch):
    before = model_fingerprint(str(large), None)
    (entry,) = cache.iterdir()
    content = json.loads(entry.read_text())
    for name in ("path", "device", "inode", "size", "mtime_ns", "ctime_ns"):
        entry.write_text(json.dumps(content | {name: "x", "sha256": "0" * 64}))
        monkeypatch.setattr(file_hashes, "_remembered", {})
        assert model_fingerprint(str(large), None) == before


@pytest.mark.parametrize("place", ["a file", "nowhere", "relative", "no home"])
def test_a_cache_that_cannot_be_written_changes_nothing(place, large, tmp_path, monkeypatch):
    before = model_fingerprint(str(large), None)
    monkeypatch.setattr(file_hashes, "_remembered", {})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if place == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    else:
        (tmp_path / "file").write_text("")
        places = {"a file": str(tmp_path / "file"), "nowhere": "/proc/no/cache", "relative": "x"}
        monkeypatch.setenv("XDG_CACHE_HOME", places[place])
    monkeypatch.chdir(tmp_path)
    assert model_fingerprint(str(large), None) == before
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "~").exists()


def test_processes_at_the_same_time_share_the_cache(large, cache):
    code = (
        "import sys; from neurosurgery.results import file_hashes, provenance\n"
        "file_hashes._AT_REST_NS = -(10**12)\n"
        "print(provenance.model_fingerprint(sys.argv[1], None))"
    )
    argv = [sys.executable, "-c", code, str(large)]
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT, text=True))
            for _ in range(2)
        ]
        found = {process.communicate()[0].strip() for process in started}
    assert found == {model_fingerprint(str(large), None)}
    assert [path.suffix for path in cache.iterdir()] == [".json"]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("sub/modeling_own.py", True),
        ("additional_chat_templates/tool.jinja", True),
        ("weights/part1.bin", True),
        ("vocab.bpe", True),
        ("spiece.vocab", True),
        ("weights.pth", True),
        ("adapter_model.safetensors", True),
        ("LICENSE", False),
        ("figure.png", False),
        ("optimizer.pt", False),
        ("model.Q4_0.gguf", False),
        (".git/config", False),
        (".cache/x.py", False),
        ("checkpoint-5/model.safetensors", False),
    ],
)
def test_which_files_are_the_model(tmp_path, name, counts):
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"a": "weights/part1.bin", "b": "../outside.bin", "c": "gone.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("one")
    before = model_fingerprint(str(tmp_path), None)
    file.write_text("two")
    assert (model_fingerprint(str(tmp_path), None) != before) == counts


def test_the_base_of_an_adapter_belongs_to_the_model(tmp_path):
    for name in ("base", "adapted"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    adapter = {"base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapted" / "adapter_config.json").write_text(json.dumps(adapter))
    before = model_fingerprint(str(tmp_path / "adapted"), None)
    (tmp_path / "base" / "model.safetensors").write_text("weights")
    assert model_fingerprint(str(tmp_path / "adapted"), None) != before
    # One that names itself ends, too.
    own = {"base_model_name_or_path": str(tmp_path / "adapted")}
    (tmp_path / "adapted" / "adapter_config.json").write_text(json.dumps(own))
    assert model_fingerprint(str(tmp_path / "adapted"), None)


def test_a_hub_model_is_its_commit():
    assert model_fingerprint("some/model", "abc") == "abc"
    assert model_fingerprint("some/model", None) is None
    assert facts_of_model(MODEL, "float32", None).value("model", "files") is None


def test_what_is_left_out_of_a_set_is_part_of_it():
    drop = replace(DATA, drop_used=True)
    left = of_sets(SETS | {"MMLU": replace(SETS["MMLU"], left_out=3)}, data=drop)
    assert left.value("skill_data") is None, "it is unknown before the sets are compared"
    known = {name: replace(found, left_out=0) for name, found in SETS.items()}
    assert of_sets(known, data=drop).difference(of_sets()) is None
    known["MMLU"] = replace(SETS["MMLU"], left_out=3)
    assert of_sets(known, data=drop).difference(of_sets())[0].name == "other_data (MMLU)"
