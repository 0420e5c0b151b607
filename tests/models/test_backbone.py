"""How a model is run up to its head, and which models cannot be scored."""

from __future__ import annotations

import sys
import weakref

import numpy as np
import pytest
import reference
import torch
import transformers
from conftest import _COMMON, _LLAMA_LIKE, FAMILIES, build_model
from scripts import DEMO_DATA, SCRIPTS, table
from torch import nn
from weights import bits, random_mask

from neurosurgery.__main__ import main
from neurosurgery.activations import collect
from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.common.errors import UsageError
from neurosurgery.evaluation import harness
from neurosurgery.masks.files import write_mask_file
from neurosurgery.methods.evidence import Evidence
from neurosurgery.models import backbone
from neurosurgery.models.backbone import check_backbone, find_backbone
from neurosurgery.models.forward import head_input
from neurosurgery.models.load import LoadedModel
from neurosurgery.models.neurons import find_neuron_layers
from neurosurgery.models.targets import find_targets
from neurosurgery.run.observations import describe_evidence

_SMALL = _COMMON | {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 512,
}
_CONFIGS = {
    "llama4": (
        "Llama4TextConfig",
        _LLAMA_LIKE | {"num_local_experts": 2, "intermediate_size_mlp": 40},
    ),
    "modernbert-decoder": (
        "ModernBertDecoderConfig",
        _SMALL
        | {"hidden_size": 32, "num_attention_heads": 2, "cls_token_id": 0, "sep_token_id": 0},
    ),
    "mixtral": ("MixtralConfig", _LLAMA_LIKE | {"num_local_experts": 4}),
    "bloom": ("BloomConfig", _COMMON | {"hidden_size": 24, "n_layer": 2, "n_head": 3}),
    "bert": ("BertConfig", _SMALL),
    "roberta": ("RobertaConfig", _SMALL | {"pad_token_id": 1}),
    "xlnet": ("XLNetConfig", _COMMON | {"d_model": 24, "n_layer": 2, "n_head": 3, "d_inner": 40}),
    "rwkv": (
        "RwkvConfig",
        _COMMON
        | {
            "hidden_size": 24,
            "attention_hidden_size": 24,
            "num_hidden_layers": 3,
            "rescale_every": 1,
            "context_length": 512,
        },
    ),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SAMPLES = [[5, 9, 2], [3, 1, 4, 1, 5, 9, 2, 6], [8]]


def build(kind: str, **more: object) -> transformers.PreTrainedModel:
    """A tiny float32 model with random weights that are spread out."""
    if kind in FAMILIES:
        return build_model(kind, tied=False)
    name, arguments = _CONFIGS[kind]
    config = getattr(transformers, name)(**arguments, tie_word_embeddings=False, **more)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    return model


@pytest.mark.parametrize("kind", [*FAMILIES, "mixtral", "bloom"])
def test_causal_models_are_run_without_their_head(kind):
    for dtype in DTYPES:
        model = build(kind).to(dtype)
        assert find_backbone(model).func is backbone.base_forward, dtype
        with torch.inference_mode():
            assert torch.equal(find_backbone(model)(SAMPLES), head_input(model, SAMPLES))


@pytest.mark.parametrize("kind", ["modernbert-decoder", "llama4"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_head_that_reads_something_else_is_found(kind, dtype):
    model = build(kind).to(dtype)
    assert find_backbone(model).func is backbone.head_input
    seen = []
    head = model.get_output_embeddings()
    with torch.no_grad(), head.register_forward_pre_hook(lambda _m, args: seen.append(args[0])):
        model(input_ids=torch.tensor(SAMPLES[1:2]))
    with torch.inference_mode():
        assert torch.equal(find_backbone(model)(SAMPLES[1:2]), seen[0])


@pytest.mark.parametrize("kind", ["modernbert-decoder", "llama4", "bloom"])
def test_scores_are_those_of_the_whole_model(kind):
    """The head's and, in ModernBERT's decoder, those of the layer before the head."""
    model = build(kind)
    targets = find_targets(model)
    expected = reference.scores(model, SAMPLES, np.array([1, 2, 1]))
    for budget in (1, 4096):
        (norms,) = collect_activation_norms(model, targets, SAMPLES, np.array([[1, 2, 1]]), budget)
        # The reference knows no subclasses of Linear, such as Llama 4's router.
        assert norms.keys() >= expected.keys()
        for target in (each for each in targets if each.name in expected):
            score = target.weight.detach().abs().double() * norms[target.name]
            np.testing.assert_allclose(score.numpy(), expected[target.name], rtol=2e-4, atol=1e-7)
    assert any(target.module is model.get_output_embeddings() for target in targets)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlnet"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tokens_that_see_the_padding_are_noticed(kind, dtype):
    model = build(kind).to(dtype)
    ones = np.ones((1, len(SAMPLES)), int)
    for use in (
        check_backbone,
        find_neuron_layers,
        lambda m: collect_activation_norms(m, find_targets(m), SAMPLES, ones),
    ):
        with pytest.raises(UsageError, match="tokens that see what is on their right"):
            use(model)


def test_masks_of_such_a_model_would_depend_on_the_batch(monkeypatch):
    """What the refusal is for."""
    model = build("bert")
    monkeypatch.setattr(backbone, "_probe", lambda _model: False)
    ones = np.ones((1, len(SAMPLES)), int)
    (alone,), (together,) = (
        collect_activation_norms(model, find_targets(model), SAMPLES, ones, budget)
        for budget in (1, 4096)
    )
    name = "bert.encoder.layer.1.output.dense"
    assert not torch.allclose(alone[name], together[name], rtol=1e-2)


def test_a_script_refuses_in_one_line_and_writes_nothing(tokenizer, tmp_path, capsys):
    build("bert").save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    for case in SCRIPTS.values():
        assert case.run(tmp_path / "m", tmp_path / "r") == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"--model {tmp_path / 'm'}: has tokens that see what is on their right" in line
    assert not [path for path in (tmp_path / "r").rglob("*") if path.name != ".lock"]
    flags = ["--model", str(tmp_path / "m"), "--save_path", str(tmp_path / "r"), *DEMO_DATA]
    assert main(["consistency", *flags]) == 2
    assert "has tokens that see what is on their right" in capsys.readouterr().err


def test_a_base_model_that_is_the_model_itself(tokenizer, tmp_path):
    """Llama 4's text model: a whole run, LAPE's too."""
    build("llama4").save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    for name in ("mathneuro", "lape"):
        case = SCRIPTS[name]
        assert case.run(tmp_path / "m", tmp_path / "r", *case.one()) == 0
    assert set(table(tmp_path / "r")["method"]) >= {"mathneuro", "lape"}


def test_a_model_that_does_not_run_on_token_ids():
    model = build_model("llama")
    model.forward = lambda input_ids, images: None
    model.model.forward = lambda input_ids, images: None
    with pytest.raises(UsageError, match="does not run on token ids alone"):
        check_backbone(model)


def test_a_model_that_rescales_its_weights_is_refused_before_they_are_edited():
    model = build("rwkv")
    with pytest.raises(UsageError, match=r"changes its own weights while it runs \(rwkv\.blocks"):
        check_backbone(model)


def test_such_a_model_is_exported_bit_for_bit(tokenizer, tmp_path):
    """`apply` runs no pass, so that nothing was rescaled when it writes."""
    model = build("rwkv")
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    mask = random_mask(model)
    write_mask_file(tmp_path / "mask.safetensors", mask, {"model": str(tmp_path / "m")})
    argv = ["apply", str(tmp_path / "mask.safetensors"), "--scalar", "0"]
    assert main([*argv, "--output", str(tmp_path / "out")]) == 0
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for name, parameter in model.named_parameters():
        kept = ~mask.tensor(name) if name in mask else torch.ones(parameter.shape).bool()
        assert torch.equal(bits(exported.get_parameter(name))[kept], bits(parameter)[kept]), name


def lines_of(model, reached) -> list[str]:
    targets = find_targets(model)
    norms = {t.name: torch.ones(t.in_features) for t in targets if reached(t.name)}
    evidence = Evidence(
        targets, {"activation_norms": targets}, {"activation_norms": {"math": [norms]}}, [0.1], 0
    )
    return list(describe_evidence("m", LoadedModel(model, None, "float32"), evidence))


def test_what_no_sample_reached_is_told_apart_from_what_is_in_no_linear_module():
    model = build_model("llama")
    assert len(lines_of(model, lambda _name: True)) == 1
    # 24 · 40 · 3 of each MLP, 24 · 24 · 2 + 24 · 8 · 2 of each attention, 5 norms of 24.
    total = 2 * (2880 + 1536) + 120
    model.extra = nn.Parameter(torch.zeros(2000))
    scored, unseen, outside = lines_of(model, lambda name: ".1.mlp" not in name)
    assert f"11 weight matrices are scored, {(total - 3000) / (total + 2000):.1%}" in scored
    assert unseen == (
        f"warning: {2880 / (total + 2000):.1%} of it is in 3 linear modules that no sample "
        "reached, or only some of its tokens, and is not scored (first: "
        "model.layers.1.mlp.gate_proj)"
    )
    share = f"{2000 / (total + 2000):.1%}"
    assert outside.startswith(
        f"warning: not scored: other parameters (decay, states, positions) {share} (first: extra)"
    )


@pytest.fixture
def emptied(monkeypatch):
    """Calls of `empty_cache`: whether an exception was being handled, and what was still alive."""
    calls, failed = [], []

    def empty_cache():
        calls.append((sys.exc_info()[0], [each() is not None for each in failed]))

    for module in (collect, harness):
        monkeypatch.setattr(module, "empty_cache", empty_cache)
    return calls, failed


def run_out_of_memory(failed: list, more_than: int):
    """A hook that fails on large inputs, as an allocation would, in the middle of a pass."""

    def hook(_module, args):
        if args[0].shape[0] > more_than:
            failed.append(weakref.ref(args[0]))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    return hook


def test_memory_is_given_back_once_the_failed_pass_is_gone(emptied):
    calls, failed = emptied
    model = build_model("llama")
    hook = run_out_of_memory(failed, 2)
    with model.model.layers[1].mlp.down_proj.register_forward_pre_hook(hook):
        collect_activation_norms(
            model, find_targets(model), SAMPLES, np.ones((1, len(SAMPLES)), int), 4096
        )
    assert calls
    assert all(call == (None, [False] * len(call[1])) for call in calls)


def test_memory_is_given_back_between_two_tries_of_the_harness(emptied, tiny_model, tmp_path):
    calls, failed = emptied
    whole = harness.evaluate

    def fail_at_first(lm, **arguments):
        if lm.batch_size > 4:
            tensor = torch.zeros(3)
            failed.append(weakref.ref(tensor))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(lm=lm, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "evaluate", fail_at_first)
        case = SCRIPTS["mathneuro"]
        assert case.run(tiny_model, tmp_path, *case.one("--eval_batch_size", "8")) == 0
    assert calls[0] == (None, [False])
