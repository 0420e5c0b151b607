"""The sandbox computes what CPython computes."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import solution

from neurosurgery.evaluation.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as found:
        yield found


def test_prices_are_rounded_as_by_cpython(sandbox):
    """Halves of a cent, where a number times 100 is rounded to another side than the number."""
    for factor in (0.05, 0.5, 1.25, 1.5, 2.5):
        program = solution(
            "result = 0",
            "for cents in range(101, 6000):",
            f"    result = result * 31 + round(round(cents / 100 * {factor}, 2) * 100)",
            "    result = result % 1000003",
            "return result",
        )
        expected = 0
        for cents in range(101, 6000):
            expected = expected * 31 + round(round(cents / 100 * factor, 2) * 100)
            expected %= 1000003
        assert sandbox.run(program).value == expected


NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6),
    st.integers(-(10**6), 10**6).map(lambda n: n / 100),
    st.integers(-(10**6), 10**6).map(lambda n: n / 8),
    st.floats(-1e12, 1e12, allow_nan=False),
)


@settings(max_examples=300, deadline=None)
@given(NUMBERS, st.one_of(st.none(), st.integers(-4, 20)))
def test_rounding(sandbox, number, digits):
    run = sandbox.run(solution(f"return round({number!r}, {digits})"))
    assert run.value == float(round(number, digits))


FUNCTIONS = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b,
    "a // b": lambda a, b: a // b,
    "a % b": lambda a, b: a % b,
    "divmod(a, b)[1]": lambda a, b: divmod(a, b)[1],
    "abs(a) ** 0.5": lambda a, _: abs(a) ** 0.5,
    "a ** 3": lambda a, _: a**3,
    "int(a)": lambda a, _: int(a),
    "round(a)": lambda a, _: round(a),
    "sum([a, b, a])": lambda a, b: a + b + a,
    "float(str(a))": lambda a, _: float(str(a)),
    "float(f'{a:.2f}')": lambda a, _: float(f"{a:.2f}"),
    "float('%.1f' % a)": lambda a, _: float(f"{a:.1f}"),
    "float(Decimal(a) * 2)": lambda a, _: float(Decimal(a) * 2),
    "math.sqrt(abs(a))": lambda a, _: math.sqrt(abs(a)),
    "math.floor(a)": lambda a, _: math.floor(a),
    "math.ceil(a)": lambda a, _: math.ceil(a),
    "math.fmod(a, b)": math.fmod,
    "math.log10(abs(a) + 1)": lambda a, _: math.log10(abs(a) + 1),
    "math.hypot(a, b)": math.hypot,
    "math.fsum([a, b])": lambda a, b: math.fsum([a, b]),
}


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(FUNCTIONS)), NUMBERS, NUMBERS.filter(bool))
def test_expressions(sandbox, expression, a, b):
    first = f"import math\nfrom decimal import Decimal\na = {a!r}\nb = {b!r}\n"
    run = sandbox.run(solution(f"return {expression}", first=first))
    expected = float(FUNCTIONS[expression](a, b))
    if expression.startswith("math."):
        assert run.value == pytest.approx(expected, rel=1e-15)
    else:
        assert run.value == expected
