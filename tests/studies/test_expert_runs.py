"""Whole commands on tiny mixtures of experts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoTokenizer

import FineTune
import LAPE
import MathNeuro
import MathNeuro_Ablations
import PathPatching
from benchmarks.tiny_families import build
from neurosurgery.__main__ import main
from neurosurgery.masks.files import read_mask_file
from neurosurgery.settings.demo import DEMO
from tests.expert_models import expert_model
from tests.scripts import COMMON, DEMO_DATA, DEMO_TASKS

pytestmark = pytest.mark.whole


def saved(family: str, folder: Path) -> Path:
    """A tiny model with the demo's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO.model)
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 512}
    expert_model(family, **special, **sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["qwen3_moe", "llama4"])
def test_every_expert_has_its_own_top_k(family, tmp_path, capsys):
    model, results = saved(family, tmp_path / "tiny"), tmp_path / "results"
    flags = ["--model", str(model), "--save_path", str(results), *DEMO_DATA, *DEMO_TASKS]
    assert MathNeuro.main([*flags, "--proportion", "0.05", *COMMON, "--save_masks"]) == 0
    assert "weight matrices are scored" in capsys.readouterr().out
    for path in (results / "masks").rglob("*.safetensors"):
        file = read_mask_file(path)
        experts = [name for name in file.mask if ".experts." in name]
        assert len(experts) == 2 * 2 * (6 if family == "qwen3_moe" else 4)
        most = {name: int(math.prod(shape) * 0.05) for name, shape in file.mask.shapes.items()}
        # Math reaches every expert of these; what the other set shares is taken off.
        assert file.provenance["skill_topk"] == sum(most.values())
        assert all(count <= most[name] for name, count in file.mask.counts().items())
        assert sum(file.mask.counts()[name] for name in experts) > 0
    # A second call finds its cells, and computes nothing.
    assert MathNeuro.main([*flags, "--proportion", "0.05", *COMMON, "--save_masks"]) == 0


def test_lape_finds_neurons_inside_experts(tmp_path, capsys):
    model, results = saved("mixtral", tmp_path / "tiny"), tmp_path / "results"
    flags = ["--model", str(model), "--save_path", str(results), *DEMO_DATA, *DEMO_TASKS]
    assert LAPE.main([*flags, "--ratio", "0.2", *COMMON, "--save_masks"]) == 0
    assert "192 neurons in 8 MLPs" in capsys.readouterr().out
    tables = [pd.read_csv(path) for path in (results / "masks").rglob("*.csv")]
    modules = set(pd.concat(tables)["module"])
    assert modules <= {f"model.layers.{i}.mlp.experts.{e}" for i in range(2) for e in range(4)}
    assert len(modules) > 1


def test_the_masks_of_subsets_of_samples_agree(tmp_path):
    model, results = saved("gpt_oss", tmp_path / "tiny"), tmp_path / "results"
    command = ["--model", str(model), "--save_path", str(results), *DEMO_DATA]
    sizes = "--sizes 5 10 --num_subsets 2 --proportion 0.05".split()
    assert main(["consistency", *command, *sizes]) == 0
    table = pd.read_csv(results / "consistency.csv")
    assert (table["overlap"] > table["overlap_by_chance"]).all()


def test_path_patching_refuses_blocks_without_heads_in_one_line(tmp_path, capsys):
    model = build("granitemoehybrid")
    model.save_pretrained(tmp_path / "hybrid")
    AutoTokenizer.from_pretrained(DEMO.model).save_pretrained(tmp_path / "hybrid")
    results = tmp_path / "results"
    assert (
        PathPatching.main(["--model", str(tmp_path / "hybrid"), "--save_path", str(results)]) == 2
    )
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "layer 0, GraniteMoeHybridMambaLayer" in error
    assert not list(results.rglob("*.csv"))


def test_a_hybrid_is_scored_and_what_is_not_is_named(tmp_path, capsys):
    model = build("granitemoehybrid")
    model.save_pretrained(tmp_path / "hybrid")
    AutoTokenizer.from_pretrained(DEMO.model).save_pretrained(tmp_path / "hybrid")
    flags = ["--model", str(tmp_path / "hybrid"), "--save_path", str(tmp_path / "results")]
    sizes = ["--proportion", "0.05", *COMMON, "--num_repeats", "1"]
    assert MathNeuro.main([*flags, *DEMO_DATA, *DEMO_TASKS, *sizes]) == 0
    out = capsys.readouterr().out
    assert "convolutions 0.4% (first: model.layers.0.mamba.conv1d.weight)" in out
    assert "routers and gates of shared experts 0.3%" in out


DISK = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "disk",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}


def test_a_run_with_weights_on_a_disk_is_the_run_without(tmp_path, capsys):
    model = saved("mixtral", tmp_path / "tiny")
    flags = ["--model", str(model), *DEMO_DATA, *DEMO_TASKS, *COMMON, "--num_repeats", "1"]
    flags += ["--proportion", "0.05", "--save_masks", "--save_model"]
    for name, where in (
        ("whole", ["--device", "cpu"]),
        ("disk", ["--device_map", json.dumps(DISK)]),
    ):
        assert MathNeuro.main([*flags, *where, "--save_path", str(tmp_path / name)]) == 0
    assert "weights are off the devices" in capsys.readouterr().out
    whole, disk = (tmp_path / "whole", tmp_path / "disk")
    for path in sorted((whole / "masks").rglob("*.safetensors")):
        other = disk / path.relative_to(whole)
        assert read_mask_file(path).mask == read_mask_file(other).mask
    results = [pd.read_csv(each / "results.csv")["value"] for each in (whole, disk)]
    assert results[0].equals(results[1])
    models = sorted(path for path in whole.rglob("model.safetensors"))
    assert models
    for path in models:
        assert path.read_bytes() == (disk / path.relative_to(whole)).read_bytes()


def test_what_needs_all_weights_on_devices_ends_in_one_line(tmp_path, capsys):
    model = saved("mixtral", tmp_path / "tiny")
    place = ["--model", str(model), "--device_map", json.dumps(DISK)]
    for main_of, more in (
        (PathPatching.main, []),
        (MathNeuro_Ablations.main, [*DEMO_DATA, *DEMO_TASKS, *COMMON, "--methods", "snip"]),
        (FineTune.main, [*DEMO_DATA, *DEMO_TASKS, "--train_data", DEMO.train_data]),
    ):
        results = tmp_path / main_of.__module__
        assert main_of([*place, *more, "--save_path", str(results)]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert "weights off the devices" in error
        assert not (results / "results.csv").exists()
