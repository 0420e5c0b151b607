"""A way of computing that changes a model's answers is refused, and the user reads why."""

from __future__ import annotations

import random
import re
from types import SimpleNamespace

import pytest
import torch
import transformers
from conftest import VOCABULARY, build_model
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from neurosurgery.evaluation.engine import checks as checks_module
from neurosurgery.evaluation.engine.checks import AgreementChecks
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.evaluation.engine.passes import CachedPasses
from neurosurgery.evaluation.engine.trials import Deviation
from neurosurgery.evaluation.harness import load_harnesses
from neurosurgery.methods.evidence import Evidence
from neurosurgery.models.float32 import in_float32
from neurosurgery.models.load import LoadedModel
from neurosurgery.results.keys import BASELINE_KEY
from neurosurgery.run.worker import Worker
from neurosurgery.settings.demo import TASKS_FOLDER
from neurosurgery.settings.experiment import EvaluationConfig

SIZES = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def gpt_neo(window: int = 256) -> transformers.PreTrainedModel:
    """GPT-Neo, whose window of attention has a name that no other family uses."""
    config = transformers.GPTNeoConfig(
        **SIZES,
        hidden_size=24,
        num_layers=2,
        num_heads=3,
        attention_types=[[["global", "local"], 1]],
        window_size=window,
        max_position_embeddings=512,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    return model


def checks_of(model) -> AgreementChecks:
    return AgreementChecks(CachedPasses(model))


def plain_score(model, context: list[int], option: list[int]) -> float:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([(context + option)[:-1]])).logits[0]
    scores = logits[-len(option) :].log_softmax(-1)
    return float(scores[torch.arange(len(option)), torch.tensor(option)].sum())


def test_a_window_of_any_name_is_found_at_the_lengths_that_are_used(tokenizer):
    """Eight prompts of 299 to 353 tokens, 280 of them shared, and a window of 256."""
    model = gpt_neo()
    ours = LanguageModel(model, tokenizer, 4)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
    generator = random.Random(0)
    words = [tokenizer.decode([token]) for token in range(300, 1400)]
    words = [word for word in words if re.fullmatch(" [a-z]+", word)]
    words = [word for word in words if len(tokenizer.encode(word)) == 1]
    shots = "".join(generator.choices(words, k=280))
    tails = ["".join(generator.choices(words, k=n)) for n in (19, 26, 34, 41, 49, 57, 64, 70)]
    prompts = [shots + tail for tail in tails]
    lengths = [len(tokenizer.encode(prompt)) for prompt in prompts]
    assert min(lengths) > 256
    options = [
        Instance("loglikelihood", {}, (prompt, option), index)
        for index, prompt in enumerate(prompts)
        for option in (words[0] + words[1], words[2])
    ]
    expected = [plain_score(model, *ours._encode_pair(*option.args)) for option in options]
    found = [score for score, _ in ours.loglikelihood(options)]
    assert found == pytest.approx(expected, abs=1e-4)
    arguments = {"until": ["\n\n"], "max_gen_toks": 20}
    requests = [Instance("generate_until", {}, (p, arguments), i) for i, p in enumerate(prompts)]
    assert ours.generate_until(requests) == stock.generate_until(requests)
    (note,) = ours.checks.take_notes()
    assert "GPTNeoForCausalLM" in note
    assert "in parts" in note
    assert ours.checks.take_notes() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_finds_where_a_window_ends(dtype):
    """A window of 200: rows of 128 tokens go in parts, of 180 too, of 220 and more do not."""
    checks = checks_of(gpt_neo(200).to(dtype))
    assert checks.in_parts(100, 512)
    assert checks.take_notes() == []
    # The next power of two is beyond the window, the rows are not.
    assert checks.in_parts(180, 512)
    assert not checks.in_parts(220, 512)
    assert not checks.in_parts(512, 512)
    assert len(checks.take_notes()) == 1
    assert checks.whole_rows(512, 512)
    assert checks.take_notes() == []


def counting(monkeypatch) -> list[int]:
    lengths: list[int] = []
    trial = checks_module.in_parts

    def counted(passes, tokens):
        lengths.append(len(tokens))
        return trial(passes, tokens)

    monkeypatch.setattr(checks_module, "in_parts", counted)
    return lengths


@pytest.mark.parametrize(("times", "agrees"), [(20, True), (100, False)])
def test_a_way_agrees_within_thirty_two_times_the_rounding(times, agrees, monkeypatch):
    rounding, eps = 1e-7, float(torch.finfo(torch.float32).eps)
    assert times * rounding < eps**0.5, "half of the digits is another bound"
    found = Deviation(times * rounding, rounding, eps)
    monkeypatch.setattr(checks_module, "in_parts", lambda *_arguments: found)
    assert checks_of(build_model("llama")).in_parts(32, 512) == agrees


@pytest.mark.parametrize("name", ["in_parts", "whole_rows", "generated_in_batches"])
def test_16_bit_weights_are_checked_in_float32(name, monkeypatch):
    model = build_model("llama").to(torch.bfloat16)
    trial, dtypes = getattr(checks_module, name), []

    def recorded(passes, tokens):
        dtypes.append(passes.read(None, [[5, 6, 7]], [(0, 2)]).dtype)
        return trial(passes, tokens)

    monkeypatch.setattr(checks_module, name, recorded)
    assert getattr(checks_of(model), name)(40, 512)
    assert set(dtypes) == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_length_is_checked_once_and_never_beyond_the_model(monkeypatch):
    lengths = counting(monkeypatch)
    checks = checks_of(build_model("gpt2"))
    for tokens in (3, 20, 60, 40, 64, 300, 512, 301):
        assert checks.in_parts(tokens, 512)
    assert lengths == [32, 64, 512]
    # Positions end at 500: no check at 512.
    assert checks_of(build_model("gpt2")).in_parts(300, 400)
    assert lengths[3:] == [400]


@pytest.mark.parametrize("ends", [7, [7, 9], None])
def test_no_token_of_a_check_is_special(ends):
    model = build_model("llama")
    model.config.eos_token_id = ends
    checks = checks_of(model)
    assert not {0, *(ends if isinstance(ends, list) else [ends])} & set(checks._tokens(20_000))
    assert checks.in_parts(40, 512)


def test_a_model_that_sees_later_tokens_runs_a_row_at_a_time(tokenizer):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **SIZES,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        # Wider than usual, so that what is attended to matters.
        initializer_range=0.2,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    ours = LanguageModel(model, tokenizer, 4)
    pairs = [
        (context, option) for context in ("Anna works near", "Victor") for option in (" a", " the")
    ]
    options = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    expected = [plain_score(model, *ours._encode_pair(*pair)) for pair in pairs]
    assert [score for score, _ in ours.loglikelihood(options)] == pytest.approx(expected, abs=1e-5)
    assert ours.batch_size == 4
    assert [("one at a time" in note) for note in ours.checks.take_notes()] == [False, True]


def test_what_padding_on_the_left_changes_generates_a_prompt_at_a_time(tokenizer, monkeypatch):
    """RWKV has a state and no mask."""
    torch.manual_seed(0)
    config = transformers.RwkvConfig(
        **SIZES, hidden_size=24, num_hidden_layers=2, attention_hidden_size=24
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_().mul_(0.3)
    ours = LanguageModel(model, tokenizer, 4)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
    ours._max_length = stock._max_length = 128
    arguments = {"until": ["\n\n"], "max_gen_toks": 8}
    prompts = ["Anna works", "Victor plays drums near the river in Oakham", "the", "7 friends"]
    requests = [Instance("generate_until", {}, (p, arguments), i) for i, p in enumerate(prompts)]
    assert ours.generate_until(requests) == stock.generate_until(requests)
    assert "padded on the left" in ours.checks.take_notes()[-1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "too little memory"),
        (MemoryError(), "too little memory"),
        (KeyError("past"), "fail: KeyError: 'past'"),
        (ImportError("no kernel\nat all"), "fail: ImportError: no kernel"),
    ],
)
def test_a_check_that_fails_is_one_line_for_the_user(error, words, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setattr(checks_module, "in_parts", fails)
    checks = checks_of(build_model("llama"))
    assert not checks.in_parts(100, 512)
    assert not checks.in_parts(100, 512)
    (note,) = checks.take_notes()
    assert words in note
    assert note.startswith("evaluation: LlamaForCausalLM: ")
    assert "\n" not in note


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_16_bit_weights_compute_in_float32_and_come_back(at_once, fails):
    model = build_model("llama").bfloat16()
    before = dict(model.named_parameters())
    ids = torch.tensor([[5, 6, 7]])
    wide = build_model("llama").bfloat16().float()
    if fails:
        model.model.norm.register_forward_hook(lambda *_: 1 / 0)
    with torch.inference_mode():
        expected = wide(input_ids=ids).logits
        if fails:
            with pytest.raises(ZeroDivisionError), in_float32(model, at_once=at_once):
                model(input_ids=ids)
        else:
            with in_float32(model, at_once=at_once):
                found = model(input_ids=ids).logits
            assert torch.allclose(found, expected, atol=1e-5)
            assert not torch.allclose(model(input_ids=ids).logits.float(), expected, atol=1e-5)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


def test_a_refusal_is_a_note_of_the_first_cell(tokenizer):
    tasks = ["demo_gsm8k_cot", "demo_race"]
    config = EvaluationConfig(tasks[0], tasks[1:], 3, 3, None, False, None, 4)
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
    loaded = LoadedModel(gpt_neo(16), tokenizer, "float32")
    tasks = SimpleNamespace(harnesses=load_harnesses(manager, config), evaluation=config)
    worker = Worker(loaded, Evidence([], {}, {}, [], 0), tasks)
    notes, again = worker.run(BASELINE_KEY).notes, worker.run(BASELINE_KEY).notes
    assert [note.split(": ")[:2] for note in notes] == [["evaluation", "GPTNeoForCausalLM"]]
    assert again == ()
