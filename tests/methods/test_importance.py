from __future__ import annotations

from unittest import mock

import pytest
import torch
from conftest import build_model

from neurosurgery.activations.kinds import ACTIVATION_NORMS, FIRING_COUNTS
from neurosurgery.common.errors import RunError
from neurosurgery.masks.top_k import top_k_counts
from neurosurgery.methods import importance
from neurosurgery.methods.base import Needed
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.importance import ImportanceScores, importance_scores
from neurosurgery.methods.ranking import TopK
from neurosurgery.models.neurons import find_neuron_layers
from neurosurgery.models.targets import Target, find_targets
from neurosurgery.results.store import ResultStore
from neurosurgery.run.observe import read_statistics
from neurosurgery.settings.experiment import CalibrationSource, DataConfig


def test_scores_by_hand():
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -4.0]])
    norms = torch.tensor([2.0, 10.0, 0.5])
    expected = torch.tensor([[2.0, 20.0, 0.25], [0.0, 30.0, 2.0]])
    assert torch.equal(importance_scores(weight, norms), expected)
    assert torch.equal(importance_scores(weight.T.contiguous(), norms, transposed=True), expected.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scores_are_float32_and_leave_the_weight_alone(dtype):
    weight = torch.randn(5, 7).to(dtype)
    before = weight.clone()
    scores = importance_scores(weight, torch.rand(7, dtype=torch.float64))
    assert scores.dtype == torch.float32
    assert torch.equal(weight, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (50, 7), (7, 50), (8, 8), (1, 300)])
def test_pieces_are_the_scores_bit_for_bit(shape, transposed, dtype):
    weight = torch.randn(shape).to(dtype)
    norms = torch.rand(shape[0 if transposed else 1], dtype=torch.float64)
    whole = importance_scores(weight, norms, transposed=transposed).view(-1)
    with mock.patch.object(importance, "CHUNK_ON_CPU", 64):
        scores = ImportanceScores(weight, norms, transposed=transposed)
        pieces = [piece.clone() for piece in scores]
    assert torch.equal(torch.cat(pieces), whole)
    assert all(len(piece) % 8 == 0 for piece in pieces[:-1])
    assert scores.numel == len(whole)
    assert torch.isin(scores.sample(20), whole).all()


def test_a_weight_that_is_not_contiguous_is_scored_in_its_logical_order():
    weight = torch.randn(30, 20)
    norms = torch.rand(30)
    pieces = [piece.clone() for piece in ImportanceScores(weight.T, norms)]
    assert torch.equal(torch.cat(pieces).view(20, 30), importance_scores(weight.T, norms))


def test_counts_are_truncated_products():
    assert top_k_counts(999, [0.0001, 0.01, 0.15, 1.0]) == [0, 9, 149, 999]


def llama_norms() -> tuple[list[Target], dict[str, torch.Tensor]]:
    targets = find_targets(build_model("llama"))
    return targets, {target.name: torch.ones(target.in_features) for target in targets}


@pytest.mark.parametrize(("name", "repeat"), [("math", 0), ("math", 1), ("other", 0), ("other", 1)])
def test_a_gap_in_the_statistics_is_refused(name, repeat):
    """A matrix that one set has alone would be math-specific as a whole."""
    targets, norms = llama_norms()
    statistics = {each: [dict(norms), dict(norms)] for each in ("math", "other")}
    gap = targets[3].name
    del statistics[name][repeat][gap]
    with pytest.raises(RunError, match=f"the statistics of {name}, repeat {repeat}, lack {gap}"):
        Evidence(targets, {}, {ACTIVATION_NORMS: statistics}, [0.1], 0)
    for of_set in statistics.values():
        for found in of_set:
            found.pop(gap, None)
    scored = Evidence(targets, {}, {ACTIVATION_NORMS: statistics}, [0.1], 0).targets
    assert [target.name for target in scored] == [t.name for t in targets if t.name != gap]


@pytest.mark.parametrize("found", [None, torch.ones(1), torch.ones(7), torch.ones(2, 24)])
def test_norms_that_do_not_fit_their_matrix_are_refused(found):
    """One number would be multiplied with every input."""
    targets, norms = llama_norms()
    if found is None:
        del norms[targets[0].name]
    else:
        norms[targets[0].name] = found
    with pytest.raises(RunError, match=f"{targets[0].name} needs statistics of 24 inputs"):
        TopK(targets, norms, [0.1])


@pytest.mark.parametrize("lacking", ["layer", "tokens"])
def test_a_gap_in_firing_counts_is_refused(lacking):
    layers = find_neuron_layers(build_model("llama"))
    counts = {layer.name: torch.ones(layer.neurons, dtype=torch.int64) for layer in layers}
    counts["tokens"] = torch.tensor([4])
    gap = layers[1].name if lacking == "layer" else lacking
    del counts[gap]
    evidence = Evidence([], {FIRING_COUNTS: layers}, {FIRING_COUNTS: {"math": [counts]}}, [0.1], 0)
    with pytest.raises(RunError, match=f"the statistics of math, repeat 0, lack {gap}"):
        evidence.firing_probabilities(0)


def test_a_repeat_without_its_file_is_not_skipped(tmp_path):
    """The statistics of repeat 1 would be taken for those of repeat 0."""
    store = ResultStore(tmp_path, "model")
    data = DataConfig(CalibrationSource("math", tmp_path / "m.csv"), (), 4, 2, 42, None)
    path = store.statistics_file(ACTIVATION_NORMS, "math", 1)
    store.write_statistics(path, {"a": torch.ones(2)})
    with pytest.raises(RunError, match=r"math_run0\.safetensors is missing"):
        read_statistics(data, [Needed(ACTIVATION_NORMS, "math")], store)
