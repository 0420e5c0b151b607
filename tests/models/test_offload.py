"""Weights off the devices, in memory or on a disk: found, edited and exported as those on one."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from transformers import AutoModelForCausalLM

from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.activations.gradients import collect_gradients, kept_top_k
from neurosurgery.activations.samples import ScoringPass
from neurosurgery.common.errors import RestoreError, UsageError
from neurosurgery.edit.export import export_model
from neurosurgery.edit.restore import undone
from neurosurgery.edit.scale import scaled
from neurosurgery.edit.training import trainable
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.methods.ranking import TopK
from neurosurgery.models.load import load_model
from neurosurgery.models.offload import input_device, offloaded
from neurosurgery.models.targets import find_targets
from neurosurgery.settings.experiment import ModelConfig
from tests.expert_models import SAMPLES, expert_model
from tests.requests_for_models import option_requests, random
from tests.tiny_tokenizers import word_tokenizer

ONCE = np.ones((1, len(SAMPLES)), dtype=int)
DISK = {
    "model.embed_tokens": "disk",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}


@pytest.fixture(params=["mixtral", "qwen3_moe", "gpt_oss"])
def folder(request, tmp_path):
    """A model's folder; experts are converted when they are loaded."""
    expert_model(request.param).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(params=["cpu", "disk"])
def pair(request, folder):
    """The model on one device, and the same with weights off it."""
    config = ModelConfig(str(folder), device="cpu")
    whole = load_model(config, word_tokenizer()).model
    if request.param == "cpu":
        away = load_model(config, word_tokenizer()).model
        cpu_offload(away, execution_device=torch.device("cpu"))
        # As transformers notes where it loads a model so.
        away.hf_device_map = {"model": "cpu", "lm_head": "cpu"}
    else:
        config = ModelConfig(str(folder), device_map=json.dumps(DISK))
        away = load_model(config, word_tokenizer(), "float32").model
    assert offloaded(away)
    assert not offloaded(whole)
    return whole, away


def masks(models, proportion: float = 0.1):
    found = []
    for model in models:
        targets = find_targets(model)
        norms = collect_activation_norms(model, targets, SAMPLES, ONCE)[0]
        found.append(TopK(targets, norms, [proportion]).mask(proportion))
    return found


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor(SAMPLES[:1])).logits


def hashes(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_masks_are_those_of_the_model_on_one_device(pair):
    whole, away = pair
    names = [[target.name for target in find_targets(model)] for model in pair]
    assert names[0] == names[1]
    for one, other in zip(find_targets(whole), find_targets(away), strict=True):
        assert torch.equal(one.weight, other.weight)
    one, other = masks(pair)
    assert one == other


def test_an_edit_reaches_the_loaded_weights_and_is_undone(pair, folder):
    before = hashes(folder)
    whole, away = pair
    mask = masks([whole])[0]
    plain = logits(away)
    assert torch.equal(plain, logits(whole))
    with undone(away), scaled(away, mask, 0.25) as factor:
        edited = logits(away)
        assert factor is not None
        assert factor.median == 0.25
    with scaled(whole, mask, 0.25):
        assert torch.equal(edited, logits(whole))
    assert not torch.equal(edited, plain)
    assert torch.equal(logits(away), plain)
    for one, other in zip(find_targets(whole), find_targets(away), strict=True):
        assert torch.equal(one.weight, other.weight)
    assert hashes(folder) == before


def test_what_something_else_has_put_there_is_told(pair):
    _, away = pair
    mask = masks([away])[0]
    module = find_targets(away)[-1].module
    hook = module._hf_hook
    for each in getattr(hook, "hooks", (hook,)):
        if getattr(each, "weights_map", None) is not None:
            hook = each
    with pytest.raises(RestoreError, match="offloaded"), scaled(away, mask, 0):
        hook.weights_map = {}


def test_an_export_is_that_of_the_model_on_one_device(pair, tmp_path):
    whole, away = pair
    mask = masks([whole])[0]
    for name, model in (("whole", whole), ("away", away)):
        export_model(model, word_tokenizer(), mask, 0.0, tmp_path / name, {"model": "base"})
    one, other = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("whole", "away")
    )
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert torch.equal(values, other[name]), name


def test_requests_are_answered_as_on_one_device(pair, monkeypatch):
    answers = []
    for model in pair:
        lm = LanguageModel(model, word_tokenizer(), 4)
        # Words of the small vocabulary.
        requests = option_requests(random.Random(3))[:12]
        monkeypatch.setattr(
            lm, "tok_encode", lambda text, **_: [len(w) % 60 + 2 for w in text.split()]
        )
        answers.append([score for score, _ in lm.loglikelihood(requests, disable_tqdm=True)])
    assert np.allclose(*answers, atol=1e-5)


def test_what_needs_all_weights_on_devices_is_refused(pair):
    _, away = pair
    targets = find_targets(away)
    mask = masks([away])[0]
    assert input_device(away) == torch.device("cpu")
    scoring = ScoringPass("skill", SAMPLES[:1], [1], np.ones((1, 1), dtype=int), [0.1], None, print)
    with pytest.raises(UsageError, match=r"off the devices.*backward pass"):
        collect_gradients(away, targets, scoring, kept_top_k)
    with pytest.raises(UsageError, match=r"off the devices.*training"), trainable(away, mask):
        pass


NESTED = '{"model": 0, "model.layers.1": "cpu"}', '{"": "cpu", "lm_head": "disk"}'


@pytest.mark.parametrize("text", ["somewhere", "[1]", '{"model": null}', "{", *NESTED])
def test_a_map_that_is_none_is_refused(text, tiny_model):
    with pytest.raises(UsageError, match="--device_map"):
        ModelConfig(str(tiny_model), device_map=text).check()
