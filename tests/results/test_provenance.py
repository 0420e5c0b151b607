"""Whatever changes what a number means is part of a folder's meaning."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.results import file_hashes, provenance
from neurosurgery.results.provenance import meaning, model_fingerprint
from neurosurgery.settings.experiment import (
    CalibrationSource,
    DataConfig,
    EvaluationConfig,
    GridConfig,
    ModelConfig,
)

CSV = Path("some.csv")
SOURCES = (CalibrationSource("Race", CSV), CalibrationSource("MMLU", CSV))
MODEL = ModelConfig("some/model")
DATA = DataConfig(CalibrationSource("math", CSV), SOURCES, 500, 5, 42)
GRID = GridConfig(("mathneuro",), "math", (0.05,), (0.0,), True)
EVALUATION = EvaluationConfig("gsm8k_cot", ("race", "mmlu"), 200, 100, None, False, None, 8)
SETS = {
    name: CalibrationSet(name, ("a", "b"), sha256)
    for name, sha256 in (("math", "a" * 64), ("Race", "b" * 64), ("MMLU", "c" * 64))
}

# Of every field: another value, where that is another meaning; None where it adds cells or changes
# only how they are computed (the device, the batch) or where a result comes from (paths), or where
# its declaration says that it is part of the identity (`settings.parts`).
MEANS = {
    ModelConfig: {
        **{"name": "other/model", "revision": "v2", "dtype": None, "device": None},
        **{"device_map": None, "trust_remote_code": None},
    },
    DataConfig: {
        **{"math": None, "calibration": None, "num_samples": 100, "num_repeats": None},
        # What it leaves out is part of the sets (the last test).
        **{"random_state": None, "batch_tokens": None, "drop_used": None},
    },
    GridConfig: dict.fromkeys(("methods", "skill", "sizes", "scalars", "pre_train_eval")),
    EvaluationConfig: {
        **{"math_task": "gsm8k", "other_tasks": ("race",), "math_documents": None},
        **{"other_documents": 50, "num_fewshot": None, "apply_chat_template": None},
        **{"include_path": None, "batch_size": None},
        # Of tasks of programs; what these ask is in the hash of their prompts.
        **{"programs": None, "random_state": None},
    },
}
CHANGES = [
    (part, name, value)
    for part, values in MEANS.items()
    for name, value in values.items()
    if value is not None
]


def meaning_of(*, sets=SETS, dtype="float32", commit=None, **parts):
    place = {"model": MODEL, "data": DATA, "grid": GRID, "evaluation": EVALUATION} | parts
    return meaning(*place.values(), sets, dtype, commit, {})


@pytest.mark.parametrize("part", MEANS)
def test_every_setting_is_judged_here(part):
    assert {field.name for field in fields(part)} == set(MEANS[part])


@pytest.mark.parametrize(("part", "name", "value"), CHANGES)
def test_a_changed_setting_is_another_meaning(part, name, value):
    for key, base in (("model", MODEL), ("data", DATA), ("evaluation", EVALUATION)):
        if isinstance(base, part):
            changed = meaning_of(**{key: replace(base, **{name: value})})
    before = meaning_of()
    different = {flag for flag in before.keys() | changed if before.get(flag) != changed.get(flag)}
    assert len(different) == 1, f"one flag is named, not {different}"


def test_the_number_of_math_documents():
    none = meaning_of(evaluation=replace(EVALUATION, math_documents=None))
    assert none != meaning_of()


def test_number_format_commit_and_harness(monkeypatch):
    assert meaning_of(dtype="bfloat16") != meaning_of()
    assert meaning_of(commit="abc") != meaning_of(commit="def")
    before = meaning_of()
    monkeypatch.setattr(provenance.importlib.metadata, "version", lambda _name: "9.9")
    assert meaning_of() != before


@pytest.mark.parametrize("name", SETS)
def test_the_contents_of_every_calibration_set(name):
    changed = meaning_of(sets=SETS | {name: replace(SETS[name], sha256="d" * 64)})
    different = [flag for flag, value in meaning_of().items() if changed[flag] != value]
    assert len(different) == 1
    assert different[0] == (
        "--train_dataset" if name == "math" else f"--calibration_datasets[{name}]"
    )


def test_another_set_adds_cells_but_changes_those_of_a_method_over_all_sets():
    fewer = replace(DATA, calibration=SOURCES[:1])
    mathneuro = meaning_of(data=fewer)
    assert mathneuro.items() <= meaning_of().items()
    lape = replace(GRID, methods=("lape",))
    whole, part = meaning_of(grid=lape), meaning_of(grid=lape, data=fewer)
    assert not part.items() <= whole.items()


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
    assert meaning_of(model=ModelConfig(str(tmp_path)))["--model[files]"]


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
    assert "--model[files]" not in meaning_of()


def test_what_is_left_out_of_a_set_is_part_of_its_meaning():
    drop = replace(DATA, drop_used=True)
    left = meaning_of(data=drop, sets=SETS | {"MMLU": replace(SETS["MMLU"], left_out=3)})
    assert "--train_dataset" not in left, "it is unknown before the sets are compared"
    known = {name: replace(found, left_out=0) for name, found in SETS.items()}
    assert meaning_of(data=drop, sets=known) == meaning_of()
    known["MMLU"] = replace(SETS["MMLU"], left_out=3)
    changed = meaning_of(data=drop, sets=known)
    assert [flag for flag, value in meaning_of().items() if changed[flag] != value] == [
        "--calibration_datasets[MMLU]"
    ]
