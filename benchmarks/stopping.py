"""What `--stop_early` saves and what its intervals hold: a replay of a run, and simulation.

    python -m benchmarks.stopping [--quick] [--answers FILE]

The replay takes the answers of a run that asked all documents (of the demo's MathNeuro grid), puts
the documents in four random orders, and stops as the package would. *same*: the verdict at the stop
is that of all documents with a single look; *at last*: that of all documents at the last look.

The simulation draws documents with known truths (`benchmarks.coverage.data`), of a grid of six
points that are alike. *holds*: the interval at the stop holds the truth; *moved*: it says lower or
higher; *within*: it says within the margin of .03, an error where the truth is ± .03 or beyond.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import table
from benchmarks.coverage.data import Answers, Losses, Own
from benchmarks.reproduction.answers import answered_metrics, read_answers
from benchmarks.reproduction.runs import FOLDER
from neurosurgery.verdicts.intervals import compare, repeat_spread
from neurosurgery.verdicts.judging import is_within, margin_of, moved, verdict
from neurosurgery.verdicts.looks import ALL_ASKED, FUTILE, looks_of
from neurosurgery.verdicts.metrics import Metric
from neurosurgery.verdicts.stopping import why_stop

MARGIN = 0.03
ORDERS = 4

Points = Sequence[Sequence[Metric]]


def part_of(state: Metric, order: Sequence[int], share: float) -> Metric:
    """The first documents of a state in some order."""
    chosen = sorted(order[: int(np.ceil(len(order) * share))])
    found = state.on(tuple(state.documents[n] for n in chosen))
    if found is None:
        raise ValueError("a state lacks its own documents")
    return found


def stopped(
    points: Points, before: Metric, margin: float, generator: np.random.Generator
) -> list[tuple[Sequence[Metric], float, str, int]]:
    """Stop every point of a grid: what it was asked, which share of all, why, and the looks.

    Repeats are asked their documents in one order of places, as `Asked.turns` has it.
    """
    documents = len(points[0][0].values)
    of, order = looks_of(documents), generator.permutation(documents).tolist()
    found: dict[int, tuple[Sequence[Metric], float, str, int]] = {}
    for look in range(1, of + 1):
        parts = [
            found[n][0] if n in found else [part_of(state, order, look / of) for state in point]
            for n, point in enumerate(points)
        ]
        spread = repeat_spread(parts, before)
        for n, point in enumerate(parts):
            if n not in found:
                why = why_stop(point, before, margin, spread, (look, of), documents)
                if why:
                    found[n] = point, look / of, why, of
    return [found[n] for n in range(len(points))]


def category(judged: str) -> str:
    """A verdict in one word."""
    return moved(judged) or ("within" if is_within(judged) else "undecided")


def replayed(grid: Mapping[str, tuple[Points, Metric]], orders: int) -> list[tuple]:
    """A row per task, and one for all."""
    rows, everything = [], []
    for task, (points, before) in grid.items():
        whole = repeat_spread(points, before)
        margin = margin_of(MARGIN, before)
        wanted = [category(verdict(compare(one, before, whole), margin)) for one in points]
        found = []
        for seed in range(orders):
            generator = np.random.default_rng(seed)
            early = stopped(points, before, MARGIN, generator)
            spread = repeat_spread([one for one, *_ in early], before)
            for point, (asked, share, why, of), expected in zip(points, early, wanted, strict=True):
                judged, at_last = (
                    category(verdict(compare(one, before, prior, of), margin))
                    for one, prior in ((asked, spread), (point, whole))
                )
                same = judged == expected, judged == at_last
                found.append((share, *same, why == FUTILE, why == ALL_ASKED))
        everything += found
        rows.append((task, len(points), *np.mean(found, axis=0)))
    return [*rows, ("all", len(everything) // orders, *np.mean(everything, axis=0))]


SCENARIOS: dict[str, tuple[Answers | Losses, float]] = {
    "answers, no change": (Answers(0.8, (0.8,) * 6, 0.9, 0.95, 0.0), 0.0),
    "answers, repeats vary .01": (Answers(0.8, (0.8,) * 6, 0.9, 0.95, 0.01), 0.0),
    "answers -.03": (Answers(0.8, (0.77,) * 6, 0.9, 0.95, 0.01), -0.03),
    "answers -.05": (Answers(0.8, (0.75,) * 6, 0.9, 0.95, 0.01), -0.05),
    "answers -.3": (Answers(0.8, (0.5,) * 6, 0.9, 0.95, 0.02), -0.3),
    "answers rarely change": (Answers(0.95, (0.95,) * 6, 0.99, 0.995, 0.0), 0.0),
    "losses, none": (Losses((0.0,) * 6, between=0.01), 0.0),
    "losses +.03": (Losses((0.03,) * 6, between=0.01), 0.03),
    "losses +.2": (Losses((0.2,) * 6, between=0.02), 0.2),
}


def simulated(
    model: Answers | Losses, documents: int, repeats: int, draws: int, *, own: bool = False
) -> tuple[float, ...]:
    """Share of documents, of intervals that hold, moved and within; then without looks."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(draws):
        sample = (Own(model) if own else model).sample(rng, documents, repeats)
        before, points = sample.metric(sample.before), sample.points()
        truths = model.difference if repeats > 1 else sample.own[:, 0]
        early = stopped(points, before, MARGIN, rng)
        spread = repeat_spread([one for one, *_ in early], before)
        whole = repeat_spread(points, before)
        for point, truth, (asked, share, _, of) in zip(points, truths, early, strict=True):
            one = compare(asked, before, spread, of)
            all_asked = compare(point, before, whole)
            words = [verdict(each, MARGIN) for each in (one, all_asked)]
            found.append(
                (
                    share,
                    one.interval.low <= truth <= one.interval.high,
                    *(bool(moved(word)) for word in words[:1]),
                    is_within(words[0]),
                    bool(moved(words[1])),
                    is_within(words[1]),
                )
            )
    return tuple(np.mean(found, axis=0))


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    parser.add_argument("--answers", type=Path, default=FOLDER / "demo.answers.json.gz")
    parser.add_argument("--method", default="mathneuro", help="whose points are replayed")
    arguments = parser.parse_args(argv)
    grid = answered_metrics(read_answers(arguments.answers), arguments.method)
    header = ["replayed", "points", "documents", "same", "at last", "futile", "all asked"]
    print(table(header, replayed(grid, 1 if arguments.quick else ORDERS)))
    rows = []
    for name, (model, _) in SCENARIOS.items():
        for documents, repeats, own in ((200, 1, False), (200, 3, False), (200, 3, True)):
            draws = 10 if arguments.quick else 100
            numbers = simulated(model, documents, repeats, draws, own=own)
            rows.append((name, documents, f"{repeats}{' own' * own}", *numbers))
    header = "simulated documents repeats asked holds moved within".split()
    print(table([*header, "moved, one look", "within"], rows))


if __name__ == "__main__":
    main()
