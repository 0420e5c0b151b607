"""Every method has its own controls: as many at random, and as many of the least important."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from conftest import FAMILIES, build_model
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.activations.kinds import ACTIVATION_NORMS, ACTIVATION_SQUARES
from neurosurgery.activations.sums import ActivationSquares
from neurosurgery.common.errors import UsageError
from neurosurgery.masks.top_k import Reversed, WholeScores, top_k_bits, top_k_cutoffs
from neurosurgery.methods.base import BOTTOM, DRAWS, RANDOM
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.ranking import best_of_rows
from neurosurgery.methods.registry import METHODS, control_of, select, twin_of, with_twins
from neurosurgery.models.targets import find_targets

SIZE = 0.1
FINITE = st.floats(0, 2.0**100, width=32) | st.sampled_from([0.0, 1e-45, 1.0])


@given(hnp.arrays(np.float32, st.integers(1, 70), elements=FINITE), st.data())
def test_reversed_scores_give_the_smallest(values, data):
    """Exactly, ties and denormals included; ties go to the lowest index."""
    count = data.draw(st.integers(0, len(values)))
    scores = Reversed(WholeScores(torch.from_numpy(values)))
    (cutoff,) = top_k_cutoffs(scores, [count])
    found = np.flatnonzero(np.unpackbits(top_k_bits(scores, cutoff), count=len(values)))
    assert set(found) == set(np.argsort(values, kind="stable")[:count])


@given(hnp.arrays(np.float32, (4, 9), elements=st.sampled_from([0, 1, 2, 3])), st.integers(0, 9))
def test_the_best_of_every_row_are_those_of_a_stable_sort(values, count):
    for dim in (0, 1):
        for largest in (True, False):
            own = min(count, values.shape[dim])
            found = best_of_rows(torch.from_numpy(values), own, dim=dim, largest=largest).numpy()
            order = np.argsort(-values if largest else values, axis=dim, kind="stable")
            wanted = np.zeros_like(found)
            np.put_along_axis(wanted, order.take(range(own), axis=dim), True, axis=dim)
            np.testing.assert_array_equal(found, wanted)


def evidence(model, samples) -> Evidence:
    targets = find_targets(model)
    times = np.ones((1, len(samples)), int)
    statistics = {
        ACTIVATION_NORMS: collect_activation_norms(model, targets, samples, times),
        ACTIVATION_SQUARES: collect_activation_norms(
            model, targets, samples, times, sums=ActivationSquares
        ),
    }
    other = {
        kind: [{name: value.flip(0) for name, value in found[0].items()}]
        for kind, found in statistics.items()
    }
    sets = {kind: {"math": found, "Race": other[kind]} for kind, found in statistics.items()}
    return Evidence(targets, {}, sets, [SIZE], 3)


def norms(model, samples) -> dict[str, np.ndarray]:
    """sqrt(mean_n ‖X_n‖²) per module, float64, from the inputs of one sample after the other."""
    seen: dict[str, list[np.ndarray]] = {}
    handles = [
        module.register_forward_hook(
            lambda _m, args, _o, name=name: seen.setdefault(name, []).append(
                args[0].detach().double().flatten(end_dim=-2).numpy()
            )
        )
        for name, (module, _) in reference.linear_modules(model).items()
    ]
    with torch.no_grad():
        for ids in samples:
            model(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return {
        name: np.sqrt(np.mean([(x**2).sum(axis=0) for x in inputs], axis=0))
        for name, inputs in seen.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_wanda_by_rows_equals_the_paper(family, ragged_samples):
    """Wanda (arXiv 2306.11695, §3): |W_ij| · ‖X_j‖₂ within every output row, float64."""
    model = build_model(family)
    mask = select(evidence(model, ragged_samples), SelectionKey("wanda_rows", size=SIZE)).mask
    by_input = norms(model, ragged_samples)
    for name, (module, transposed) in reference.linear_modules(model).items():
        weight = module.weight.detach().double().numpy()
        scores = np.abs(weight.T if transposed else weight) * by_input[name]
        found = mask.tensor(f"{name}.weight").numpy()
        found = found.T if transposed else found
        count = int(scores.shape[1] * SIZE)
        assert (found.sum(axis=1) == count).all()
        for row, selected in zip(scores, found, strict=True):
            wanted = reference.top_k(row, count)
            clear = np.abs(row - np.sort(row)[-count]) > 2e-6 * row.max()
            np.testing.assert_array_equal(selected[clear], wanted[clear])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_magnitude_is_the_largest_weights(family, ragged_samples):
    model = build_model(family)
    found = evidence(model, ragged_samples)
    mask = select(found, SelectionKey("magnitude", size=SIZE)).mask
    for target in find_targets(model):
        weight = target.weight.detach().abs().numpy()
        wanted = reference.top_k(weight, int(weight.size * SIZE))
        np.testing.assert_array_equal(mask.tensor(target.parameter_name).numpy(), wanted)
    # Samples say nothing, not even which matrices they reach.
    bare = Evidence(find_targets(model), {}, {}, [SIZE], 3)
    assert select(bare, SelectionKey("magnitude", size=SIZE)).mask == mask


WEIGHTS = {"mathneuro": "Race", "wanda": "", "wanda_rows": "", "magnitude": ""}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(("method", "against"), WEIGHTS.items())
def test_twins_of_weights_have_the_counts_of_every_matrix(method, against, family, ragged_samples):
    model = build_model(family)
    found = evidence(model, ragged_samples)
    mine = select(found, SelectionKey(method, against=against, size=SIZE))
    drawn = {
        draw: select(found, SelectionKey(twin_of(method, draw), against=against, size=SIZE))
        for draw in DRAWS
    }
    for each in drawn.values():
        assert each.mask.counts() == mine.mask.counts()
        assert each.topk == mine.topk
        assert each.mask != mine.mask
    squares = found.statistics[ACTIVATION_SQUARES]["math"][0]
    by_input = {
        "mathneuro": found.statistics[ACTIVATION_NORMS]["math"][0],
        "wanda": found.statistics[ACTIVATION_NORMS]["math"][0],
        "wanda_rows": {name: value.sqrt() for name, value in squares.items()},
        "magnitude": {name: torch.ones(len(value)) for name, value in squares.items()},
    }[method]
    for target in find_targets(model):
        name = target.parameter_name
        factors = by_input[target.name].double()
        scores = target.weight.detach().double().abs()
        scores = (scores * (factors[:, None] if target.transposed else factors)).numpy()
        selected = drawn[BOTTOM].mask.tensor(name).numpy()
        if method == "wanda_rows":
            rows = (scores.T, selected.T) if target.transposed else (scores, selected)
            pairs = list(zip(*rows, strict=True))
        else:
            pairs = [(scores.ravel(), selected.ravel())]
        for row, chosen in pairs:
            if chosen.any():
                assert row[chosen].max() <= row[~chosen].min() * (1 + 2e-6)
    assert not (drawn[BOTTOM].mask & mine.mask).count()


def test_random_twins_of_two_methods_are_drawn_anew(ragged_samples):
    """Both have the same counts, and would be one mask by one draw."""
    found = evidence(build_model("llama"), ragged_samples)
    one, other = (
        select(found, SelectionKey(name, size=SIZE)).mask
        for name in ("random_wanda", "random_magnitude")
    )
    assert one.counts() == other.counts()
    assert (one & other).count() < 0.5 * one.count()


def test_a_size_that_gives_a_row_no_weight_is_refused():
    method = METHODS["wanda_rows"]
    widths = {"a.weight": 64, "b.weight": 200}
    method.check_sizes([1 / 64, 0.5], lambda: widths)
    with pytest.raises(
        UsageError, match=r"--proportion 0\.01: expected 1/64 or more for wanda_rows"
    ):
        method.check_sizes([0.5, 0.01], lambda: widths)
    with pytest.raises(UsageError, match=r"a\.weight has rows of 64"):
        METHODS["bottom_wanda_rows"].check_sizes([0.01], lambda: widths)


def test_every_method_that_ranks_has_both_twins():
    ranking = [m for m in METHODS.values() if not (m.draw or m.adapter or m.of_one_size)]
    assert {m.name for m in ranking} == {
        *("mathneuro", "wanda", "wanda_rows", "snip", "magnitude", "lape", "heads", "mlps"),
        "experts",
    }
    for method in ranking:
        for draw in DRAWS:
            twin = METHODS[twin_of(method.name, draw)]
            assert (twin.basis, twin.draw) == (method, draw)
            assert twin.size_unit == method.size_unit
    # The published names stay.
    assert control_of("mathneuro") == RANDOM
    assert control_of("heads") == "random_heads"
    assert control_of("all") == control_of("random") == ""


def test_twins_stand_beside_their_method():
    assert with_twins(["heads", "mlps"], [BOTTOM, RANDOM]) == (
        *("heads", "random_heads", "bottom_heads"),
        *("mlps", "random_mlps", "bottom_mlps"),
    )
    assert with_twins(["mathneuro", RANDOM], [RANDOM]) == ("mathneuro", RANDOM)
    assert with_twins(["all"], [RANDOM]) == ("all",)


def test_no_two_methods_share_a_file():
    stems = {SelectionKey(name, against="Race", size=0.05).stem for name in METHODS}
    assert len(stems) == len(METHODS)
