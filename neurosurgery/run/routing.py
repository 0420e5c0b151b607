"""How many tokens of every set reach every expert: a table beside the results, and a warning.

The counts stand in the statistics that a folder keeps, whatever method needed them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

from neurosurgery.activations.kinds import OF_SAMPLES
from neurosurgery.activations.sums import tokens_of
from neurosurgery.common.files import write_atomically
from neurosurgery.common.numbers import count_of
from neurosurgery.masks.units import layer_order, place_of
from neurosurgery.results.keys import shown_set
from neurosurgery.results.store import EXPERTS_FILE, ResultStore
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.identity import MATH
from neurosurgery.settings.parts import MIN_EXPERT_TOKENS

_NAMED = 6
"""Experts that a line names."""
_RUN = re.compile(r"(.+)_run(\d+)")


def routing_table(store: ResultStore) -> pd.DataFrame:
    """The tokens of every set that reach every expert, of all repeats that the folder has.

    Returns:
        A row per expert and set, the skill's first: `layer module index samples`, `tokens` (mean
        over repeats), `tokens_low` (of the repeat with the fewest), `share` (of the set's slots in
        the layer, mean over repeats). No row without experts.
    """
    rows = []
    for name, of_repeats in sorted(_counts(store).items(), key=lambda one: one[0] != MATH):
        for module, counts in _by_module(of_repeats).items():
            shares = counts / counts.sum(axis=1, keepdims=True)
            rows += [
                {
                    "layer": place_of(module).layer,
                    "module": module,
                    "index": index,
                    "samples": name,
                    "tokens": counts[:, index].mean(),
                    "tokens_low": int(counts[:, index].min()),
                    "share": shares[:, index].mean(),
                }
                for index in range(counts.shape[1])
            ]
    rows.sort(key=lambda row: (layer_order(row["layer"]), row["module"]))
    return pd.DataFrame(rows)


def _by_module(of_repeats: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Module to counts, (repeats, experts)."""
    return {name: np.stack([one[name] for one in of_repeats]) for name in of_repeats[0]}


def _counts(store: ResultStore) -> dict[str, list[dict[str, np.ndarray]]]:
    """Set to its repeats, each with the counts of every module."""
    found: dict[str, dict[int, dict[str, np.ndarray]]] = defaultdict(dict)
    start = tokens_of("")
    for kind in OF_SAMPLES:
        folder = store.statistics_file(kind, "").parent
        for path in sorted(folder.glob("*.safetensors")):
            known = _RUN.fullmatch(path.stem)
            if known is None or not store.has_statistics(path):
                continue
            name, repeat = known[1], int(known[2])
            with safe_open(path, framework="numpy") as file:
                of_experts = [key for key in file.keys() if key.startswith(start)]  # noqa: SIM118
                counts = {key.removeprefix(start): file.get_tensor(key) for key in of_experts}
            if counts:
                found[name].setdefault(repeat, counts)
    return {name: [repeats[each] for each in sorted(repeats)] for name, repeats in found.items()}


def few_tokens_text(table: pd.DataFrame, settings: Settings) -> Iterator[str]:
    """A line that names the experts that fewer tokens reach than `--min_expert_tokens`."""
    if table.empty:
        return
    least = _of_settings(settings, MIN_EXPERT_TOKENS.name, MIN_EXPERT_TOKENS.default)
    rows = table[table["tokens_low"] < least]
    if rows.empty:
        return
    few = [
        f"layer {layer:g} expert {index} ({fewest['samples']} {fewest['tokens_low']})"
        for (layer, index), of_expert in rows.groupby(["layer", "index"], sort=False)
        for fewest in [of_expert.loc[of_expert["tokens_low"].idxmin()]]
    ]
    every = len(table[["module", "index"]].drop_duplicates())
    more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
    yield (
        f"{len(few)} of {count_of(every, 'expert')} saw fewer than {least} tokens of a set, so "
        f"that their statistics rest on few: {', '.join(few[:_NAMED])}{more}; all in {EXPERTS_FILE}"
    )


def _of_settings(settings: Settings, name: str, otherwise: Any) -> Any:
    value = settings.values.get(name)
    return otherwise if value is None else value


def write_routing(store: ResultStore, settings: Settings, skill: str) -> None:
    """Write `experts.csv`: `routing_table`, and which set is `matched` in topic; none without rows.

    Args:
        store: the folder.
        settings: those of the run; without `--topic_matched` what the folder says stays.
        skill: what the table calls the skill.
    """
    table = routing_table(store)
    if table.empty:
        return
    matched = _of_settings(settings, "topic_matched", _matched(store))
    least = _of_settings(settings, MIN_EXPERT_TOKENS.name, MIN_EXPERT_TOKENS.default)
    table = table.assign(
        samples=[shown_set(name, skill) for name in table["samples"]],
        few=(table["tokens_low"] < least).astype(int),
        matched=(table["samples"] == matched).astype(int),
    )
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_atomically(store.root / EXPERTS_FILE, text)


def _matched(store: ResultStore) -> str:
    """The set that is matched by the folder's table, or else by its last run that named one."""
    path = store.root / EXPERTS_FILE
    if path.is_file():
        there = pd.read_csv(path, dtype={"samples": str}, keep_default_na=False)
        names = there.loc[there["matched"] == 1, "samples"]
        if len(names):
            return str(names.iloc[0])
    recorded = [one.get("topic_matched") for one in store.settings_of_runs]
    return str(next((name for name in reversed(recorded) if name), ""))
