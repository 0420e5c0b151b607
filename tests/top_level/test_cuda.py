"""On a GPU: the masks of the CPU, weights restored to the bit, runs continued to the byte."""

from __future__ import annotations

import pytest
import torch
from conftest import build_model
from scripts import SCRIPTS, without_timings
from weights import bits, random_mask

from neurosurgery.edit.scale import scaled_weights
from neurosurgery.masks.files import load_mask

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
    with scaled_weights(model, mask, 1.1):
        changed = [n for n, v in model.named_parameters() if not torch.equal(bits(v), before[n])]
        assert set(changed) == set(mask)
    for name, value in model.named_parameters():
        assert torch.equal(bits(value), before[name])
