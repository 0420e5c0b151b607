"""Units: where parameters are, the mask that units come to, their list as a file."""

from __future__ import annotations

import pytest

from neurosurgery.common.errors import UsageError
from neurosurgery.masks.units import (
    Place,
    Site,
    Slice,
    Unit,
    place_of,
    read_unit_csv,
    short_kinds,
    unit_csv,
    unit_table,
    units_mask,
    without_layer,
)


def neuron(index: int, parameter: str = "h.1.down.weight", dimension: int = 1) -> Unit:
    part = Slice(parameter, dimension, index, index + 1)
    return Unit("neuron", 1, "h.1.act", index, (part,), Site("h.1.down", "input", index, index + 1))


@pytest.mark.parametrize(
    ("name", "place", "everywhere"),
    [
        ("model.layers.3.mlp.down_proj.weight", Place(3, "mlp.down_proj"), "model.layers.*.mlp"),
        ("transformer.h.11.attn.c_proj.weight", Place(11, "attn.c_proj"), "transformer.h.*.attn"),
        ("layers.0.experts.17.up.weight", Place(0, "experts.up"), "layers.*.experts.17.up"),
        ("lm_head.weight", Place(None, "lm_head"), "lm_head"),
    ],
)
def test_places(name, place, everywhere):
    assert place_of(name) == place
    assert without_layer(name).startswith(everywhere)


def test_kinds_are_as_short_as_they_can_be():
    kinds = ["attn.c_proj", "mlp.c_proj", "mlp.c_fc"]
    assert short_kinds(kinds) == {
        "attn.c_proj": "attn.c_proj",
        "mlp.c_proj": "mlp.c_proj",
        "mlp.c_fc": "c_fc",
    }


def test_the_mask_of_units_is_their_slices():
    shapes = {"h.1.down.weight": (2, 5), "h.1.up.weight": (5, 2)}
    units = [neuron(0), neuron(3), neuron(1, "h.1.up.weight", 0)]
    mask = units_mask(units, shapes)
    assert mask.tensor("h.1.down.weight").tolist() == [[True, False, False, True, False]] * 2
    assert mask.tensor("h.1.up.weight").any(dim=1).tolist() == [False, True, False, False, False]
    assert units_mask([], shapes).count() == 0


def test_a_list_of_units_is_read_back(tmp_path):
    columns = {"belongs": [1, 0], "entropy": [0.25, 0.5]}
    table = unit_table([neuron(4), neuron(2)], columns)
    path = tmp_path / "units.csv"
    path.write_text(unit_csv(table, {"method": "lape", "repeat": 1}))
    found = read_unit_csv(path)
    assert found["index"].tolist() == [4, 2]
    assert found["belongs"].tolist() == [1, 0]
    assert set(found["method"]) == {"lape"}
    assert read_unit_csv(tmp_path / "none.csv") is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b"kind,layer\nneuron,1\n"]
)
def test_a_damaged_list_is_one_line(content, tmp_path):
    path = tmp_path / "units.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"MASK .*units\.csv: (is|has|expected) "):
        read_unit_csv(path)
