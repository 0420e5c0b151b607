"""The language model behind the harness gives HFLM's answers."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import transformers
from conftest import ROOT, VOCABULARY, build_model
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from requests_for_models import assert_same_answers, both, option_requests, prompt_requests

from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.evaluation.engine.passes import CachedPasses
from neurosurgery.evaluation.harness import Harness
from neurosurgery.settings.demo import TASKS_FOLDER
from neurosurgery.settings.experiment import EvaluationConfig

FAMILIES = {
    "llama": {},
    "llama untied": {"tied": False},
    "gemma2": {},
    "phi": {},
    "qwen2": {},
    "mistral": {},
    "gpt2": {},
    "gpt_neox": {},
    "opt": {},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_answers_as_the_stock_backend_does(name, tokenizer, monkeypatch):
    model = build_model(name.split()[0], **FAMILIES[name])
    ours, stock = both(model, tokenizer)
    assert ours.checks.in_parts(400, 512)
    options = option_requests(random.Random(3))
    assert_same_answers(ours.loglikelihood(options), stock.loglikelihood(options))
    prompts = prompt_requests(random.Random(4))
    with monkeypatch.context() as patched:
        patched.setattr(HFLM, "generate_until", None)
        texts = ours.generate_until(prompts)
    assert texts == stock.generate_until(prompts)
    stories = [
        Instance("loglikelihood_rolling", {}, (p.args[0],), i) for i, p in enumerate(prompts)
    ]
    found, expected = ours.loglikelihood_rolling(stories), stock.loglikelihood_rolling(stories)
    assert found == pytest.approx(expected, abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_rounding_in_bfloat16_is_not_taken_for_forgetting(name, tokenizer):
    model = build_model(name.split()[0], **FAMILIES[name]).bfloat16()
    assert LanguageModel(model, tokenizer, 4).checks.in_parts(400, 512)


def test_copies_of_a_past_do_not_write_into_each_other():
    passes = CachedPasses(build_model("llama"))
    start = passes.step(None, [[5, 6, 7], [8]]).past
    first = passes.step(start, [[9], [10]]).past
    second = passes.step(start, [[11, 12], [13]]).past
    again = passes.step(start.select([0, 1]), [[9], [10]]).past
    found = passes.read(first, [[3], [3]], [(0, 0), (1, 0)])
    assert torch.equal(found, passes.read(again, [[3], [3]], [(0, 0), (1, 0)]))
    alone = passes.read(None, [[5, 6, 7, 11, 12, 3], [8, 13, 3]], [(0, 5), (1, 2)])
    assert torch.allclose(passes.read(second, [[3], [3]], [(0, 0), (1, 0)]), alone, atol=1e-4)


def special_models() -> dict[str, transformers.PreTrainedModel]:
    """Models with a state, a window or positions of another kind."""
    common = {"vocab_size": VOCABULARY, "eos_token_id": 0, "pad_token_id": 0, "bos_token_id": 0}
    sizes = common | {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    torch.manual_seed(0)
    build = transformers.AutoModelForCausalLM.from_config
    window = build_model("mistral").config.to_dict() | {"sliding_window": 16}
    return {
        "recurrent": build(transformers.MambaConfig(**common, hidden_size=24, num_hidden_layers=2)),
        "window": build(transformers.MistralConfig(**window)),
        "alibi": build(transformers.BloomConfig(**sizes, n_head=3, n_layer=2)),
    }


@pytest.mark.parametrize("name", ["recurrent", "window", "alibi"])
def test_what_cannot_continue_takes_the_plain_path(name, tokenizer):
    """ALiBi can: its distances are counted along the mask."""
    model = special_models()[name].eval()
    ours, stock = both(model, tokenizer)
    ours._max_length = stock._max_length = 512
    assert ours.checks.in_parts(400, 512) == (name == "alibi")
    options = option_requests(random.Random(3))
    assert_same_answers(ours.loglikelihood(options), stock.loglikelihood(options))
    prompts = prompt_requests(random.Random(4))
    assert ours.generate_until(prompts) == stock.generate_until(prompts)


def test_unusual_arguments_and_models_are_left_to_the_stock_backend(tokenizer, monkeypatch):
    ours = LanguageModel(build_model("llama"), tokenizer, 4)
    monkeypatch.setattr(HFLM, "generate_until", lambda _self, group, _: ["stock"] * len(group))
    plain = {"until": ["a"], "max_gen_toks": 3}
    sampled, beams = plain | {"do_sample": True, "temperature": 0.7}, plain | {"num_beams": 2}
    requests = [
        Instance("generate_until", {}, ("Anna", arguments), index)
        for index, arguments in enumerate([plain, sampled, beams, plain])
    ]
    texts = ours.generate_until(requests)
    assert texts[1:3] == ["stock", "stock"]
    assert "stock" not in (texts[0], texts[3])
    ours.model.generation_config.repetition_penalty = 1.2
    assert ours.generate_until(requests[:1]) == ["stock"]


def test_edited_weights_are_seen(tokenizer):
    model = build_model("llama")
    ours, stock = both(model, tokenizer)
    options, prompts = option_requests(random.Random(3)), prompt_requests(random.Random(4))
    before = ours.loglikelihood(options), ours.generate_until(prompts)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-2)
    after = ours.loglikelihood(options), ours.generate_until(prompts)
    assert after[0] != before[0]
    assert after[1] != before[1]
    assert_same_answers(after[0], stock.loglikelihood(options))
    assert after[1] == stock.generate_until(prompts)


@pytest.fixture(scope="module")
def demo_model():
    return transformers.AutoModelForCausalLM.from_pretrained(
        ROOT / "demo" / "model", dtype=torch.float32
    )


def demo_harness(documents: int, **more) -> Harness:
    """The demo's tasks."""
    config = EvaluationConfig(
        math_task="demo_gsm8k_cot",
        other_tasks=(),
        math_documents=None,
        other_documents=documents,
        num_fewshot=None,
        apply_chat_template=False,
        include_path=None,
        batch_size=16,
        **more,
    )
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
    tasks = ["demo_gsm8k_cot", "demo_race", "demo_mmlu", "demo_stories"]
    return Harness(manager, "other_tasks", tasks, config)


def test_the_demo_agrees_document_by_document(demo_model, tokenizer):
    harness = demo_harness(20)
    ours, stock = (harness.evaluate(lm).documents for lm in both(demo_model, tokenizer, 16))
    assert len(ours) == 80
    for mine, theirs in zip(ours, stock, strict=True):
        assert mine["doc_hash"] == theirs["doc_hash"]
        if mine["task"] == "demo_stories":
            assert mine["answer"] == pytest.approx(theirs["answer"], rel=1e-5)
            continue
        assert mine["answer"] == theirs["answer"]
        assert mine.get("generated") == theirs.get("generated")
        assert mine.get("loglikelihoods") == pytest.approx(theirs.get("loglikelihoods"), abs=1e-4)


def test_prompts_are_built_for_the_first_model_state_only(demo_model, tokenizer, monkeypatch):
    ours, harness = LanguageModel(demo_model, tokenizer, 16), demo_harness(5)
    first = harness.evaluate(ours)
    before = copy.deepcopy(first)
    monkeypatch.setattr(ConfigurableTask, "fewshot_context", None)
    assert harness.evaluate(ours) == before
    assert first == before
    with pytest.raises(TypeError):
        demo_harness(4).evaluate(ours)


def test_out_of_memory_halves_the_batches(demo_model, tokenizer):
    ours, _ = both(demo_model, tokenizer, 8)
    harness = demo_harness(6)
    expected = harness.evaluate(ours)

    def too_large(_module, inputs, _output):
        if inputs[0].shape[0] * inputs[0].shape[1] > 300:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    handle = demo_model.get_input_embeddings().register_forward_hook(too_large)
    try:
        found = harness.evaluate(ours)
    finally:
        handle.remove()
    assert ours.batch_size < 8
    answers = [[document["metrics"] for document in each.documents] for each in (expected, found)]
    for one, other in zip(*answers, strict=True):
        for metric, value in one.items():
            assert other[metric] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("as_list", [True, False])
def test_every_end_token_of_the_model_ends_a_text(tokenizer, as_list):
    """Also one that is not the tokenizer's, such as Llama 3's end of a turn."""
    model = build_model("llama")
    arguments = {"until": ["\n\n\n"], "max_gen_toks": 12}
    prompts = ["Anna plays drums near", "Victor counts"]
    requests = [Instance("generate_until", {}, (p, arguments), i) for i, p in enumerate(prompts)]
    ours, _ = both(model, tokenizer)
    before = ours.generate_until(requests)
    end = tokenizer.encode(before[0], add_special_tokens=False)[4]
    model.generation_config.eos_token_id = [0, end] if as_list else end
    ours, stock = both(model, tokenizer)
    after = ours.generate_until(requests)
    assert after == stock.generate_until(requests)
    assert before[0].startswith(after[0])
    assert len(after[0]) < len(before[0])
