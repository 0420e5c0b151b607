"""LoRA and SHiRA as controls: as many values, and the model untouched afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import VOCABULARY, build_model
from safetensors.torch import load_file, save_file
from weights import random_mask, weights_of

from neurosurgery.common.errors import RunError
from neurosurgery.config.training import TrainingConfig
from neurosurgery.edit.fine_tune import Fit, TrainedPart, fit

pytest.importorskip("peft", reason="PEFT is an extra: requirements-peft.txt")

from neurosurgery.edit.adapters import Adapter, adapter_parameters, load_adapter, write_adapter

IDS = torch.randint(1, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(2))
SAMPLES = [{"input_ids": row.tolist(), "labels": row.tolist()} for row in IDS]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def train(method: str, model, path: Path) -> Adapter:
    mask = random_mask(model)
    adapter = Adapter.of_size(method, model, list(mask), mask.count(), seed=5)
    with adapter.added(model) as adapted:
        parameters = adapter_parameters(adapted)
        what = Fit("cell", SAMPLES, SAMPLES, 1e-2, 3, path.parent / "checkpoints")
        config = TrainingConfig(Path("x.csv"), epochs=3.0)
        rows = fit(TrainedPart(adapted, parameters.values()), what, config)
        write_adapter(path, adapter, parameters, {"why": "a test"})
    assert rows[-1]["held_out_loss"] < rows[0]["held_out_loss"]
    return load_adapter(path)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", ["lora", "shira"])
def test_what_is_trained_is_kept_and_taken_away(method, family, tmp_path):
    if (method, family) == ("shira", "gpt2"):
        pytest.skip("PEFT's SHiRA takes no Conv1D")
    model = build_model(family)
    before, untouched = weights_of(model), logits(model)
    names = [name for name, _ in model.named_modules()]
    adapter = train(method, model, tmp_path / "adapter.safetensors")
    fresh = build_model(family)
    with adapter.applied(fresh):
        assert not torch.equal(logits(fresh), untouched)
        changed = logits(fresh)
    with adapter.applied(model):
        assert torch.equal(logits(model), changed)
    for each in (model, fresh):
        assert torch.equal(logits(each), untouched)
        assert all(torch.equal(before[name], w) for name, w in weights_of(each).items())
        assert [name for name, _ in each.named_modules()] == names
        assert all(p.requires_grad for p in each.parameters())
        assert not hasattr(each, "peft_config")


@pytest.mark.parametrize("method", ["lora", "shira"])
def test_the_number_of_values_comes_close_to_the_masks(method, tmp_path):
    model = build_model("llama")
    mask = random_mask(model, density=0.4)
    adapter = train(method, model, tmp_path / "adapter.safetensors")
    per_rank = sum(sum(mask.shapes[name]) for name in mask)
    assert adapter.count == adapter.rank * per_rank
    wanted = random_mask(model).count()
    assert abs(adapter.count - wanted) <= per_rank / 2 or adapter.rank == 1
    more = Adapter.of_size(method, model, list(mask), 3 * per_rank, seed=5)
    assert more.rank == 3


def test_shira_has_no_more_values_than_the_smallest_matrix_has_places():
    model = build_model("llama")
    names = list(random_mask(model))
    adapter = Adapter.of_size("shira", model, names, 10**9, seed=5)
    smallest = min(model.get_parameter(n).numel() for n in names)
    rows, columns = min((model.get_parameter(n).shape for n in names), key=lambda s: s.numel())
    assert adapter.rank * (rows + columns) <= smallest


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(RunError, match="is no readable adapter"):
        load_adapter(path)
    save_file({"x": torch.zeros(1)}, path)
    assert load_file(path)
    with pytest.raises(RunError, match="is no readable adapter"):
        load_adapter(path)
