from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neurosurgery.verdicts import draws, intervals
from neurosurgery.verdicts.intervals import (
    RepeatSpread,
    above_chance,
    compare,
    fitted_spread,
    mcnemar,
    moderated,
    noise_of,
    paired_interval,
)
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


def tango_score_interval(broken: int, mended: int, documents: int) -> tuple[float, float]:
    """Tango (1998), Statistics in Medicine 17: the differences that the score test accepts.

    The nuisance parameter is the root of the constrained likelihood's quadratic equation.
    """

    def score(delta: float) -> float:
        a = 2 * documents
        b = -mended - broken + (2 * documents - mended + broken) * delta
        c = -broken * delta * (1 - delta)
        nuisance = (math.sqrt(max(b * b - 4 * a * c, 0)) - b) / (2 * a)
        variance = documents * (2 * nuisance + delta * (1 - delta))
        return (mended - broken - documents * delta) / math.sqrt(max(variance, 1e-300))

    z = stats.norm.ppf(0.975)
    grid = np.linspace(-0.9999, 0.9999, 20001)
    accepted = [delta for delta in grid if abs(score(delta)) <= z]
    return min(accepted), max(accepted)


@pytest.mark.parametrize(
    ("broken", "mended", "documents"), [(0, 0, 200), (4, 0, 200), (12, 5, 200), (3, 3, 60)]
)
def test_paired_interval_is_near_tangos_score_interval(broken, mended, documents):
    before = accuracy([1] * broken + [0] * mended + [1] * (documents - broken - mended))
    after = accuracy([0] * broken + [1] * mended + [1] * (documents - broken - mended))
    found = paired_interval(after, before)
    assert found == pytest.approx(tango_score_interval(broken, mended, documents), abs=0.012)


def test_no_change_at_all_is_not_certainty():
    """By hand: t(.975, 19) = 2.093024; t² / (20 + t²) = .179681."""
    same = accuracy([1] * 12 + [0] * 8)
    assert paired_interval(same, same) == pytest.approx((-0.179681, 0.179681), abs=1e-6)
    assert compare([same], same).p_value == 1.0


def test_four_broken_of_two_hundred_contradict_nothing():
    """The exact McNemar p is .125, so that the interval must hold 0."""
    before = accuracy([1] * 200)
    found = compare([accuracy([0] * 4 + [1] * 196)], before)
    assert found.p_value >= 0.125
    assert found.interval.holds_zero


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 160))
def test_interval_and_p_value_never_contradict_each_other(broken, mended, rest):
    if broken + mended + rest < 2:
        return
    before = accuracy([1] * broken + [0] * mended + [1] * rest)
    after = accuracy([0] * broken + [1] * mended + [1] * rest)
    found = compare([after], before)
    assert found.interval.holds_zero == (found.p_value > 0.05)
    assert found.p_value >= mcnemar(after, before) - 1e-12


def test_pairing_makes_the_interval_narrower():
    before = np.array([0, 1] * 50)
    worse = before.copy()
    worse[1] = 0
    shuffled = np.roll(worse, 1)
    paired = paired_interval(accuracy(worse), accuracy(before))
    unpaired = paired_interval(accuracy(shuffled), accuracy(before))
    assert paired.high - paired.low < 0.12 < unpaired.high - unpaired.low


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_interval_holds_the_difference_and_turns_with_the_sides(pairs):
    after, before = (accuracy([float(pair[side]) for pair in pairs]) for side in (0, 1))
    there, back = paired_interval(after, before), paired_interval(before, after)
    assert there.low - 1e-12 <= after.value - before.value <= there.high + 1e-12
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)


def test_different_documents_are_not_paired():
    before = accuracy([1, 0, 1])
    for other in (accuracy([1, 0, 0, 1]), before._replace(documents=("0", "1", "x"))):
        assert math.isnan(paired_interval(other, before).low)
        assert math.isnan(mcnemar(other, before))
        assert math.isnan(compare([other, other], before).interval.low)


def test_the_studentised_draws_equal_a_bootstrap_document_by_document():
    """The draws are counted, not gathered, and standard errors come from second moments."""
    rng = np.random.default_rng(5)
    documents = 30
    tables = [
        np.stack([-rng.gamma(3, 10, documents), rng.integers(5, 40, documents)], axis=1)
        for _ in "ab"
    ]
    tables[0][:, 1] = tables[1][:, 1]
    after, before = (
        rebuilt("word_perplexity", t, math.exp(-t[:, 0].sum() / t[:, 1].sum())) for t in tables
    )

    def statistic(rows):
        values = []
        for table in tables:
            value, weight = table[rows].mean(axis=0)
            values.append(-value / weight)
        return values[0] - values[1]

    def standard_error(rows):
        influence = np.zeros(documents)
        for table, sign in zip(tables, (1, -1), strict=True):
            value, weight = table[rows].mean(axis=0)
            chosen = table[rows]
            influence += sign * (-chosen[:, 0] + value / weight * chosen[:, 1]) / weight
        return influence.std(ddof=1) / math.sqrt(documents)

    difference = statistic(np.arange(documents))
    studentised = []
    for counts in draws._remembered(documents, "")[:200]:
        rows = np.repeat(np.arange(documents), counts.astype(int))
        studentised.append((statistic(rows) - difference) / standard_error(rows))
    with mock.patch.object(
        intervals,
        "resampled_means",
        lambda columns: draws._remembered(documents, "")[:200] @ columns / documents,
    ):
        found = intervals._studentised([after, before], [1.0, -1.0], difference)
    assert found == pytest.approx(sorted(studentised), rel=1e-6)


def test_the_t_interval_of_a_metric_without_bounds_by_hand(monkeypatch):
    """Without the bootstrap's part: ± t of N - 1 degrees of freedom · s / √N."""
    monkeypatch.setattr(intervals, "_studentised", lambda *_arguments: np.zeros(3))
    before, after = [2.0, 4.0, 6.0, 8.0, 10.0], [3.0, 4.0, 9.0, 8.0, 16.0]
    baseline, edited = (rebuilt("score", v, float(np.mean(v))) for v in (before, after))
    # Differences 1 0 3 0 6: mean 2, squared deviations 26, so s² = 26/4; t(.975, 4) = 2.77645.
    half = 2.77645 * math.sqrt(26 / 4 / 5)
    assert compare([edited], baseline).interval == pytest.approx((2 - half, 2 + half), rel=1e-5)
    # With draws from -10 to 5 errors; of five documents the tails are .025 · 5/25: the 99.5th
    # percentile reaches down, the .5th up.
    monkeypatch.setattr(intervals, "_studentised", lambda *_arguments: np.linspace(-10, 5, 1001))
    error = math.sqrt(26 / 4 / 5)
    expected = 2 - 4.925 * error, 2 + 9.925 * error
    assert compare([edited], baseline).interval == pytest.approx(expected, rel=1e-5)


def test_one_document_gives_no_interval():
    assert math.isnan(paired_interval(accuracy([1]), accuracy([0])).low)


CHANGES = np.array(
    [[-1, -1, 0], [0, 0, 0], [1, 0, 1], [-1, 0, -1], [0, -1, 0], [-1, -1, -1]], dtype=float
)
"""Changes of six documents in three repeats."""


def test_the_noise_of_documents_and_repeats_by_hand():
    """Two-way layout: total sum of squares less that of rows and of columns."""
    total = ((CHANGES - CHANGES.mean()) ** 2).sum()
    rows = 3 * ((CHANGES.mean(axis=1) - CHANGES.mean()) ** 2).sum()
    columns = 6 * ((CHANGES.mean(axis=0) - CHANGES.mean()) ** 2).sum()
    assert noise_of(CHANGES) == pytest.approx((total - rows - columns) / (5 * 2) / 6)


def own_documents(rng, documents: int, sizes):
    """Changes of repeats that ask some of the documents: a matrix with NaN, as a table would be."""
    changes = rng.normal(size=(documents, len(sizes)))
    for repeat, size in enumerate(sizes):
        changes[rng.permutation(documents)[size:], repeat] = np.nan
    return changes[~np.isnan(changes).all(axis=1)]


@pytest.mark.parametrize("sizes", [(5, 5, 5), (20, 12, 7), (30, 30, 30)])
def test_documents_of_repeats_give_what_their_means_are_made_of(sizes):
    """Literally: who asked it, and how many that one asked."""
    changes = own_documents(np.random.default_rng(1), 30, sizes)
    documents, repeats = changes.shape
    means = [np.mean([c for c in column if not math.isnan(c)]) for column in changes.T]
    mean = sum(means) / repeats
    given = [
        mean
        + sum(
            (changes[d, r] - mean) * documents / repeats / sizes[r]
            for r in range(repeats)
            if not math.isnan(changes[d, r])
        )
        for d in range(documents)
    ]
    assert intervals.over_documents(changes) == pytest.approx(means)
    assert intervals.over_repeats(changes) == pytest.approx(given)
    assert np.mean(given) == pytest.approx(mean)


def test_the_noise_between_repeats_is_all_of_it_where_they_share_no_document():
    """Means of n documents each vary by s² / n; of the same documents by what is their own."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(3, 8))
    apart = np.full((24, 3), np.nan)
    for repeat in range(3):
        apart[repeat * 8 : repeat * 8 + 8, repeat] = values[repeat]
    assert noise_of(apart) == pytest.approx(values.var(axis=1, ddof=1).mean() / 8)
    shared = np.vstack([values.T, np.full((1, 3), np.nan)])
    assert noise_of(shared) == pytest.approx(noise_of(values.T))


def test_repeats_are_compared_with_the_baseline_on_their_own_documents():
    rng = np.random.default_rng(3)
    before = accuracy(rng.random(90) < 0.8)
    pruned = accuracy(np.where(rng.random(90) < 0.1, 0.0, before.values[:, 0]))
    names = [tuple(map(str, range(start, start + 30))) for start in (0, 30, 60)]
    repeats = [pruned.on(own) for own in names]
    found = compare(repeats, before)
    whole = compare([pruned], before)
    assert found.difference == pytest.approx(whole.difference)
    # Ninety documents, whoever asks them; what repeats may differ by comes on top.
    low, high = intervals._of_bounded((pruned.values - before.values)[:, 0])(0.95)
    changes = intervals.differences(repeats, [before.on(own) for own in names])
    added = stats.t.ppf(0.975, 2) * math.sqrt(
        max(
            changes[~np.isnan(changes)].reshape(3, 30).mean(axis=1).var(ddof=1) - noise_of(changes),
            noise_of(changes) / 8,
        )
        / 3
    )
    for end, plain in ((found.interval.low, low), (found.interval.high, high)):
        distance = math.hypot(plain - found.difference, added)
        assert abs(end - found.difference) == pytest.approx(distance)
    # A document that the baseline was not asked is nothing to compare with.
    assert math.isnan(compare(repeats, before.on(names[0])).interval.low)


def test_the_order_of_documents_does_not_matter():
    rng = np.random.default_rng(4)
    before = accuracy(rng.random(40) < 0.7)
    repeats = [accuracy(rng.random(40) < 0.6) for _ in range(3)]
    turned = [state.on(tuple(rng.permutation(state.documents))) for state in repeats]
    assert compare(turned, before).interval == pytest.approx(compare(repeats, before).interval)


def test_repeats_and_documents_are_added_up_by_hand():
    """Two half-widths in squares, each with its own t quantile."""
    before = accuracy([1] * 80 + [0] * 20)
    pruned = [accuracy([1] * right + [0] * (100 - right)) for right in (30, 48, 63)]
    found = compare(pruned, before)
    changes = intervals.differences(pruned, [before])
    means = changes.mean(axis=0)
    assert found.difference == pytest.approx(means.mean())
    between = (means.var(ddof=1) - noise_of(changes)) / 3
    assert between > 0
    of_repeats = stats.t.ppf(0.975, 2) * math.sqrt(between)
    low, high = intervals._of_bounded(changes.mean(axis=1))(0.95)
    for end, plain in ((found.interval.low, low), (found.interval.high, high)):
        expected = math.hypot(plain - means.mean(), of_repeats)
        assert abs(end - means.mean()) == pytest.approx(expected)
    # Repeats that agree exactly still share the documents' noise.
    same = compare([pruned[0]] * 3, before)
    assert same.interval == pytest.approx(compare(pruned[:1], before).interval, abs=1e-12)


def test_repeats_that_differ_by_less_than_their_documents_add_an_eighth_of_that():
    """The noise of documents × repeats is in the interval over documents already, but repeats may
    be alike by luck."""
    before = accuracy([1] * 200)
    right = np.ones(200)
    repeats = [accuracy(np.where(np.arange(200) % 10 == k, 0.0, right)) for k in (0, 3, 7)]
    changes = intervals.differences(repeats, [before])
    assert changes.mean(axis=0).var(ddof=1) < noise_of(changes)
    low, high = intervals._of_bounded(changes.mean(axis=1))(0.95)
    added = stats.t.ppf(0.975, 2) * math.sqrt(noise_of(changes) / 8 / 3)
    found = compare(repeats, before)
    assert found.difference - found.interval.low == pytest.approx(
        math.hypot(found.difference - low, added)
    )
    assert found.interval.high - found.difference == pytest.approx(
        math.hypot(high - found.difference, added)
    )


def test_a_grid_tells_the_variance_between_repeats():
    """Drawn from s₀² F(d, d₀), the fit finds s₀² and d₀; equal variances are pooled."""
    generator = np.random.default_rng(3)
    variances = 0.02**2 * 8 / generator.chisquare(8, 4000)
    points = [math.sqrt(v) * generator.standard_normal(3) for v in variances]
    fitted = fitted_spread(points)
    assert math.sqrt(fitted.variance) == pytest.approx(0.02, rel=0.05)
    assert fitted.freedom == pytest.approx(8, rel=0.25)
    equal = fitted_spread([0.02 * generator.standard_normal(3) for _ in range(400)])
    assert math.sqrt(equal.variance) == pytest.approx(0.02, rel=0.1)
    assert equal.freedom > 12
    # Four points alike say of their mean variance as much as a third of their own freedom.
    few = [np.array([0.0, d]) for d in (1.0, 1.1, 1.2, 1.3)]
    assert fitted_spread(few) == pytest.approx((np.mean([1.0, 1.21, 1.44, 1.69]) / 2, 4 / 3))
    assert fitted_spread(points[:2]) is None
    assert fitted_spread([np.zeros(3)] * 9) is None


def test_a_variance_is_shrunken_by_degrees_of_freedom():
    spread = RepeatSpread(4.0, 6.0)
    assert moderated(1.0, 2, spread) == pytest.approx(((2 * 1 + 6 * 4) / 8, 8))
    assert moderated(1.0, 2, None) == (1.0, 2)
    # Where repeats are equal to the digit nothing was changed.
    assert moderated(0.0, 2, spread) == (0.0, 2)


def test_two_repeats_of_a_grid_are_not_wider_than_one_by_much():
    """Without the grid's variance t of one degree of freedom is 12.7."""
    generator = np.random.default_rng(1)
    ability = generator.standard_normal(200)
    before = accuracy((ability > -1).astype(float))
    points = [
        [
            accuracy((ability + 0.3 * generator.standard_normal(200) > -0.8).astype(float))
            for _ in range(2)
        ]
        for _ in range(12)
    ]
    spread = intervals.repeat_spread(points, before)
    widths = [
        np.ptp(compare(point, before, spread).interval)
        / np.ptp(compare(point[:1], before).interval)
        for point in points
    ]
    assert np.mean(widths) < 1.1


def test_two_states_are_compared_by_their_own_difference():
    """Rivals are paired by repeat; the baseline's own noise is not in it."""
    generator = np.random.default_rng(2)
    before = (generator.random(100) < 0.6).astype(float)
    ours = [accuracy(np.where(generator.random(100) < 0.1, 1.0, before)) for _ in range(2)]
    theirs = [accuracy(np.where(generator.random(100) < 0.05, 0.0, before)) for _ in range(2)]
    found = compare(ours, theirs)
    assert found.difference == pytest.approx(
        np.mean([o.value - t.value for o, t in zip(ours, theirs, strict=True)])
    )
    assert compare(ours, ours).difference == 0
    assert compare(ours, ours).interval.holds_zero


def test_the_p_value_is_read_off_the_interval():
    before = accuracy([1] * 80 + [0] * 20)
    states = [accuracy([1] * right + [0] * (100 - right)) for right in (74, 76, 79)]
    found = compare(states, before)
    changes = intervals.differences(states, [before])
    documents = intervals._of_bounded(changes.mean(axis=1))
    at = intervals.over_documents_and_repeats(changes, documents)
    assert at(1 - found.p_value).high == pytest.approx(0, abs=1e-4)
    assert at(0.9) == pytest.approx(found.inner)


def test_a_perplexity_is_compared_in_nats():
    stories = [(-10.0, 4), (-6.0, 4), (-9.0, 3), (-4.0, 2)]
    before = rebuilt("word_perplexity", stories, math.exp(29 / 13))
    lost = [(value - 0.5 * words, words) for value, words in stories]
    worse = rebuilt("word_perplexity", lost, math.exp(29 / 13 + 0.5))
    found = compare([worse], before)
    assert found.difference == pytest.approx(0.5)
    # Every word lost as much: nothing is uncertain.
    assert found.interval == pytest.approx((0.5, 0.5))


def test_huge_numbers_have_intervals():
    """A mean of 5e170 and a perplexity of e^700: squares would be infinite."""
    before = rebuilt("score", [1.0, 2.0, 3.0, 4.0], 2.5)
    after = rebuilt("score", [5e170, 6e170, 4e170, 5e170], 5e170)
    found = compare([after], before)
    assert found.interval.low < 5e170 < found.interval.high
    assert math.isfinite(found.interval.high)
    words = [(-2.0 - 0.1 * at, 2 + at % 3) for at in range(20)]
    lost = [
        (value - 690.0 * count * (1 + at / 4000), count) for at, (value, count) in enumerate(words)
    ]
    before, after = (
        rebuilt(
            "word_perplexity", rows, math.exp(-np.sum(rows, axis=0)[0] / np.sum(rows, axis=0)[1])
        )
        for rows in (words, lost)
    )
    found = compare([after], before)
    assert 690 < found.interval.low < found.difference < found.interval.high < 694
    assert found.p_value < 0.05


def test_infinite_perplexity_gives_no_interval():
    before = rebuilt("word_perplexity", [(-1.0, 2)] * 3, math.exp(0.5))
    broken = rebuilt("word_perplexity", [(-math.inf, 2)] * 3, math.inf)
    assert math.isnan(paired_interval(broken, before).low)
    assert math.isnan(compare([broken] * 2, before).interval.low)


def test_above_chance_is_beyond_the_baselines_own_error():
    def of(right, documents=200, chance=0.25, *, lower=False):
        values = [1.0] * right + [0.0] * (documents - right)
        return above_chance(accuracy(values), chance, lower_is_better=lower)

    assert of(180)
    # .26 is above .25, and its error is .03.
    assert not of(52)
    assert not of(1, 1)
    # Of an error rate less is better.
    assert of(20, chance=0.5, lower=True)
    assert not of(98, chance=0.5, lower=True)
    stories = rebuilt("word_perplexity", [(-10.0, 4), (-6.0, 4)], math.exp(2))
    assert above_chance(stories, math.nan, lower_is_better=True)


def test_a_difference_of_accuracies_stays_between_its_bounds():
    """One repeat keeps all and one nothing: t of one degree of freedom reaches far."""
    before = accuracy([1] * 190 + [0] * 10)
    found = compare([accuracy([0] * 200), before], before)
    assert found.interval == (-1.0, 1.0)
    assert found.inner == (-1.0, 1.0)


def clustered(metric, times: int):
    """Every document so many times, in a cluster of its own."""
    documents = tuple(f"{name}.{n}" for name in metric.documents for n in range(times))
    clusters = tuple(name for name in metric.documents for _ in range(times))
    values = np.repeat(metric.values, times, axis=0)
    return metric._replace(values=values, documents=documents, clusters=clusters)


@pytest.mark.parametrize("repeats", [1, 3])
def test_copies_of_documents_in_a_cluster_say_no_more_than_one(repeats):
    rng = np.random.default_rng(6)
    before = accuracy(rng.random(30) < 0.8)
    pruned = [accuracy(rng.random(30) < 0.5) for _ in range(repeats)]
    copies = [clustered(state, 4) for state in pruned]
    found, alone = compare(copies, clustered(before, 4)), compare(pruned, before)
    assert found.difference == pytest.approx(alone.difference)
    # Of clusters there is no exact test, which may widen the interval of one repeat.
    if repeats > 1:
        assert found.interval == pytest.approx(alone.interval)
        assert found.inner == pytest.approx(alone.inner)
    naive = compare(
        [state._replace(clusters=None) for state in copies[:1]],
        clustered(before, 4)._replace(clusters=None),
    )
    alone = compare(pruned[:1], before)
    assert naive.interval.high - naive.interval.low < 0.8 * (
        alone.interval.high - alone.interval.low
    )
    kept, kept_alone = (
        intervals.retention_interval(after, base, 0.25, lower_is_better=False)
        for after, base in ((copies, clustered(before, 4)), (pruned, before))
    )
    assert kept == pytest.approx(kept_alone, rel=1e-6)


def test_a_cluster_gives_what_its_documents_give_by_hand():
    """Two clusters of three and of one document, in two repeats of which one asked the first."""
    changes = np.array([[1.0, 0.0], [0.0, -1.0], [-1.0, -1.0], [2.0, np.nan]])
    found = intervals._by_cluster(changes, ["a", "a", "a", "b"])
    # 0.5 + (0.5 − 0.5 − 1.5) · 2/4 and 0.5 + 1.5 · 2/4; then −2/3 + 0 · 1/3.
    assert found[:, 0] == pytest.approx([-0.25, 1.25])
    assert found[0, 1] == pytest.approx(-2 / 3)
    assert math.isnan(found[1, 1])
    assert intervals.over_documents(found) == pytest.approx(intervals.over_documents(changes))


def test_intervals_of_documents_in_passages_hold_the_truth_and_naive_ones_do_not():
    """Six questions a passage, whose changes share most of their variance."""
    rng = np.random.default_rng(7)
    held = {True: 0, False: 0}
    draws_made = 300
    for _ in range(draws_made):
        sizes = rng.integers(2, 11, 25)
        passages = np.repeat(np.arange(25), sizes)
        harm = rng.normal(0.1, 0.3, 25)[passages] + rng.normal(0, 0.1, len(passages))
        names = [str(n) for n in range(len(passages))]
        for robust in held:
            clusters = [str(p) for p in passages] if robust else None
            states = [
                metric_from_documents("brier", v, float(np.mean(v)), names, clusters)
                for v in (harm, np.zeros(len(harm)))
            ]
            interval = compare(states[:1], states[1]).interval
            held[robust] += interval.low <= 0.1 <= interval.high
    assert held[True] / draws_made > 0.91
    assert held[False] / draws_made < 0.75
    # One cluster alone has nothing to vary.
    one = metric_from_documents("brier", [0.1, 0.2], 0.15, ["0", "1"], ["a", "a"])
    assert math.isnan(compare([one], one).interval.low)
