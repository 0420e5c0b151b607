"""GGUF checkpoints: exact float weights, one line about them, and one line for what is unusable."""

from __future__ import annotations

import json
import os
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_model import END_ID, LAYERS, write_gguf
from transformers import AutoModelForCausalLM

from neurosurgery.common.errors import UsageError
from neurosurgery.models.gguf import describe_gguf
from neurosurgery.models.load import load_model, load_tokenizer, read_model_config
from neurosurgery.models.targets import find_targets
from neurosurgery.results.provenance import model_fingerprint
from neurosurgery.settings.experiment import ModelConfig
from neurosurgery.settings.gguf import gguf_file

Kind = gguf.GGMLQuantizationType

NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-gguf")
    return folder, write_gguf(folder / "tiny.Q4_0.gguf")


def load(name: str | Path, dtype: str | None = None):
    config = ModelConfig(str(name), device="cpu")
    config.check()
    return load_model(config, load_tokenizer(config), dtype)


@pytest.mark.parametrize("by_file", [True, False], ids=["file", "folder"])
@pytest.mark.parametrize("dtype", [None, "auto"])
def test_weights_are_exactly_those_that_the_blocks_stand_for(checkpoint, by_file, dtype):
    folder, held = checkpoint
    loaded = load(folder / "tiny.Q4_0.gguf" if by_file else folder, dtype)
    assert loaded.dtype == "float32"
    assert len(find_targets(loaded.model)) == len(NAMES) * LAYERS
    for layer in range(LAYERS):
        for theirs, ours in NAMES.items():
            found = loaded.model.get_parameter(f"model.layers.{layer}.{ours}.weight")
            expected = held[f"blk.{layer}.{theirs}.weight"]
            assert np.array_equal(found.detach().numpy(), expected), ours
    embedding = loaded.model.get_input_embeddings().weight
    assert np.array_equal(embedding.detach().numpy(), held["token_embd.weight"])
    # The file has no output matrix: the head is the embedding.
    assert loaded.model.get_output_embeddings().weight is embedding


def test_the_line_says_what_was_quantised(checkpoint):
    folder, _ = checkpoint
    matrices = len(NAMES) * LAYERS + 1
    total = matrices + LAYERS * 5 + 1
    expected = (
        f"tiny.Q4_0.gguf: {matrices} of its {total} tensors were quantised ({matrices} Q4_0); they "
        "are edited and evaluated as the float weights that they stand for"
    )
    assert load(folder).quantised == expected


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.F32], ids=lambda kind: kind.name)
def test_float_files_are_no_quantised_ones(tmp_path, kind):
    write_gguf(tmp_path / "tiny.gguf", kind)
    assert "none of its" in describe_gguf(tmp_path / "tiny.gguf")


def test_formats_are_named_with_their_counts(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", Kind.Q4_0, {"token_embd.weight": Kind.Q8_0})
    assert f"({len(NAMES) * LAYERS} Q4_0, 1 Q8_0)" in describe_gguf(tmp_path / "tiny.gguf")


def test_a_saved_model_is_an_ordinary_folder(checkpoint, tmp_path):
    loaded = load(checkpoint[0])
    loaded.model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name


def test_tokenizer_and_end_token(checkpoint):
    tokenizer = load_tokenizer(ModelConfig(str(checkpoint[0])))
    assert tokenizer.decode(tokenizer("12 + 30 = 42").input_ids) == "12 + 30 = 42"
    assert tokenizer.eos_token_id == END_ID
    assert read_model_config(ModelConfig(str(checkpoint[0]))).num_hidden_layers == LAYERS


def test_label_and_fingerprint(checkpoint, tmp_path):
    folder, _ = checkpoint
    assert ModelConfig(str(folder)).label == folder.name
    assert ModelConfig(str(folder / "tiny.Q4_0.gguf")).label == "tiny.Q4_0"
    by_file = model_fingerprint(str(folder / "tiny.Q4_0.gguf"), None)
    assert by_file == model_fingerprint(str(folder), None)
    write_gguf(tmp_path / "tiny.Q4_0.gguf", Kind.Q8_0)
    assert by_file != model_fingerprint(str(tmp_path), None)


def test_a_folder_with_a_configuration_is_an_ordinary_model(tiny_model, tmp_path):
    for file in Path(tiny_model).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_gguf(tmp_path / "tiny.gguf")
    assert gguf_file(str(tmp_path)) is None
    ModelConfig(str(tmp_path)).check()
    # A file that is not loaded does not belong to what the numbers mean.
    before = model_fingerprint(str(tmp_path), None)
    (tmp_path / "tiny.gguf").unlink()
    assert model_fingerprint(str(tmp_path), None) == before


def two_files(folder: Path) -> Path:
    for name in ("a.gguf", "b.gguf"):
        write_gguf(folder / name)
    return folder


def other_file(folder: Path) -> Path:
    (folder / "a.gguf").write_bytes(b"PK\3\4 and more")
    return folder / "a.gguf"


def second_part(folder: Path) -> Path:
    write_gguf(folder / "a-00002-of-00003.gguf")
    return folder


def directory(folder: Path) -> Path:
    (folder / "a.gguf").mkdir()
    return folder / "a.gguf"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_files, r"has 2 GGUF files \(a.gguf, b.gguf\); expected one, or its path"),
        (other_file, "expected a GGUF file; it does not begin as one"),
        (second_part, "is part 2 of 3; expected one whole file"),
        (directory, "expected a folder with a config.json or a GGUF file"),
        (lambda folder: folder / "none.gguf", "expected a GGUF file that exists"),
        (lambda folder: folder, "expected a folder with a config.json or a GGUF file"),
    ],
    ids=["two files", "another format", "a part", "a folder", "no file", "empty folder"],
)
def test_what_cannot_be_read_is_refused_before_loading(tmp_path, make, message):
    name = make(tmp_path)
    with pytest.raises(UsageError, match=message) as error:
        ModelConfig(str(name)).check()
    assert str(name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_rights_is_refused(tmp_path):
    write_gguf(tmp_path / "a.gguf")
    (tmp_path / "a.gguf").chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        ModelConfig(str(tmp_path)).check()


def test_a_missing_package_is_named(checkpoint, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="expected `pip install gguf` first"):
        ModelConfig(str(checkpoint[0])).check()


@pytest.mark.parametrize("kept", [100, 4000], ids=["header", "weights"])
def test_a_truncated_file_is_one_line(checkpoint, tmp_path, kept):
    whole = (checkpoint[0] / "tiny.Q4_0.gguf").read_bytes()
    (tmp_path / "a.gguf").write_bytes(whole[:kept])
    with pytest.raises(UsageError, match=r"--model .*cannot be loaded.*whole GGUF file") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)
