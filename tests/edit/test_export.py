"""Exported models: the same bits as the edit in place, complete or not there, for other tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from weights import bits, save_model

from neurosurgery.__main__ import main
from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.common.files import replaced_folder
from neurosurgery.edit.export import export_model
from neurosurgery.edit.scale import scaled
from neurosurgery.masks.files import write_mask_file

MODELS = [("llama", True), ("llama", False), ("gpt2", True), ("gemma2", True)]
IDS = torch.arange(40)[None] * 7 + 3


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.suffix in (".tmp", ".old")]


@pytest.mark.parametrize("scalar", [0.0, 1.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "tied"), MODELS)
def test_round_trip_is_bit_exact(family, tied, dtype, scalar, tokenizer, tmp_path):
    """The command's export gives the logits of the edit in place, and touches nothing else."""
    _, mask = save_model(tmp_path / "base", tokenizer, family, tied=tied, dtype=dtype)
    write_mask_file(tmp_path / "mask.safetensors", mask, {"model": str(tmp_path / "base")})
    output = tmp_path / "edited"
    argv = ["apply", str(tmp_path / "mask.safetensors"), "--scalar", str(scalar)]
    assert main([*argv, "--output", str(output)]) == 0

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto").eval()
    edited = AutoModelForCausalLM.from_pretrained(output, dtype="auto").eval()
    assert edited.dtype == dtype
    unedited = logits(base)
    with scaled(base, mask, scalar):
        in_place = logits(base)
    assert torch.equal(logits(edited), in_place)
    assert not torch.equal(in_place, unedited)

    before = load_file(tmp_path / "base" / "model.safetensors")
    after = load_file(output / "model.safetensors")
    assert before.keys() == after.keys()
    # Checkpoints leave out the prefix of the base model in some families.
    selected = {name.removeprefix("transformer."): mask.tensor(name) for name in mask}
    touched = 0
    for name, tensor in before.items():
        kept = torch.ones(tensor.shape, dtype=torch.bool)
        if name.removeprefix("transformer.") in selected:
            kept = ~selected[name.removeprefix("transformer.")]
            touched += 1
        assert torch.equal(bits(after[name])[kept], bits(tensor)[kept]), name
    assert touched == len(mask)


def test_files_and_other_loaders(tokenizer, tmp_path):
    model, mask = save_model(tmp_path / "base", tokenizer)
    provenance = {
        "model": "some-org/some-model",
        "revision": "v2",
        "method": "mathneuro",
        "calibration": "Race",
        "proportion": 0.05,
        "num_samples": 500,
        "repeat": 3,
        "seed": 42,
        "skill_topk": 4 * mask.count(),
    }
    output = tmp_path / "edited"
    edit = export_model(model, tokenizer, mask, 1.5, output, provenance)
    assert {path.name for path in output.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "neurosurgery.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert len({path.stat().st_mode for path in output.iterdir()}) == 1
    assert not [path for path in output.glob("*.*json") if str(tmp_path) in path.read_text()]

    card = ModelCard.load(output / "README.md")
    assert card.data.base_model == "some-org/some-model"
    assert card.data.library_name == "transformers"
    for text in (
        f"{mask.count():,} weights",
        "scaled by 1.5",
        "revision v2",
        "| told apart from (calibration set) | Race |",
        "| proportion of every matrix's weights in a top-K | 0.05 |",
        "| seed | 42 |",
        "| share of the skill's top-K that is edited | 25.0% |",
        "Factor really applied: 1.5, to five digits, in float32.",
        "2410.16930",
        "AutoModelForCausalLM.from_pretrained",
    ):
        assert text in card.text

    record = json.loads((output / "neurosurgery.json").read_text())
    assert record["format"] == "neurosurgery-export/1"
    assert record["edited"] == mask.count() == edit.mask.count()
    assert record["mask"]["calibration"] == "Race"

    reloaded = AutoTokenizer.from_pretrained(output)
    assert isinstance(reloaded, PreTrainedTokenizerBase)
    text = "Mia has 3 apples."
    assert reloaded.encode(text) == tokenizer.encode(text)
    harness = HFLM(pretrained=str(output), dtype="auto", device="cpu", batch_size=1)
    request = Instance("loglikelihood", {}, ("Mia has", " 3 apples."), 0)
    [(found, _)] = harness.loglikelihood([request], disable_tqdm=True)
    with scaled(model, mask, 1.5):
        ids = torch.tensor([tokenizer.encode("Mia has") + tokenizer.encode(" 3 apples.")])
        with torch.inference_mode():
            scores = model(ids).logits.log_softmax(-1)
    rest = len(tokenizer.encode(" 3 apples."))
    positions = range(ids.shape[1] - rest, ids.shape[1])
    expected = sum(float(scores[0, i - 1, ids[0, i]]) for i in positions)
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_factor_after_rounding_is_told(tokenizer, tmp_path, capsys):
    model, mask = save_model(tmp_path / "base", tokenizer, dtype=torch.bfloat16)
    write_mask_file(tmp_path / "m.safetensors", mask, {"model": str(tmp_path / "base")})
    argv = ["apply", str(tmp_path / "m.safetensors"), "--output", str(tmp_path / "edited")]
    assert main([*argv, "--scalar", "1.01"]) == 0
    assert "after rounding the factor is 1.0" in capsys.readouterr().out
    with scaled(model, mask, 1.01) as factor:
        card = (tmp_path / "edited" / "README.md").read_text()
    assert f"bfloat16 made it {factor.median:.5g} (median; {factor.smallest:.5g} to" in card
    # In float32 the same scalar is exact enough, and the bfloat16 weights do not change.
    assert main([*argv, "--scalar", "0", "--dtype", "float32", "--overwrite"]) == 0
    edited = AutoModelForCausalLM.from_pretrained(tmp_path / "edited", dtype="auto")
    assert edited.dtype == torch.float32
    for name, parameter in model.named_parameters():
        kept = ~mask.tensor(name) if name in mask.shapes else torch.ones(parameter.shape).bool()
        assert torch.equal(edited.get_parameter(name)[kept], parameter[kept].float())


def test_weights_are_put_back_and_nothing_is_left_after_an_error(tokenizer, tmp_path, monkeypatch):
    model, mask = save_model(tmp_path / "base", tokenizer)
    before = {name: bits(parameter) for name, parameter in model.named_parameters()}
    export_model(model, tokenizer, mask, 0.0, tmp_path / "edited", {})
    first = {path.name: path.read_bytes() for path in (tmp_path / "edited").iterdir()}

    def fail(*_args):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(tokenizer), "save_pretrained", fail)
        with pytest.raises(RunError, match="cannot be written: No space left on device"):
            export_model(model, tokenizer, mask, 2.0, tmp_path / "new", {})
        with pytest.raises(RunError, match="No space left"):
            export_model(model, tokenizer, mask, 2.0, tmp_path / "edited", {}, overwrite=True)
    assert not (tmp_path / "new").exists()
    assert {path.name: path.read_bytes() for path in (tmp_path / "edited").iterdir()} == first
    assert not temporary_files(tmp_path)
    for name, parameter in model.named_parameters():
        assert torch.equal(bits(parameter), before[name])

    export_model(model, tokenizer, mask, 2.0, tmp_path / "edited", {}, overwrite=True)
    assert (tmp_path / "edited" / "model.safetensors").read_bytes() != first["model.safetensors"]
    assert not temporary_files(tmp_path)


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    output = tmp_path / "edited"
    output.mkdir()
    (output / "old").write_text("")
    rename = Path.rename

    def fail(path, target):
        if path.suffix == ".tmp":
            raise OSError("gone")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="gone"), replaced_folder(output) as folder:
        (folder / "new").write_text("")
    assert [path.name for path in output.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [output]


def test_a_scalar_that_overflows_is_refused(tokenizer, tmp_path):
    model, mask = save_model(tmp_path / "base", tokenizer, dtype=torch.float16)
    with pytest.raises(UsageError, match="makes weights infinite in float16"):
        export_model(model, tokenizer, mask, 1e30, tmp_path / "edited", {})
    assert not (tmp_path / "edited").exists()
    assert not temporary_files(tmp_path)
