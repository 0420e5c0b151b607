"""The loop that the benchmark compares with finds what we find: the comparison is of equals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import build_model

from benchmarks import published
from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.activations.kinds import ACTIVATION_NORMS
from neurosurgery.edit.scale import scaled
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import MATHNEURO, select
from neurosurgery.models.targets import find_targets

PROPORTIONS = (0.001, 0.05, 0.3)


@pytest.mark.parametrize("tied", [True, False])
def test_the_literal_loop_selects_and_edits_what_we_do(tied, ragged_samples):
    model = build_model("llama", tied=tied).double()
    targets = find_targets(model)
    samples = {"math": ragged_samples[:6], "MMLU": ragged_samples[6:]}
    norms = {
        name: collect_activation_norms(model, targets, ids, np.ones((1, len(ids)), int))
        for name, ids in samples.items()
    }
    statistics = {ACTIVATION_NORMS: norms}
    evidence = Evidence(targets, {}, statistics, PROPORTIONS, seed=0)
    scores = {name: published.running_scores(model, ids) for name, ids in samples.items()}
    assert scores["math"].keys() == {target.name for target in targets}
    for proportion in PROPORTIONS:
        ours = select(evidence, SelectionKey(MATHNEURO, against="MMLU", size=proportion)).mask
        theirs = published.specific_masks(scores["math"], scores["MMLU"], proportion)
        for name, mask in theirs.items():
            assert torch.equal(mask, ours.tensor(f"{name}.weight"))
    with scaled(model, ours, 0.5):
        expected = {name: weight.clone() for name, weight in model.state_dict().items()}
    published.multiply(model, theirs, 0.5)
    assert all(torch.equal(expected[name], weight) for name, weight in model.state_dict().items())
