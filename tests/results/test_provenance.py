"""Whatever changes what a number means is part of a folder's meaning."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from neurosurgery.activations.calibration import CalibrationSet
from neurosurgery.config.experiment import (
    CalibrationSource,
    DataConfig,
    EvaluationConfig,
    GridConfig,
    ModelConfig,
)
from neurosurgery.results import provenance
from neurosurgery.results.provenance import meaning, model_fingerprint

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
# only how they are computed (the device, the batch) or where a result comes from (paths).
MEANS = {
    ModelConfig: {
        **{"name": "other/model", "revision": "v2", "dtype": None, "device": None},
        **{"device_map": None, "trust_remote_code": None},
    },
    DataConfig: {
        **{"math": None, "calibration": None, "num_samples": 100, "num_repeats": None},
        # What it leaves out is part of the sets (the last test).
        **{"random_state": 7, "batch_tokens": None, "drop_used": None},
    },
    GridConfig: dict.fromkeys(("methods", "skill", "sizes", "scalars", "pre_train_eval")),
    EvaluationConfig: {
        **{"math_task": "gsm8k", "other_tasks": ("race",), "math_documents": None},
        **{"other_documents": 50, "num_fewshot": 3, "apply_chat_template": True},
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
    return meaning(*place.values(), sets, dtype, commit)


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


def test_a_large_file_is_read_here_and_there(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_WHOLE", 1000)
    monkeypatch.setattr(provenance, "_CHUNKS", 10)
    monkeypatch.setattr(provenance, "_CHUNK", 50)
    path = tmp_path / "model.safetensors"
    content = bytearray(range(200)) * 10
    path.write_bytes(content)
    before = model_fingerprint(str(tmp_path), None)
    for at in (0, 3, 249, 1001, 1849):
        changed = bytearray(content)
        changed[at] ^= 1
        path.write_bytes(changed)
        assert (model_fingerprint(str(tmp_path), None) != before) == (at % 200 < 50)
    path.write_bytes(content + b"x")
    assert model_fingerprint(str(tmp_path), None) != before


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
