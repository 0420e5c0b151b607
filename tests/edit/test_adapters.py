"""LoRA and SHiRA as controls: as many values, and the model untouched afterwards."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import transformers
from conftest import VOCABULARY, build_model
from requests_for_models import assert_same_answers, both, option_requests, prompt_requests
from safetensors.torch import load_file, save_file
from weights import random_mask, weights_of

from neurosurgery.common.errors import RunError
from neurosurgery.edit.ablation import ablated
from neurosurgery.edit.fine_tune import Fit, TrainedPart, fit
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.evaluation.engine.passes import CachedPasses
from neurosurgery.masks.head_units import head_units, mlp_units
from neurosurgery.models.heads import find_blocks
from neurosurgery.settings.training import TrainingConfig

pytest.importorskip("peft", reason="PEFT is an extra")

from neurosurgery.edit.adapters import Adapter, adapter_parameters, load_adapter, write_adapter

pytestmark = pytest.mark.whole

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
        rows = fit(TrainedPart(model, parameters.values()), what, config)
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


def test_a_matrix_that_is_too_thin_limits_no_other():
    """A gate of experts has one row; SHiRA goes without it, LoRA adds as much as was asked for."""
    model = torch.nn.ModuleDict({"wide": torch.nn.Linear(40, 30), "gate": torch.nn.Linear(40, 1)})
    names = ["wide.weight", "gate.weight"]
    lora = Adapter.of_size("lora", model, names, 10 * (70 + 41), seed=5)
    assert (lora.rank, lora.modules) == (10, ("wide", "gate"))
    shira = Adapter.of_size("shira", model, names, 10 * 70, seed=5)
    assert (shira.rank, shira.modules) == (10, ("wide",))


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(RunError, match="is no readable adapter"):
        load_adapter(path)
    save_file({"x": torch.zeros(1)}, path)
    assert load_file(path)
    with pytest.raises(RunError, match="is no readable adapter"):
        load_adapter(path)


UNTIED = ("llama", "mistral", "qwen2", "phi3", "qwen3_moe")
"""Families whose large models have a head with weights of its own."""


def untied(family: str) -> transformers.PreTrainedModel:
    if family != "qwen3_moe":
        return build_model(family, tied=False)
    config = transformers.Qwen3MoeConfig(
        **build_model("qwen3").config.to_diff_dict()
        | {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
        | {"tie_word_embeddings": False}
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model


def random_adapter(method: str, model, *, scale: float = 0.1) -> Adapter:
    """An adapter of all matrices, the head too, with random values: no training is needed."""
    adapter = Adapter.of_size(method, model, list(random_mask(model)), 20_000, seed=5)
    draw = torch.Generator().manual_seed(1)
    with adapter.added(model) as adapted:
        parameters = adapter_parameters(adapted)
        values = {n: torch.randn(p.shape, generator=draw) * scale for n, p in parameters.items()}
    assert any("lm_head" in name for name in values) or model.config.tie_word_embeddings
    return Adapter(method, adapter.rank, adapter.modules, adapter.seed, values)


READS = ([(0, 8)], [(0, 8), (1, 8)], [(row, at) for row in range(2) for at in range(9)])
"""One position, one of each row, all."""


@pytest.mark.parametrize("family", UNTIED)
@pytest.mark.parametrize("method", ["lora", "shira"])
def test_the_engine_gives_the_adapted_models_own_logits(method, family):
    """The engine is made before the adapter, as in a run; the head is one of its modules."""
    model = untied(family)
    passes, adapter = CachedPasses(model), random_adapter(method, model)
    before = logits(model)
    with adapter.added(model) as adapted:
        own = logits(adapted)
        assert (own - before).abs().max() > 0.1
        for reads in READS:
            expected = torch.stack([own[row, at] for row, at in reads])
            torch.testing.assert_close(passes.read(None, IDS.tolist(), reads), expected)
        past = passes.step(None, IDS[:, :8].tolist()).past
        last = passes.read(past, IDS[:, 8:].tolist(), [(0, 0), (1, 0)])
        torch.testing.assert_close(last, own[:, 8])
    found = passes.read(None, IDS.tolist(), READS[1])
    torch.testing.assert_close(found, before[:, 8])


@pytest.mark.parametrize("method", ["lora", "shira"])
def test_an_adapted_model_answers_as_the_stock_backend_does(method, tokenizer):
    model = untied("llama")
    ours, stock = both(model, tokenizer)
    options, prompts = option_requests(random.Random(3)), prompt_requests(random.Random(4))
    unedited = ours.loglikelihood(options)
    with random_adapter(method, model).applied(model):
        found = ours.loglikelihood(options)
        assert_same_answers(found, stock.loglikelihood(options))
        assert found != unedited
        assert ours.generate_until(prompts) == stock.generate_until(prompts)


@pytest.mark.parametrize("method", ["lora", "shira"])
def test_the_checks_of_the_engine_work_with_an_adapter_in_bfloat16(method, tokenizer):
    """A resumed run may meet an adapted model first."""
    model = untied("llama").bfloat16()
    with random_adapter(method, model).applied(model):
        assert LanguageModel(model, tokenizer, 4).checks.in_parts(100, 512)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_head_that_is_saved_whole_is_the_models_own():
    """PEFT's `modules_to_save` puts a copy in the head's place."""
    from peft import LoraConfig, get_peft_model

    model = untied("llama")
    passes = CachedPasses(model)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    adapted = get_peft_model(model, config).eval()
    with torch.no_grad():
        for parameter in adapter_parameters(adapted).values():
            parameter.add_(0.1)
    own = logits(adapted)
    torch.testing.assert_close(passes.read(None, IDS.tolist(), READS[1]), own[:, 8])


@pytest.mark.parametrize("first", ["adapter", "knock-out"])
def test_a_knocked_out_head_reaches_the_adapter_too(first):
    """With the weights of the projection merged by hand, in both orders."""
    model = untied("llama")
    blocks = find_blocks(model)
    units = [head_units(blocks)[1], mlp_units(blocks)[0]]
    adapter = random_adapter("lora", model)
    merged = untied("llama")
    with adapter.added(merged) as adapted:
        merged = adapted.merge_and_unload()
    with ablated(merged, units):
        expected = logits(merged)
    edits = [adapter.applied(model), ablated(model, units)]
    outer, inner = edits if first == "adapter" else reversed(edits)
    with outer, inner:
        torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(model), logits(untied("llama")))
    hooked = [m for m in model.modules() if m._forward_pre_hooks or m._forward_hooks]
    assert not hooked


@pytest.mark.parametrize("method", ["lora", "shira"])
def test_a_failure_of_peft_midway_leaves_the_model_as_it_was(method, monkeypatch):
    """Two of the modules are adapted by then, and the next cell would train on top of them."""
    from peft.tuners.tuners_utils import BaseTuner

    model = build_model("llama")
    model.model.norm.weight.requires_grad_(False)
    before, untouched = weights_of(model), logits(model)
    modules, attributes = dict(model.named_modules()), set(vars(model))
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    adapted = []
    usual = BaseTuner._replace_module

    def fails_at_the_third(self, *given):
        adapted.append(given)
        if len(adapted) == 3:
            raise RuntimeError("too little memory")
        usual(self, *given)

    for tuner in (BaseTuner, *BaseTuner.__subclasses__()):
        if "_replace_module" in vars(tuner):
            monkeypatch.setattr(tuner, "_replace_module", fails_at_the_third)
    mask = random_mask(model)
    adapter = Adapter.of_size(method, model, list(mask), mask.count(), seed=5)
    with pytest.raises(RuntimeError, match="too little memory"), adapter.added(model):
        pass
    assert len(adapted) == 3
    assert dict(model.named_modules()) == modules
    assert set(vars(model)) == attributes
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert all(torch.equal(before[name], w) for name, w in weights_of(model).items())
    assert torch.equal(logits(model), untouched)
    monkeypatch.undo()
    with adapter.added(model):
        assert dict(model.named_modules()) != modules
    assert dict(model.named_modules()) == modules
