"""docs/PYTHON.md: every block runs, in order, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
from conftest import ROOT

PAGE = ROOT / "docs" / "PYTHON.md"
BLOCK = r"^```python\n(.*?)^```$(?:\n\nIt prints\n\n```text\n(.*?)^```$)?"
NUMBER = r"[-+]?(?:\d[\d,]*)?\.?\d+(?:e-?\d+)?"


def blocks() -> list[tuple[str, str]]:
    found = re.findall(BLOCK, PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [(code, told) for code, told in found]


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(NUMBER, text)]


def words(text: str) -> list[str]:
    """Everything but numbers and the width of columns."""
    return re.sub(r"[-−+.\d,]+", " ", text).split()


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> list[str]:
    """What every block has printed; the page is one session."""
    session: dict[str, object] = {}
    found = []
    with contextlib.chdir(tmp_path_factory.mktemp("page")):
        for number, (code, _) in enumerate(blocks()):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, f"{PAGE.name}, block {number}", "exec"), session)
            found.append(out.getvalue())
    return found


@pytest.mark.whole
@pytest.mark.parametrize("place", range(len(blocks())))
def test_a_block_prints_what_the_page_says(printed, place):
    _, told = blocks()[place]
    assert words(printed[place]) == words(told)
    # A document of sixty is .017; a mask's count depends on the last bits of a norm.
    assert numbers(printed[place]) == pytest.approx(numbers(told), abs=0.04, rel=0.02)


@pytest.mark.whole
def test_the_mask_in_plain_hooks_is_equal_and_so_is_the_long_version(printed):
    by_hand, step_by_step = (
        next(place for place, (code, _) in enumerate(blocks()) if text in code)
        for text in ("register_forward_pre_hook", "collect_activation_norms")
    )
    assert printed[by_hand] == "True\n"
    assert printed[step_by_step].endswith("True\n")


def test_the_ten_lines_are_about_ten():
    code, _ = blocks()[0]
    lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 10
