"""`apply`: what it refuses before weights are read, and the models it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import build_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from weights import random_mask, save_model

from neurosurgery.__main__ import main
from neurosurgery.edit.delta import Delta
from neurosurgery.edit.delta_files import write_delta_file
from neurosurgery.edit.export import export_model
from neurosurgery.masks.files import write_mask_file
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.results.provenance import model_fingerprint

pytestmark = pytest.mark.whole


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
        ("mask --scalar ten", "--scalar ten: expected a number"),
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


def apply_changes(folder, tmp_path, values, *flags, dtype=None) -> int:
    """Write a file of changes for the base model and apply it."""
    mask = random_mask(build_model("llama"))
    changes = {name: torch.full((n,), 1e-3) for name, n in mask.counts().items()}
    first = next(iter(changes))
    changes[first][: len(values)] = torch.tensor(values)
    if dtype is not None:
        changes[first] = changes[first].to(dtype)
    path = tmp_path / "d.safetensors"
    write_delta_file(path, Delta(mask, changes), {"model": str(folder / "base")})
    return main(["apply", str(path), "--output", str(tmp_path / "new"), *flags])


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([torch.nan], None, "NaN or infinite"),
        ([1.0, torch.inf], None, "NaN or infinite"),
        ([-torch.inf], None, "NaN or infinite"),
        ([1.0], torch.float64, "is F64; expected F32"),
        ([1.0], torch.int64, "is I64; expected F32"),
        ([1.0], torch.bfloat16, "is BF16; expected F32"),
    ],
)
def test_changes_that_are_no_finite_float32_are_refused(
    values, dtype, message, folder, tmp_path, capsys
):
    assert apply_changes(folder, tmp_path, values, dtype=dtype) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(7e4, "float16"), (-7e4, "float16"), (3.4e38, "bfloat16"), (3.4e38, "float16")],
)
def test_changes_that_overflow_the_models_format_are_refused(
    value, dtype, folder, tmp_path, capsys
):
    assert apply_changes(folder, tmp_path, [value], "--dtype", dtype) == 2
    assert f"--dtype {dtype}: the changes make weights infinite" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "d.safetensors"]
    assert apply_changes(folder, tmp_path, [value], "--dtype", "float32") == 0


@pytest.mark.parametrize("scalar", ["1e39", "-1e39", "1e300"])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_scalar_that_overflows_is_refused_for_zeros_too(
    scalar, zeros, tokenizer, tmp_path, capsys
):
    """0 · ∞ is no number, though no factor of a weight that is not zero tells."""
    model, mask = save_model(tmp_path / "m", tokenizer)
    if zeros:
        with torch.no_grad():
            for name in mask:
                model.get_parameter(name).zero_()
        model.save_pretrained(tmp_path / "m")
    write_mask_file(tmp_path / "m.safetensors", mask, {"model": str(tmp_path / "m")})
    argv = ["apply", str(tmp_path / "m.safetensors"), f"--scalar={scalar}"]
    status = main([*argv, "--output", str(tmp_path / "new")])
    if status == 0:
        # The library has kept the zeros, which is as good.
        assert zeros
        written = load_file(tmp_path / "new" / "model.safetensors")
        assert all(values.isfinite().all() for values in written.values())
        return
    assert status == 2
    assert "--scalar" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("selected", [True, False])
def test_a_base_model_that_is_not_finite(value, selected, tokenizer, tmp_path, capsys):
    model, mask = save_model(tmp_path / "m", tokenizer)
    name = next(iter(mask)) if selected else "model.norm.weight"
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = value
    model.save_pretrained(tmp_path / "m")
    write_mask_file(tmp_path / "m.safetensors", mask, {"model": str(tmp_path / "m")})
    argv = ["apply", str(tmp_path / "m.safetensors"), "--scalar", "0"]
    assert main([*argv, "--output", str(tmp_path / "new")]) == (2 if selected else 0)
    error = capsys.readouterr().err
    assert name in error
    assert "NaN or infinite" in error
    assert ("warning:" in error) == (not selected)
    assert (tmp_path / "new").exists() == (not selected)


@pytest.mark.parametrize("field", ["skill_topk", "proportion", "training", "method", "calibration"])
def test_a_hostile_provenance_is_text_on_the_card(field, folder, tmp_path, capsys):
    mask = random_mask(build_model("llama"))
    hostile = "\x1b[2J|\ud800\n# Title\u202e"
    value = {hostile: hostile} if field == "training" else hostile
    provenance = {"model": str(folder / "base"), field: value}
    write_mask_file(tmp_path / "m.safetensors", mask, provenance)
    argv = ["apply", str(tmp_path / "m.safetensors"), "--scalar", "0"]
    assert main([*argv, "--output", str(tmp_path / "new")]) == 0
    card = (tmp_path / "new" / "README.md").read_text()
    assert not [char for char in card if char in "\x1b\u202e"]
    assert "\n# Title" not in card
    assert field == "skill_topk" or "Title" in card


@pytest.mark.parametrize("method", ["lora", "shira"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_merged(method, dtype, tokenizer, tmp_path, capsys):
    pytest.importorskip("peft", reason="PEFT is an extra")
    from neurosurgery.edit.adapters import Adapter, adapter_parameters, write_adapter

    model, mask = save_model(tmp_path / "base", tokenizer, tied=False, dtype=dtype)
    adapter = Adapter.of_size(method, model, list(mask), mask.count(), seed=5)
    generator = torch.Generator().manual_seed(1)
    with adapter.added(model) as adapted, torch.no_grad():
        parameters = adapter_parameters(adapted)
        for p in parameters.values():
            p.copy_(torch.randn(p.shape, generator=generator) / 10)
        path = tmp_path / "a.safetensors"
        write_adapter(path, adapter, parameters, {"model": str(tmp_path / "base")})
        wanted = adapted(torch.arange(1, 30)[None]).logits.float()
    argv = ["apply", str(path), "--output", str(tmp_path / "new")]
    assert main(argv) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype="auto").eval()
    with torch.no_grad():
        found = merged(torch.arange(1, 30)[None]).logits.float()
        untouched = model(torch.arange(1, 30)[None]).logits.float()
    atol = 1e-5 if dtype is torch.float32 else 0.06
    torch.testing.assert_close(found, wanted, atol=atol, rtol=0)
    assert (untouched - wanted).abs().max() > 0.3
    assert main([*argv, "--overwrite", "--scalar", "0"]) == 2
    assert "cannot be had with the changes of a training" in capsys.readouterr().err

    save_model(tmp_path / "other", tokenizer, "gpt2", dtype=dtype)
    assert main([*argv, "--overwrite", "--model", str(tmp_path / "other")]) == 2
    assert "is of another model" in capsys.readouterr().err


def test_an_empty_folder_is_as_good_as_none(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    argv = ["apply", str(folder / "mask.safetensors"), "--scalar", "0"]
    assert main([*argv, "--output", str(tmp_path / "empty")]) == 0
    assert (tmp_path / "empty" / "model.safetensors").exists()
