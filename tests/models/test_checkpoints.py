"""A model that is not what its files say is refused in one line, never filled up at random."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import FAMILIES, build_model
from lm_eval.api.instance import Instance
from safetensors.torch import load_file, save_file
from scripts import SCRIPTS
from transformers import AddedToken, AutoTokenizer
from weights import bits

from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.models.load import load_model, load_tokenizer, read_model_config
from neurosurgery.models.shapes import model_shapes
from neurosurgery.models.vocabulary import check_vocabulary
from neurosurgery.settings.experiment import ModelConfig

MATRIX = "model.layers.1.mlp.up_proj.weight"
Weights = dict[str, torch.Tensor]


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


@pytest.fixture
def checkpoint(tmp_path, tiny_model) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "checkpoint"))


def without(*names: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: each for key, each in weights.items() if key not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(MATRIX), f"1 weights of the model are missing (first: {MATRIX})"),
        (
            without("model.norm.weight", "model.layers.0.input_layernorm.weight"),
            "2 weights of the model are missing (first: model.layers.0.input_layernorm.weight)",
        ),
        (
            lambda weights: {f"module.{key}": each for key, each in weights.items()},
            "keys are not the model's (first: module.model.embed_tokens.weight)",
        ),
        (
            lambda weights: weights | {"v_head.weight": torch.zeros(2, 3)},
            "1 keys are not the model's (first: v_head.weight)",
        ),
        (
            lambda weights: weights | {MATRIX: torch.zeros(3, 24)},
            f"{MATRIX} has the shape [3, 24], the model's has [40, 24]",
        ),
    ],
)
def test_a_checkpoint_of_another_model(
    change, message, checkpoint, tokenizer, tmp_path, capsys, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    rewrite(checkpoint, change)
    with pytest.raises(UsageError) as error:
        load_model(ModelConfig(str(checkpoint)), tokenizer)
    assert str(error.value).startswith(f"--model {checkpoint}: has a checkpoint of another model: ")
    assert message in str(error.value)
    # transformers' own table would bury the line.
    assert not caplog.records
    save_path = tmp_path / "r"
    assert SCRIPTS["mathneuro"].run(checkpoint, save_path) == 2
    assert message in capsys.readouterr().err
    assert not list(save_path.glob("*"))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_whole_checkpoints_are_taken(family, tied, tokenizer, tmp_path):
    """A tied head is in no file, and is not missed."""
    model = build_model(family, tied=tied)
    model.save_pretrained(tmp_path)
    loaded = load_model(ModelConfig(str(tmp_path)), tokenizer).model
    for name, parameter in model.named_parameters():
        assert torch.equal(bits(loaded.get_parameter(name)), bits(parameter)), name


def test_keys_that_a_class_declares_ignorable_are_ignored(tokenizer, tmp_path):
    """Old GPT-2 and Pythia checkpoints hold the buffers of their causal masks."""
    build_model("gpt2").save_pretrained(tmp_path)
    rewrite(tmp_path, lambda weights: weights | {"transformer.h.0.attn.bias": torch.ones(1, 1)})
    load_model(ModelConfig(str(tmp_path)), tokenizer)


def test_an_untied_head_that_is_missing_is_missed(tokenizer, tmp_path):
    build_model("llama", tied=False).save_pretrained(tmp_path)
    rewrite(tmp_path, without("lm_head.weight"))
    with pytest.raises(UsageError, match=r"1 weights .* missing \(first: lm_head.weight\)"):
        load_model(ModelConfig(str(tmp_path)), tokenizer)


@pytest.mark.parametrize(
    "error", [AttributeError("no x"), TypeError("no x"), IndexError("no x"), AssertionError("no x")]
)
def test_any_error_while_loading_is_one_line(error, tiny_model, tokenizer, monkeypatch):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    message = f"--model {tiny_model}: cannot be loaded: {type(error).__name__}: no x"
    with pytest.raises(UsageError) as found:
        load_model(ModelConfig(str(tiny_model)), tokenizer)
    assert str(found.value) == message


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_broken_files(file, checkpoint, tokenizer):
    (checkpoint / file).write_text("[1, 2]")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_model(ModelConfig(str(checkpoint)), tokenizer)


DAMAGED = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 900 + b"1" + b"}" * 900,
    "a list": b"[1]",
    "half": b"{",
    "no UTF-8": b'{"a": "\xff"}',
    "a long number": b'{"hidden_size": ' + b"9" * 5_000 + b"}",
    "twice": b'{"a": 1, "a": 2}',
    "empty": b"",
}


FILES = (
    "config.json generation_config.json tokenizer.json tokenizer_config.json "
    "model.safetensors.index.json adapter_config.json"
).split()


def load(folder: Path) -> None:
    """All that a script reads of a model."""
    config = ModelConfig(str(folder))
    config.check()
    load_model(config, load_tokenizer(config))


@pytest.mark.parametrize(
    ("file", "damage"),
    # What other libraries read may hold a name twice: they take the last.
    [(f, damage) for f in FILES for damage in DAMAGED if damage != "twice" or f in FILES[:2]],
)
def test_a_damaged_json_file_is_named_in_one_line(file, damage, checkpoint):
    if file == "model.safetensors.index.json":
        (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00001.safetensors")
    (checkpoint / file).write_bytes(DAMAGED[damage])
    with pytest.raises(UsageError, match=file) as error:
        load(checkpoint)
    assert "recursion" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_deep_config_is_bad_input_of_a_script(checkpoint, tmp_path, capsys):
    (checkpoint / "config.json").write_bytes(DAMAGED["deep"])
    assert SCRIPTS["mathneuro"].run(checkpoint, tmp_path / "r") == 2
    error = capsys.readouterr().err.strip()
    assert "config.json cannot be read (nested more than 100 levels deep)" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "model.safetensors: it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 3\n", "a pointer of Git LFS"),
        (None, "model.safetensors: it is cut off"),
    ],
)
def test_a_damaged_file_of_weights_is_named(content, message, checkpoint, tokenizer):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:9000] if content is None else content)
    with pytest.raises(UsageError, match=message):
        load_model(ModelConfig(str(checkpoint)), tokenizer)


def test_an_encoder_decoder_is_refused_before_its_weights_are_read(tokenizer, tmp_path):
    config = transformers.BartConfig(
        vocab_size=1536, d_model=24, encoder_layers=1, decoder_layers=1
    )
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for read in (read_model_config, model_shapes):
        with pytest.raises(UsageError, match="is an encoder-decoder; expected a causal LM"):
            read(ModelConfig(str(tmp_path)))
    assert SCRIPTS["lape"].run(tmp_path, tmp_path / "r") == 2


def test_a_tokenizer_without_an_end_token(checkpoint, tmp_path, capsys, monkeypatch):
    file = checkpoint / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["eos_token"]
    file.write_text(json.dumps(settings))
    monkeypatch.setattr(
        "neurosurgery.models.load.load_model", lambda *_: pytest.fail("a model was loaded")
    )
    assert SCRIPTS["mathneuro"].run(checkpoint, tmp_path / "r") == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith("has a tokenizer without an end token (eos_token)")
    assert len(error.splitlines()) == 1


@pytest.fixture
def added(tiny_model):
    """The tiny model and a tokenizer with one token more than its embedding."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = build_model("llama")
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.add_tokens([AddedToken("<image>", special=True)])
    return model, tokenizer


def test_an_added_token_is_refused_only_where_a_text_holds_it(added):
    model, tokenizer = added
    place = len(tokenizer) - 1
    check_vocabulary(model, tokenizer, "m", {"math": ["Mia has 3 apples."]})
    with pytest.raises(UsageError) as error:
        check_vocabulary(model, tokenizer, "m", {"math": ["Mia has 3.", "an <image> of Mia"]})
    assert str(error.value) == (
        f"--model m: knows {place} tokens, but sample 2 of math has '<image>' with the id {place}; "
        "expected the model's own tokenizer"
    )
    harness = LanguageModel(model, tokenizer, 1)
    message = f"the model knows {place} tokens, but a prompt of the tasks holds '<image>' with"
    for request in (("Mia", " <image>"), ("<image>", " Mia")):
        with pytest.raises(RunError, match=message):
            harness.loglikelihood([Instance("loglikelihood", {}, request, 0)], disable_tqdm=True)
    # Sampling is left to the harness's own backend, which has another way to encode.
    for arguments in ({"until": ["."]}, {"until": ["."], "do_sample": True, "temperature": 1.0}):
        request = Instance("generate_until", {}, ("<image>", arguments), 0)
        with pytest.raises(RunError, match=message):
            harness.generate_until([request], disable_tqdm=True)


def test_a_tokenizer_that_is_larger_than_the_embedding(tokenizer, tmp_path, capsys):
    model = build_model("llama")
    model.resize_token_embeddings(1000)
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    assert SCRIPTS["mathneuro"].run(tmp_path / "m", tmp_path / "r") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "knows 1000 tokens, but the tokenizer has" in error
    assert not list((tmp_path / "r").glob("*"))
