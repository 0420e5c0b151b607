"""Every kind of file of a results folder, damaged in ten ways: no traceback, no silent loss."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scripts import MODEL, SCRIPTS

from neurosurgery.__main__ import main as commands

pytestmark = pytest.mark.slow(sample=12)

CASE = SCRIPTS["mathneuro"]
CELL = CASE.cells[0]
KINDS = [
    "config.json", "run.yaml", "tables.json", "results.csv", "summary.csv", "comparison.csv",
    "isolation.csv", "overlap.csv", ".lock", "logs/lm_eval.log",
    f"cells/{MODEL}/{CELL}.json", f"cells/{MODEL}/pre_results.json",
    f"eval_results/{MODEL}/{CELL}.json", f"eval_results/{MODEL}/{CELL}_train_task.json",
    f"eval_results/{MODEL}/results.txt", f"masks/{MODEL}/{CELL}.safetensors",
    f"statistics/{MODEL}/activation_norms/math_run0.safetensors", "report/report.html",
]  # fmt: skip
DAMAGES = [
    "empty", "half", "null", "list", "not text", "nested", "a digit", "another file", "gone",
    "folder",
]  # fmt: skip
TABLES = ("results.csv", "summary.csv", "comparison.csv", "isolation.csv", "overlap.csv")


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "r"
    assert CASE.run(tiny_model, folder, *FLAGS) == 0
    return folder


FLAGS = ("--pre_train_eval", "--save_masks")


def do_damage(path: Path, damage: str) -> None:
    content = path.read_bytes()
    if damage in ("gone", "folder"):
        path.unlink()
        if damage == "folder":
            path.mkdir()
        return
    digit = next((place for place, byte in enumerate(content) if 0x31 <= byte <= 0x39), 0)
    path.write_bytes(
        {
            "empty": b"",
            "half": content[: len(content) // 2],
            "null": b"null",
            "list": b"[]",
            "not text": b"\xff\xfe\x00\x80" * 9,
            "nested": b"[" * 200_000,
            "a digit": content[:digit] + b"7" + content[digit + 1 :],
            "another file": b"a,b\n1,2\n",
        }[damage]
    )


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_traceback_and_no_silent_loss(kind, damage, finished, tiny_model, tmp_path, capsys):
    folder = tmp_path / "r"
    shutil.copytree(finished, folder)
    if not (folder / kind).is_file():
        pytest.fail(f"no {kind} in a finished folder")
    do_damage(folder / kind, damage)
    capsys.readouterr()
    for call in (
        lambda: commands(["report", str(folder)]),
        lambda: CASE.run(tiny_model, folder, *FLAGS, "--dry_run"),
        lambda: CASE.run(tiny_model, folder, *FLAGS),
    ):
        status = call()
        error = capsys.readouterr().err
        assert status in (0, 1, 2)
        assert "Traceback" not in error
        # The folder itself is refused where nothing says any more that it is ours.
        named = Path(kind).name in error or kind == "config.json"
        assert status == 0 or named, error
    if status == 0:
        # Whatever was damaged: the command has made it good, or it bears on no number.
        for name in TABLES:
            assert (folder / name).read_text() == (finished / name).read_text() or name == (
                "results.csv"
            ), name
