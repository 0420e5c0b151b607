"""The language model behind the harness gives HFLM's answers, and runs fewer tokens for them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import transformers
from conftest import ROOT, VOCABULARY, build_model
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from neurosurgery.cached_passes import CachedPasses
from neurosurgery.config import TASKS_FOLDER, EvaluationConfig
from neurosurgery.evaluation import Harness
from neurosurgery.language_model import LanguageModel
from neurosurgery.shared_prefixes import branches, common_length, group_by_prefix

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
WORDS = (
    "Anna works as a weaver near the river and counts 12 red apples while "
    "Victor plays drums on Sunday in Oakham with 7 friends"
).split()


def both(model, tokenizer, batch_size=4) -> tuple[LanguageModel, HFLM]:
    ours = LanguageModel(model, tokenizer, batch_size)
    return ours, HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def text(generator: random.Random, words: int) -> str:
    return " ".join(generator.choices(WORDS, k=words))


def option_requests(generator: random.Random) -> list[Instance]:
    """Shared and own contexts, none, and one beyond any window; options short and long."""
    shots = text(generator, 60)
    contexts = [text(generator, words) for words in (1, 5, 30, 45, 60, 700)]
    contexts += [f"{shots}\n{text(generator, words)}" for words in (3, 9, 14, 20, 31)]
    pairs = [(context, f" {text(generator, n)}") for context in contexts for n in (1, 1, 2, 5, 9)]
    pairs += [(contexts[3], option) for option in (" A", " B", " C", " D")]
    pairs += [("", "Anna plays"), ("", "Sunday"), (contexts[2], pairs[10][1])]
    generator.shuffle(pairs)
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]


def prompt_requests(generator: random.Random) -> list[Instance]:
    """Prompts with common examples and without, two sets of arguments."""
    shots = text(generator, 60)
    prompts = [f"{shots}\n{text(generator, words)}" for words in (3, 9, 14, 20, 31, 9, 2)]
    prompts += [text(generator, words) for words in (1, 8, 33)]
    arguments = [
        {"until": ["\n\n", "a"], "do_sample": False, "max_gen_toks": 20},
        {"until": "e", "max_gen_toks": 7, "temperature": 0.0},
    ]
    return [
        Instance("generate_until", {}, (prompt, arguments[index % 3 == 0]), index)
        for index, prompt in enumerate(prompts)
    ]


@contextmanager
def passes(model) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens of every forward pass."""
    shapes: list[tuple[int, int]] = []
    handle = model.get_input_embeddings().register_forward_hook(
        lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape))
    )
    try:
        yield shapes
    finally:
        handle.remove()


def assert_same_answers(ours, theirs):
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    found, expected = (torch.tensor([score for score, _ in each]) for each in (ours, theirs))
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_answers_as_the_stock_backend_does(name, tokenizer, monkeypatch):
    model = build_model(name.split()[0], **FAMILIES[name])
    ours, stock = both(model, tokenizer)
    assert ours._passes.can_continue(400)
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
    assert LanguageModel(model, tokenizer, 4)._passes.can_continue(400)


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
    assert ours._passes.can_continue(400) == (name == "alibi")
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


def test_a_context_runs_once_for_all_its_options(tokenizer):
    model = build_model("llama")
    ours = LanguageModel(model, tokenizer, 8)
    context = text(random.Random(0), 40)
    options = [" Anna works", " Victor plays drums", " red apples", " the river"]
    requests = [
        Instance("loglikelihood", {}, (context, option), i) for i, option in enumerate(options)
    ]
    length = len(tokenizer.encode(context))
    heads = [len(tokenizer.encode(context + option)) - length for option in options]
    with passes(model) as shapes:
        ours.loglikelihood(requests)
    # The context's last token predicts every option's first and runs with them.
    assert shapes == [(1, length - 1), (4, max(heads))]
    single = [
        Instance("loglikelihood", {}, (context, f" {option}"), i) for i, option in enumerate("ABCD")
    ]
    with passes(model) as shapes:
        ours.loglikelihood(single)
    assert shapes == [(1, length)]


def test_common_examples_run_once_per_call(tokenizer):
    model = build_model("llama")
    ours = LanguageModel(model, tokenizer, 4)
    generator = random.Random(0)
    shots = text(generator, 70)
    prompts = [f"{shots}\n{text(generator, 4)}" for _ in range(8)]
    arguments = {"until": ["\n\n"], "max_gen_toks": 2}
    requests = [
        Instance("generate_until", {}, (prompt, arguments), i) for i, prompt in enumerate(prompts)
    ]
    shared = len(tokenizer.encode(shots))
    for _ in range(2):
        with passes(model) as shapes:
            ours.generate_until(requests)
        assert shapes[0][0] == 1
        assert shapes[0][1] >= shared - 1
        assert all(tokens < 20 for _, tokens in shapes[1:])
        first = [rows for rows, tokens in shapes[1:] if tokens > 1]
        assert sum(first) == 8


def test_rows_that_have_stopped_leave_the_batch(tokenizer):
    model = build_model("llama")
    ours, stock = both(model, tokenizer, batch_size=16)
    requests = prompt_requests(random.Random(4))
    requests = [request for request in requests if request.args[1]["max_gen_toks"] == 20]
    with passes(model) as shapes:
        texts = ours.generate_until(requests)
    rows = [rows for rows, tokens in shapes if tokens == 1]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] > rows[-1]
    assert texts == stock.generate_until(requests)
    # Every text took its own tokens and no more steps than that.
    assert len(rows) < 20 or rows[-1] < len(requests)


@pytest.fixture(scope="module")
def demo_model():
    return transformers.AutoModelForCausalLM.from_pretrained(
        ROOT / "demo" / "model", dtype=torch.float32
    )


@pytest.fixture(scope="module")
def demo_harness() -> Harness:
    config = EvaluationConfig(
        math_task="demo_gsm8k_cot",
        other_tasks=(),
        math_documents=None,
        other_documents=None,
        num_fewshot=None,
        apply_chat_template=False,
        include_path=None,
        batch_size=16,
    )
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
    tasks = ["demo_gsm8k_cot", "demo_race", "demo_mmlu", "demo_stories"]
    return Harness(manager, "--eval_datasets", tasks, config)


def test_the_demo_agrees_document_by_document(demo_model, demo_harness, tokenizer):
    ours, stock = (
        demo_harness.evaluate(lm, limit=20).documents for lm in both(demo_model, tokenizer, 16)
    )
    assert len(ours) == 80
    for mine, theirs in zip(ours, stock, strict=True):
        assert mine["doc_hash"] == theirs["doc_hash"]
        if mine["task"] == "demo_stories":
            assert mine["answer"] == pytest.approx(theirs["answer"], rel=1e-5)
            continue
        assert mine["answer"] == theirs["answer"]
        assert mine.get("generated") == theirs.get("generated")
        assert mine.get("loglikelihoods") == pytest.approx(theirs.get("loglikelihoods"), abs=1e-4)


def test_out_of_memory_halves_the_batches(demo_model, demo_harness, tokenizer):
    ours, _ = both(demo_model, tokenizer, 8)
    expected = demo_harness.evaluate(ours, limit=6)

    def too_large(_module, inputs, _output):
        if inputs[0].shape[0] * inputs[0].shape[1] > 300:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    handle = demo_model.get_input_embeddings().register_forward_hook(too_large)
    try:
        found = demo_harness.evaluate(ours, limit=6)
    finally:
        handle.remove()
    assert ours.batch_size < 8
    answers = [[document["metrics"] for document in each.documents] for each in (expected, found)]
    for one, other in zip(*answers, strict=True):
        for metric, value in one.items():
            assert other[metric] == pytest.approx(value, rel=1e-5)


def test_prefixes_are_found():
    shots, others = list(range(50)), list(range(100, 150))
    sequences = [[*shots, 7], [*shots, 8, 9], [*shots, 7, 3, 1], [1, 2], shots, [*others, 1]]
    groups = group_by_prefix(sequences)
    assert [(group.length, sorted(group.members)) for group in groups] == [
        (49, [0, 1, 2, 4]),
        (0, [3, 5]),
    ]
    assert common_length([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_length([], [1]) == 0
    assert common_length([1, 2], [1, 2]) == 2
    assert branches([(1,), (1, 2), (), (3, 4), (1, 2), (3,)]) == [(1, 2), (3, 4)]
