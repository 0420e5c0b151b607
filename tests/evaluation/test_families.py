"""Whatever the family: the answers are those of the plain model on one unpadded row at a time.

`python -m benchmarks.families` does the same for every causal family that transformers has.
"""

from __future__ import annotations

import signal
import time

import pytest
import torch

from benchmarks.families import TooSlow, at_most, facts_of, main, measure
from benchmarks.tiny_families import SAMPLE, build, families

pytestmark = pytest.mark.whole

IN_PARTS = set(
    "llama gemma qwen2 qwen3 phi phi3 gpt2 gpt_neox gptj opt bloom falcon olmo2 stablelm "
    "mixtral".split()
)
"""Families that must not fall back: a check that refuses everything would be right, and slow."""


def test_the_sample_is_of_this_version():
    assert len(SAMPLE) == len(set(SAMPLE)) == 30
    assert set(families()) >= set(SAMPLE) >= IN_PARTS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", SAMPLE)
def test_a_family_is_evaluated_as_the_plain_model_is(family, tokenizer):
    model = build(family)
    for dtype in (torch.float32, torch.bfloat16):
        line = measure(family, model, dtype, tokenizer)
        assert line.status in ("agrees", "refused"), line
        # Nothing falls back without a word.
        assert (line.status == "refused") == bool(line.why)
        assert line.options == "parts" or family not in IN_PARTS, line
        assert line.times_rounding < 8


def test_what_is_scored_of_a_mixture_of_experts():
    model = build("mixtral")
    facts = facts_of(model)
    # Four layers of four experts; routers and norms are left out.
    assert (facts.experts, facts.unreached, facts.text, facts.stops) == (16, 0, "", "")
    sizes = {name: p.numel() for name, p in model.named_parameters() if "embed_tokens" not in name}
    left = sum(size for name, size in sizes.items() if "norm" in name or "mlp.gate." in name)
    assert facts.scored == pytest.approx(1 - left / sum(sizes.values()), abs=1e-12)


def test_of_an_image_model_the_text_part_is_scored():
    model = build("llava")
    facts = facts_of(model)
    # The towers hold no matrices that a text could reach.
    assert (facts.text, facts.unreached, facts.experts) == ("llama", 0, 0)
    decoder = model.model.language_model
    sizes = {n: p.numel() for n, p in decoder.named_parameters() if "embed_tokens" not in n}
    norms = sum(size for name, size in sizes.items() if "norm" in name)
    assert facts.scored == pytest.approx(1 - norms / sum(sizes.values()), abs=1e-12)


def test_what_stops_the_scoring_is_named():
    facts = facts_of(build("bert"))
    assert "see what is on their right" in facts.stops
    assert facts.scored != facts.scored


def test_only_some_families_are_measured_and_a_wrong_name_is_refused(capsys):
    assert main(["--only", "qwen2_vl", "florence2"]) == 0
    shown = capsys.readouterr().out
    assert "qwen2_vl_text" in shown
    assert "florence2: not measured: ValueError: an encoder-decoder" in shown
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "qwen9"])
    assert "--only qwen9: expected one of" in capsys.readouterr().err


def test_a_family_that_never_ends_is_stopped():
    with pytest.raises(TooSlow, match="stopped after 1 s"), at_most(1):
        time.sleep(60)
    assert signal.alarm(0) == 0
    with at_most(60):
        pass
    assert signal.alarm(0) == 0
