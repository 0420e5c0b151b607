from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neurosurgery.verdicts.intervals import interval_over_repeats, mcnemar, paired_interval
from neurosurgery.verdicts.reach import Interval
from neurosurgery.verdicts.metrics import metric_from_documents


def rebuilt(name, values, reported):
    return metric_from_documents(name, values, reported, [str(i) for i in range(len(values))])


def accuracy(values):
    return rebuilt("acc", values, float(np.mean(values)))


def test_metrics_rebuilt_from_documents():
    assert accuracy([1, 0, 1, 1]).value == 0.75
    stories = [(-10.0, 4), (-6.0, 4)]
    perplexity = rebuilt("word_perplexity", stories, math.exp(2))
    assert perplexity.value == pytest.approx(math.exp(16 / 8))
    bits = rebuilt("bits_per_byte", stories, 2 / math.log(2))
    assert bits.value == pytest.approx(2 / math.log(2))
    assert rebuilt("perplexity", [-1.0, -3.0], math.exp(2)).value == pytest.approx(math.exp(2))


@pytest.mark.parametrize(
    ("name", "values", "reported"),
    [
        ("f1", [1, 0, 1], 0.8),  # an aggregation that is no mean
        ("bleu", [("a", "b")], 1.0),
        ("acc", [None, 1], 0.5),
        ("acc", [], 0.5),
        ("word_perplexity", [-1.0, -2.0], 3.0),
    ],
)
def test_metrics_that_cannot_be_rebuilt_have_no_interval(name, values, reported):
    assert rebuilt(name, values, reported) is None


def test_mcnemar_by_hand():
    """Nine broken, one mended: p = 2 · (C(10,0) + C(10,1)) / 2^10 = 22 / 1024."""
    before = accuracy([1] * 9 + [0] + [1] * 5 + [0] * 5)
    after = accuracy([0] * 9 + [1] + [1] * 5 + [0] * 5)
    assert mcnemar(after, before) == pytest.approx(22 / 1024)
    assert mcnemar(before, before) == 1.0
    perplexity = rebuilt("word_perplexity", [(-1.0, 2)] * 3, math.exp(0.5))
    assert math.isnan(mcnemar(perplexity, perplexity))


def test_paired_interval_against_the_exact_multinomial():
    """The bootstrap of differences in {-1, 0, 1} is a multinomial; its quantiles are known."""
    rng = np.random.default_rng(0)
    before = rng.integers(0, 2, 100)
    after = np.where(rng.random(100) < 0.3, 0, before)
    difference = after - before
    shares = [(difference == value).mean() for value in (-1, 0, 1)]
    draws = rng.multinomial(100, shares, size=200_000) @ np.array([-1, 0, 1]) / 100
    low, high = np.quantile(draws, [0.025, 0.975])
    found = paired_interval(accuracy(after), accuracy(before))
    assert found.low == pytest.approx(low, abs=0.011)
    assert found.high == pytest.approx(high, abs=0.011)


def test_pairing_makes_the_interval_narrower():
    before = np.array([0, 1] * 50)
    worse = before.copy()
    worse[1] = 0
    shuffled = np.roll(worse, 1)
    paired = paired_interval(accuracy(worse), accuracy(before))
    unpaired = paired_interval(accuracy(shuffled), accuracy(before))
    assert paired.high - paired.low < 0.1 < unpaired.high - unpaired.low


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_interval_holds_the_difference_and_turns_with_the_sides(pairs):
    after, before = (accuracy([float(pair[side]) for pair in pairs]) for side in (0, 1))
    there, back = paired_interval(after, before), paired_interval(before, after)
    assert there.low - 1e-12 <= after.value - before.value <= there.high + 1e-12
    # A mean of n differences of -1, 0 or 1 is a multiple of 1/n: a quantile may miss by one step.
    step = 1 / len(pairs) + 1e-9
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=step)


def test_different_documents_are_not_paired():
    before = accuracy([1, 0, 1])
    for other in (accuracy([1, 0]), before._replace(documents=("0", "1", "x"))):
        assert math.isnan(paired_interval(other, before).low)
        assert math.isnan(mcnemar(other, before))
        assert math.isnan(interval_over_repeats([other, other], before).low)


def test_the_multinomial_shortcut_equals_resampling_documents():
    """Accuracies as numbers that are not 0 or 1 take the general path; shift them to get there."""
    rng = np.random.default_rng(3)
    before, after = rng.integers(0, 2, 150), rng.integers(0, 2, (3, 150))
    fast = interval_over_repeats([accuracy(values) for values in after], accuracy(before))
    shifted = [accuracy(values + 2.0) for values in after]
    slow = interval_over_repeats(shifted, accuracy(before + 2.0))
    assert fast == pytest.approx(slow, abs=0.01)
    fast = paired_interval(accuracy(after[0]), accuracy(before))
    slow = paired_interval(shifted[0], accuracy(before + 2.0))
    assert fast == pytest.approx(slow, abs=0.015)


def test_counting_draws_equals_gathering_them():
    """The same draws as scipy's bootstrap, which gathers every resample document by document."""
    rng = np.random.default_rng(5)
    documents = [np.stack([-rng.gamma(3, 10, 40), rng.integers(5, 40, 40)], axis=1) for _ in "ab"]
    perplexities = [math.exp(-table[:, 0].sum() / table[:, 1].sum()) for table in documents]
    after, before = map(rebuilt, ["word_perplexity"] * 2, documents, perplexities)

    def difference(*sums, axis):
        a, b, c, d = (column.sum(axis=axis) for column in sums)
        return np.exp(-a / b) - np.exp(-c / d)

    expected = stats.bootstrap(
        tuple(np.hstack(documents).T),
        difference,
        paired=True,
        vectorized=True,
        n_resamples=9999,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert paired_interval(after, before) == pytest.approx(tuple(expected), rel=1e-9)


def test_one_document_gives_no_interval():
    assert math.isnan(paired_interval(accuracy([1]), accuracy([0])).low)


def test_interval_over_repeats():
    before = accuracy([1] * 80 + [0] * 20)
    pruned = [accuracy([1] * right + [0] * (100 - right)) for right in (2, 4, 6)]
    interval = interval_over_repeats(pruned, before)
    assert interval.low < -0.76 < interval.high < -0.6
    # Repeats that agree exactly still share the documents' noise.
    same = interval_over_repeats([pruned[0]] * 3, before)
    assert same.high - same.low > 0.1
    assert interval_over_repeats(pruned[:1], before) == paired_interval(pruned[0], before)
    assert interval_over_repeats([before] * 3, before) == Interval(0, 0)


def test_infinite_perplexity_gives_no_interval():
    before = rebuilt("word_perplexity", [(-1.0, 2)] * 3, math.exp(0.5))
    broken = rebuilt("word_perplexity", [(-math.inf, 2)] * 3, math.inf)
    assert math.isnan(paired_interval(broken, before).low)
    assert math.isnan(interval_over_repeats([broken] * 2, before).low)
