"""`ns.locate`: the masks of the paper, of the scripts and of the parts, for every method."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from conftest import build_model
from session import demo_model, demo_tokenizer, facts, passages, problems, sums

import neurosurgery as ns
from neurosurgery.masks.files import read_mask_file
from neurosurgery.masks.kinds import EXPERT
from neurosurgery.methods.registry import METHODS
from neurosurgery.settings.demo import DEMO
from tests.expert_models import expert_model

MODEL, TOKENIZER = demo_model(), demo_tokenizer()


def locate(**arguments):
    given = {"skill": problems(), "against": passages(), "proportion": 0.05} | arguments
    return ns.locate(MODEL, TOKENIZER, **given)


def literal(model, texts: list[str], proportion: float) -> dict[str, np.ndarray]:
    """The top-K of the literal reference, every text once."""
    ids = [TOKENIZER.encode(text) for text in texts]
    scores = reference.scores(model, ids, np.ones(len(ids), dtype=int))
    return {
        name: reference.top_k(score, int(score.size * proportion)) for name, score in scores.items()
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_mask_equals_the_literal_reference_in_double_precision(dtype):
    """One text at a time, for batches round otherwise."""
    model = MODEL if dtype == "float32" else build_copy().to(torch.bfloat16)
    given = {"skill": problems(6), "against": passages(6), "proportion": 0.05}
    found = ns.locate(model, TOKENIZER, **given, batch_tokens=1)
    skill, other = literal(model, problems(6), 0.05), literal(model, passages(6), 0.05)
    assert len(found) == len(skill) == 28
    for name, top in skill.items():
        expected = torch.from_numpy(top & ~other[name])
        assert torch.equal(found.tensor(f"{name}.weight"), expected), name


def test_the_mask_equals_that_of_the_parts_with_the_scripts_draw():
    """As the long version of docs/PARTS.md: 50 samples of each file, drawn by the scripts' seed."""
    targets, masks, texts = ns.find_targets(MODEL), {}, {}
    for name in ("math", "mmlu"):
        path = Path(DEMO.train_dataset).with_name(f"{name}.csv")
        data = ns.read_calibration_set(ns.CalibrationSource(name, path))
        texts[name] = list(data.samples)
        drawn = data.multiplicities(num_samples=50, num_repeats=1, seed=42)
        ids = ns.encode_samples(data.samples, TOKENIZER, ns.context_length(MODEL, TOKENIZER)).ids
        [norms] = ns.collect_activation_norms(MODEL, targets, ids, drawn)
        masks[name] = ns.TopK(targets, norms, [0.05]).mask(0.05)
    given = {"skill": texts["math"], "against": {"mmlu": texts["mmlu"]}}
    assert locate(**given, num_samples=50, seed=42) == masks["math"] - masks["mmlu"]
    assert locate(**given, num_samples=50, seed=43) != masks["math"] - masks["mmlu"]


def test_a_text_counts_as_often_as_it_stands_there():
    once, twice = problems(4), problems(4) + problems(1)
    ids = [TOKENIZER.encode(text) for text in once]
    counted = reference.scores(MODEL, ids, np.array([2, 1, 1, 1]))
    found = locate(skill=twice, method="wanda", batch_tokens=1)
    for name, score in counted.items():
        top = reference.top_k(score, int(score.size * 0.05))
        differing = int((found.tensor(f"{name}.weight").numpy() != top).sum())
        # A sum of two equal norms and twice a norm round otherwise at the boundary.
        assert differing <= 2
    assert found != locate(skill=once, method="wanda", batch_tokens=1)


def test_several_sets_take_off_each_its_own():
    both = locate(against={"race": passages(), "mmlu": facts()})
    assert both == locate(against=passages()) & locate(against=facts())
    assert both.provenance["calibration"] == "race, mmlu"


SELECTING = [
    name
    for name, one in METHODS.items()
    # The demo has no experts; those of another model are below.
    if not (one.given or one.adapter or one.unit == EXPERT)
]


@pytest.mark.parametrize("name", SELECTING)
def test_every_method_works_by_its_name(name):
    method = METHODS[name]
    size = {"top": 2} if method.counts_units else {"proportion": 0.05}
    skill = sums() if method.counts_units else problems(4)
    found = ns.locate(MODEL, TOKENIZER, skill=skill, against=passages(4), method=name, **size)
    assert 0 < found.count() <= MODEL.num_parameters()
    assert found.provenance["method"] == name
    assert str(found.provenance["method"]) in repr(found)
    if method.draw:
        basis = method.basis.name
        as_many = ns.locate(
            MODEL, TOKENIZER, skill=skill, against=passages(4), method=basis, **size
        )
        assert found.count() == as_many.count()
        assert found != as_many


def test_heads_are_those_of_the_strongest_mean_effect():
    pairs, _ = ns.tokenize_pairs(
        [ns.PromptPair(**{key: row[key] for key in row}) for row in sums()], TOKENIZER
    )
    effects = ns.head_effects(MODEL, ns.PromptPairs.of(pairs), units=["heads"])
    given = {"skill": sums(), "method": "heads"}
    found = set()
    for top in (3, 5, 7, 9):
        expected = ns.zero_mask(MODEL, effects.ranking()[:top])
        assert ns.locate(MODEL, TOKENIZER, **given, top=top) == expected
        # Every prompt counts once, until draws are asked for.
        drawn = ns.locate(MODEL, TOKENIZER, **given, top=top, num_samples=len(sums()))
        found.add(drawn == expected)
    assert False in found


def test_snip_counts_the_responses_of_pairs():
    """The gradient of one text's loss, by torch alone."""
    prompt, response = problems(1)[0].split("A:", 1)
    pair = (prompt + "A:", response)
    found = locate(skill=[pair], against=passages(1), method="snip", proportion=0.01)
    whole = locate(skill=["".join(pair)], against=passages(1), method="snip", proportion=0.01)
    assert found != whole
    model = build_copy()
    ids = TOKENIZER(text := "".join(pair), return_tensors="pt").input_ids
    start = len(TOKENIZER.encode(pair[0]))
    assert TOKENIZER.encode(text)[:start] == TOKENIZER.encode(pair[0])
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < start, -100)
    model(ids, labels=labels).loss.backward()
    other = locate(skill=passages(1), against=[pair], method="snip", proportion=0.01)
    for name, weight in model.named_parameters():
        if name in found.shapes:
            score = (weight * weight.grad).abs().flatten()
            top = torch.zeros(len(score), dtype=torch.bool)
            top[score.topk(int(0.01 * len(score))).indices] = True
            # What is left of the top-K after the other set's is taken off.
            mine = found.tensor(name).flatten()
            assert (mine & ~top).sum() <= 1
            assert not (mine & other.tensor(name).flatten()).any()


def build_copy():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(DEMO.model, dtype="float32")


def test_a_name_or_a_folder_is_as_good_as_a_model():
    assert ns.locate(DEMO.model, skill=problems(), against=passages(), proportion=0.05) == locate()
    assert ns.locate(Path(DEMO.model), skill=problems(), method="wanda").count() > 0


def test_the_model_is_left_as_it_is():
    model = build_copy().train()
    model.model.layers[0].mlp.eval()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    for method in ("mathneuro", "snip"):
        ns.locate(model, TOKENIZER, skill=problems(2), against=passages(2), method=method)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_dropout_does_not_count():
    model = build_model("gpt2")
    model.config.attn_pdrop = 0.5
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    given = {"skill": problems(3), "method": "wanda", "proportion": 0.2}
    small = {"tokenizer": TOKENIZER} | given
    in_training = ns.locate(model.train(), **small)
    assert in_training == ns.locate(model.eval(), **small)


def test_a_model_in_bfloat16_works():
    model = build_copy().to(torch.bfloat16)
    given = {"skill": problems(3), "against": passages(3), "proportion": 0.05}
    overlap = ns.total(
        ns.overlap_by_parameter(ns.locate(model, TOKENIZER, **given), locate(**given))
    )
    assert overlap.overlap > 0.9


def test_a_mask_knows_how_it_was_found_and_so_does_its_file(tmp_path):
    found = locate(num_samples=20, seed=7)
    found.save(tmp_path / "found.safetensors")
    again = ns.load_mask(tmp_path / "found.safetensors")
    assert again == found
    assert again.provenance == found.provenance
    told = again.provenance
    assert (told["method"], told["proportion"], told["seed"]) == ("mathneuro", 0.05, 7)
    assert told["skill"] == "skill"
    assert told["samples"] == {"skill": 12, "other": 12}
    # As the scripts' files, for `masks`, `apply` and `--selection`.
    assert read_mask_file(tmp_path / "found.safetensors").provenance["model"] == DEMO.model
    assert f"{found.count():,} of 3.41 M weights in 28 matrices" in repr(again)
    assert "mathneuro, 0.05 against other" in repr(again)


WRONG = [
    ({"skill": "2 + 2 = 4"}, r"skill '2 \+ 2 = 4': expected a list of texts, found one text"),
    ({"skill": []}, "skill: expected a list of texts, found none"),
    ({"skill": ["a", 3]}, r"skill\[1\] 3: expected a text or \(prompt, response\), found int"),
    ({"skill": ["a", " "]}, r"skill\[1\] ' ': expected more than blanks"),
    ({"skill": 7}, "skill 7: expected a list of texts, found int"),
    ({"skill": {"a": "b"}}, "skill: expected a list of texts, found dict"),
    ({"against": ()}, "against: expected a list of texts.*without: wanda, wanda_rows, magnitude"),
    ({"against": {"math": ["a"]}}, "against 'math': expected a dict from names"),
    ({"against": {"race": "text"}}, r"against\['race'\] 'text': expected a list of texts"),
    ({"skill": ["a", "b"], "against": ["b", "a"]}, "against other: holds the texts of skill"),
    ({"proportion": 5}, r"proportion 5: expected a fraction in \(0, 1\]"),
    ({"proportion": "5 %"}, "proportion '5 %': expected a fraction"),
    ({"method": "mathneur"}, "method 'mathneur': expected one of mathneuro.*did you mean"),
    ({"method": "lora"}, "method 'lora': takes masks or weights that are given"),
    ({"method": "heads"}, "top None: expected a number of heads for heads"),
    ({"top": 3}, "top 3: expected none for mathneuro, which takes a proportion"),
    ({"num_samples": 0}, "num_samples 0: expected a whole number of at least 1"),
    ({"num_samples": "all"}, "num_samples 'all': expected a whole number"),
    ({"seed": -1}, "seed -1: expected a whole number of at least 0"),
    (
        {"method": "random", "against": {"a": ["b"], "c": ["d"]}},
        "against a c: expected one set for random; ns.random_twin",
    ),
    (
        {"method": "heads", "top": 1, "proportion": None},
        r"skill\[0\] .*heads are found by prompts; expected a dict of texts with prompt",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_argument_is_named_with_what_was_expected(wrong, message):
    with pytest.raises(ns.UsageError, match=message) as error:
        locate(**wrong)
    assert "--" not in str(error.value)
    assert "\n" not in str(error.value)


class WrappedByPeft:
    """As PEFT's models, by the method that mends it."""

    def merge_and_unload(self) -> None: ...


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, "model 3: expected a causal language model of transformers"),
        (torch.nn.Linear(2, 2), "model Linear: expected a causal language model"),
        (WrappedByPeft(), "model WrappedByPeft: is wrapped by PEFT; expected model.merge_and_unl"),
        (
            torch.compile(torch.nn.Linear(2, 2), backend="eager"),
            "is compiled; expected the model before",
        ),
        ("no/such/model", "model no/such/model: expected a model folder"),
    ],
)
def test_what_is_no_model_is_told(model, message):
    with pytest.raises(ns.UsageError, match=message):
        ns.locate(model, TOKENIZER, skill=problems(), method="wanda")


def test_a_model_needs_its_tokenizer():
    with pytest.raises(ns.UsageError, match=r"tokenizer None: expected the model's own, as Auto"):
        ns.locate(MODEL, skill=problems(), method="wanda")
    with pytest.raises(ns.UsageError, match="tokenizer 'gpt2': expected a tokenizer of transf"):
        ns.locate(MODEL, "gpt2", skill=problems(), method="wanda")


def test_a_quantised_model_and_one_without_a_head_are_refused():
    model = build_model("llama")
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ns.UsageError, match="is quantised; expected float weights"):
        ns.locate(model, TOKENIZER, skill=problems(), method="wanda")
    with pytest.raises(ns.UsageError, match="has no head of a causal language model"):
        ns.locate(MODEL.model, TOKENIZER, skill=problems(), method="wanda")
    with torch.device("meta"):
        on_meta = build_model("llama")
    with pytest.raises(ns.UsageError, match="weights that are not in memory"):
        ns.locate(on_meta, TOKENIZER, skill=problems(), method="wanda")


@pytest.mark.parametrize("name", [name for name, one in METHODS.items() if one.unit == EXPERT])
def test_experts_of_a_model_that_has_them(name):
    model = expert_model("qwen3_moe", vocab_size=len(TOKENIZER), max_position_embeddings=512)
    found = ns.locate(
        model, TOKENIZER, skill=problems(4), against=passages(4), method=name, proportion=0.25
    )
    taken = {matrix for matrix, count in found.counts().items() if count}
    # At most three of twelve experts, whole.
    assert 2 <= len(taken) <= 6
    assert all(".experts." in matrix for matrix in taken)
    for matrix in taken:
        assert found.counts()[matrix] == math.prod(found.shapes[matrix])
