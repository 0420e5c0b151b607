"""Read which tokens reach which experts, and put the sets beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import visible_text
from neurosurgery.methods.experts import SHARE, excess
from neurosurgery.results.store import EXPERTS_FILE

EXPERT = ["layer", "module", "index"]
_COLUMNS = {*EXPERT, "samples", "tokens", "tokens_low", "share", "few", "matched"}


@dataclass(frozen=True)
class Routing:
    """The routing of every set.

    Attributes:
        experts: a row per expert: `layer module index`, for every set `share_SET` and `tokens_SET`,
            `excess` over the nearest other set, `few` where few tokens of a set reach it.
        skill: the name of the skill's set.
        others: those of the other sets.
        matched: that of the topic-matched one; empty for none.
    """

    experts: pd.DataFrame
    skill: str
    others: tuple[str, ...]
    matched: str

    def share(self, name: str) -> pd.Series[float]:
        """A set's share of every expert."""
        return self.experts[f"{SHARE}{name}"]

    @property
    def over_matched(self) -> pd.Series[float]:
        """The skill's share of every expert less the topic-matched set's."""
        return self.share(self.skill) - self.share(self.matched)

    @property
    def left(self) -> tuple[float, float] | None:
        """The slots a layer by which the skill's routing exceeds that of every other set.

        Without the topic-matched set among them, and with it; as shares, means over layers. None
        without such a set, or with no other.
        """
        unmatched = [name for name in self.others if name != self.matched]
        if not self.matched or not unmatched:
            return None
        found = []
        for names in (unmatched, self.others):
            shares = {name: self.share(name).to_numpy() for name in (self.skill, *names)}
            above = excess(shares, self.skill).clip(min=0)
            found.append(float(above.sum() / self.experts["module"].nunique()))
        return found[0], found[1]


def read_routing(folder: Path, flag: str, skill: str) -> Routing | None:
    """Read `experts.csv`; None where there is none, or none of the skill beside another set.

    Raises:
        UsageError: it is damaged.
    """
    path = folder / EXPERTS_FILE
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype={"module": str, "samples": str}, keep_default_na=False)
        for name in table.columns.difference(["module", "samples"]):
            table[name] = pd.to_numeric(table[name])
    except (ValueError, OSError) as error:
        raise UsageError(flag, path, f"is no table of the scripts ({error})") from None
    if not set(table) >= _COLUMNS:
        raise UsageError(flag, path, "lacks columns of the routing of experts")
    table["samples"] = table["samples"].map(visible_text)
    names = [str(name) for name in dict.fromkeys(table["samples"])]
    others = tuple(name for name in names if name != skill)
    if skill not in names or not others:
        return None
    wide = table.pivot_table(index=EXPERT, columns="samples", values=["share", "tokens"])
    wide.columns = [f"{value}_{name}" for value, name in wide.columns]
    wide = wide.assign(few=table.groupby(EXPERT)["few"].max()).reset_index()
    shares = {name: wide[f"{SHARE}{name}"].to_numpy() for name in names}
    matched = [str(name) for name in table.loc[table["matched"] == 1, "samples"]]
    return Routing(
        wide.assign(excess=excess(shares, skill)),
        skill,
        others,
        next((name for name in matched if name != skill), ""),
    )
