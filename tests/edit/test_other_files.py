"""What a model's folder holds besides weights comes along with its edited copy."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from weights import random_mask, save_model

from neurosurgery.__main__ import main
from neurosurgery.edit.export import export_model
from neurosurgery.edit.other_files import copy_other_files
from neurosurgery.masks.files import write_mask_file

COMES = """
preprocessor_config.json processor_config.json video_preprocessor_config.json LICENSE NOTICE
modeling_own.py chat_template.jinja additional_chat_templates/tool.jinja vocab.json merges.txt
tokenizer.model tokens.tiktoken special_tokens_map.json 1_Pooling/config.json assets/a/figure.png
original/params.json
""".split()

STAYS = """
pytorch_model.bin pytorch_model-00001-of-00002.bin pytorch_model.bin.index.json model.gguf
model-00001-of-00002.safetensors model.safetensors.index.json model.safetensors.index.fp16.json
original/consolidated.00.pth flax_model.msgpack tf_model.h5 rust_model.ot onnx/model.onnx
onnx/model.onnx_data openvino/openvino_model.xml openvino/openvino_model.bin MODEL.SAFETENSORS
optimizer.pt scheduler.pt rng_state.pth training_args.bin adapter_config.json
adapter_model.safetensors checkpoint-500/config.json checkpoint-500/trainer_state.json
.git/config .cache/huggingface/x .edited.1.tmp/config.json __pycache__/modeling_own.pyc
earlier/neurosurgery.json earlier/config.json
""".split()


def fill(folder: Path) -> None:
    for name in (*COMES, *STAYS):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def base(tokenizer, tmp_path):
    """A model and its mask; the folder gets the other files once the model is there."""
    model, mask = save_model(tmp_path / "base", tokenizer)
    return model, mask, tmp_path / "base"


def test_everything_but_weights_comes_along(base, tokenizer, tmp_path):
    """`--save_model` writes by the same function."""
    model, mask, folder = base
    plain = tmp_path / "plain"
    export_model(model, tokenizer, mask, 0.0, plain, {"model": str(folder)})
    fill(folder)
    (folder / "README.md").write_text("the base's card")
    (folder / "neurosurgery.json").write_text("{}")
    (folder / "generation_config.json").write_text('{"temperature": 7.0}')
    output = tmp_path / "edited"
    export_model(model, tokenizer, mask, 0.0, output, {"model": str(folder)})
    assert files(output) == files(plain) | set(COMES)
    for name in COMES:
        assert (output / name).read_text() == f"content of {name}"
    # What describes the edited model is its own.
    for name in files(plain) - {"neurosurgery.json", "README.md"}:
        assert (output / name).read_bytes() == (plain / name).read_bytes(), name
    assert "# base, edited" in (output / "README.md").read_text()
    assert json.loads((output / "neurosurgery.json").read_text())["edited"] == mask.count()
    assert len({path.stat().st_mode for path in output.iterdir() if path.is_file()}) == 1


def test_apply_takes_them_along_and_its_output_may_lie_inside(base, tmp_path):
    _, mask, folder = base
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "x"}')
    (folder / "processor_config.json").write_text('{"processor_class": "y"}')
    write_mask_file(tmp_path / "m.safetensors", mask, {"model": str(folder)})
    argv = ["apply", str(tmp_path / "m.safetensors"), "--scalar", "0"]
    for output in (folder / "edited", folder / "edited again"):
        assert main([*argv, "--output", str(output)]) == 0
        for name in ("preprocessor_config.json", "processor_config.json"):
            assert (output / name).read_bytes() == (folder / name).read_bytes()
        assert not [path for path in output.iterdir() if path.is_dir()]


def test_links_are_followed_to_files_only(base, tokenizer, tmp_path):
    """As in the cache of the hub, whose files are links."""
    model, mask, folder = base
    (tmp_path / "blob").write_text("licence")
    (folder / "LICENSE").symlink_to(tmp_path / "blob")
    (folder / "loop").symlink_to(folder)
    (folder / "gone").symlink_to(tmp_path / "nothing")
    if sys.platform != "win32":
        os.mkfifo(folder / "pipe")
    export_model(model, tokenizer, mask, 0.0, tmp_path / "edited", {"model": str(folder)})
    assert (tmp_path / "edited" / "LICENSE").read_text() == "licence"
    assert not (tmp_path / "edited" / "LICENSE").is_symlink()
    assert not files(tmp_path / "edited") & {"loop", "gone", "pipe"}
    assert not [path for path in (tmp_path / "edited").iterdir() if path.is_dir()]


@pytest.mark.parametrize("name", [None, "", 3, "model.gguf", "/nowhere/at/all", "nobody/nothing"])
def test_without_a_source_nothing_comes(name, base, tmp_path, monkeypatch):
    model, _, folder = base
    (folder / "model.gguf").write_text("")
    (folder / "LICENSE").write_text("")
    monkeypatch.chdir(folder)
    copy_other_files(model, name, tmp_path)
    assert files(tmp_path) == {f"base/{each}" for each in files(folder)}


def test_a_hub_models_files_come_from_the_snapshot(base, tmp_path, monkeypatch):
    """Offline: the cache has what was fetched."""
    model, mask, _ = base
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "cache"
    repository = cache / "models--org--name"
    snapshot = repository / "snapshots" / commit
    fill(snapshot)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(model.config, "_commit_hash", commit, raising=False)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text("ours")
    copy_other_files(model, "org/name", tmp_path / "new")
    assert files(tmp_path / "new") == {"config.json", *COMES}
    assert (tmp_path / "new" / "config.json").read_text() == "ours"
    assert random_mask(model) == mask
