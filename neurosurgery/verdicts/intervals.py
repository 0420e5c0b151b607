"""Confidence intervals and p-values of a difference between two states of one model.

Two things vary: the documents, and the draws of calibration samples (the repeats). With one repeat
an interval is about this draw. Repeats share their documents, or each has some of its own
(`--documents_from own`): then only what a repeat was asked counts for it. Documents that vary
together (`--cluster`) count as one: in what follows a document is a cluster of them.

1. Every document gives every repeat that was asked it a difference d_ir to the baseline: of
   answers the change, of perplexities, in nats, the first-order contribution to the change of the
   logarithm.
2. Over documents: of bounded answers a score interval with pseudo-documents, otherwise the hull of
   bootstrap-t and t. A document's number is what it gives to the mean over repeats
   (`over_repeats`), as in cluster-robust variances (Liang and Zeger 1986, Biometrika 73).
3. Between repeats: the variance of their means, shrunken towards the grid's (Smyth 2004,
   Statistical Applications in Genetics and Molecular Biology 3), less what documents × repeats
   give, which step 2 holds already; a share of that is left, for few repeats may be alike by luck.
4. The two half-widths, each with its own t quantile, are added in squares. With two repeats one
   quantile for both covers too little, by Satterthwaite's degrees of freedom and by the mean of
   both quantiles (Cochran and Cox 1957, Experimental Designs, §4.14).

`benchmarks/coverage/` simulates what the intervals cover.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import digamma, polygamma, stdtrit

from neurosurgery.common.arguments import checked
from neurosurgery.verdicts.draws import resampled_means
from neurosurgery.verdicts.looks import level, over_looks
from neurosurgery.verdicts.metrics import Metric, mean_metric, mean_of, unit_of

CONFIDENCE = 0.95
EQUIVALENCE = 0.90
"""The confidence of the interval of two one-sided tests at .05 each (Schuirmann 1987, Journal of
Pharmacokinetics and Biopharmaceutics 15)."""
INTERVALS_OVER = (
    "95 % intervals over documents and repeats (of one repeat: over documents, for this draw)"
)
"""What every table's brackets hold, in words."""

LEAST_P = 1e-4
"""Smaller p-values are not told: intervals are resampled less finely than that."""

_STEPS = 24
"""Halvings of the confidence level in the search for a p-value."""
_LEAST_ERROR = 1e-9
"""A resample with an error below this share of the median has no spread to speak of."""
_MOST_RETENTION = 1e3
_FIT_FREEDOM = 1 / 3
"""Of the freedom of a grid's variances, the most that their fit has: where the variances of its
points differ twentyfold, more would cover too little (`benchmarks/coverage/`)."""
_LEAST_OF_NOISE = 1 / 8
"""The variance between repeats is this share of what documents × repeats give, at least. Without it
two repeats that differ a little more than documents say are found to differ in .14 of the runs."""
_TAIL_DOCUMENTS = 20
"""With n documents the tails of bootstrap-t are n / (n + this) of the nominal ones: what it covers
falls short by about 1 / n where the damage is skewed."""


class Interval(NamedTuple):
    """A confidence interval; NaN where there is none."""

    low: float
    high: float

    @property
    def exists(self) -> bool:
        """Whether both ends are known."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def holds_zero(self) -> bool:
        """Whether 0 lies in the interval."""
        return self.low <= 0 <= self.high

    def within(self, low: float, high: float) -> Interval:
        """The interval with its ends moved into a range."""
        return Interval(min(max(self.low, low), high), min(max(self.high, low), high))

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that holds both; none where one of them is none."""
        if not (self.exists and other.exists):
            return NO_INTERVAL
        return Interval(min(self.low, other.low), max(self.high, other.high))


NO_INTERVAL = Interval(math.nan, math.nan)

AtConfidence = Callable[[float], Interval]
"""The interval at a confidence level, so that a p-value can be read off the same interval."""


class Comparison(NamedTuple):
    """A difference to the baseline, mean over repeats.

    Attributes:
        difference: of perplexities in nats.
        interval: 95 %.
        p_value: 1 minus the largest confidence at which the interval excludes 0, at least
            `LEAST_P`.
        inner: the 90 % interval, for the test of equivalence.
    """

    difference: float
    interval: Interval
    p_value: float
    inner: Interval


NO_COMPARISON = Comparison(math.nan, NO_INTERVAL, math.nan, NO_INTERVAL)


class RepeatSpread(NamedTuple):
    """What a whole grid says of the variance between repeats: a prior for each of its points."""

    variance: float
    freedom: float


def t_quantile(confidence: float, freedom: float) -> float:
    """The t quantile of a two-sided interval (scipy.stats.t.ppf takes fifty times as long)."""
    return float(stdtrit(freedom, (1 + confidence) / 2))


def matched(edited: Sequence[Metric], baseline: Metric | Sequence[Metric]) -> list[Metric]:
    """What to compare the repeats with: on the documents of each of them.

    Args:
        edited: one metric per repeat.
        baseline: that of all documents; or one metric per repeat.

    Returns:
        One metric for all repeats where they share their documents, else one per repeat; empty
        where documents differ or are fewer than two, or where a number is not finite.
    """
    others = [baseline] if isinstance(baseline, Metric) else list(baseline)
    if len(others) == 1 and any(state.documents != others[0].documents for state in edited):
        own = [others[0].on(state.documents) for state in edited]
        others = [state for state in own if state is not None]
    pairs = list(zip(edited, others * len(edited) if len(others) == 1 else others, strict=False))
    is_whole = len(pairs) == len(edited) and all(
        one.independent > 1
        and one.documents == other.documents
        and bool(np.isfinite(one.values).all() and np.isfinite(other.values).all())
        for one, other in pairs
    )
    return others if is_whole else []


def by_document(states: Sequence[Metric]) -> np.ndarray:
    """What every document gives every repeat, (documents, repeats); NaN where it was not asked.

    Where documents come in clusters, what every cluster gives (`_by_cluster`).
    """
    found = _by_each_document(states)
    of = {
        name: cluster
        for state in states
        for name, cluster in zip(state.documents, state.clusters or (), strict=False)
    }
    if not of:
        return found
    names = dict.fromkeys(name for state in states for name in state.documents)
    # A document without the field is its own, as all of another repeat may be.
    return _by_cluster(found, [of.get(name, name) for name in names])


def _by_cluster(changes: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """What every cluster gives every repeat, (clusters, repeats); the mean of a column stays.

    The sum of a cluster's deviations from the mean of its repeat, on the scale of a cluster: to
    first order what it gives to a mean over documents, whatever its size.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    rows = np.array([places[name] for name in clusters])
    means = over_documents(changes)
    sums, asked = np.zeros((2, len(places), changes.shape[1]))
    np.add.at(sums, rows, np.nan_to_num(changes - means))
    np.add.at(asked, rows, ~np.isnan(changes))
    scale = (asked > 0).sum(axis=0) / asked.sum(axis=0)
    return np.where(asked > 0, means + sums * scale, np.nan)


def _by_each_document(states: Sequence[Metric]) -> np.ndarray:
    first = states[0].documents
    if all(state.documents == first for state in states):
        return np.stack([state.by_document() for state in states], axis=1)
    places = {
        name: place
        for place, name in enumerate(
            dict.fromkeys(name for state in states for name in state.documents)
        )
    }
    found = np.full((len(places), len(states)), np.nan)
    for repeat, state in enumerate(states):
        found[[places[name] for name in state.documents], repeat] = state.by_document()
    return found


def differences(edited: Sequence[Metric], others: Sequence[Metric]) -> np.ndarray:
    """Difference of every document and repeat, (documents, repeats); NaN where it was not asked.

    Args:
        edited: one metric per repeat.
        others: those of `matched`.
    """
    return by_document(edited) - by_document(others)


def over_documents(changes: np.ndarray) -> np.ndarray:
    """The mean of every repeat over the documents that it was asked, (repeats,)."""
    return np.asarray(np.nanmean(changes, axis=0))


def over_repeats(changes: np.ndarray) -> np.ndarray:
    """What every document gives to the mean over repeats, (documents,).

    Their mean is the mean of `over_documents`. Where documents are shared, it is the mean over
    repeats; else every repeat's answers count by how many it has, around the mean.
    """
    asked = ~np.isnan(changes)
    if asked.all():
        return np.asarray(changes.mean(axis=1))
    documents, repeats = changes.shape
    mean = over_documents(changes).mean()
    weights = documents / (repeats * asked.sum(axis=0))
    return np.asarray(mean + np.nansum((changes - mean) * weights, axis=1))


def compare(
    edited: Sequence[Metric],
    baseline: Metric | Sequence[Metric],
    spread: RepeatSpread | None = None,
    looks: int = 1,
) -> Comparison:
    """Compare the repeats of one edited state with the baseline, document by document.

    Of one repeat of right and wrong answers the exact McNemar test is asked, too, and the larger p
    holds; where it is above .05, the interval is widened to 0.

    Args:
        edited: one metric per repeat.
        baseline: of the same documents; or another state's metrics, one per repeat.
        spread: the grid's variance between repeats (`repeat_spread`).
        looks: how often one would look at most (`looks`); intervals and p-value are over all.

    Returns:
        NaN for intervals and p-value where documents differ, are fewer than two, or not finite.
    """
    others = matched(edited, baseline)
    is_whole = bool(others)
    if not is_whole:
        others = [baseline] if isinstance(baseline, Metric) else list(baseline)
    with np.errstate(invalid="ignore"):
        before = np.mean([state.compared for state in others])
        difference = float(mean_of(np.array([s.compared for s in edited])) - before)
    if not is_whole:
        return NO_COMPARISON._replace(difference=difference)
    states = [*edited, *others]
    unit = max(unit_of(state.values) for state in states)
    if unit > 1:
        edited, others = (
            [state._replace(values=state.values / unit) for state in each]
            for each in (edited, others)
        )
    changes = differences(edited, others)
    is_clustered = any(state.clusters is not None for state in states)
    # Of the values as they are: divided by their unit any would lie between 0 and 1.
    bounded = all(state.bounded for state in states)
    documents = _over_documents(edited, others, changes, bounded=bounded)
    interval_at = over_documents_and_repeats(changes, documents, spread)
    interval, inner = (interval_at(level(one, looks)) for one in (CONFIDENCE, EQUIVALENCE))
    p_value = over_looks(p_value_of(interval_at), looks)
    if len(edited) == 1 and not is_clustered and all(state.binary for state in states):
        p_value = max(p_value, over_looks(mcnemar(edited[0], others[0]), looks))
        if p_value > 1 - CONFIDENCE:
            interval = Interval(min(interval.low, 0.0), max(interval.high, 0.0))
    interval, inner = (Interval(end.low * unit, end.high * unit) for end in (interval, inner))
    if bounded:
        interval, inner = interval.within(-1.0, 1.0), inner.within(-1.0, 1.0)
    return Comparison(difference, interval, p_value, inner)


def compare_strata(edited: Sequence[Metric], baseline: Sequence[Metric]) -> Comparison:
    """Compare plain means over strata: over the tasks of a group that weighs all of them alike.

    The strata's own half-widths are added in squares, each side by itself (MOVER: Zou and Donner
    2008, Statistics in Medicine 27).

    Args:
        edited: one metric per stratum; none of them a perplexity, whose logarithm has another mean.
        baseline: the same of the other state, on the same documents.

    Returns:
        NaN for intervals and p-value where `compare` would give NaN for a stratum.
    """
    share = 1 / len(edited)
    pairs = list(zip(edited, baseline, strict=True))
    differences_here = [one.compared - other.compared for one, other in pairs]
    difference = share * sum(differences_here)
    if not all(matched([one], other) for one, other in pairs):
        return NO_COMPARISON._replace(difference=difference)
    strata = [
        _over_documents(
            [one], [other], differences([one], [other]), bounded=one.bounded and other.bounded
        )
        for one, other in pairs
    ]

    def at(confidence: float) -> Interval:
        ends = [stratum(confidence) for stratum in strata]
        parts = list(zip(differences_here, ends, strict=True))
        below = share * math.hypot(*(each - end.low for each, end in parts))
        above = share * math.hypot(*(end.high - each for each, end in parts))
        return Interval(difference - below, difference + above)

    return Comparison(difference, at(CONFIDENCE), p_value_of(at), at(EQUIVALENCE))


@checked
def paired_interval(edited: Metric, baseline: Metric) -> Interval:
    """The 95 % interval of edited minus baseline over the documents that both answered.

    There is none where the two did not answer the same documents.

    >>> names = [str(n) for n in range(40)]
    >>> old = ns.metric_from_documents("acc", [1] * 40, 1, names)
    >>> new = ns.metric_from_documents("acc", [0] * 10 + [1] * 30, 0.75, names)
    >>> [round(end, 2) for end in ns.paired_interval(new, old)]
    [-0.38, -0.07]
    """
    return compare([edited], baseline).interval


@checked
def mcnemar(edited: Metric, baseline: Metric) -> float:
    """Exact two-sided McNemar p-value: are the changed answers as often mended as broken?

    NaN where documents are not simply right or wrong, or not the same on both sides.

    >>> names = list("abcdef")
    >>> old = ns.metric_from_documents("acc", [1, 1, 1, 1, 1, 1], 1, names)
    >>> new = ns.metric_from_documents("acc", [0, 0, 0, 0, 0, 1], 1 / 6, names)
    >>> ns.mcnemar(new, old)  # 5 of 5 changes in one direction
    0.0625
    """
    if edited.documents != baseline.documents or not (edited.binary and baseline.binary):
        return math.nan
    change = edited.values[:, 0] - baseline.values[:, 0]
    broken, mended = int((change < 0).sum()), int((change > 0).sum())
    if broken + mended == 0:
        return 1.0
    return float(stats.binomtest(broken, broken + mended).pvalue)


def p_value_of(interval_at: AtConfidence) -> float:
    """The smallest p at which the interval of confidence 1 − p holds 0; by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if interval_at(1 - middle).holds_zero:
            low = middle
        else:
            high = middle
    return max(high, LEAST_P)


# Over documents


def _over_documents(
    edited: Sequence[Metric], others: Sequence[Metric], changes: np.ndarray, *, bounded: bool
) -> AtConfidence:
    """The interval over documents of a mean over repeats, by the kind of metric."""
    if bounded:
        return _of_bounded(over_repeats(changes))
    if np.isnan(changes).any() or any(s.clusters is not None for s in (*edited, *others)):
        return _of_any(*_linear(over_repeats(changes)))
    return _of_any(edited, others)


def _of_bounded(changes: np.ndarray, broken: float = -1.0, mended: float = 1.0) -> AtConfidence:
    """The interval of a mean of changes of answers between 0 and 1.

    t² pseudo-documents, half of them mended and half broken, are added to the real ones before the
    normal interval is formed. Without any change among n documents this is Tango's score interval,
    ± t²/(n + t²); otherwise near it (Tango 1998, Statistics in Medicine 17; the idea of adding
    pseudo-observations is Agresti and Coull's). A bootstrap would call 0 changes certainty.

    Args:
        changes: of every document, the mean over repeats.
        broken: what a document adds whose right answer became wrong.
        mended: what one adds whose wrong answer became right.
    """
    documents = len(changes)
    total, squares = float(changes.sum()), float((changes**2).sum())

    def at(confidence: float) -> Interval:
        added = t_quantile(confidence, documents - 1) ** 2
        size = documents + added
        mean = (total + added * (broken + mended) / 2) / size
        variance = (squares + added * (broken**2 + mended**2) / 2) / size - mean**2
        reach = math.sqrt(added * max(variance, 0.0) / size)
        plain = total / documents
        return Interval(min(mean - reach, plain), max(mean + reach, plain))

    return at


def _of_any(edited: Sequence[Metric], others: Sequence[Metric]) -> AtConfidence:
    """The interval of any smooth metric, a perplexity's logarithm say: skewed values, no bound.

    The hull of the bootstrap-t interval (Efron and Tibshirani 1993, §12.5) and the t interval.
    """
    states = [*edited, *others]
    weights = [*[1 / len(edited)] * len(edited), *[-1 / len(others)] * len(others)]
    change = differences(edited, others).mean(axis=1)
    documents = len(change)
    difference = sum(w * state.compared for w, state in zip(weights, states, strict=True))
    error = float(np.std(change, ddof=1)) / math.sqrt(documents)
    if error <= 1e-12 * max(abs(others[0].compared), 1e-300):
        return lambda _confidence: Interval(difference, difference)
    studentised = _studentised(states, weights, difference)

    def at(confidence: float) -> Interval:
        tail = (1 - confidence) / 2 * documents / (documents + _TAIL_DOCUMENTS)
        tails = tail, 1 - tail
        t = t_quantile(confidence, documents - 1)
        low_t, high_t = np.quantile(studentised, tails) if len(studentised) else (-t, t)
        return Interval(
            difference - max(float(high_t), t) * error, difference + max(-float(low_t), t) * error
        )

    return at


def _linear(changes: np.ndarray) -> tuple[list[Metric], list[Metric]]:
    """Changes of documents as a metric, and zeros: where every repeat has other documents."""
    names = [str(place) for place in range(len(changes))]
    zeros = np.zeros(len(changes))
    return [mean_metric(changes.tolist(), names)], [mean_metric(zeros.tolist(), names)]


def _studentised(
    states: Sequence[Metric], weights: Sequence[float], difference: float
) -> np.ndarray:
    """(resampled difference − difference) / its standard error, sorted: (resamples,).

    A resample's standard error needs the second moments of what its documents give; these are
    linear in products of columns, so that one product with the counts gives all of them.
    """
    columns = np.hstack([state.values for state in states])
    parts = states[0].values.shape[1]
    width = columns.shape[1]
    rows, others = np.triu_indices(width)
    moments = resampled_means(np.hstack([columns, columns[:, rows] * columns[:, others]]))
    means, products = moments[:, :width], moments[:, width:]
    gradient = np.empty_like(means)
    resampled = np.zeros(len(means))
    for index, (state, weight) in enumerate(zip(states, weights, strict=True)):
        mine = slice(index * parts, (index + 1) * parts)
        resampled += weight * state.rule.of(*means[:, mine].T)
        gradient[:, mine] = weight * state.rule.slope(*means[:, mine].T)
    # Var(g·x) = Σ_jk g_j g_k (E[x_j x_k] − E[x_j] E[x_k])
    double = np.where(rows == others, 1.0, 2.0)
    covariance = products - means[:, rows] * means[:, others]
    variance = (double * gradient[:, rows] * gradient[:, others] * covariance).sum(axis=1)
    error = np.sqrt(np.maximum(variance, 0) / (len(columns) - 1))
    known = error > _LEAST_ERROR * np.median(error)
    return np.sort((resampled - difference)[known] / error[known])


# Between repeats


def noise_of(changes: np.ndarray) -> float:
    """What documents × repeats add to the variance between the means of repeats.

    The mean square of the residuals of a two-way layout, over the number of documents. Where
    repeats were asked documents of their own, what the documents give to each repeat's mean has
    that variance around what they give to all.

    Args:
        changes: (documents, repeats), two of each at least; NaN where a repeat was not asked.
    """
    documents, repeats = changes.shape
    asked = (~np.isnan(changes)).sum(axis=0)
    if (asked < documents).any():
        parts = np.nan_to_num(changes - over_documents(changes)) / asked
        rest = parts - parts.mean(axis=1, keepdims=True)
        return float((rest**2).sum()) / (repeats - 1) * float((asked / (asked - 1)).mean())
    rest = changes - changes.mean(axis=1, keepdims=True) - changes.mean(axis=0) + changes.mean()
    return float((rest**2).sum()) / ((documents - 1) * (repeats - 1)) / documents


def moderated(variance: float, freedom: float, spread: RepeatSpread | None) -> tuple[float, float]:
    """A variance between repeats shrunken towards the grid's, and its degrees of freedom.

    Repeats that are equal to the digit (nothing was changed) are left alone.
    """
    if spread is None or variance == 0:
        return variance, freedom
    total = freedom + spread.freedom
    return (freedom * variance + spread.freedom * spread.variance) / total, total


def over_documents_and_repeats(
    changes: np.ndarray, documents: AtConfidence, spread: RepeatSpread | None = None
) -> AtConfidence:
    """Add the variance between repeats to an interval over documents.

    Args:
        changes: (documents, repeats); the interval is about their mean.
        documents: the interval of this mean over documents.
        spread: the grid's variance between repeats.
    """
    count, repeats = changes.shape
    if repeats == 1:
        return documents
    between = between_repeats(
        float(over_documents(changes).var(ddof=1)),
        noise_of(changes),
        repeats,
        spread,
        is_own=bool(np.isnan(changes).any()),
    )
    mean = float(over_documents(changes).mean())

    def at(confidence: float) -> Interval:
        low, high = documents(confidence)
        least = t_quantile(confidence, count - 1)
        below, above = (
            between.added_to(reach, confidence, least) for reach in (mean - low, high - mean)
        )
        return Interval(mean - below, mean + above)

    return at


class Between(NamedTuple):
    """The variance that repeats add to a mean, and its degrees of freedom."""

    variance: float
    freedom: float

    def added_to(self, reach: float, confidence: float, least: float) -> float:
        """The half-width over documents and repeats.

        Args:
            reach: the half-width over documents.
            confidence: of both.
            least: the t quantile over documents; that over repeats is no smaller.
        """
        if self.variance == 0:
            return reach
        t = max(t_quantile(confidence, self.freedom), least)
        return math.hypot(reach, t * math.sqrt(self.variance))


def between_repeats(
    variance: float,
    noise: float,
    repeats: int,
    spread: RepeatSpread | None,
    *,
    is_own: bool = False,
) -> Between:
    """What repeats add to the variance of a mean.

    Args:
        variance: between the repeats' means, with n − 1 in the denominator.
        noise: what documents × repeats give to it (`noise_of`); the variance over documents holds
            it already.
        repeats: at least two.
        spread: the grid's variance between repeats.
        is_own: whether repeats were asked documents of their own. Their variances hold more of
            documents' noise, so that points look alike whose repeats are not: a large one is not
            shrunken (`benchmarks/coverage/`, 12 points).
    """
    measured = variance
    variance, freedom = moderated(variance, repeats - 1, spread)
    if is_own:
        variance = max(variance, measured)
    return Between(max(variance - noise, _LEAST_OF_NOISE * noise) / repeats, freedom)


def grid_freedom(points: int, repeats: int) -> float:
    """The most degrees of freedom that a grid adds to what a point's own repeats say."""
    return points * (repeats - 1) * _FIT_FREEDOM if points > 2 else 0.0


def repeat_spread(points: Sequence[Sequence[Metric]], baseline: Metric) -> RepeatSpread | None:
    """What a grid says of the variance between repeats (`fitted_spread`).

    Args:
        points: the repeats of every grid point.
        baseline: of the same documents.
    """
    known = [
        over_documents(differences(repeats, others))
        for repeats in points
        if len(repeats) > 1 and (others := matched(repeats, baseline))
    ]
    return fitted_spread(known)


def fitted_spread(points: Sequence[np.ndarray]) -> RepeatSpread | None:
    """Fit s² ~ s₀² F(d, d₀) to the variances between repeats of a grid (Smyth 2004, §6.2).

    Args:
        points: the means of the repeats of every grid point, (repeats,) each.

    Returns:
        s₀² and d₀; None with fewer than three points whose repeats differ.
    """
    known = [(float(p.var(ddof=1)), len(p) - 1) for p in points if len(p) > 1]
    known = [(variance, freedom) for variance, freedom in known if variance > 0]
    if len(known) < 3 or not np.isfinite([variance for variance, _ in known]).all():
        return None
    variances, freedoms = np.array(known).T
    logs = np.log(variances) - digamma(freedoms / 2) + np.log(freedoms / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, freedoms / 2).mean())
    every = float(freedoms.sum())
    most = every * _FIT_FREEDOM
    if excess <= polygamma(1, most / 2):
        # Nothing says that the variances differ: their mean.
        return RepeatSpread(float(freedoms @ variances) / every, most)
    freedom = 2 * brentq(lambda x: polygamma(1, x) - excess, 1e-3, most / 2)
    return RepeatSpread(
        math.exp(float(logs.mean()) + digamma(freedom / 2) - math.log(freedom / 2)), freedom
    )


# Retention


def retention_interval(
    edited: Sequence[Metric],
    baseline: Metric,
    chance: float,
    *,
    lower_is_better: bool,
    spread: RepeatSpread | None = None,
    looks: int = 1,
) -> Interval:
    """The 95 % interval of the retention (`metrics.retention`) of the mean over repeats.

    Of a perplexity, exp of minus the interval in nats. Otherwise the test is inverted (Fieller
    1954, Journal of the Royal Statistical Society B 16): θ is in the interval where the mean of
    (value − chance) − θ (baseline − chance) may be 0. So 1 is in it where the difference may be 0.

    Returns:
        NaN where there is no comparison, or the baseline is not above chance beyond its error.
    """
    others = matched(edited, baseline)
    if not others or not above_chance(baseline, chance, lower_is_better=lower_is_better):
        return NO_INTERVAL
    if baseline.rule.exponential:
        found = compare(edited, baseline, spread, looks).interval
        with np.errstate(over="ignore"):
            return Interval(*(float(np.exp(-end)) for end in (found.high, found.low)))
    sign = -1.0 if lower_is_better else 1.0
    before, after = by_document(others), by_document(edited)
    inverse = lower_is_better and math.isnan(chance)
    if not inverse:
        before, after = sign * (before - chance), sign * (after - chance)
    bounded = not inverse and all(state.bounded for state in (*edited, baseline))

    def interval_at(theta: float) -> Interval:
        rest = before - theta * after if inverse else after - theta * before
        if bounded:
            wrong, right = sorted((sign * -chance, sign * (1 - chance)))
            documents = _of_bounded(
                over_repeats(rest), broken=wrong - theta * right, mended=right - theta * wrong
            )
        else:
            documents = _of_mean(over_repeats(rest))
        spread_there = None if inverse else spread
        return over_documents_and_repeats(rest, documents, spread_there)(level(CONFIDENCE, looks))

    mean_after, mean_before = (float(over_documents(one).mean()) for one in (after, before))
    if inverse and mean_after <= 0:
        return NO_INTERVAL
    estimate = mean_before / mean_after if inverse else mean_after / mean_before
    low, high = (_last_accepted(interval_at, estimate, step) for step in (-1.0, 1.0))
    if bounded:
        least, most = (end / mean_before for end in sorted((sign * -chance, sign * (1 - chance))))
        return Interval(low, high).within(least, most)
    return Interval(low, high)


def above_chance(baseline: Metric, chance: float, *, lower_is_better: bool) -> bool:
    """Whether a baseline is above chance, beyond its own standard error at 95 %.

    A metric of which less is better and nothing is chance (a perplexity) always is.
    """
    if lower_is_better and math.isnan(chance):
        return math.isfinite(baseline.compared)
    above = (-1.0 if lower_is_better else 1.0) * (by_document([baseline])[:, 0] - chance)
    if not np.isfinite(above).all() or len(above) < 2:
        return False
    error = float(above.std(ddof=1)) / math.sqrt(len(above))
    return float(above.mean()) > 1.96 * error


def _of_mean(values: np.ndarray) -> AtConfidence:
    """The t interval of a mean."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))

    def at(confidence: float) -> Interval:
        reach = t_quantile(confidence, len(values) - 1) * error
        return Interval(mean - reach, mean + reach)

    return at


def _last_accepted(interval_at: Callable[[float], Interval], start: float, step: float) -> float:
    """How far from `start` a θ may go before its interval excludes 0."""
    inside, width = start, step * 0.05
    while interval_at(start + width).holds_zero:
        inside = start + width
        if abs(width) > _MOST_RETENTION:
            return math.copysign(math.inf, step)
        width *= 2
    outside = start + width
    for _ in range(30):
        middle = (inside + outside) / 2
        if interval_at(middle).holds_zero:
            inside = middle
        else:
            outside = middle
    return inside
