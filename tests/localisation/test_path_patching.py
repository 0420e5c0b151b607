"""Path patching: the chain, the hooks and the definition written out give the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import transformers
from conftest import FAMILIES, VOCABULARY, build_model
from planted import HEAD, LAYER, planted_model, planted_pairs
from torch import nn

from neurosurgery.common.errors import UsageError
from neurosurgery.localisation import path_patching
from neurosurgery.localisation.patching_chain import _Chain
from neurosurgery.localisation.patching_metrics import METRICS, PromptPairs
from neurosurgery.localisation.path_patching import HeadEffects, head_effects
from neurosurgery.models.backbone import find_backbone

LENGTHS = (5, 7, 5, 5, 7)


def random_pairs(vocabulary: int = VOCABULARY) -> PromptPairs:
    generator = torch.Generator().manual_seed(3)
    references = [
        torch.randint(1, vocabulary, (length,), generator=generator).tolist() for length in LENGTHS
    ]
    # A token before the last differs, so that it reaches END by attention alone.
    counterfactuals = [
        [first, (second + vocabulary // 2) % vocabulary, *rest]
        for first, second, *rest in references
    ]
    answers, wrong = torch.randint(vocabulary, (2, len(LENGTHS)), generator=generator).tolist()
    return PromptPairs(references, counterfactuals, answers, wrong)


def answered_pairs(model: transformers.PreTrainedModel, pairs: PromptPairs) -> PromptPairs:
    """The same prompts; the answer is the likeliest token, the wrong one the least likely."""
    with torch.inference_mode():
        logits = torch.stack([model(torch.tensor([p])).logits[0, -1] for p in pairs.references])
    return replace(
        pairs, answers=logits.argmax(-1).tolist(), wrong_answers=logits.argmin(-1).tolist()
    )


def add_to_logits(
    model: transformers.PreTrainedModel, constant: float, vector: torch.Tensor | None = None
) -> transformers.PreTrainedModel:
    """Add a number to all logits, and one that depends on the prompt: the hidden state · vector."""
    head = model.get_output_embeddings()
    model.config.tie_word_embeddings = False
    with torch.no_grad():
        added = 0 if vector is None else vector
        head.weight = nn.Parameter(head.weight + added)
        head.bias = nn.Parameter(torch.full((len(head.weight),), constant))
    return model


def scale(result: HeadEffects) -> float:
    return float(result.clean.abs().max())


@pytest.mark.parametrize("freeze_mlps", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_chain_is_the_definition_in_every_family(family, tied, freeze_mlps):
    model = build_model(family, tied=tied)
    pairs = answered_pairs(model, random_pairs())
    for metric in METRICS:
        settings = {"metric": metric, "freeze_mlps": freeze_mlps}
        chain = head_effects(model, pairs, **settings)
        hooks = head_effects(model, pairs, **settings, method="hooks")
        assert chain.used == "chain"
        assert chain.deviation < 1e-5
        assert hooks.used == "hooks"
        assert len(chain.units) == 2 * (3 + 1)
        # The units have effects, or the comparison would say nothing; but in parallel blocks the
        # first MLP sees only the last token, which is the same.
        told = hooks.changes.abs().amax(dim=1) > 1e-4 * scale(hooks)
        parallel = family in ("phi", "gpt_neox")
        assert [place for place in range(8) if not told[place]] == ([6] if parallel else [])
        assert (chain.changes - hooks.changes).abs().max() < 1e-5 * scale(hooks)
        assert torch.equal(chain.clean, hooks.clean)


def test_mlps_that_keep_their_values_make_a_difference():
    model, pairs = build_model("llama"), random_pairs()
    free, frozen = (head_effects(model, pairs, freeze_mlps=freeze) for freeze in (False, True))
    assert (free.changes - frozen.changes).abs().max() > 1e-2 * scale(free)


class Float64Llama:
    """A Llama written out in float64, with replacements at the last position."""

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        self.weights = {name: value.double() for name, value in model.state_dict().items()}
        config = model.config
        self.layers = config.num_hidden_layers
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width, self.eps = config.head_dim, config.rms_norm_eps
        self.theta = config.rope_parameters["rope_theta"]

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weights[name]

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        tokens, half = x.shape[1], self.width // 2
        frequencies = self.theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(tokens, dtype=torch.float64)[:, None] * frequencies
        first, second = x[..., :half], x[..., half:]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    def attention(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """(tokens, heads · width): the input of the output projection."""
        weights, tokens = self.weights, len(x)
        prefix = f"model.layers.{layer}.self_attn."
        query, key, value = (
            (x @ weights[f"{prefix}{name}_proj.weight"].T).view(tokens, -1, self.width)
            for name in "qkv"
        )
        query, key = self.rotate(query.transpose(0, 1)), self.rotate(key.transpose(0, 1))
        future = torch.ones(tokens, tokens).triu(1).bool()
        mixed = []
        for head in range(self.heads):
            shared = head // (self.heads // self.kv_heads)
            scores = query[head] @ key[shared].T / math.sqrt(self.width)
            shares = scores.masked_fill(future, -math.inf).softmax(-1)
            mixed.append(shares @ value[:, shared])
        return torch.cat(mixed, dim=-1)

    def run(
        self,
        tokens: list[int],
        at_heads: Callable[[int, torch.Tensor], torch.Tensor] = lambda _layer, z: z,
        at_mlp: Callable[[int, torch.Tensor], torch.Tensor] = lambda _layer, y: y,
    ) -> torch.Tensor:
        """Logits at END; the functions replace values of the heads and the MLP there."""
        weights = self.weights
        x = weights["model.embed_tokens.weight"][tokens]
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            z = self.attention(self.norm(x, f"{prefix}input_layernorm.weight"), layer)
            z[-1] = at_heads(layer, z[-1])
            x = x + z @ weights[f"{prefix}self_attn.o_proj.weight"].T
            inner = self.norm(x, f"{prefix}post_attention_layernorm.weight")
            gate, up = (inner @ weights[f"{prefix}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
            y = (gate * gate.sigmoid() * up) @ weights[f"{prefix}mlp.down_proj.weight"].T
            y[-1] = at_mlp(layer, y[-1])
            x = x + y
        return self.norm(x[-1], "model.norm.weight") @ weights["lm_head.weight"].T


def keep(store: dict, prompt: str) -> Callable[[int, torch.Tensor], torch.Tensor]:
    def note(layer: int, value: torch.Tensor) -> torch.Tensor:
        store[prompt, layer] = value.clone()
        return value

    return note


def by_the_definition(
    model: transformers.PreTrainedModel, pairs: PromptPairs, freeze_mlps: bool
) -> torch.Tensor:
    """Effects on the log-probability, heads and then MLPs: (units, prompts)."""
    llama = Float64Llama(model)
    senders = [(layer, head) for layer in range(llama.layers) for head in range(llama.heads)]
    senders += [(layer, None) for layer in range(llama.layers)]
    rows = []
    for reference, counterfactual, answer in zip(
        pairs.references, pairs.counterfactuals, pairs.answers, strict=True
    ):
        heads: dict[tuple[str, int], torch.Tensor] = {}
        mlps: dict[tuple[str, int], torch.Tensor] = {}
        clean = llama.run(reference, keep(heads, "r"), keep(mlps, "r")).log_softmax(-1)[answer]
        llama.run(counterfactual, keep(heads, "c"), keep(mlps, "c"))
        row = []
        for layer, head in senders:

            def at_heads(here, z, layer=layer, head=head, heads=heads):
                if here > layer:
                    return heads["r", here]
                if here == layer and head is not None:
                    own = slice(head * llama.width, (head + 1) * llama.width)
                    z = z.clone()
                    z[own] = heads["c", here][own]
                return z

            def at_mlp(here, y, layer=layer, head=head, mlps=mlps):
                if here == layer and head is None:
                    return mlps["c", here]
                return mlps["r", here] if freeze_mlps and here >= layer else y

            patched = llama.run(reference, at_heads, at_mlp).log_softmax(-1)[answer]
            row.append(patched - clean)
        rows.append(torch.stack(row))
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("freeze_mlps", [False, True])
def test_both_are_the_definition_written_out_in_float64(freeze_mlps):
    model, pairs = build_model("llama", tied=False), random_pairs()
    expected = by_the_definition(model, pairs, freeze_mlps)
    model = model.double()
    for method in ("chain", "hooks"):
        found = head_effects(model, pairs, freeze_mlps=freeze_mlps, method=method)
        assert found.used == method
        # The model's norms and its metric are float32 even in a float64 model.
        assert (found.effects - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_planted_head_comes_first_and_it_alone():
    result = head_effects(planted_model(), planted_pairs())
    assert result.used == "chain"
    first, second = result.ranking()[:2]
    assert (first.kind, first.layer, first.index) == ("head", LAYER, HEAD)
    mean = result.mean()
    assert mean[result.units.index(first)] < -0.5
    assert mean[result.units.index(second)].abs() < 0.05
    difference = head_effects(planted_model(), planted_pairs(), metric="logit_diff")
    assert difference.ranking()[0] == first


@pytest.mark.parametrize("row_budget", [1, 7, 40])
def test_pieces_of_any_size_give_the_same(row_budget):
    model, pairs = build_model("gemma2"), random_pairs()
    whole = head_effects(model, pairs)
    cut = head_effects(model, pairs, row_budget=row_budget, batch_tokens=row_budget)
    assert (whole.changes - cut.changes).abs().max() < 1e-5 * scale(whole)


def test_a_piece_holds_no_more_rows_than_allowed(monkeypatch):
    sizes = []
    run = _Chain.run

    def note(self, rows):
        sizes.append(len(rows.prompt))
        return run(self, rows)

    monkeypatch.setattr(_Chain, "run", note)
    head_effects(build_model("llama"), random_pairs(), row_budget=9)
    assert max(sizes) == 9


def test_effects_are_fractions_and_log_probabilities_differences():
    model = build_model("qwen3")
    pairs = answered_pairs(model, random_pairs())
    with torch.inference_mode():
        logits = torch.stack([model(torch.tensor([p])).logits[0, -1] for p in pairs.references])
    answers = torch.tensor(pairs.answers)
    wrong = torch.tensor(pairs.wrong_answers)
    each = torch.arange(len(answers))
    expected = {
        "logit": logits[each, answers],
        "logit_diff": logits[each, answers] - logits[each, wrong],
        "logprob": logits.log_softmax(-1)[each, answers],
    }
    for metric, clean in expected.items():
        result = head_effects(model, pairs, metric=metric)
        assert torch.allclose(result.clean.float(), clean, atol=1e-5)
        by = torch.ones(()) if metric == "logprob" else result.clean
        assert torch.equal(result.effects, result.changes / by)
        assert torch.equal(result.mean(), result.effects.mean(dim=1))


def moved_by_a_constant(family: str, constant: float, by_prompt: float) -> HeadEffects:
    model = build_model(family, tied=False)
    hidden = model.get_output_embeddings().weight.shape[1]
    vector = torch.randn(hidden, generator=torch.Generator().manual_seed(5)) * by_prompt
    return head_effects(add_to_logits(model, constant, vector), random_pairs())


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_a_constant_in_the_logits_changes_no_effect(family):
    """Logits are defined up to a constant, which may depend on the prompt."""
    plain = moved_by_a_constant(family, 0.0, 0.0)
    for constant, by_prompt in ((-60.0, 0.0), (100.0, 0.0), (-60.0, 3.0)):
        moved = moved_by_a_constant(family, constant, by_prompt)
        assert moved.metric == plain.metric == "logprob"
        # In float32 the logits themselves are rounded to 4e-6 at 60.
        assert (moved.effects - plain.effects).abs().max() < 1e-4
        assert plain.effects.abs().max() > 0.05
        assert [*moved.units] == [*plain.units]
        assert moved.ranking()[:2] == plain.ranking()[:2]


@pytest.mark.parametrize("constant", [-60.0, -9.0])
def test_a_share_of_logits_that_are_not_well_above_zero_is_refused(constant):
    pairs = planted_pairs()
    assert head_effects(planted_model(), pairs, metric="logit").ranking()[0].index == HEAD
    model = add_to_logits(planted_model(), constant)
    with pytest.raises(UsageError, match=r"--metric logit: .* 16 of 16 prompts .* logprob"):
        head_effects(model, pairs, metric="logit")
    assert head_effects(model, pairs, metric="logit_diff").ranking()[0].index == HEAD


def test_a_share_of_a_difference_near_zero_or_below_it_is_refused():
    pairs = planted_pairs()
    assert head_effects(planted_model(), pairs, metric="logit_diff").units
    model = planted_model()
    # The wrong answer to the first prompt gets the logit of its answer, less a little.
    answer, wrong = pairs.answers[0], pairs.wrong_answers[0]
    for share in (0.99, 1.0, 1.01):
        with torch.no_grad():
            model.lm_head.weight[wrong] = model.lm_head.weight[answer] * share
        some = replace(
            pairs,
            **{
                name: getattr(pairs, name)[:1]
                for name in ("references", "counterfactuals", "answers", "wrong_answers")
            },
        )
        with pytest.raises(UsageError, match=r"--metric logit_diff: .* 1 of 1 prompts"):
            head_effects(model, some, metric="logit_diff")
        assert head_effects(model, some).metric == "logprob"


def test_a_wrong_chain_is_noticed_however_large_the_logits_are():
    """Bloom's chain is wrong; a constant in the logits must not make that small."""
    torch.manual_seed(0)
    config = transformers.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    found = head_effects(add_to_logits(model, -1000.0), random_pairs())
    assert found.used == "hooks"


def test_smaller_weights_are_measured_in_float32():
    """In bfloat16 itself the difference would be a thousand times as large."""
    pairs = random_pairs()
    model = build_model("llama").to(torch.bfloat16)
    small = head_effects(model, pairs)
    wide = head_effects(build_model("llama").to(torch.bfloat16).float(), pairs)
    assert small.used == "chain"
    assert (small.changes - wide.changes).abs().max() < 1e-6 * scale(wide)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_hooks_take_over_where_the_chain_is_wrong():
    """Bloom adds the residual stream inside its attention, which the chain leaves out."""
    torch.manual_seed(0)
    config = transformers.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    result = head_effects(model, random_pairs())
    hooks = head_effects(model, random_pairs(), method="hooks")
    assert result.used == "hooks"
    assert result.deviation > path_patching.TOLERANCE
    assert "differs from the definition" in result.reason
    assert torch.equal(result.effects, hooks.effects)


def test_hooks_take_over_where_the_chain_cannot_run(monkeypatch):
    def fail(*_: object) -> None:
        raise TypeError("the layer wants its mask")

    monkeypatch.setattr(path_patching, "chain_changes", fail)
    result = head_effects(build_model("llama"), random_pairs())
    assert (result.used, result.deviation) == ("hooks", math.inf)
    assert result.reason == "TypeError: the layer wants its mask"


def test_memory_errors_are_not_taken_for_a_wrong_chain(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(path_patching, "chain_changes", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        head_effects(build_model("llama"), random_pairs())


def test_heads_or_mlps_alone():
    model, pairs = build_model("llama"), random_pairs()
    both = head_effects(model, pairs)
    heads, mlps = (head_effects(model, pairs, units=(kind,)) for kind in ("heads", "mlps"))
    assert both.units == heads.units + mlps.units
    found = torch.cat([heads.changes, mlps.changes])
    assert (both.changes - found).abs().max() < 1e-6 * scale(both)


def test_nothing_stays_on_the_model():
    model = build_model("gemma2")
    tokens = torch.arange(1, 9)[None]
    before = model(tokens).logits
    head_effects(model, random_pairs())
    assert torch.equal(model(tokens).logits, before)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)


@pytest.mark.parametrize(
    ("changed", "arguments", "message"),
    [
        ({"counterfactuals": [[1, 2], [3]]}, {}, "pair 1 has 2 and 1 tokens"),
        ({"counterfactuals": [[1, 2], [3, 4]]}, {}, "pair 1 has a counterfactual equal"),
        ({"answers": [5]}, {}, r"expected as many of everything and at least one, found \[2, 2, 1"),
        ({"wrong_answers": None}, {"metric": "logit_diff"}, "needs a wrong answer"),
        ({}, {"metric": "perplexity"}, "metric 'perplexity' is unknown"),
        ({}, {"units": ("neurons",)}, "expected some of heads, mlps"),
        ({}, {"method": "guess"}, "by chain or hooks"),
    ],
)
def test_what_cannot_be_measured_is_refused(changed, arguments, message):
    pairs = {
        "references": [[1, 3], [3, 4]],
        "counterfactuals": [[1, 2], [4, 4]],
        "answers": [5, 6],
        "wrong_answers": [7, 8],
    } | changed
    with pytest.raises(ValueError, match=message):
        head_effects(build_model("llama"), PromptPairs(**pairs), **arguments)


def test_a_counterfactual_that_changes_nothing_is_refused():
    model = build_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = model.model.embed_tokens.weight[9]
    pairs = PromptPairs([[1, 2, 3], [1, 7, 3]], [[1, 4, 3], [1, 9, 3]], [5, 5])
    with pytest.raises(ValueError, match="pair 1: the counterfactual changes nothing"):
        head_effects(model, pairs)


def test_a_model_that_does_not_repeat_itself_is_noticed():
    model = build_model("llama")
    find_backbone(model)
    model.model.layers[1].mlp.register_forward_hook(
        lambda _module, _inputs, output: output + 1e-4 * torch.rand(output.shape)
    )
    with pytest.raises(ValueError, match="expected exactly 0"):
        head_effects(model, random_pairs(), method="hooks")
