"""`neurosurgery card`: what is shared is whole, and repeats."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import ModelCard

from neurosurgery.__main__ import main

pytestmark = pytest.mark.whole

SMALL = "--proportion .05 --num_repeats 1 --num_samples 5 --eval_limit 6".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "results"
    assert main(["run", *SMALL, "--pre_train_eval", "--save_masks", "--save_path", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def shared(folder) -> Path:
    output = folder.parent / "shared"
    assert main(["card", str(folder), "--output", str(output)]) == 0
    return output


def sums(folder: Path) -> dict[str, str]:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_every_file_has_its_hash(folder, shared):
    there = {p.relative_to(shared).as_posix() for p in shared.rglob("*") if p.is_file()}
    assert there - {"SHA256SUMS"} == sums(shared).keys()
    for name, digest in sums(shared).items():
        assert hashlib.sha256((shared / name).read_bytes()).hexdigest() == digest
    masks = {p.relative_to(folder).as_posix() for p in (folder / "masks").rglob("*.safetensors")}
    cells = {p.relative_to(folder).as_posix() for p in (folder / "cells").rglob("*.json")}
    assert masks | cells | {"run.yaml", "results.csv", "report/report.html"} <= there
    assert not [name for name in there if name.startswith(("logs", "statistics", "."))]


def test_the_card_tells_the_finding_and_its_commands_hold(folder, shared, monkeypatch, tmp_path):
    """A copy elsewhere runs again by its run.yaml, applies a mask, and agrees by documents."""
    card = ModelCard.load(shared / "README.md")
    assert card.data.library_name == "neurosurgery"
    assert card.data.base_model is None
    best = pd.read_csv(folder / "summary.csv").query("method == 'mathneuro'")
    assert f"{best['baseline'].iloc[0]:.3f}" in card.text
    copy = tmp_path / "downloaded"
    shutil.copytree(shared, copy)
    monkeypatch.chdir(copy)
    commands = re.findall(r"^ {4}neurosurgery (.+)$", card.text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["apply", "run", "compare", "compare"]
    for command in commands:
        words = command.split()
        more = ["--csv", "differences.csv"] if words[0] == "compare" else []
        assert main([*words, *more]) == 0, command
        if more:
            table = pd.read_csv("differences.csv")
            assert len(table) > 0
            assert (table["difference"] == 0).all()
    assert (copy / "edited" / "model.safetensors").exists()


def test_a_card_is_written_again_but_never_over_something_else(folder, shared, tmp_path, capsys):
    before = sums(shared)
    assert main(["card", str(folder), "--output", str(shared)]) == 0
    assert sums(shared) == before
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, folder / "card", tmp_path / "notes.txt"):
        capsys.readouterr()
        assert main(["card", str(folder), "--output", str(place)]) == 2
        assert capsys.readouterr().err.startswith("neurosurgery: error: --output ")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert main(["card", str(tmp_path), "--output", str(tmp_path / "new")]) == 2
