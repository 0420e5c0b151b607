"""A GGUF file through whole commands: find, prune, say what was quantised, apply."""

from __future__ import annotations

import json

import pytest
from gguf_model import write_gguf
from scripts import SCRIPTS
from transformers import AutoModelForCausalLM

from neurosurgery.__main__ import main

LINE = "15 of its 26 tensors were quantised (15 Q4_0)"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(folder / "tiny.Q4_0.gguf")
    script = SCRIPTS["mathneuro"]
    flags = script.one("--save_masks", "--save_model", "--pre_train_eval")
    assert script.run(folder / "tiny.Q4_0.gguf", folder / "results", *flags) == 0
    return folder


def test_the_run_bears_the_file_s_name_and_its_masks_the_origin(run_folder):
    [saved] = (run_folder / "results/models/tiny.Q4_0").glob("Race_*")
    assert LINE in (saved / "README.md").read_text()
    assert (run_folder / "results/eval_results/tiny.Q4_0/pre_results.json").is_file()
    assert "quantization_config" not in json.loads((saved / "config.json").read_text())
    AutoModelForCausalLM.from_pretrained(saved)
    [run] = json.loads((run_folder / "results/config.json").read_text())["runs"]
    assert LINE in run["weights"]


def test_the_line_is_printed(run_folder, tmp_path, capsys):
    script = SCRIPTS["mathneuro"]
    assert script.run(run_folder / "tiny.Q4_0.gguf", tmp_path / "again", *script.one()) == 0
    assert capsys.readouterr().out.count(LINE) == 1


def test_a_dry_run_needs_no_weights(run_folder, tmp_path, capsys):
    script = SCRIPTS["mathneuro"]
    flags = script.one("--dry_run")
    assert script.run(run_folder / "tiny.Q4_0.gguf", tmp_path / "none", *flags) == 0
    assert "tiny.Q4_0" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_apply_writes_an_ordinary_folder_and_says_where_the_weights_come_from(
    run_folder, tmp_path, capsys
):
    [mask] = (run_folder / "results/masks/tiny.Q4_0").glob("Race_*.safetensors")
    assert main(["apply", str(mask), "--scalar", "0", "--output", str(tmp_path / "pruned")]) == 0
    assert LINE in capsys.readouterr().out
    card = (tmp_path / "pruned/README.md").read_text()
    assert LINE in card
    # A path on this machine is useless on others.
    assert str(run_folder) not in card
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "pruned").num_parameters() > 0


def test_other_weights_under_the_same_name_are_refused(run_folder, tmp_path, capsys):
    from gguf import GGMLQuantizationType

    (tmp_path / "other").mkdir()
    write_gguf(tmp_path / "other/tiny.Q4_0.gguf", GGMLQuantizationType.Q8_0)
    script = SCRIPTS["mathneuro"]
    assert script.run(tmp_path / "other/tiny.Q4_0.gguf", run_folder / "results", *script.one()) == 2
    assert "--model tiny.Q4_0 (content " in capsys.readouterr().err
