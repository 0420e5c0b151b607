"""An FP8 checkpoint through whole commands: find, prune, say what was quantised, apply."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import build_model
from quantised_models import from_fp8, to_fp8, write_quantised
from safetensors.torch import load_file
from scripts import SCRIPTS
from transformers import AutoModelForCausalLM

from neurosurgery.__main__ import main
from neurosurgery.masks.files import read_mask_file

LINE = "tiny-fp8: 14 of its 20 tensors were quantised (fp8: 14 F8_E4M3)"
SETTINGS = {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}
SCRIPT = SCRIPTS["mathneuro"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("fp8")
    write_quantised(build_model("llama"), folder / "tiny-fp8", SETTINGS, to_fp8)
    tokenizer.save_pretrained(folder / "tiny-fp8")
    flags = SCRIPT.one("--save_masks", "--save_model", "--pre_train_eval")
    assert SCRIPT.run(folder / "tiny-fp8", folder / "results", *flags) == 0
    return folder


def test_the_run_its_masks_and_its_models_say_where_the_weights_come_from(run_folder):
    [run] = json.loads((run_folder / "results/config.json").read_text())["runs"]
    assert LINE in run["weights"]
    [mask] = (run_folder / "results/masks/tiny-fp8").glob("Race_*.safetensors")
    [saved] = (run_folder / "results/models/tiny-fp8").glob("Race_*")
    assert LINE in (saved / "README.md").read_text()
    assert LINE in read_mask_file(mask).provenance["quantised"]


def test_a_saved_model_is_the_float_model_but_for_its_mask(run_folder):
    [mask] = (run_folder / "results/masks/tiny-fp8").glob("Race_*.safetensors")
    [saved] = (run_folder / "results/models/tiny-fp8").glob("Race_*")
    held = load_file(run_folder / "tiny-fp8/model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(saved, dtype="auto")
    assert not hasattr(model.config, "quantization_config")
    found = read_mask_file(mask).mask
    assert found.shapes.keys() == {name for name in held if f"{name}_scale_inv" in held}
    for name in found.shapes:
        exact = from_fp8(held[name], held[f"{name}_scale_inv"], (128, 128))
        expected = torch.from_numpy(exact).float().masked_fill(found.tensor(name), 0)
        assert torch.equal(model.get_parameter(name), expected), name


def test_the_line_is_printed(run_folder, tmp_path, capsys):
    assert SCRIPT.run(run_folder / "tiny-fp8", tmp_path / "again", *SCRIPT.one()) == 0
    assert capsys.readouterr().out.count(LINE) == 1


def test_a_dry_run_needs_no_weights(run_folder, tmp_path, capsys):
    flags = SCRIPT.one("--dry_run")
    assert SCRIPT.run(run_folder / "tiny-fp8", tmp_path / "none", *flags) == 0
    assert "tiny-fp8" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_apply_writes_an_ordinary_folder(run_folder, tmp_path, capsys):
    [mask] = (run_folder / "results/masks/tiny-fp8").glob("Race_*.safetensors")
    assert main(["apply", str(mask), "--scalar", "0", "--output", str(tmp_path / "pruned")]) == 0
    assert LINE in capsys.readouterr().out
    assert LINE in (tmp_path / "pruned/README.md").read_text()
    assert "quantization_config" not in (tmp_path / "pruned/config.json").read_text()
    AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
