"""`import neurosurgery`: light, complete, and the examples of the parts do what they say."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import ROOT

import neurosurgery


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_the_import_is_light_until_a_name_is_used():
    code = (
        "import sys, neurosurgery\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'transformers'} & set(sys.modules)))\n"
        "neurosurgery.ModelConfig\n"
        "print('torch' in sys.modules)\n"
        "from neurosurgery import ParameterMask\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    assert python(code).splitlines() == ["[]", "False", "True False"]


def test_every_name_can_be_imported_and_is_listed():
    assert neurosurgery.__all__ == sorted(neurosurgery.__all__)
    for name in neurosurgery.__all__:
        found = getattr(neurosurgery, name)
        assert getattr(found, "__name__", name) == name
        assert name in dir(neurosurgery)


def test_every_name_is_taken_from_where_it_is_defined():
    """The list says where a reader finds it."""
    stub = (ROOT / "neurosurgery" / "__init__.pyi").read_text()
    found = re.findall(r"from \.([\w.]+) import (\w+) as \2\n", stub)
    assert {name for _, name in found} == set(neurosurgery.__all__)
    for module, name in found:
        assert getattr(neurosurgery, name).__module__ == f"neurosurgery.{module}"


def test_no_name_is_that_of_a_folder():
    """Python would put the folder in the name's place when it is imported."""
    folders = {path.name for path in (ROOT / "neurosurgery").iterdir()}
    assert not folders & set(neurosurgery.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        neurosurgery.nothing  # noqa: B018


def examples_of_the_parts() -> list[tuple[str, list[str]]]:
    """Every block of Python with the lines that it prints, as the page says."""
    page = (ROOT / "docs" / "PARTS.md").read_text(encoding="utf-8")
    pattern = r"^```python\n(.*?)^```$\n\nIt prints\n\n(.*?)(?:\n\n|\n\Z)"
    return [
        (block, [line.strip() for line in printed.splitlines()])
        for block, printed in re.findall(pattern, page, re.DOTALL | re.MULTILINE)
    ]


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d\.\d\d", line)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_example_prints_what_it_says(place):
    block, printed = examples_of_the_parts()[place]
    assert len(block.splitlines()) <= 25
    lines = python(block).splitlines()
    for line, claimed in zip(lines, printed, strict=True):
        assert line.partition(":")[0] == claimed.partition(":")[0]
        assert numbers(line) == pytest.approx(numbers(claimed), abs=0.02)


def test_what_the_examples_show():
    """Without its math-specific weights the model loses math, without key heads its sums.

    Training what reads four heads teaches it new problems.
    """
    weights, heads, [[first, last]] = (
        [numbers(line) for line in printed] for _, printed in examples_of_the_parts()
    )
    (math, math_pruned), (story, story_pruned) = weights
    assert math_pruned - math > 3 * max(story_pruned - story, 0)
    assert math_pruned > 2 * math
    [[whole], [without_key], [without_weakest]] = heads
    assert whole == 1
    assert without_key < without_weakest - 0.3
    assert last < first - 1
