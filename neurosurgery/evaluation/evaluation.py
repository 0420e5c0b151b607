"""The result of evaluating one model state, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from neurosurgery.common.numbers import number_text
from neurosurgery.common.terminal import visible_line

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The harness's output for one model state, in types that JSON can hold.

    `results` is the harness's `results` object; `documents` holds one record per document and
    filter (`task filter doc_id doc_hash prompt_hash metrics answer broken`), where `broken` says
    that a likelihood or a logit was NaN or infinite, and with `guessing`, what guessing scores by
    metric; `groups` maps each group to its tasks. `higher_is_better` maps tasks and groups to
    metrics to the harness's direction, None where members of a group contradict each other.
    `seconds` is how long the model was asked.
    """

    results: dict[str, dict[str, Any]]
    documents: list[dict[str, Any]]
    groups: dict[str, list[str]]
    higher_is_better: dict[str, dict[str, bool | None]]
    seconds: float = field(default=0.0, compare=False)

    @property
    def values(self) -> dict[str, float]:
        """Of every task and group the first number that the harness lists; NaN if it is broken."""
        found: dict[str, float] = {}
        for task, _, value, _ in self._numbers():
            found.setdefault(task, value)
        return found

    def to_frame(self) -> pd.DataFrame:
        """The documents.

        Returns:
            A row per document and filter: task, filter, doc_id, a column per metric, answer
            (number of the option, or text), target, broken.
        """
        import pandas as pd

        metrics = dict.fromkeys(name for one in self.documents for name in one["metrics"])
        rows = [
            {
                **{name: one[name] for name in ("task", "filter", "doc_id")},
                **{name: one["metrics"].get(name) for name in metrics},
                **{name: one.get(name) for name in ("answer", "target", "broken")},
            }
            for one in self.documents
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        rows = [
            (visible_line(task), visible_line(metric), number_text(value, missing="–"), error)
            for task, metric, value, error in self._numbers()
        ]
        asked = len({(one["task"], one["doc_id"]) for one in self.documents})
        head = f"Evaluation of {asked:,} document{'' if asked == 1 else 's'}"
        return f"{head}\n{tabulate(rows, tablefmt='plain', disable_numparse=True)}"

    def _numbers(self) -> list[tuple[str, str, float, str]]:
        """Task, metric, value and standard error of everything that the harness has computed."""
        found = []
        for task, results in self.results.items():
            for name, value in results.items():
                metric, comma, filter_name = name.partition(",")
                if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                    continue
                error = results.get(f"{metric}_stderr,{filter_name}")
                text = f"± {number_text(error)}" if isinstance(error, float) else ""
                found.append((task, metric, float(value), text))
        return found
