"""On a GPU: the masks of the CPU, weights restored to the bit, runs continued to the byte."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import FAMILIES, VOCABULARY, build_model
from planted import planted_model, planted_pairs
from scripts import SCRIPTS, without_timings
from weights import bits, random_mask, weights_of

import PathPatching
from neurosurgery.edit.ablation import ablated, head_means
from neurosurgery.edit.delta import added_delta
from neurosurgery.edit.fine_tune import Fit, TrainedPart, fit
from neurosurgery.edit.scale import scaled
from neurosurgery.edit.training import trainable
from neurosurgery.localisation.patching_metrics import PromptPairs
from neurosurgery.localisation.path_patching import head_effects
from neurosurgery.masks.files import load_mask
from neurosurgery.masks.head_units import find_heads
from neurosurgery.settings.training import TrainingConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module", params=SCRIPTS)
def runs(request, tiny_model, tmp_path_factory):
    """The same float32 command on the CPU and on the GPU."""
    script = SCRIPTS[request.param]
    folders = {}
    for device in ("cpu", "cuda"):
        folders[device] = tmp_path_factory.mktemp(device)
        flags = ("--device", device, "--dtype", "float32", "--pre_train_eval", "--save_masks")
        assert script.run(tiny_model, folders[device], *flags) == 0
    return script, folders


def test_the_masks_of_the_gpu_are_those_of_the_cpu(runs):
    _, folders = runs
    found = (folders["cpu"] / "masks").rglob("*.safetensors")
    files = sorted(path.relative_to(folders["cpu"]) for path in found)
    assert files
    for name in files:
        ours, theirs = (load_mask(folder / name) for folder in folders.values())
        # Sums in another order may exchange entries whose scores are equal to the last digits.
        assert (ours & theirs).count() >= 0.99 * ours.count()


def test_a_finished_run_on_the_gpu_is_continued_to_the_same_table(runs, tiny_model):
    script, folders = runs
    before = without_timings(folders["cuda"])
    (folders["cuda"] / "results.csv").unlink()
    flags = ("--device", "cuda", "--dtype", "float32", "--pre_train_eval", "--save_masks")
    assert script.run(tiny_model, folders["cuda"], *flags) == 0
    assert without_timings(folders["cuda"]) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_to_the_bit_on_the_gpu(dtype):
    model = build_model("llama").to("cuda", dtype)
    before = {name: bits(value).clone() for name, value in model.named_parameters()}
    mask = random_mask(model)
    with scaled(model, mask, 1.1):
        changed = [n for n, v in model.named_parameters() if not torch.equal(bits(v), before[n])]
        assert set(changed) == set(mask)
    for name, value in model.named_parameters():
        assert torch.equal(bits(value), before[name])


PAIRS = PromptPairs([[5, 6, 7], [8, 9, 10, 11]], [[5, 9, 7], [8, 3, 10, 11]], [4, 2])


@pytest.mark.parametrize("family", FAMILIES)
def test_effects_of_the_gpu_are_those_of_the_cpu(family):
    ours, theirs = (
        head_effects(build_model(family).to(device), PAIRS) for device in ("cuda", "cpu")
    )
    assert ours.used == theirs.used == "chain"
    assert torch.allclose(ours.changes, theirs.changes, atol=1e-4)


def test_heads_are_knocked_out_and_come_back_on_the_gpu():
    model, pairs = planted_model().to("cuda"), planted_pairs()
    heads = find_heads(model)
    means = head_means(model, pairs.counterfactuals, heads)
    tokens = torch.tensor(pairs.references[:2], device="cuda")
    with torch.inference_mode():
        before = model(tokens).logits
        with ablated(model, head_effects(model, pairs).ranking()[:1], means):
            assert not torch.allclose(model(tokens).logits, before, atol=1e-3)
        assert torch.equal(model(tokens).logits, before)


def test_cells_of_heads_on_the_gpu(tmp_path):
    """The demo in float32: the same heads as on the CPU, and nearly the same values."""
    flags = "--num_prompts 40 --num_draws 2 --top 2 --num_repeats 1 --eval_limit 20".split()
    tables = {}
    for device in ("cpu", "cuda"):
        where = ["--save_path", str(tmp_path / device), "--device", device, "--dtype", "float32"]
        assert PathPatching.main([*where, *flags]) == 0
        tables[device] = pd.read_csv(tmp_path / device / "results.csv")
    ours, theirs = (
        {
            str(p.relative_to(tmp_path / d)): pd.read_csv(p)["module"].to_list()
            for p in (tmp_path / d).rglob("top2*.csv")
        }
        for d in ("cuda", "cpu")
    )
    assert ours == theirs
    assert (tables["cuda"]["value"] - tables["cpu"]["value"]).abs().median() <= 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_selected_weights_are_trained_and_no_others(family, dtype, tmp_path):
    """The Trainer on a GPU: every bit outside the mask stays, and the changes give the weights."""
    model = build_model(family).to("cuda", dtype)
    mask, before = random_mask(model), weights_of(model)
    draw = torch.Generator().manual_seed(1)
    samples = [
        {"input_ids": ids, "labels": ids}
        for ids in torch.randint(1, VOCABULARY, (12, 9), generator=draw).tolist()
    ]
    config = TrainingConfig(Path("x.csv"), epochs=2.0, train_batch_size=4)
    with trainable(model, mask) as entries:
        what = Fit("cell", samples, samples[:4], 1e-2, 3, tmp_path)
        rows = fit(TrainedPart(model, entries.changes), what, config)
    assert rows[-1]["held_out_loss"] < rows[0]["held_out_loss"]
    trained = weights_of(model)
    for name, weight in trained.items():
        inside = mask.tensor(name) if name in mask else torch.zeros(weight.shape, dtype=torch.bool)
        moved = (weight != before[name]).cpu()
        assert not moved[~inside].any()
        assert moved.any() == bool(inside.any())
    entries.restore()
    with added_delta(model, entries.delta()):
        assert all(torch.equal(trained[n], w) for n, w in weights_of(model).items())
    assert all(torch.equal(before[n], w) for n, w in weights_of(model).items())


def test_a_masked_step_is_that_of_the_cpu():
    ids = torch.arange(1, 19).reshape(2, 9)
    found = {}
    for device in ("cpu", "cuda"):
        model = build_model("llama").to(device)
        with trainable(model, random_mask(model)) as entries:
            step = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
            for _ in range(2):
                step.zero_grad()
                model(input_ids=ids.to(device), labels=ids.to(device)).loss.backward()
                step.step()
        found[device] = entries.delta()
    for name in found["cpu"].mask:
        difference = (found["cpu"].values[name] - found["cuda"].values[name]).abs()
        # Where a gradient is next to nothing, Adam takes its sign.
        assert difference.quantile(0.95) < 1e-4
