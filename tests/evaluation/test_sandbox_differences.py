"""Whatever CPython runs, the sandbox runs with the same number, or it is `unsupported`.

The programs are our own; CPython runs them in a process of its own, and only here.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from programs import solution

from neurosurgery.evaluation.outcomes import (
    FAILED,
    MEMORY_LIMIT,
    NO_ANSWER,
    RAN,
    SYNTAX_ERROR,
    TIME_LIMIT,
    UNSUPPORTED,
)
from neurosurgery.evaluation.program_text import LONGEST
from neurosurgery.evaluation.sandbox import Sandbox

CPYTHON = """
import contextlib, io, json, pathlib, runpy, sys, warnings
warnings.simplefilter("ignore")
found = {}
file = pathlib.Path(sys.argv[1]) / "program.py"
for name, text in json.load(sys.stdin).items():
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            file.write_text(text, encoding="utf-8")
            found[name] = float(runpy.run_path(str(file), run_name="__main__")["solution"]())
    except SyntaxError:
        found[name] = "syntax"
    except Exception as error:
        found[name] = type(error).__name__
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as found:
        yield found


LONG = {
    **{f"{n} terms": solution("return " + " + ".join(["1"] * n)) for n in (150, 250, 600)},
    **{
        f"{n} branches": solution(
            "x = -1",
            "if x == 0:",
            "    return 0",
            *(line for i in range(n) for line in (f"elif x == {i}:", f"    return {i}")),
            "return 7",
        )
        for n in (150, 250, 600)
    },
    "many conditions": solution("return " + " and ".join(["1"] * 500)),
    "many calls": solution("return len('ab'" + ".strip()" * 250 + ")"),
    "many texts": solution("return len(" + " + ".join(["'a'"] * 300) + ")"),
    "many subscripts": solution("x = []", "x.append(x)", "return len(x" + "[0]" * 250 + ")"),
    "many signs": solution("return " + "-" * 250 + "1"),
    "many choices": solution("return " + "".join(f"{i} if 0 else " for i in range(250)) + "3"),
    "many lines": solution(*(f"x{i} = {i}" for i in range(2000)), "return x7"),
    "many entries": solution("return len([" + ", ".join(["1"] * 9000) + "])"),
    "many loops": solution(
        *("    " * i + f"for a{i} in [1]:" for i in range(18)), "    " * 18 + "return 1"
    ),
}

RAISED = {
    f"raise {error}({arguments})": solution(
        "try:",
        f"    raise {error}({arguments})",
        f"except {error} as error:",
        "    return len(error.args)",
    )
    for error in ("ValueError", "Exception", "KeyError", "RuntimeError")
    for arguments in ("1", "1, 2", "[1]", "'a', 'b'", "None", "2.5", "b'x'", "'a'", "")
}

OF_MODULES = """
sys.stdout.write('x')
sys.stderr.write('x')
len(str(sys.stdout.flush()))
math.sumprod([1], [2]) if hasattr(math, 'sumprod') else 2
re.sub('(a)', lambda m: m.group(1) * 2, 'a') == 'aa'
re.match('a', 'a').lastindex is None
int(re.match('(1)(2)?', '1').groups(default=0)[0])
len(json.dumps({1: 2}, default=str))
datetime.timedelta(hours=1) * 1.5 == datetime.timedelta(minutes=90)
datetime.timedelta(hours=5) / datetime.timedelta(hours=2)
datetime.timedelta(hours=5) // 2 == datetime.timedelta(minutes=150)
len(typing.List[int].__args__)
len(str(typing.Optional[typing.Tuple[int, ...]])) > 3
math.comb(5, 2) + math.isqrt(17) + math.prod([2, 3]) + math.gcd(12, 18, 24)
statistics.mean([1, 2])
fractions.Fraction(1, 2) + 1
functools.reduce(lambda a, b: a * b, [1, 2, 3], 5)
sum(itertools.accumulate([1, 2, 3]))
len(list(itertools.product([1, 2], repeat=2)))
collections.Counter('aab').most_common(1)[0][1]
decimal.Decimal('1.10') + decimal.Decimal('2.2')
random.Random(3).randint(5, 5)
string.ascii_lowercase.index('c')
heapq.nsmallest(1, [3, 1])[0]
copy.deepcopy([[1]])[0][0]
calendar.monthrange(2020, 2)[1]
""".strip().splitlines()

EXPRESSIONS = """
round(2.675, True)
round(2.5, False)
round(15, True)
round(2.345, 2) + round(-2.5) + round(1234.5, -2)
int('ff', 16) + int('0b11', 0) + int('11', base=2)
int('٣')
float('٣.٥')
pow(3, -1, 7)
pow(2, 5, mod=7)
pow(base=2, exp=3)
divmod(-7, 2)[0]
2 ** 100 % 97
(1 + 2j) ** 2 == -3 + 4j
abs(3 + 4j)
sum([1], start=10)
sum([[1], [2]], [])[1]
sorted([3, 1], key=lambda x: -x, reverse=True)[0]
list(enumerate('ab', start=5))[1][0]
list(zip('ab', [1, 2], strict=True))[1][1]
max([], default=4)
len({1, 2}.union([3], [4]))
len({1, 2, 3}.intersection([1], [1, 2]))
len(set().union(*[[1], [2]]))
len(frozenset([1]).union([2], [3]))
bytes([65])[0]
len(b'a,b'.split(b','))
[1, 2, 3][::-1][0]
'a-b'.partition('-')[2] == 'b'
'{:>8.2f}|{:,}|{!r}'.format(3.14159, 1234567, 'a') == '    3.14|1,234,567|' + repr('a')
'%05.1f %s %d%%' % (2.25, 'a', 5) == '002.2 a 5%'
f'{1234567.891:,.2f}' == '1,234,567.89'
f'{255:#x}{5:+d}{0.256:.1%}' == '0xff+525.6%'
f'{1.5!r:>5}' == '  1.5'
object() is not None
isinstance(True, (int, float))
len.__name__ == 'len'
hasattr([], 'append')
hasattr('a', 'upper') and not hasattr('a', 'foo')
getattr([], 'append', None) is not None
getattr(5, 'foo', 3)
(lambda *a, b=2, **c: len(a) + b + len(c))(1, 2, d=3)
(n := 5) + n
1 < 2 < 3
[*range(3), *{4}][3]
{**{'a': 1}, 'b': 2}['b']
next(iter([5]))
next(map(int, '12'))
next(zip([1], [2]))[0]
next(enumerate([5]))[1]
next(reversed([1]))
next(filter(None, [0, 3]))
next(x for x in [1, 5] if x > 2)
next((x for x in [] if x), 7)
next(x for x in itertools.count() if x > 5)
next(filter(lambda x: x > 5, itertools.count()))
next(map(lambda x: 1 / x, [1, 0]))
list(itertools.islice((x for x in itertools.count()), 3))[2]
any(1 / x for x in [1, 0])
all(1 / x > 2 for x in [1, 0])
any(map(lambda x: 1 / x, [1, 0]))
1 in (1 / x for x in [1, 0])
isinstance(map(int, '1'), list)
type(x for x in [1]).__name__ == 'generator'
bool(x for x in []) + bool(map(int, []))
len(str(x for x in [1])) > 10
""".strip().splitlines()

MODULES = (
    "calendar collections copy datetime decimal fractions functools heapq itertools json math "
    "random re statistics string sys typing"
).split()


def expression(text: str) -> str:
    imports = "".join(f"import {name}\n" for name in MODULES if f"{name}." in text)
    return solution(f"return {text}", first=imports)


def of_class(name: str, arguments: str, value: str, *use: str) -> str:
    first = f"class B:\n    def {name}(self{arguments}):\n        return {value}\n"
    return solution(*use[:-1], f"return {use[-1]}", first=first)


SPECIAL = {
    name: of_class(name, *rest)
    for name, *rest in [
        ("__lt__", ", o", "True", "sorted([B(), B()]) is not None"),
        ("__ge__", ", o", "True", "B() >= B()"),
        ("__ne__", ", o", "False", "B() != 5"),
        ("__eq__", ", o", "True", "B() != 5"),
        ("__bool__", "", "False", "1 if B() else 2"),
        ("__len__", "", "0", "1 if B() else 2"),
        ("__hash__", "", "3", "hash(B())"),
        ("__call__", ", x", "x", "B()(3)"),
        ("__getitem__", ", i", "[1, 2][i]", "sum(B())"),
        ("__contains__", ", i", "False", "3 in B()"),
        ("__iter__", "", "iter([1, 2])", "sum(B())"),
        ("__reversed__", "", "iter([3])", "list(reversed(B()))[0]"),
        ("__float__", "", "4.0", "math.sqrt(B()) if 0 else B()"),
        ("__index__", "", "1", "[1, 2][B()]"),
        ("__int__", "", "3", "int(B())"),
        ("__round__", ", n=None", "3", "round(B())"),
        ("__neg__", "", "3", "-B()"),
        ("__format__", ", f", "'4'", "int(f'{B()}')"),
        ("__str__", "", "'4'", "int(f'{B()}')"),
        ("__getattr__", ", n", "3", "B().foo"),
        ("__getattribute__", ", n", "3", "B().foo"),
        ("__setattr__", ", n, v", "None", "b = B()", "b.x = 1", "len(vars(b)) if 0 else 1"),
        ("__add__", ", o", "3", "B() + 1"),
        ("__radd__", ", o", "3", "1 + B()"),
        ("__iadd__", ", o", "3", "b = B()", "b += 1", "b"),
        ("__matmul__", ", o", "3", "B() @ B()"),
        ("__imatmul__", ", o", "3", "b = B()", "b @= 1", "b"),
        ("__complex__", "", "3j", "complex(B()).imag"),
        ("__bytes__", "", "b'a'", "len(bytes(B()))"),
        ("__class_getitem__", ", i", "3", "1 if B[int] else 2"),
    ]
}

OTHERS = {
    "a generator used twice": solution("g = (x for x in [1, 2])", "a = sum(g)", "return sum(g)"),
    "a map used twice": solution("g = map(int, '12')", "a = sum(g)", "return sum(g)"),
    "a zip used twice": solution("g = zip([1], [2])", "a = list(g)", "return len(list(g))"),
    "a rest": solution("g = (x for x in [1, 2])", "for x in g:", "    break", "return sum(g)"),
    "a used one in a loop": solution(
        "g = zip([1], [2])",
        "n = 0",
        "for i in range(2):",
        "    for a, b in g:",
        "        n += a + b",
        "return n",
    ),
    "a generator of a changed name": solution(
        "n = 1", "g = (x * n for x in [1, 2])", "n = 10", "return sum(g)"
    ),
    "a map that does something": solution("a = []", "map(a.append, [1])", "return len(a)"),
    "a generator asked": solution("g = (x for x in [])", "return 1 if g else 2"),
    "a loop that ends": solution("for x in (1 / y for y in [1, 0]):", "    return x", "return 0"),
    "an endless count": solution(
        "for i, x in enumerate(itertools.count(5)):",
        "    if i > 3:",
        "        return x",
        first="import itertools\n",
    ),
    "a function with an attribute": solution(
        "f()", "return f.n", first="def f():\n    f.n += 1\nf.n = 0\n"
    ),
    "a function's name": solution("def f(): pass", "return len(f.__name__)"),
    "a star import": solution("return sqrt(4)", first="from math import *\n"),
    "output of sys": solution("stdout.write('a')", "return 1", first="from sys import stdout\n"),
    "an alias of a type": solution(
        "return f([1])",
        first="from typing import List\nX = List[int]\ndef f(x: X) -> int:\n    return x[0]\n",
    ),
    "an ordered dataclass": solution(
        "return P(1) < P(2)",
        first="from dataclasses import dataclass\n@dataclass(order=True)\nclass P:\n    x: int\n",
    ),
    "a descriptor": solution(
        "return B.x.n",
        first="class D:\n    def __set_name__(self, o, n):\n        self.n = 5\n"
        "class B:\n    x = D()\n",
    ),
    "an object made by hand": solution(
        "return B(3).n",
        first="class B:\n    def __new__(cls, n):\n        o = super().__new__(cls)\n"
        "        o.n = n\n        return o\n",
    ),
    "yield": solution("return sum(f())", first="def f():\n    yield 1\n    yield 2\n"),
    "match": solution("match [1, 2]:", "    case [a, b]:", "        return a + b"),
    "with": solution(
        "with W() as w:",
        "    return 3",
        first="class W:\n    def __enter__(self):\n        return 1\n"
        "    def __exit__(self, *a):\n        pass\n",
    ),
    "nonlocal": solution("n = 0", "def f():", "    nonlocal n", "    n += 1", "f()", "return n"),
    "global": solution("global g", "g = 4", "return g"),
    "raise from": solution(
        "try:", "    raise ValueError('x') from KeyError('a')", "except ValueError:", "    return 1"
    ),
    "finally": solution("try:", "    return 1", "finally:", "    return 2"),
    "assert": solution("try:", "    assert 0, 5", "except AssertionError:", "    return 1"),
    "async": solution(
        "return asyncio.run(f())", first="import asyncio\nasync def f():\n    return 3\n"
    ),
}

RUN_BY_CPYTHON = (
    LONG
    | RAISED
    | {text: expression(text) for text in (*OF_MODULES, *EXPRESSIONS)}
    | SPECIAL
    | OTHERS
)


@pytest.fixture(scope="module")
def by_cpython(tmp_path_factory) -> dict[str, float | str]:
    done = subprocess.run(
        [sys.executable, "-c", CPYTHON, tmp_path_factory.mktemp("programs")],
        input=json.dumps(RUN_BY_CPYTHON),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", RUN_BY_CPYTHON)
def test_the_same_number_or_unsupported(name, sandbox, by_cpython):
    assert isinstance(by_cpython[name], float), "expected a program that CPython runs"
    run = sandbox.run(RUN_BY_CPYTHON[name])
    if run.outcome == RAN:
        assert run.value == by_cpython[name]
    else:
        assert (run.outcome, run.value) == (UNSUPPORTED, None), run
        assert run.reason


RUNS = {
    "round(2.675, True)": 2.7,
    "pow(2, 10, 1000)": 24,
    "sum(x * y for x, y in zip([1, 2], [3, 4]))": 11,
    "sum(map(int, '123'))": 6,
    "max(len(word) for word in ['a', 'bb'])": 2,
    "sorted(zip([2, 1], 'ab'))[0][0]": 1,
    "dict(zip('ab', [1, 2]))['b']": 2,
    "len(list(filter(lambda x: x > 1, [1, 2, 3])))": 2,
    "int(''.join(reversed('12')))": 21,
    "int(''.join(str(x) for x in [1, 2]))": 12,
    "any(x > 1 for x in [1, 2]) + all(map(bool, [1, 0]))": 1,
    "[list(row) for row in zip(*[[1, 2], [3, 4]])][0][1]": 3,
    "[i for i, x in enumerate('ab', start=1)][1]": 2,
    "sum(i * x for i, x in enumerate(reversed([1, 2, 3])))": 4,
    "min(enumerate([3, 1]), key=lambda pair: pair[1])[0]": 1,
    "sum(1 for n in range(2, 30) if all(n % d for d in range(2, n)))": 10,
    "getattr('a', 'foo') if 0 else 5": 5,
}


@pytest.mark.parametrize("text", RUNS)
def test_ordinary_uses_of_iterators_run(text, sandbox):
    """What is unsupported must not grow: these are what models write."""
    assert sandbox.run(solution(f"return {text}")) == (RAN, RUNS[text], "")


RUNNING = {
    "unpacked": (solution("a, b = map(int, '12')", "return a * 10 + b"), 12),
    "named and used once": (solution("digits = map(int, '12')", "return sum(digits)"), 3),
    "a loop over one": (
        solution(
            "pairs = zip([1, 2], [3, 4])",
            "n = 0",
            "for a, b in pairs:",
            "    n += a * b",
            "return n",
        ),
        11,
    ),
    "a loop that is left": (
        solution("for i, x in enumerate([4, 5]):", "    if x == 5:", "        return i"),
        1,
    ),
    "names of its own": (
        solution("return len(zip([1]))", first="def zip(x):\n    return [x, x]\n"),
        2,
    ),
    "a class with operators": (
        solution(
            "return (P(1) + P(2)).x",
            first="class P:\n    def __init__(self, x):\n        self.x = x\n"
            "    def __add__(self, other):\n        return P(self.x + other.x)\n",
        ),
        3,
    ),
}


@pytest.mark.parametrize("name", RUNNING)
def test_ordinary_programs_with_iterators_run(name, sandbox):
    text, value = RUNNING[name]
    assert sandbox.run(text) == (RAN, value, "")


NOT_RUN = {
    "return outside": ("return 3\n", SYNTAX_ERROR),
    "return in a class": ("class A:\n    return 3\n", SYNTAX_ERROR),
    "yield outside": ("yield 3\n", SYNTAX_ERROR),
    "break outside": (solution("break", "return 1"), SYNTAX_ERROR),
    "break in an else": (
        solution("for i in [1]:", "    pass", "else:", "    break", "return 1"),
        SYNTAX_ERROR,
    ),
    "local and global": (solution("x = 1", "global x", "return x"), SYNTAX_ERROR),
    "nothing to be nonlocal": (solution("nonlocal zz", "return 1"), SYNTAX_ERROR),
    "an argument twice": (f"def f(a, a): pass\n{solution('return 1')}", SYNTAX_ERROR),
    "a keyword twice": (solution("print(sep='', sep='')", "return 1"), SYNTAX_ERROR),
    "two stars": (solution("a, *b, *c = [1, 2]", "return 1"), SYNTAX_ERROR),
    "except first": (
        solution("try:", "    pass", "except:", "    pass", "except ValueError:", "    return 1"),
        SYNTAX_ERROR,
    ),
    "Python 2": (solution("print 'a'", "return 1"), SYNTAX_ERROR),
    "a fence": ("```python\ndef solution():\n    return 1\n```\n", SYNTAX_ERROR),
    "prose after it": (f"{solution('return 1')}This is the answer.\n", SYNTAX_ERROR),
    "quotes of a word processor": (solution("return len(\u2018a\u2019)"), SYNTAX_ERROR),
    "brackets without end": (solution("return " + "(" * 300), SYNTAX_ERROR),
    "a wrong type": (solution("return 'a' - 1"), FAILED),
    "a wrong order": (solution("return [1] < 'a'"), FAILED),
    "no number": (solution("return int('seven')"), FAILED),
    "a message of its own": (solution("raise TypeError('* for @: x and y')"), FAILED),
    "a wrong operator": (solution("x = {}", "x += 1", "return 1"), FAILED),
    "an attribute of a number": (solution("x = 5", "x.a = 1", "return 1"), FAILED),
    "a class without the operator": (
        solution("return P() < P()", first="class P:\n    pass\n"),
        FAILED,
    ),
    "an error beside an iterator": (
        solution("x = any(y for y in [1])", "return 1 / 0"),
        FAILED,
    ),
    "an error in a sum": (solution("return sum(1 / x for x in [1, 0])"), FAILED),
    "nothing returned": (solution("x = any(y for y in [1])"), NO_ANSWER),
    "an endless loop": (solution("x = [y for y in [1]]", "while True: pass"), TIME_LIMIT),
    "too much": (solution("x = sum(y for y in [1])", "return len([0] * 10 ** 9)"), MEMORY_LIMIT),
}


@pytest.mark.parametrize("name", NOT_RUN)
def test_what_cpython_does_not_run_is_the_models_fault(name, sandbox):
    text, outcome = NOT_RUN[name]
    assert sandbox.run(text).outcome == outcome


DEEP = {
    "signs": "-" * 100_000 + "1",
    "attributes": "a" + ".a" * 50_000,
    "calls": "a" + "()" * 50_000,
    "lambdas": "lambda: " * 20_000 + "1",
    "powers": "2**" * 50_000 + "1",
    "terms": "1+" * 100_000 + "1",
    "branches": "if 1: pass\n" + "elif 1: pass\n" * 15_000,
    "long": "x = (\n" + "1 +\n" * (LONGEST // 4) + "1)",
}


@pytest.mark.parametrize("name", DEEP)
def test_texts_that_are_too_deep_to_read_blame_nobody(name, sandbox):
    assert sandbox.run(DEEP[name] + "\n" + solution("return 1")).outcome == UNSUPPORTED
    assert sandbox.run(solution("return 3")).value == 3
