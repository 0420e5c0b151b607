"""`python -m neurosurgery`: help without torch, bad input in one line, `masks`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from neurosurgery.__main__ import COMMANDS, main
from neurosurgery.masks.files import load_mask, write_mask_file
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.overlap import overlap_by_parameter, total

SHAPES = {
    "layers.0.q_proj.weight": (6, 7),
    "layers.1.q_proj.weight": (6, 7),
    "lm_head.weight": (5,),
}


def write_mask(path: Path, draw: int = 0, shapes=SHAPES, **provenance) -> Path:
    generator = torch.Generator().manual_seed(draw)
    mask = ParameterMask.from_tensors(
        {name: torch.rand(shape, generator=generator) < 0.4 for name, shape in shapes.items()}
    )
    write_mask_file(path, mask, {"counts": mask.counts()} | provenance)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Files to point bad arguments at."""
    for seed, name in enumerate(("a", "b", "c")):
        write_mask(tmp_path / f"{name}.safetensors", seed, model="some/model", seed=seed)
    write_mask(tmp_path / "other.safetensors", shapes=SHAPES | {"lm_head.weight": (6,)})
    write_mask(tmp_path / "short.safetensors", shapes={"lm_head.weight": (5,)})
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "truncated.safetensors").write_bytes(whole[:-9])
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / "weights.safetensors")
    return tmp_path


def refused(argv: list[str], folder: Path, capsys) -> str:
    """The one line on stderr; nothing is written."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    try:
        status = main(argv)
    except SystemExit as error:
        status = error.code
    output = capsys.readouterr()
    assert status == 2
    assert output.out == ""
    assert len(output.err.strip().splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    return output.err


UNREADABLE = [
    ("{0}/none.safetensors", "no such file; expected a mask file"),
    ("{0}", "is a folder; expected a mask file"),
    ("{0}/text.safetensors", "is no readable mask file ("),
    ("{0}/empty.safetensors", "is no readable mask file ("),
    ("{0}/truncated.safetensors", "is no readable mask file ("),
    (
        "{0}/weights.safetensors",
        "is no readable mask file (has no metadata format = neurosurgery-mask/1)",
    ),
]


@pytest.mark.parametrize("command", ["masks show", "masks compare {0}/a.safetensors"])
@pytest.mark.parametrize(("path", "message"), UNREADABLE)
def test_unreadable_masks_are_refused(command, path, message, folder, capsys):
    argv = [word.format(folder) for word in (*command.split(), path)]
    error = refused(argv, folder, capsys)
    assert f"MASK {path.format(folder)}: {message}" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("compare {0}/a.safetensors", "a.safetensors: expected two masks or more to compare"),
        (
            "compare {0}/a.safetensors {0}/b.safetensors {0}/other.safetensors",
            "is of another model than {0}/a.safetensors: lm_head.weight is (6,) here and (5,)",
        ),
        (
            "compare {0}/a.safetensors {0}/short.safetensors",
            "layers.0.q_proj.weight is missing here and (6, 7) there",
        ),
        ("compare {0}/a.safetensors {0}/b.safetensors --csv {0}/x.txt", "ends in .csv"),
        ("compare {0}/a.safetensors {0}/b.safetensors --csv {0}/text.safetensors/x.csv", "--csv"),
        ("compare {0}/a.safetensors {0}/b.safetensors --figure x.svg", "ends in .png or .pdf"),
        ("compare", "the following arguments are required: MASK"),
        ("", "the following arguments are required: COMMAND"),
        ("show", "the following arguments are required: MASK"),
        ("show {0}/a.safetensors --verbose", "unrecognized arguments: --verbose"),
    ],
)
def test_refused_in_one_line(flags, message, folder, capsys):
    error = refused(["masks", *flags.format(folder).split()], folder, capsys)
    assert message.format(folder) in error


def test_an_unknown_command_is_refused(folder, capsys):
    assert "invalid choice: 'cook'" in refused(["cook"], folder, capsys)


def test_compare(folder, capsys):
    paths = [str(folder / f"{name}.safetensors") for name in "abc"]
    outputs = ["--csv", str(folder / "new" / "table.csv"), "--figure", str(folder / "m.png")]
    assert main(["masks", "compare", *paths, *outputs]) == 0
    output = capsys.readouterr().out
    assert "a (A) and b (B)" in output
    assert output.count("layer 1") == 3
    assert output.count("in no layer") == 3
    table = pd.read_csv(folder / "new" / "table.csv", dtype={"group": str})
    masks = [load_mask(Path(path)) for path in paths]
    whole = table[table["part"] == "whole"]
    assert list(zip(whole["mask_a"], whole["mask_b"], strict=True)) == [
        (paths[0], paths[1]),
        (paths[0], paths[2]),
        (paths[1], paths[2]),
    ]
    found = [
        total(overlap_by_parameter(masks[a], masks[b])).jaccard for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert whole["jaccard"].tolist() == found
    assert f"{found[0]:.3f}" in output
    for part in ("kind", "layer"):
        sums = table[table["part"] == part].groupby(["mask_a", "mask_b"])["common"].sum()
        assert sums.tolist() == whole["common"].tolist()
    assert table.query("part == 'layer'")["group"].tolist()[:2] == ["0", "1"]


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".PDF", b"%PDF")])
def test_figure(suffix, magic, folder):
    paths = [str(folder / f"{name}.safetensors") for name in "abc"]
    file = folder / f"figure{suffix}"
    assert main(["masks", "compare", *paths, "--figure", str(file)]) == 0
    assert file.read_bytes().startswith(magic)


def test_the_figure_says_what_the_table_says():
    """Both panels are symmetric, hold each pair once a side, and nothing on the diagonal."""
    from small_report import Panel, words

    from neurosurgery.masks.overlap import Overlap
    from neurosurgery.report.figures.figure import svg_of
    from neurosurgery.report.figures.overlap import plot_overlap

    pairs = {
        (0, 1): Overlap(100, 10, 20, 5, 2.0),
        (0, 2): Overlap(100, 10, 10, 10, 1.0),
        (1, 2): Overlap(100, 20, 10, 0, 2.0),
    }
    chart = plot_overlap(["a", "b", "c"], pairs)
    content = chart.to_dict(validate=False)
    left, right = (
        {(row["row"], row["column"]): row["text"] for row in Panel(content, part).rows("text")}
        for part in content["hconcat"]
    )
    assert len(left) == len(right) == 6
    assert left["a", "b"] == left["b", "a"] == "0.20\n(0.071)"
    assert left["c", "a"] == "1.00\n(0.053)"
    assert right["b", "a"] == "0.50\n(0.200)"
    shown = "".join(words(svg_of(chart)))
    assert "Jaccard index (by chance)" in shown
    assert shown.count("abc") == 4


def test_masks_of_one_name_are_told_apart_by_folder(folder, capsys):
    for name in ("x", "y"):
        (folder / name).mkdir()
        write_mask(folder / name / "m.safetensors")
    argv = ["masks", "compare", str(folder / "x/m.safetensors"), str(folder / "y/m.safetensors")]
    assert main(argv) == 0
    assert "x/m (A) and y/m (B)" in capsys.readouterr().out


def test_show(folder, capsys):
    mask = load_mask(folder / "c.safetensors")
    assert main(["masks", "show", str(folder / "c.safetensors")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["model", "some/model"] in lines
    assert ["seed", "2"] in lines
    counts = mask.counts()
    assert ["whole", str(mask.count()), "89", f"{mask.count() / 89:.3%}"] in lines
    assert ["layer", "1", str(counts["layers.1.q_proj.weight"])] in [line[:3] for line in lines]
    assert ["in", "no", "layer", str(counts["lm_head.weight"]), "5"] in [line[:5] for line in lines]


def test_provenance_of_other_tools_need_not_be_json(folder, capsys):
    from safetensors.numpy import save_file

    metadata = {"format": "neurosurgery-mask/1", "shapes": '{"a.weight": [8]}', "note": "by hand"}
    save_file({"a.weight": np.array([255], np.uint8)}, folder / "hand.safetensors", metadata)
    assert main(["masks", "show", str(folder / "hand.safetensors")]) == 0
    assert "note         by hand" in capsys.readouterr().out


COMMAND_LINES = ["", *(command.__name__.rpartition(".")[2] for command in COMMANDS)]


@pytest.mark.parametrize("command", [*COMMAND_LINES, "masks compare", "masks show"])
def test_help_answers_without_importing_torch(command):
    code = (
        "import sys\n"
        "from neurosurgery.__main__ import main\n"
        "try: main([*sys.argv[1:], '--help'])\n"
        "except SystemExit as error: status = error.code\n"
        "heavy = {'torch', 'pandas', 'numpy', 'altair', 'vl_convert'} & set(sys.modules)\n"
        "assert status == 0 and not heavy, heavy"
    )
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *command.split()],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.stdout.startswith("usage: neurosurgery")


def test_the_package_runs_as_a_module(folder):
    command = [sys.executable, "-W", "error", "-m", "neurosurgery", "masks", "show"]
    found = subprocess.run(
        [*command, str(folder / "none")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert found.stderr.startswith("neurosurgery: error: MASK ")


def test_a_reader_that_stops_reading(folder):
    """`| head`: no traceback, and the files are there."""
    paths = [str(folder / f"{name}.safetensors") for name in "abc"]
    command = [sys.executable, "-W", "error", "-m", "neurosurgery", "masks", "compare", *paths]
    process = subprocess.Popen(
        [*command, "--csv", str(folder / "table.csv")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()
    assert (folder / "table.csv").exists()


HOSTILE = "\x1b[2J\x1b]0;owned\x07a\rb\x9b31m\u202etxt\x00"
"""Clears the screen, names the window, writes over a line, colours, turns the direction."""


def commands(text: str) -> list[str]:
    """The characters of a text that a terminal may obey."""
    return [
        char for char in text if (char < " " and char not in "\n\t") or char in "\x7f\x9b\u202e"
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", HOSTILE),
        ("calibration", [HOSTILE]),
        ("proportion", {HOSTILE: [HOSTILE, {"x": HOSTILE}]}),
        (HOSTILE, 3),
    ],
)
def test_control_characters_of_a_masks_metadata_are_shown_not_obeyed(field, value, folder, capsys):
    path = write_mask(folder / "hostile.safetensors", **{field: value})
    assert main(["masks", "show", str(path)]) == 0
    output = capsys.readouterr()
    assert "owned" in output.out
    assert "\\x1b" in output.out
    assert not commands(output.out + output.err)


def test_names_of_files_and_tensors_are_shown_not_obeyed(folder, capsys):
    name = HOSTILE.replace("\x00", "").replace("/", "")
    shapes = {f"layers.0.{name}.weight": (6, 7), "line\nbreak.weight": (3,)}
    paths = [write_mask(folder / f"{name}{i}.safetensors", i, shapes) for i in range(2)]
    assert main(["masks", "show", str(paths[0])]) == 0
    outputs = ["--figure", str(folder / "m.png"), "--csv", str(folder / "t.csv")]
    assert main(["masks", "compare", *map(str, paths), *outputs]) == 0
    assert main(["masks", "show", str(folder / f"{name}3.safetensors")]) == 2
    with pytest.raises(SystemExit):
        main(["masks", "show", str(paths[0]), name])
    output = capsys.readouterr()
    assert "owned" in output.err
    assert len(output.err.strip().split("\n")) == 2
    assert not commands(output.out + output.err)
    assert not [line for line in output.out.splitlines() if line.startswith("break")]


def test_a_file_name_that_is_no_utf8_is_printed(folder, capsys):
    path = folder / "caf\udce9.safetensors"
    (folder / "a.safetensors").rename(path)
    assert main(["masks", "show", str(path)]) == 0
    assert "caf\\udce9" in capsys.readouterr().out


@pytest.mark.parametrize("levels", [101, 990, 100_000])
@pytest.mark.parametrize("command", ["masks show", "apply --output {0}/new --scalar 0"])
def test_deep_metadata_is_one_line(command, levels, folder, capsys):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    path = folder / "deep.safetensors"
    with safe_open(folder / "a.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    metadata["calibration"] = "[" * levels + "]" * levels
    save_file(load_file(folder / "a.safetensors"), path, metadata)
    first, *more = command.format(folder).split()
    argv = [first, str(path), *more] if first == "apply" else [first, *more, str(path)]
    assert "nested more than 100 levels deep" in refused(argv, folder, capsys)


@pytest.mark.parametrize("command", ["masks show", "masks compare {0}/a.safetensors"])
def test_the_changes_of_a_training_are_no_mask(command, folder, capsys):
    from neurosurgery.edit.delta import Delta
    from neurosurgery.edit.delta_files import write_delta_file

    mask = load_mask(folder / "a.safetensors")
    delta = Delta(mask, {name: torch.ones(count) for name, count in mask.counts().items()})
    write_delta_file(folder / "d.safetensors", delta, {})
    argv = [*command.format(folder).split(), str(folder / "d.safetensors")]
    assert "holds the changes of a training" in refused(argv, folder, capsys)
