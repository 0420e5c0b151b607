"""Whatever the family: the answers are those of the plain model on one unpadded row at a time.

`python -m benchmarks.families` does the same for every causal family that transformers has.
"""

from __future__ import annotations

import signal
import time

import pytest
import torch

from benchmarks.families import TooSlow, at_most, measure
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


def test_a_family_that_never_ends_is_stopped():
    with pytest.raises(TooSlow, match="stopped after 1 s"), at_most(1):
        time.sleep(60)
    assert signal.alarm(0) == 0
    with at_most(60):
        pass
    assert signal.alarm(0) == 0
