"""The map of experts and their lists, against numbers that are worked out by hand."""

from __future__ import annotations

import pandas as pd
import pytest
from small_report import marks

from neurosurgery.common.errors import UsageError
from neurosurgery.report.figures.experts import plot_experts
from neurosurgery.report.read.experts import read_routing
from neurosurgery.report.unit_lists import unit_lists

SHARES = {
    "code": [[0.5, 0.3, 0.2], [0.6, 0.2, 0.2]],
    "news": [[0.2, 0.4, 0.4], [0.2, 0.6, 0.2]],
    "shuffled": [[0.4, 0.1, 0.5], [0.2, 0.3, 0.5]],
}
MODULES = ["layers.0.experts", "layers.3.experts"]


@pytest.fixture
def folder(tmp_path):
    rows = [
        {
            "layer": (0, 3)[layer],
            "module": MODULES[layer],
            "index": index,
            "samples": name,
            "tokens": 100 * share,
            "tokens_low": int(100 * share),
            "share": share,
            "few": int(share < 0.15),
            "matched": int(name == "shuffled"),
        }
        for name, layers in SHARES.items()
        for layer, shares in enumerate(layers)
        for index, share in enumerate(shares)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "experts.csv", index=False)
    return tmp_path


def unit_rows(*chosen: tuple[int, int, int]) -> pd.DataFrame:
    """What two repeats selected: (repeat, layer, index)."""
    return pd.DataFrame(
        {
            "kind": "expert",
            "layer": (0, 3)[layer],
            "module": MODULES[layer],
            "index": index,
            "belongs": 1,
            "excess": SHARES["code"][layer][index] - SHARES["shuffled"][layer][index],
            **{f"share_{name}": own[layer][index] for name, own in SHARES.items()},
            "method": "experts",
            "skill": "code",
            "against": "",
            "size": 0.5,
            "size_unit": "fraction of experts",
            "repeat": repeat,
        }
        for repeat, layer, index in chosen
    )


CHOSEN = unit_rows((0, 1, 0), (0, 0, 0), (1, 1, 0))


def test_excess_is_over_the_nearest_other_set(folder):
    routing = read_routing(folder, "folder", "code")
    assert (routing.skill, routing.others, routing.matched) == (
        "code",
        ("news", "shuffled"),
        "shuffled",
    )
    found = routing.experts.set_index(["layer", "index"])["excess"]
    assert found.to_dict() == pytest.approx(
        {(0, 0): 0.1, (0, 1): -0.1, (0, 2): -0.3, (3, 0): 0.4, (3, 1): -0.4, (3, 2): -0.3}
    )
    # Over news alone .3 and .4 of the layers' slots; .1 and .4 with the shuffled words.
    assert routing.left == pytest.approx((0.35, 0.25))


def test_cells_show_values_and_what_is_selected(folder):
    figure = plot_experts(read_routing(folder, "folder", "code"), CHOSEN)
    told = [mark.facts for mark in marks(figure)]
    assert len(told) == 3 * 6

    def of(expert, column):
        return [facts[column] for facts in told if facts["expert"] == expert and column in facts]

    # .6 - 1/3, and .6 - .2.
    assert of("layer 3, expert 0", "difference") == ["+0.267", "+0.400"]
    assert of("layer 3, expert 0", "excess") == ["+0.400"]
    assert of("layer 3, expert 0", "code") == ["60% (60 tokens)"]
    assert of("layer 3, expert 0", "selected") == ["in 100% of the repeats"]
    assert of("layer 0, expert 0", "selected") == ["in 50% of the repeats"]
    assert of("layer 0, expert 1", "selected") == ["in 0% of the repeats"]
    assert of("layer 0, expert 1", "few tokens")
    assert not of("layer 0, expert 0", "few tokens")
    assert "2 of 6 experts in some repeat (the fainter, the fewer) and 1 in all 2" in figure.caption
    # In layer 3 each repeat drew one of three; in layer 0 the second drew none: 3 · 1/9.
    assert "would agree on 0.33" in figure.caption
    assert "in 35% of its slots; with shuffled" in figure.caption
    assert "25% is left, 71% of it" in figure.caption
    assert "1 expert is reached by few tokens" in figure.caption


def test_a_folder_whose_method_selects_no_experts_has_the_map_alone(folder):
    figure = plot_experts(read_routing(folder, "folder", "code"), pd.DataFrame(columns=["method"]))
    assert "Outlined" not in figure.caption


def test_lists_say_what_the_matched_set_leaves(folder):
    routing = read_routing(folder, "folder", "code")
    mine, tokens = unit_lists(CHOSEN, routing)
    assert mine.title == "Experts of code"
    assert mine.rows["excess over shuffled"].tolist() == pytest.approx([0.4, 0.1])
    assert mine.rows["found"].tolist() == [2, 1]
    # .4 + .3 over news, .4 + .1 over its words.
    assert "71% is left over shuffled" in mine.note
    assert len(tokens.rows) == 6
    assert tokens.rows["excess"].is_monotonic_decreasing
    assert tokens.rows["tokens_code"].iloc[0] == 60


def test_without_a_matched_set_nothing_is_said_of_one(folder):
    table = pd.read_csv(folder / "experts.csv").assign(matched=0)
    table.to_csv(folder / "experts.csv", index=False)
    routing = read_routing(folder, "folder", "code")
    assert routing.left is None
    figure = plot_experts(routing, CHOSEN)
    assert len(marks(figure)) == 2 * 6
    assert "shuffled, which" not in figure.caption
    assert not any("excess over" in column for column in unit_lists(CHOSEN, routing)[0].rows)


def test_no_table_no_map_and_a_damaged_one_is_refused(folder):
    assert read_routing(folder / "nowhere", "folder", "code") is None
    assert read_routing(folder, "folder", "another") is None
    (folder / "experts.csv").write_text("layer,module\n1,a\n", encoding="utf-8")
    with pytest.raises(UsageError, match="lacks columns"):
        read_routing(folder, "folder", "code")
    (folder / "experts.csv").write_text("layer,module\nx,a\n", encoding="utf-8")
    with pytest.raises(UsageError, match="is no table"):
        read_routing(folder, "folder", "code")
