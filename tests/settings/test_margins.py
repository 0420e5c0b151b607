"""How large a change is small: the values of --margin."""

from __future__ import annotations

import pytest

from neurosurgery.common.errors import UsageError
from neurosurgery.settings.margins import Margins


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([".05"], Margins(0.05)),
        (["1"], Margins(1.0)),
        (["race=.1"], Margins(Margins.default, {"race": 0.1})),
        (["race=.1", ".05", "own=1e-3"], Margins(0.05, {"race": 0.1, "own": 0.001})),
        # Only the last equals sign is ours.
        (["a=b=.1"], Margins(Margins.default, {"a=b": 0.1})),
    ],
)
def test_values(values, expected):
    assert Margins.parse(values) == expected


def test_a_task_has_its_own_margin_or_that_of_all():
    margins = Margins.parse([".05", "race=.1"])
    assert (margins.of("race"), margins.of("mmlu")) == (0.1, 0.05)
    assert Margins().of("race") == 0.03


@pytest.mark.parametrize(
    "values",
    [
        ["0"], ["-1"], ["1.01"], ["nan"], ["inf"], ["ten"], ["race"], ["race="], ["=.1"],
        ["race=nan"], ["race=2"], [".1", ".1"], ["race=.1", "race=.1"], ["race=.1=.2="],
    ],
)  # fmt: skip
def test_bad_values_are_refused(values):
    with pytest.raises(UsageError, match=r"--margin .*expected a number"):
        Margins.parse(values)


def test_a_margin_for_a_task_that_is_not_asked_is_refused():
    margins = Margins.parse(["race=.1", "mlmu=.2"])
    margins.check(["race", "mlmu"])
    with pytest.raises(UsageError, match="--margin mlmu: expected one of the tasks: race, mmlu"):
        margins.check(["race", "mmlu"])
