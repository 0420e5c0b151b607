"""One draw of one point against the baseline, and of a training against its control."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.coverage.data import Model, task_of, truths
from neurosurgery.edit.kinds import train_at
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.keys import CellKey
from neurosurgery.verdicts.intervals import compare, repeat_spread, retention_interval
from neurosurgery.verdicts.isolation import training_gains

MARGIN = 0.05
"""Within this a difference is none, of an accuracy or in nats per word."""


class Cell(NamedTuple):
    """One cell of the simulation."""

    group: str
    scenario: str
    repeats: int
    documents: int


class Seen(NamedTuple):
    """What one draw says of one quantity.

    Attributes:
        hit: whether the interval holds the truth, or something is found; a share of several
            points; NaN where there is no interval.
        off: the estimate less the truth.
        reach: half of the interval's width.
    """

    hit: float
    off: float | np.ndarray = math.nan
    reach: float | np.ndarray = math.nan


Draw = dict[tuple[str, str], Seen]
"""By kind and quantity."""
DrawOne = Callable[[np.random.Generator, int], Draw]
"""Makes a draw of a generator and the draw's number."""


def interval_seen(estimate: float, low: float, high: float, truth: float) -> Seen:
    """Whether an interval holds the truth; not a number stands for none."""
    if math.isnan(low) or math.isnan(high):
        return Seen(math.nan)
    return Seen(float(low <= truth <= high), estimate - truth, (high - low) / 2)


def row_seen(row: Mapping[str, Any], truth: float, name: str = "") -> Seen:
    """The same of a row of a table, with the columns `NAME_low`, or `value` and `low`."""
    end = f"{name}_" if name else ""
    return interval_seen(row[name or "value"], row[f"{end}low"], row[f"{end}high"], truth)


def found_seen(p_value: float) -> Seen:
    """Whether p < .05."""
    return Seen(math.nan if math.isnan(p_value) else float(p_value < 0.05))


def together(seen: Sequence[Seen]) -> Seen:
    """Several points of one draw as one."""
    off, reach = (np.array([one[place] for one in seen]) for place in (1, 2))
    return Seen(float(np.mean([one.hit for one in seen])), off, reach)


def intervals(model: Model, cell: Cell) -> DrawOne:
    """The difference to the baseline, or what is kept; many points also give their spread."""
    between = np.broadcast_to(model.between, model.difference.shape)
    name = "kept" if cell.group == "retention" else "difference"
    many = len(between) > 1

    def draw(rng: np.random.Generator, _: int) -> Draw:
        sample = model.sample(rng, cell.documents, cell.repeats)
        before, points = sample.metric(sample.before), sample.points()
        spread = repeat_spread(points, before) if many else None
        true_difference, true_kept = truths(model, sample)
        if name == "kept":
            values, true = model.kept_in(sample).mean(1), true_kept
            lower = model.lower_is_better
            found = [
                retention_interval(p, before, model.chance, lower_is_better=lower, spread=spread)
                for p in points
            ]
        else:
            values = sample.score(sample.after).mean(1) - sample.score(sample.before).mean()
            true = true_difference
            found = [compare(point, before, spread=spread).interval for point in points]
        every = [
            interval_seen(value, one.low, one.high, truth)
            for value, one, truth in zip(values, found, true, strict=True)
        ]
        return {
            ("coverage", f"{name}, between {wide:g}" if many else name): together(
                [one for one, its in zip(every, between, strict=True) if its == wide]
            )
            for wide in set(between)
        }

    return draw


def findings(model: Model, cell: Cell) -> DrawOne:
    """How often something is found: p < .05, an interval without 0, "unmoved".

    A verdict `lower` or `higher` needs an interval without 0.
    """
    truth = float(model.difference[0])
    kind = "error" if truth == 0 else "power"
    at_the_margin = math.isclose(abs(truth), MARGIN)

    def draw(rng: np.random.Generator, _: int) -> Draw:
        sample = model.sample(rng, cell.documents, cell.repeats)
        found = compare(sample.points()[0], sample.metric(sample.before))
        holds_zero = found.interval.low <= 0 <= found.interval.high
        unmoved = found.inner.low >= -MARGIN and found.inner.high <= MARGIN
        return {
            (kind, "p < .05"): found_seen(found.p_value),
            (kind, "lower or higher"): Seen(float(not holds_zero)),
            ("error" if at_the_margin else "power", "unmoved"): Seen(float(unmoved)),
        }

    return draw


def gains(models: Sequence[Model], cell: Cell) -> DrawOne:
    """What training gains and keeps; the second point of every model is the control's."""
    keys = [
        [
            CellKey(SelectionKey(method, "math", "Race", 0.01, repeat), train_at(1e-3, "setting"))
            for repeat in range(cell.repeats)
        ]
        for method in ("mathneuro", "random")
    ]
    counts = {key: 100.0 for of_point in keys for key in of_point}

    def draw(rng: np.random.Generator, number: int) -> Draw:
        samples = [model.sample(rng, cell.documents, cell.repeats) for model in models]
        tasks = [
            task_of(f"task{place}_{number}", model, sample, keys)
            for place, (model, sample) in enumerate(zip(models, samples, strict=True))
        ]
        table = training_gains(tasks, tasks[0].task, counts)
        (row,) = table[table["method"].eq("mathneuro")].to_dict("records")
        true = [truths(model, sample) for model, sample in zip(models, samples, strict=True)]
        gain = true[0][0]
        kept = np.stack([of_task[1] for of_task in true[1:]])
        return {
            ("coverage", name): row_seen(row, float(truth), name)
            for name, truth in {
                "gain": gain[0],
                "kept_mean": kept[:, 0].mean(),
                "kept_worst": kept[:, 0].min(),
                "gain_over_control": gain[0] - gain[1],
                "kept_over_control": (kept[:, 0] - kept[:, 1]).mean(),
            }.items()
        }

    return draw
