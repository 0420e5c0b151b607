"""Whole commands on tiny models that read images, too, and on hybrids."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

import MathNeuro
import PathPatching
from benchmarks.tiny_families import build
from neurosurgery.__main__ import main
from neurosurgery.masks.files import read_mask_file
from neurosurgery.settings.demo import DEMO
from tests.image_models import image_model
from tests.scripts import DEMO_DATA, DEMO_TASKS

pytestmark = pytest.mark.whole

SMALL = "--proportion 0.05 --num_repeats 1 --num_samples 8 --eval_limit 4 --save_masks".split()


@pytest.mark.parametrize(
    ("family", "towers"),
    [
        ("gemma3", "model.vision_tower, model.multi_modal_projector"),
        ("qwen3_5", "model.visual"),
    ],
)
def test_a_skill_is_found_in_the_text_part_and_the_model_exported_whole(
    family, towers, tmp_path, capsys
):
    model, results, edited = (tmp_path / name for name in ("tiny", "results", "edited"))
    tokenizer = AutoTokenizer.from_pretrained(DEMO.model)
    whole = image_model(family, vocab_size=len(tokenizer))
    whole.save_pretrained(model)
    tokenizer.save_pretrained(model)
    flags = ["--model", str(model), "--save_path", str(results), *DEMO_DATA, *DEMO_TASKS, *SMALL]
    assert MathNeuro.main([*flags, "--dry_run"]) == 0
    assert MathNeuro.main(flags) == 0
    printed = capsys.readouterr().out
    assert f"left as it is: {towers}, " in printed
    assert "no sample reached" not in printed
    path = next((results / "masks").rglob("*.safetensors"))
    assert main(["apply", str(path), "--scalar", "0", "--output", str(edited)]) == 0
    file = read_mask_file(path)
    on_disk = (load_file(folder / "model.safetensors").keys() for folder in (model, edited))
    assert len({tuple(sorted(names)) for names in on_disk}) == 1
    before, after = whole.state_dict(), type(whole).from_pretrained(edited).state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {name for name, count in file.mask.counts().items() if count}
    assert len(before) > len(file.mask) > 0


def test_path_patching_refuses_a_hybrid_before_any_work(tmp_path, capsys):
    model, results = tmp_path / "tiny", tmp_path / "results"
    build("jamba").save_pretrained(model)
    AutoTokenizer.from_pretrained(DEMO.model).save_pretrained(model)
    flags = ["--model", str(model), "--save_path", str(results)]
    assert PathPatching.main(flags) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: --model {model}: has no separable attention heads in" in error
    assert "layer 0, JambaMambaMixer" in error
    assert not results.exists()
