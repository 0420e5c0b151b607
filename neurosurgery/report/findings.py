"""What a folder says in sentences: rules, each a condition and the sentence that it gives.

1. `headline` answers the page's title, with the numbers behind it (`tiles`).
2. `FINDINGS` tell the rest, `steps` what to do about what is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pandas as pd

from neurosurgery.common.numbers import count_of, percent_text
from neurosurgery.edit.kinds import SCALE
from neurosurgery.methods.base import DRAWS
from neurosurgery.methods.registry import METHODS, method_label, size_text, twins
from neurosurgery.report.columns import verdict_kind
from neurosurgery.report.commands import repeat_with
from neurosurgery.report.facts import (
    Row,
    curve_label,
    number,
    quantity,
    records,
    trained_name,
    with_interval,
    with_unit,
)
from neurosurgery.report.read.folder import Folder
from neurosurgery.verdicts.finding import (
    Found,
    at_point,
    find,
    others_text,
    random_units,
    sentences,
)
from neurosurgery.verdicts.judging import (
    BETTER,
    BROKEN,
    HIGHER,
    LOWER,
    UNDECIDED,
    WITHIN,
    WORSE,
    moved,
    word,
)
from neurosurgery.verdicts.power import POWER, undecided_lines

_OVER_THE_GRID = {"loss_at_half_mean": "the loss at half", "area_mean": "the area"}
_AHEAD = {"gain": "gains", "kept": "keeps"}
"""The differences to the control (columns NAME_over_control), each with its verb."""


@dataclass(frozen=True)
class Seen:
    """What the rules read."""

    folder: Folder
    points: pd.DataFrame

    @cached_property
    def found(self) -> Found | None:
        """The point of the finding."""
        folder = self.folder
        return find(self.points, folder.isolation, folder.skill, folder.math_tasks)

    @cached_property
    def judged(self) -> pd.DataFrame:
        """The points with a verdict on numbers, with its word as `word`."""
        known = self.points[~self.points["verdict"].isin(["", BROKEN])]
        return known.assign(word=[word(row) for row in records(known)])

    @cached_property
    def undecided(self) -> pd.DataFrame:
        """The points that are undecided."""
        return self.points[self.points["verdict"] == UNDECIDED]

    @cached_property
    def scaled(self) -> pd.DataFrame:
        """The skill's points that are scaled by another factor than 0."""
        rows = self.judged
        of_skill = rows["task"].isin(self.folder.math_tasks) & (rows["skill"] == self.folder.skill)
        return rows[of_skill & (rows["edit"] == SCALE) & (rows["edit_value"] != 0)]

    @cached_property
    def largest(self) -> Row:
        """The one of them with the largest change for the better."""
        rows = self.scaled
        gains = rows["difference"].where(rows["direction"] != LOWER, -rows["difference"])
        return records(rows.loc[[gains.idxmax()]])[0]

    @cached_property
    def of_largest(self) -> pd.DataFrame:
        """All tasks at its point."""
        return self.points[at_point(self.points, self.largest)]

    @cached_property
    def loss(self) -> pd.DataFrame:
        """The rows of comparison.csv on the mean loss at half."""
        table = self.folder.comparison
        return table if table.empty else table[table["quantity"] == "loss_at_half_mean"]

    @cached_property
    def pairs(self) -> list[Row]:
        """Those of two methods."""
        return [*records(self.loss[self.loss["other"] != ""])] if len(self.loss) else []

    @cached_property
    def trained(self) -> pd.DataFrame:
        """The trained selections, each with one learning rate."""
        table = self.folder.training
        return table if table.empty else table[table["edit_value"].notna()]

    @cached_property
    def gained(self) -> pd.DataFrame:
        """Those of which the interval of the gain lies above 0, by their gain."""
        rows = self.trained
        if rows.empty:
            return rows
        return rows[rows["gain_low"] > 0].sort_values("gain", ascending=False, kind="stable")

    @cached_property
    def paired(self) -> list[Row]:
        """The trained selections that stand beside a control."""
        return [*records(self.trained[self.trained["control"] != ""])] if len(self.trained) else []


class Rule(NamedTuple):
    """A condition, and the sentence where it holds."""

    holds: Callable[[Seen], bool]
    says: Callable[[Seen], str]


class Tile(NamedTuple):
    """A number of the first screen: what it is of, how it is shown, a note, and good or bad."""

    label: str
    value: str
    note: str
    kind: str = ""


class Step(NamedTuple):
    """Something to do about what is not known, and the command, if there is one, that does it."""

    text: str
    command: str = ""


def headline(seen: Seen) -> list[str]:
    """The sentences that answer the title; of a folder that only trains or scales, its largest."""
    if seen.found:
        return [*sentences(seen.found), *ahead(seen)]
    if SCALED.holds(seen) and seen.trained.empty:
        others = seen.of_largest[~seen.of_largest["task"].isin(seen.folder.math_tasks)]
        return [SCALED.says(seen), *([others_text(records(others))] if len(others) else [])]
    rules = [rule for rule in (LARGEST_GAIN, NO_GAIN) if rule.holds(seen)]
    return [rules[0].says(seen)] if rules else []


def findings(seen: Seen) -> list[str]:
    """The sentences of the rules that hold, but for those of the headline."""
    told = headline(seen)
    said = [rule.says(seen) for rule in FINDINGS if rule.holds(seen)]
    return [text for text in said if text not in told]


def tiles(seen: Seen) -> list[Tile]:
    """The numbers behind the headline."""
    if seen.found:
        found = seen.found
        first, worst = found.of_skill[0], found.point["worst_task"]
        worst = next((row for row in found.others if row["task"] == worst), found.others[0])
        told = [
            _change_tile(first, first["task"]),
            _change_tile(worst, f"{worst['task']}, the worst other task"),
        ]
        name = f"{first['task']}, {random_units(found.point['method'])}"
        twin = Tile(name, "not run", f"--twins {DRAWS[0]}")
        told.append(_change_tile(found.twin[0], name) if found.twin else twin)
        return [*told, _edited_tile(first)]
    if len(seen.scaled) and seen.trained.empty:
        rows = records(seen.of_largest)
        return [*(_change_tile(row, row["task"]) for row in rows[:3]), _edited_tile(rows[0])]
    if len(seen.gained):
        row = records(seen.gained)[0]
        named = {
            "gain": f"gain in {seen.folder.skill}",
            "kept_mean": "others keep on average",
            "kept_worst": f"worst: {row['worst_task']}",
            "gain_over_control": "gain over the control",
        }
        return [
            Tile(label, number(row[name], sign="gain" in name), _ends(row, name), _kind(row, name))
            for name, label in named.items()
        ]
    return []


def _edited_tile(row: Row) -> Tile:
    share = f"{percent_text(row['edited_share'])} of the model"
    told: str = "–" if pd.isna(row["edited"]) else f"{row['edited']:,.0f}"
    return Tile("weights edited", told, share)


def _kind(row: Row, name: str) -> str:
    """Good or bad, where a gain's interval excludes 0."""
    if "gain" not in name:
        return ""
    return "good" if row[f"{name}_low"] > 0 else "bad" if row[f"{name}_high"] < 0 else ""


def _change_tile(row: Row, label: str) -> Tile:
    change = with_interval(row["difference"], row["ci_low"], row["ci_high"], sign=True)
    judged = word(row) or "no interval"
    if judged.endswith(WITHIN):
        judged = f"{judged} of ± {row['margin']:.3g}"
    elif row["verdict"] not in ("", BROKEN):
        judged = f"{judged} (margin ± {row['margin']:.3g})"
    note = f"{with_unit(change, row['unit'])}, {judged}"
    values = f"{number(row['baseline'])} → {number(row['value'])}"
    return Tile(label, values, note, verdict_kind(word(row)))


def _ends(row: Row, name: str) -> str:
    return quantity(row, name, sign=name.startswith("gain")).partition(" ")[2]


def _baseline(seen: Seen) -> str:
    parts = [
        f"{row['task']} {number(row['value'])}"
        + (f" ({row['n']:.0f} documents)" if pd.notna(row["n"]) else "")
        for row in records(seen.folder.baseline)
    ]
    return f"The unedited model: {'; '.join(parts)}."


def _counts(seen: Seen) -> str:
    words = seen.judged["word"]
    first = words.str.partition(",")[0]
    counts = {name: int((first == name).sum()) for name in (WORSE, BETTER, WITHIN, UNDECIDED)}
    parts = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    small = int(words.str.endswith(f", {WITHIN}").sum())
    also = f" Of those worse or better {small} are within the margin, too." if small else ""
    return f"{len(words)} differences to the baseline (a point and a task each): {parts}.{also}"


def _comparison(seen: Seen) -> str:
    own = seen.loss[(seen.loss["other"] == "") & (seen.loss["against"] == "")]
    parts = [
        f"{method_label(row['method'])} {_value(row)}" for row in records(own.sort_values("value"))
    ]
    return (
        "By the comparison table, what the other tasks lose on average where half of "
        f"{seen.folder.skill} is lost is, from the least: {'; '.join(parts)}. Where no point "
        "removes half, all counts as lost."
    )


def _value(row: Row, *, sign: bool = False) -> str:
    return with_interval(row["value"], row["low"], row["high"], sign=sign)


def _decided_pairs(seen: Seen) -> list[Row]:
    return [row for row in seen.pairs if moved(row["verdict"])]


def _pairs(seen: Seen) -> str:
    # The first method's: the table has the others.
    decided = _decided_pairs(seen)
    mine = [row for row in decided if row["method"] == decided[0]["method"]]
    parts = []
    for row in mine:
        less = "less" if row["value"] < 0 else "more"
        parts.append(f"{less} than {method_label(row['other'])} ({_value(row, sign=True)})")
    told = f"Paired by documents, {method_label(mine[0]['method'])} loses {', '.join(parts)}."
    more = len(decided) - len(mine)
    return f"{told} The table has {count_of(more, 'more decided pair')}." if more else told


def ahead(seen: Seen) -> list[str]:
    """Who is ahead of the headline's method over its whole grid; twins do not count."""
    table, found = seen.folder.comparison, seen.found
    if found is None or table.empty:
        return []
    method = found.point["method"]
    said = []
    for column, name in _OVER_THE_GRID.items():
        pairs = table[(table["quantity"] == column) & (table["other"] != "")]
        better = LOWER if column.startswith("loss") else HIGHER
        others = [
            row["other"] if row["method"] == method else row["method"]
            for row in records(pairs)
            if method in (row["method"], row["other"])
            and moved(row["verdict"])
            and (moved(row["verdict"]) == better) != (row["method"] == method)
        ]
        others = [method_label(other) for other in others if other not in twins()]
        if others:
            verb = "are" if len(others) > 1 else "is"
            said.append(f"Over the whole grid {' and '.join(others)} {verb} ahead of it by {name}.")
    return said


def _open_pairs(seen: Seen) -> str:
    count = len(seen.pairs) - len(_decided_pairs(seen))
    return f"Undecided: {count} of {len(seen.pairs)} pairs of methods."


def _scaled(seen: Seen) -> str:
    rows = seen.scaled
    first = rows["word"].str.partition(",")[0]
    better, worse = (int((first == name).sum()) for name in (BETTER, WORSE))
    most = seen.largest
    change = with_interval(most["difference"], most["ci_low"], most["ci_high"], sign=True)
    return (
        f"Scaling by another factor than 0, {len(rows)} points: {seen.folder.skill} is better at "
        f"{better}, worse at {worse}, neither at {len(rows) - better - worse}. The largest change "
        f"for the better: {curve_label(most['method'], most['against'])} at "
        f"{size_text(most['method'], most['size'])}, scalar {most['edit_value']:g}, {most['task']} "
        f"from {number(most['baseline'])} to {number(most['value'])} "
        f"({with_unit(change, most['unit'])}, {most['word']})."
    )


def _largest_gain(seen: Seen) -> str:
    row = records(seen.gained)[0]
    gain = "gains" if len(seen.gained) == 1 else "gain"
    return (
        f"Of {count_of(len(seen.trained), 'trained selection')} (each size and learning rate is "
        f"one), {len(seen.gained)} {gain} in {seen.folder.skill}. The most: {trained_name(row)}, "
        f"{quantity(row, 'gain', sign=True)}; the other tasks keep {quantity(row, 'kept_mean')} of "
        f"the baseline on average, the worst, {row['worst_task']}, {quantity(row, 'kept_worst')}. "
        "It was chosen on the documents that it is judged on."
    )


def _no_gain(seen: Seen) -> str:
    count = count_of(len(seen.trained), "trained selection")
    return f"Of {count}, none gains in {seen.folder.skill}: no interval of the gain lies above 0."


def _against_control(seen: Seen) -> str:
    rows = seen.paired
    better = [row for row in rows if any(_sign(row, name) > 0 for name in _AHEAD)]
    behind = sum(any(_sign(row, name) < 0 for name in _AHEAD) for row in rows)
    text = "; ".join(map(_ahead, better))
    text = text or "none gains more or keeps more, as far as the intervals tell"
    verbs = ("gains", "keeps") if behind == 1 else ("gain", "keep")
    worse = f" {behind} {verbs[0]} or {verbs[1]} less." if behind else ""
    pairs = count_of(len(rows), "pair")
    return f"Beside as many weights of the control, trained alike ({pairs}): {text}.{worse}"


def _sign(row: Row, name: str) -> int:
    """The sign of a difference whose interval excludes 0; else 0."""
    low, high = row[f"{name}_over_control_low"], row[f"{name}_over_control_high"]
    return int(low > 0) - int(high < 0)


def _ahead(row: Row) -> str:
    parts = [
        f"{verb} {'more' if _sign(row, name) > 0 else 'less'} "
        f"({quantity(row, f'{name}_over_control', sign=True)})"
        for name, verb in _AHEAD.items()
        if _sign(row, name)
    ]
    return f"{trained_name(row)} {' and '.join(parts)} than {method_label(row['control'])}"


def _better_rates(seen: Seen) -> str:
    table = seen.folder.training
    parts = [
        f"{trained_name(row)} gains {quantity(row, 'gain', sign=True)} and keeps "
        f"{quantity(row, 'kept_mean')}"
        for row in records(table[table["edit_value"].isna()])
    ]
    return (
        "At the better of several learning rates, chosen on half of the documents and judged on "
        f"the other half: {'; '.join(parts)}."
    )


def _what_decides(seen: Seen) -> str:
    lines = undecided_lines(records(seen.undecided))
    return (
        f"What decides in {POWER:.0%} of runs, if differences are as measured: {'; '.join(lines)}."
    )


def steps(seen: Seen) -> list[Step]:
    """What to do about what is not known; of many points, about the one of the headline."""
    folder, found = seen.folder, []
    if seen.points.empty:
        command = repeat_with(folder, "--pre_train_eval")
        return [Step("No edited model has been evaluated; this goes on:", command)]
    rows, where = seen.undecided, "at all points"
    if seen.found:
        rows, where = rows[at_point(rows, seen.found.point)], "at the point of the headline"
    script = METHODS[rows["method"].iloc[0]].script if len(rows) else ""
    repeats = _decided_by_repeats(rows)
    if len(repeats):
        most = f"{repeats['repeats_needed'].max():.0f}"
        command = repeat_with(folder, "--num_repeats", most, script=script)
        tasks = ", ".join(dict.fromkeys(repeats["task"]))
        found.append(Step(f"More repeats decide {tasks} {where}:", command))
    if len(repeats) < len(rows):
        tasks = ", ".join(dict.fromkeys(rows["task"].drop(repeats.index)))
        found.append(
            Step(
                f"To decide {tasks} {where} takes more documents than were asked: a larger "
                "--documents where the task has more (in another --save_path), or another task."
            )
        )
    if seen.found and not _skill_moved(seen):
        found.append(
            Step(
                f"{folder.skill} moved at no point. Larger sizes may move it, or a harder task; "
                "more documents only say more surely that it did not."
            )
        )
    if seen.found and not seen.found.twin:
        script = METHODS[seen.found.point["method"]].script
        command = repeat_with(folder, "--twins", DRAWS[0], script=script)
        found.append(Step("A control is missing; this adds one, and repeats nothing:", command))
    return found


def _skill_moved(seen: Seen) -> bool:
    """Whether a verdict at some point says that the skill's tasks moved."""
    points = seen.points
    of_skill = points["task"].isin(seen.folder.math_tasks) & (points["skill"] == seen.folder.skill)
    return any(moved(verdict) for verdict in points.loc[of_skill, "verdict"])


def _decided_by_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    """Those that more repeats of the same documents would decide."""
    more = rows["repeats_needed"] > rows["repeats"]
    return rows[more & (rows["documents_needed"] <= rows["n"])]


LARGEST_GAIN = Rule(lambda seen: len(seen.gained) > 0, _largest_gain)
NO_GAIN = Rule(lambda seen: len(seen.trained) > 0 and seen.gained.empty, _no_gain)
SCALED = Rule(lambda seen: len(seen.scaled) > 0, _scaled)

FINDINGS = (
    Rule(lambda seen: len(seen.folder.baseline) > 0, _baseline),
    Rule(lambda seen: len(seen.judged) > 0, _counts),
    Rule(lambda seen: len(seen.loss) > 0, _comparison),
    Rule(lambda seen: bool(_decided_pairs(seen)), _pairs),
    Rule(lambda seen: len(_decided_pairs(seen)) < len(seen.pairs), _open_pairs),
    SCALED,
    LARGEST_GAIN,
    NO_GAIN,
    Rule(lambda seen: bool(seen.paired), _against_control),
    Rule(lambda seen: len(seen.trained) < len(seen.folder.training), _better_rates),
    Rule(lambda seen: bool(undecided_lines(records(seen.undecided))), _what_decides),
)
