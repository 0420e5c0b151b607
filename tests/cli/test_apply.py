"""`apply`: what it refuses before weights are read, and the models it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import build_model
from weights import random_mask, save_model

from neurosurgery.__main__ import main
from neurosurgery.edit.export import export_model
from neurosurgery.masks.files import write_mask_file
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.results.provenance import model_fingerprint


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer) -> Path:
    """A model, its mask, masks of other models, and outputs that cannot be."""
    folder = tmp_path_factory.mktemp("apply")
    model, mask = save_model(folder / "base", tokenizer)
    write_mask_file(folder / "mask.safetensors", mask, {"model": str(folder / "base")})
    write_mask_file(folder / "anonymous.safetensors", mask, {})
    write_mask_file(folder / "gone.safetensors", mask, {"model": str(folder / "gone")})
    write_mask_file(folder / "gpt2.safetensors", random_mask(build_model("gpt2")), {})
    write_mask_file(
        folder / "untied.safetensors", random_mask(build_model("llama", tied=False)), {}
    )
    layer_0 = {name: mask.tensor(name) for name in mask if ".layers.0." in name}
    write_mask_file(folder / "layer_0.safetensors", ParameterMask.from_tensors(layer_0), {})
    transposed = {name: mask.tensor(name).T for name in mask}
    write_mask_file(folder / "transposed.safetensors", ParameterMask.from_tensors(transposed), {})
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("mine")
    (folder / "file").write_text("")
    export_model(model, tokenizer, mask, 0.0, folder / "export", {})
    write_mask_file(folder / "export" / "mask.safetensors", mask, {"model": str(folder / "base")})
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("mask --scalar nan", "--scalar nan: expected a finite number"),
        ("mask --scalar inf", "--scalar inf: expected a finite number"),
        ("mask --scalar ten", "invalid float value: 'ten'"),
        ("mask", "--scalar: expected with a mask; 0 prunes"),
        ("none --scalar 0", "no such file; expected a mask file"),
        ("mask --scalar 0 --output {0}/full", "is not empty; expected a new folder"),
        ("mask --scalar 0 --output {0}/full --overwrite", "has no neurosurgery.json, so it is no"),
        ("mask --scalar 0 --output {0}/export", "is not empty; expected a new folder"),
        ("mask --scalar 0 --output {0}/file", "is a file; expected a new folder"),
        ("mask --scalar 0 --output {0}/file/x", "expected a folder that can be written"),
        (
            "export/mask --scalar 0 --output {0}/export --overwrite",
            "holds {0}/export/mask.safetensors, which is read",
        ),
        (
            "mask --scalar 0 --model {0}/export --output {0}/export --overwrite",
            "holds {0}/export, which is read",
        ),
        ("mask --scalar 0 --model {0}/full", "expected a folder with a config.json"),
        ("mask --scalar 0 --model nobody/nothing", "--model nobody/nothing: cannot be loaded"),
        ("anonymous --scalar 0", "--model: expected, for the mask does not say where"),
        ("gone --scalar 0", "--model {0}/gone: expected a model folder, a GGUF file or a hub id"),
        (
            "gpt2 --scalar 0 --model {0}/base",
            "transformer.h.0.attn.c_attn.weight is (24, 72) in the mask and missing in the model",
        ),
        (
            "untied --scalar 0 --model {0}/base",
            "is of another model than {0}/base: lm_head.weight is (1536, 24) in the mask and "
            "missing in the model",
        ),
        (
            "layer_0 --scalar 0 --model {0}/base",
            "model.layers.1.self_attn.q_proj.weight is missing in the mask and (24, 24)",
        ),
        (
            "transposed --scalar 0 --model {0}/base",
            "k_proj.weight is (24, 8) in the mask and (8, 24) in the model",
        ),
    ],
)
def test_refused_in_one_line_before_weights_are_read(
    arguments, message, folder, capsys, monkeypatch
):
    monkeypatch.setattr(
        "neurosurgery.models.load.load_model", lambda *_, **__: pytest.fail("a model was loaded")
    )
    mask, *flags = arguments.format(folder).split()
    argv = ["apply", f"{folder}/{mask}.safetensors", *flags]
    if "--output" not in argv:
        argv += ["--output", str(folder / "new")]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    try:
        status = main(argv)
    except SystemExit as error:
        status = error.code
    output = capsys.readouterr()
    assert status == 2
    assert message.format(folder) in output.err
    assert len(output.err.strip().splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_output_that_cannot_be_written(folder, capsys, monkeypatch):
    """Permissions do not bind the tests' user where that is root, so the refusal is simulated."""

    def refuse(**_arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    argv = ["apply", str(folder / "mask.safetensors"), "--scalar", "0"]
    assert main([*argv, "--output", str(folder / "new")]) == 2
    assert "expected a folder that can be written (Permission denied)" in capsys.readouterr().err
    assert not (folder / "new").exists()


def test_a_mask_can_be_applied_to_another_model_of_its_shape(folder, tokenizer, tmp_path):
    """A fine-tuned relative, say; the card tells both."""
    argv = ["apply", str(folder / "mask.safetensors"), "--scalar", "0"]
    argv += ["--model", str(folder / "export"), "--output", str(tmp_path / "edited")]
    assert main(argv) == 0
    card = (tmp_path / "edited" / "README.md").read_text()
    assert "| mask found in | base |" in card
    assert "# export, edited" in card
    assert str(folder) not in card


def test_other_weights_under_the_same_name_are_warned_of(folder, tokenizer, tmp_path, capsys):
    """A model that has been trained on since its mask was found has the same name and shapes."""
    base = folder / "base"
    mask = random_mask(build_model("llama"))
    for name, content in (("same", model_fingerprint(str(base), None)), ("other", "f" * 64)):
        provenance = {"model": str(base), "model_content": content}
        write_mask_file(tmp_path / f"{name}.safetensors", mask, provenance)
        argv = ["apply", str(tmp_path / f"{name}.safetensors"), "--scalar", "0"]
        assert main([*argv, "--output", str(tmp_path / name)]) == 0
        warned = "found in a model with other weights" in capsys.readouterr().err
        assert warned == (name == "other")
        card = (tmp_path / name / "README.md").read_text()
        assert ("mask found in" in card) == (name == "other")


def test_an_empty_folder_is_as_good_as_none(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    argv = ["apply", str(folder / "mask.safetensors"), "--scalar", "0"]
    assert main([*argv, "--output", str(tmp_path / "empty")]) == 0
    assert (tmp_path / "empty" / "model.safetensors").exists()
