"""What documents of their own for every repeat save: intervals at equal cost, by simulation.

    python -m benchmarks.documents

Three repeats of one point, of the simulated answers and losses of `benchmarks.coverage`. `first`
asks every repeat the same documents, `own` each other ones; a cell costs the same. The table has
the variance of the difference over draws, the median width of its interval, and how often it holds
the truth.
"""

from __future__ import annotations

import numpy as np

from benchmarks.common import table
from benchmarks.coverage.data import Answers, Losses, Own
from neurosurgery.verdicts.intervals import compare

DRAWS, REPEATS = 500, 3
MODELS: dict[str, Answers | Losses] = {
    "answers, repeats alike .97": Answers(0.8, (0.76,), 0.9, 0.97, 0.01),
    "answers, repeats alike .95": Answers(0.8, (0.76,), 0.9, 0.95, 0.01),
    "losses": Losses((0.2,), between=0.01),
}


def measured(model: Answers | Losses | Own, documents: int) -> tuple[float, float, float]:
    """Variance of the difference, median width of its interval, share that hold the truth."""
    rng = np.random.default_rng(1)
    truth = float(model.difference[0])
    found = []
    for _ in range(DRAWS):
        sample = model.sample(rng, documents, REPEATS)
        found.append(compare(sample.points()[0], sample.metric(sample.before)))
    widths = [one.interval.high - one.interval.low for one in found]
    held = [one.interval.low <= truth <= one.interval.high for one in found]
    differences = np.array([one.difference for one in found])
    return float(differences.var()), float(np.median(widths)), float(np.mean(held))


def main() -> None:
    """Print the table."""
    rows = []
    for name, model in MODELS.items():
        for documents in (100, 200):
            first, own = measured(model, documents), measured(Own(model), documents)
            of_variance, of_width = first[0] / own[0], (first[1] / own[1]) ** 2
            widths, held = (first[1], own[1]), (first[2], own[2])
            rows.append((name, documents, of_variance, *widths, of_width, *held))
    header = ["simulated", "documents", "variance", "width first", "own", "squared", "holds first"]
    print(table([*header, "own"], rows))
    print("variance, squared: first over own, of the difference and of its interval's width")


if __name__ == "__main__":
    main()
