"""How far an edit moves one skill alone: of a point, of a method over its grid, of two methods.

A pruned point removes a share of the skill and keeps a share of the other tasks. best(x) is the
largest share kept by any point of a method that removes at least x, or 0 if there is none; the
unedited model removes 0 and keeps 1. A method has two numbers: the loss at half, 1 - best(1/2), and
the area under best(x) for x from 0 to 1. Two methods are compared by the difference of the same
draws. A trained point gains in the skill, and keeps a share of the others. `crossfit` says how a
number that rests on a choice is judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from neurosurgery.methods.registry import control_of, method_rank
from neurosurgery.results.keys import CellKey
from neurosurgery.settings.identity import MATH
from neurosurgery.verdicts.columns import GRID
from neurosurgery.verdicts.crossfit import (
    MEAN,
    WORST,
    Curve,
    Judged,
    Quantity,
    TaskMetrics,
    best_by_gain,
    curve_of,
    gain_of_chosen,
    judge,
    quantity_of,
)
from neurosurgery.verdicts.intervals import (
    CONFIDENCE,
    RepeatSpread,
    compare,
    fitted_spread,
    repeat_spread,
)
from neurosurgery.verdicts.judging import HIGHER, LOWER, UNDECIDED
from neurosurgery.verdicts.metrics import Metric

QUANTITIES: dict[str, Callable[[Curve], Quantity]] = {
    "loss_at_half_mean": lambda curve: curve.loss_at_half(MEAN),
    "loss_at_half_worst": lambda curve: curve.loss_at_half(WORST),
    "area_mean": lambda curve: curve.area(MEAN),
    "area_worst": lambda curve: curve.area(WORST),
}
"""Loss at half and area, each for the mean and for the worst of the other tasks."""

AT_EQUAL_DAMAGE = "kept_at_equal_damage_mean"
"""What one method keeps more than another where both remove as much as the weaker one can."""
_LEAST_DAMAGE = 0.25

COMPARISON_COLUMNS = (
    "skill method against other quantity value low high p_value verdict reached points repeats "
    "left_out"
).split()
"""The columns of comparison.csv."""

_KEPT = ("kept_mean", "kept_worst")
POINT_COLUMNS = (
    *GRID,
    "repeats",
    *(f"{name}{end}" for name in ("removed", *_KEPT) for end in ("", "_low", "_high")),
    "worst_task",
    "left_out",
)
"""The columns of isolation.csv."""

GAINS = ("gain", *_KEPT, "gain_over_control", "kept_over_control")
"""Each has the columns NAME, NAME_low and NAME_high: a 95 % interval over documents and repeats."""
GAIN_COLUMNS = (
    *GRID,
    "repeats",
    "trained",
    "control",
    *(f"{name}{end}" for name in GAINS for end in ("", "_low", "_high")),
    "worst_task",
    "left_out",
)
"""The columns of training.csv."""


class Spreads(NamedTuple):
    """The variance between repeats of what points keep on average, of one task, of the skill.

    And how often one looked at them at most.
    """

    mean: RepeatSpread | None = None
    worst: RepeatSpread | None = None
    removed: RepeatSpread | None = None
    looks: int = 1

    def of(self, quantity: str) -> RepeatSpread | None:
        """That of a quantity by its name: an area is a product of what is kept and removed."""
        kept = self.worst if quantity.endswith(WORST) else self.mean
        return total(kept, self.removed) if quantity.startswith("area") else kept


def total(*spreads: RepeatSpread | None) -> RepeatSpread | None:
    """The variance of a sum of parts that vary by themselves; None if one is unknown."""
    known = [spread for spread in spreads if spread is not None]
    if len(known) < len(spreads):
        return None
    return RepeatSpread(
        sum(spread.variance for spread in known), min(spread.freedom for spread in known)
    )


class _Tasks:
    """The tasks above chance in halves, and what the grid says of the variance between repeats."""

    def __init__(self, tasks: Sequence[TaskMetrics], math_task: str) -> None:
        self.left_out = [task.task for task in tasks if not task.above_chance]
        used = [task for task in tasks if task.above_chance]
        self.others = {task.task: task for task in used if task.task != math_task}
        self.skill = next((task for task in used if task.task == math_task), None)
        counts = [task.documents for task in used]
        self.documents = min(counts, default=0)
        self.looks = max((task.looks for task in used), default=1)

    def known(self, key: CellKey, *, skill: bool = True) -> bool:
        """Whether a cell has a finite number for every task."""
        tasks = [*self.others.values(), *([self.skill] if skill and self.skill else [])]
        return all(key in task.cells and math.isfinite(task.cells[key].compared) for task in tasks)

    def curve(self, points: Sequence[Sequence[CellKey]], *, skill: bool = True) -> Curve:
        """The points of one method and set."""
        of_skill = self.skill if skill else None
        return curve_of(of_skill, list(self.others.values()), points, self.documents)

    def spreads(self, points: Sequence[Sequence[CellKey]]) -> Spreads:
        """What a grid says of the variance between repeats."""
        if not points:
            return Spreads(looks=self.looks)
        kept = [
            np.array([[task.retention(key) for key in point] for task in self.others.values()])
            for point in points
            if self.others
        ]
        removed = [
            np.array([self.skill.retention(key) for key in point])
            for point in points
            if self.skill is not None and all(key in self.skill.cells for key in point)
        ]
        return Spreads(
            fitted_spread([each.mean(axis=0) for each in kept]),
            fitted_spread([task for each in kept for task in each]),
            fitted_spread(removed),
            self.looks,
        )

    def worst(self, point: Sequence[CellKey]) -> str:
        """The task of which a point keeps least, mean over repeats."""
        return min(
            self.others,
            key=lambda name: np.mean([self.others[name].retention(key) for key in point]),
        )


def grid_of(keys: Sequence[CellKey]) -> list[list[CellKey]]:
    """The cells of every grid point, by repeat."""
    points: dict[CellKey, list[CellKey]] = {}
    for key in keys:
        points.setdefault(key.point, []).append(key)
    return [sorted(point, key=_repeat) for point in points.values()]


def _repeat(key: CellKey) -> int:
    return key.selection.repeat if key.selection else 0


def compare_methods(tasks: Sequence[TaskMetrics], math_task: str) -> pd.DataFrame:
    """Loss at half and area per method, and their differences, with 95 % intervals.

    Args:
        tasks: the math task and the others; cells of the skill math that were pruned. They are
            compared on the documents that all of them were asked.
        math_task: the name of the task that measures math.

    Returns:
        One row per method and quantity, averaged over its calibration sets within every repeat
        (`against` empty), and one per set if there are several; `other` empty. Then one row per
        pair of methods and quantity: `method` less `other`, paired by documents and repeats, with
        p-value and verdict. `points` counts the sizes on a curve that every repeat has; `reached`
        is the share of the choices that find a point which removes half. `left_out` names the
        tasks whose baseline is not above chance. Empty if math is one of them, or no other task is
        left.
    """
    known = _Tasks([task.on_common(task.cells) for task in tasks], math_task)
    if known.skill is None or not known.others:
        return pd.DataFrame(columns=COMPARISON_COLUMNS)
    points = grid_of([key for key in known.skill.cells if key.selection and known.known(key)])
    spreads = known.spreads(points)
    curves = {place: known.curve(own) for place, own in _by_method_and_set(points).items()}
    methods = sorted({method for method, _ in curves}, key=method_rank)
    rows: list[dict[str, object]] = []
    averages: dict[str, dict[str, Quantity]] = {}
    for method in methods:
        sets = {against: curve for (name, against), curve in curves.items() if name == method}
        averages[method] = {name: _average(one, sets) for name, one in QUANTITIES.items()}
        rows += _own_rows(method, "", averages[method], sets, spreads)
        for against, curve in sets.items() if len(sets) > 1 else ():
            own = {name: one(curve) for name, one in QUANTITIES.items()}
            rows += _own_rows(method, against, own, {against: curve}, spreads)
    for method, other in combinations(methods, 2):
        pairs = {name: averages[method][name].minus(averages[other][name]) for name in QUANTITIES}
        pairs[AT_EQUAL_DAMAGE] = _at_equal_damage(curves, method, other)
        rows += [
            _row(method, "", name, _difference(terms, spreads.of(name), looks=known.looks))
            | {"other": other}
            for name, terms in pairs.items()
            if terms
        ]
    table = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    return table.assign(left_out=" ".join(known.left_out))


def _difference(
    terms: Sequence[Quantity], spread: RepeatSpread | None, most: float = 1.0, *, looks: int
) -> Judged:
    """Judge a difference; of paired repeats both sides vary."""
    spread = total(spread, spread) if len(terms) == 1 else spread
    return judge(terms, spread, -most, most, looks)


def _by_method_and_set(
    points: Sequence[Sequence[CellKey]],
) -> dict[tuple[str, str], list[list[CellKey]]]:
    """The points of every method and set, with the repeats that all of them have."""
    places: dict[tuple[str, str], list[Sequence[CellKey]]] = {}
    for point in points:
        selection = point[0].selection
        assert selection is not None  # noqa: S101 - `compare_methods` keeps no other
        places.setdefault((point[0].method, selection.against), []).append(point)
    found = {}
    for place, own in places.items():
        most = max(len(point) for point in own)
        full = [point for point in own if len(point) == most]
        common = set.intersection(*({_repeat(key) for key in point} for point in full))
        if common:
            found[place] = [[key for key in point if _repeat(key) in common] for point in full]
    return found


def _average(one: Callable[[Curve], Quantity], sets: Mapping[str, Curve]) -> Quantity:
    """A quantity averaged over calibration sets within every repeat that all sets have."""
    return _mean([one(curve) for curve in sets.values()])


def _mean(each: Sequence[Quantity]) -> Quantity:
    if len(each) == 1:
        return each[0]
    common = sorted(set.intersection(*(set(quantity.repeats) for quantity in each)))
    places = [[quantity.repeats.index(repeat) for repeat in common] for quantity in each]
    estimate, drawn = (
        np.mean([values[place] for values, place in zip(parts, places, strict=True)], axis=0)
        for parts in ([q.estimate for q in each], [q.drawn for q in each])
    )
    reached = float(np.mean([quantity.reached for quantity in each]))
    least = [quantity.least for quantity in each if quantity.least is not None]
    documents = each[0].documents
    return Quantity(
        estimate, drawn, tuple(common), documents, reached, _mean(least) if least else None
    )


def _own_rows(
    method: str,
    against: str,
    quantities: Mapping[str, Quantity],
    curves: Mapping[str, Curve],
    spreads: Spreads,
) -> list[dict[str, object]]:
    points = max(curve.chosen_removed.shape[2] for curve in curves.values())
    reached = quantities["loss_at_half_mean"].reached
    rows = []
    for name, quantity in quantities.items():
        row = _row(
            method, against, name, judge([quantity], spreads.of(name), 0.0, 1.0, spreads.looks)
        )
        # A value has no "is it 0": only differences are judged.
        row |= {"p_value": math.nan, "verdict": "", "other": ""}
        rows.append(row | {"reached": reached, "points": points, "repeats": len(quantity.repeats)})
    return rows


def _row(method: str, against: str, quantity: str, judged: Judged) -> dict[str, object]:
    verdict = ""
    if judged.interval.exists:
        verdict = UNDECIDED
        if judged.p_value <= 1 - CONFIDENCE:
            verdict = HIGHER if judged.value > 0 else LOWER
    return {
        "skill": MATH,
        "method": method,
        "against": against,
        "quantity": quantity,
        "value": judged.value,
        "low": judged.interval.low,
        "high": judged.interval.high,
        "p_value": judged.p_value,
        "verdict": verdict,
    }


def _at_equal_damage(
    curves: Mapping[tuple[str, str], Curve], method: str, other: str
) -> list[Quantity]:
    """What `method` keeps more than `other` at the largest damage to the skill that both reach.

    Empty where their repeats differ, or one of them removes less than a quarter.
    """
    ours = [curve for (name, _), curve in curves.items() if name == method]
    theirs = [curve for (name, _), curve in curves.items() if name == other]
    repeats = {curve.repeats for curve in (*ours, *theirs)}
    if len(repeats) > 1:
        return []
    found, damage = [], []
    for one in ours:
        for two in theirs:
            least = np.minimum(one.chosen_removed.max(axis=2), two.chosen_removed.max(axis=2))
            kept = [c.best_beyond(least[:, :, None], MEAN)[0] for c in (one, two)]
            found.append(kept[0] - kept[1])
            damage.append(least.mean())
    if np.mean(damage) < _LEAST_DAMAGE:
        return []
    (common,) = repeats
    return [quantity_of(np.mean(found, axis=0), common, ours[0].documents)]


def isolation_points(tasks: Sequence[TaskMetrics], math_task: str) -> pd.DataFrame:
    """What every pruned grid point removes of the skill and keeps of the other tasks.

    Args:
        tasks: the skill's own task and the others; the cells are the pruned ones, of any skill.
        math_task: the name of the task that measures math.

    Returns:
        A row per point with complete repeats; `removed` is 1 less the retention of math.
    """
    known = _Tasks(tasks, math_task)
    if known.skill is None or not known.others:
        return pd.DataFrame(columns=list(POINT_COLUMNS))
    points = grid_of([key for key in known.skill.cells if known.known(key)])
    spreads = known.spreads(points)
    rows = []
    for point in points:
        curve = known.curve([point])
        removed = quantity_of(curve.judged_removed[:, :, 0], curve.repeats, curve.documents)
        rows.append(
            _point(point)
            | _columns("removed", judge([removed], spreads.removed, 0.0, 1.0, known.looks))
            | _kept(curve, spreads)
            | {"worst_task": known.worst(point)}
        )
    table = pd.DataFrame(rows, columns=list(POINT_COLUMNS))
    return table.assign(left_out=" ".join(known.left_out))


def training_gains(
    tasks: Sequence[TaskMetrics], math_task: str, counts: Mapping[CellKey, float]
) -> pd.DataFrame:
    """Gain and loss of every trained grid point, and the differences to its control.

    Args:
        tasks: the math task and the others; cells are the trained ones.
        math_task: the name of the task that measures math.
        counts: the number of trained values of every cell.

    Returns:
        One row per method, set, size and learning rate. `gain` is the math task's value less the
        baseline's, turned so that more is better; `kept_mean` and `kept_worst` are the retention of
        the other tasks, clipped to [0, 1]. `…_over_control` is this row's less that of the method's
        control at the same set, size, rate and repeats, paired by documents; NaN without one.
        Where there are several rates, a row without an edit_value is the better of them, chosen by
        the gain on half of the documents and judged on the other half. `left_out` names other tasks
        whose baseline is not above chance.
    """
    known = _Tasks(tasks, math_task)
    skill = next((task for task in tasks if task.task == math_task), None)
    if skill is None or not skill.cells:
        return pd.DataFrame(columns=list(GAIN_COLUMNS))
    points = grid_of(list(skill.cells))
    gained = repeat_spread([[skill.cells[key] for key in p] for p in points], skill.baseline)
    complete = [p for p in points if all(known.known(key, skill=False) for key in p)]
    spreads = known.spreads(complete)
    rows = []
    for point in points:
        row = _point(point) | {"trained": np.mean([counts[key] for key in point]), "control": ""}
        row |= _gain("gain", skill, point, skill.baseline, gained)
        curve = known.curve([point], skill=False) if known.others and point in complete else None
        if curve is not None:
            row |= _kept(curve, spreads) | {"worst_task": known.worst(point)}
        rivals = [rival for key in point if (rival := control_cell(key)) in skill.cells and rival]
        if len(rivals) == len(point):
            row["control"] = rivals[0].method
            pair = skill.on_common([*point, *rivals])
            theirs = [pair.cells[rival] for rival in rivals]
            row |= _gain("gain_over_control", pair, point, theirs, total(gained, gained))
            if curve is not None and all(known.known(rival, skill=False) for rival in rivals):
                both = _Tasks([task.on_common([*point, *rivals]) for task in tasks], math_task)
                mine, other = (both.curve([one], skill=False) for one in (point, rivals))
                ahead = mine.kept(MEAN).minus(other.kept(MEAN))
                judged = _difference(ahead, spreads.mean, looks=known.looks)
                row |= _columns("kept_over_control", judged)
        rows.append(row)
    rows += _better_rates(known, skill, points, gained, spreads)
    table = pd.DataFrame(rows, columns=list(GAIN_COLUMNS))
    left_out = [name for name in known.left_out if name != math_task]
    return table.assign(left_out=" ".join(left_out))


def _better_rates(
    known: _Tasks,
    skill: TaskMetrics,
    points: Sequence[Sequence[CellKey]],
    gained: RepeatSpread | None,
    spreads: Spreads,
) -> list[dict[str, object]]:
    """The better of the learning rates of every selection that has several."""
    rates: dict[tuple[object, ...], list[Sequence[CellKey]]] = {}
    for point in points:
        columns = point[0].columns
        rates.setdefault(tuple(columns[name] for name in GRID[:-1]), []).append(point)
    documents = skill.baseline.independent
    found: dict[tuple[object, ...], tuple[Quantity, dict[str, Quantity]]] = {}
    for place, own in rates.items():
        if len(own) > 1 and len({tuple(_repeat(key) for key in point) for point in own}) == 1:
            chosen = best_by_gain(skill, own)
            kept = {}
            if known.others and all(known.known(key, skill=False) for p in own for key in p):
                curve = known.curve(own, skill=False)
                kept = {name: curve.kept(name, chosen) for name in (MEAN, WORST)}
            found[place] = gain_of_chosen(skill, own, chosen, documents), kept
    rows = []
    for place, (gain, kept) in found.items():
        row: dict[str, object] = dict(zip(GRID, place, strict=False))
        row |= {"edit_value": math.nan, "repeats": len(gain.repeats), "control": ""}
        row |= _columns("gain", judge([gain], gained, -math.inf, math.inf, known.looks))
        for name, quantity in kept.items():
            judged = judge([quantity], spreads.of(name), 0.0, 1.0, known.looks)
            row |= _columns(f"kept_{name}", judged)
        control = control_of(str(place[0]))
        rival = found.get((control, *place[1:])) if control else None
        if rival is not None:
            row["control"] = control
            ahead = gain.minus(rival[0])
            row |= _columns(
                "gain_over_control", _difference(ahead, gained, math.inf, looks=known.looks)
            )
            if kept and rival[1]:
                more = kept[MEAN].minus(rival[1][MEAN])
                judged = _difference(more, spreads.mean, looks=known.looks)
                row |= _columns("kept_over_control", judged)
        rows.append(row)
    return rows


def control_cell(key: CellKey) -> CellKey | None:
    """The same cell of the method's control; None for a method without one."""
    if key.selection is None or not (control := control_of(key.method)):
        return None
    return replace(key, selection=replace(key.selection, method=control))


def _point(point: Sequence[CellKey]) -> dict[str, object]:
    columns = point[0].columns
    return {name: columns[name] for name in GRID} | {"repeats": len(point)}


def _gain(
    name: str,
    skill: TaskMetrics,
    point: Sequence[CellKey],
    rivals: Metric | Sequence[Metric],
    spread: RepeatSpread | None,
) -> dict[str, object]:
    """What a point is better by than others, turned so that more is better."""
    found = compare([skill.cells[key] for key in point], rivals, spread, skill.looks)
    low, high = sorted(skill.sign * end for end in found.interval)
    return {name: skill.sign * found.difference, f"{name}_low": low, f"{name}_high": high}


def _kept(curve: Curve, spreads: Spreads) -> dict[str, object]:
    mean, worst = (
        judge([curve.kept(name)], spreads.of(name), 0.0, 1.0, spreads.looks)
        for name in (MEAN, WORST)
    )
    # The worst task is chosen on other documents than it is judged on, but keeps no more than all.
    worst = replace(worst, value=min(worst.value, mean.value))
    return _columns(f"kept_{MEAN}", mean) | _columns(f"kept_{WORST}", worst)


def _columns(name: str, judged: Judged) -> dict[str, object]:
    low, high = judged.interval
    return {name: judged.value, f"{name}_low": low, f"{name}_high": high}
