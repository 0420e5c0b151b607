"""`import neurosurgery`: light, complete, and the README's example does what it says."""

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
        assert getattr(neurosurgery, name).__name__ == name
        assert name in dir(neurosurgery)
    # Nothing is loaded that is not announced.
    assert set(neurosurgery._HOME) == set(neurosurgery.__all__)


def test_type_checkers_see_the_same_names():
    source = (ROOT / "neurosurgery" / "__init__.py").read_text()
    block = source.partition("if TYPE_CHECKING:\n")[2].partition("\n__version__")[0]
    pairs = re.findall(r"from neurosurgery\.([\w.]+) import ([\w, ]+)", block)
    seen = {name: module for module, names in pairs for name in names.split(", ")}
    assert seen == neurosurgery._HOME


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        neurosurgery.nothing  # noqa: B018


def test_the_example_of_the_readme():
    """Without its math-specific weights the model loses math, and hardly stories."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert len(block.splitlines()) <= 25
    lines = python(block).splitlines()
    losses = [[float(number) for number in re.findall(r"\d\.\d\d", line)] for line in lines]
    (math, math_pruned), (story, story_pruned) = losses
    assert math_pruned - math > 3 * max(story_pruned - story, 0)
    assert math_pruned > 2 * math
    printed = readme.partition("It prints\n\n")[2].split("\n\n")[0].splitlines()
    for line, claimed in zip(lines, printed, strict=True):
        assert line.partition(":")[0] == claimed.strip().partition(":")[0]
        for found, told in zip(
            re.findall(r"\d\.\d\d", line), re.findall(r"\d\.\d\d", claimed), strict=True
        ):
            assert float(found) == pytest.approx(float(told), abs=0.02)
