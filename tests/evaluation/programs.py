"""Programs for the sandbox: harmless ones, faulty ones, and ones that try to get out."""

from __future__ import annotations

from neurosurgery.evaluation.outcomes import (
    FAILED,
    FORBIDDEN,
    MEMORY_LIMIT,
    NO_ANSWER,
    RAN,
    SYNTAX_ERROR,
    TIME_LIMIT,
    UNSUPPORTED,
)

SECRET = "NEUROSURGERY_SECRET"
"""A variable of the test's environment that no program may see."""


def solution(*lines: str, first: str = "") -> str:
    """A program whose `solution` has these lines."""
    body = "".join(f"    {line}\n" for line in lines)
    return f"{first}def solution():\n{body}"


ORDINARY = {
    "sum": (solution("a = 3", "b = 4", "result = a + b", "return result"), 7),
    "float": (solution("return 0.1 + 0.2"), 0.1 + 0.2),
    "division": (solution("return 7 / 2"), 3.5),
    "text": (solution("return '12.5'"), 12.5),
    "true": (solution("return True"), 1),
    "math": (solution("return math.ceil(2.1) + math.lcm(4, 6)", first="import math\n"), 15),
    "decimal": (solution("return Decimal('0.5')", first="from decimal import Decimal\n"), 0.5),
    "days": (
        solution(
            "return (date(2020, 3, 1) - date(2020, 2, 1)).days", first="from datetime import date\n"
        ),
        29,
    ),
    "comprehension": (solution("return sum([n * n for n in range(4)])"), 14),
    "class": (
        solution(
            "return Box(5).size",
            first="class Box:\n    def __init__(self, size):\n        self.size = size\n",
        ),
        5,
    ),
    "lambda": (solution("return (lambda x: x + 1)(2)"), 3),
    "recursion": (solution("return f(20)", first="def f(n):\n    return n and f(n - 1) + 1\n"), 20),
    "caught": (solution("try:", "    1 / 0", "except ZeroDivisionError:", "    return 9"), 9),
    "windows": ("def solution():\r\n    return 3\r\n", 3),
    "tabs": ("def solution():\n\treturn 3\n", 3),
    "printing": (solution("print('x')", "return 3"), 3),
    "long loop": (
        solution("n = 0", "for i in range(100000):", "    n += i", "return n"),
        4999950000,
    ),
    "clock": (
        solution("return datetime.now().year", first="from datetime import datetime\n"),
        2000,
    ),
    "sleep": (solution("time.sleep(1000)", "return 1", first="import time\n"), 1),
}
"""Text and value."""

FAULTY = {
    "bracket": ("def solution(:\n    return 1\n", SYNTAX_ERROR),
    "prose": ("The answer is 7.", SYNTAX_ERROR),
    "unfinished": ("def solution():\n    a = (1 +", SYNTAX_ERROR),
    "unfinished body": ("def solution():", SYNTAX_ERROR),
    "null byte": ("def solution():\n    return 1\0\n", SYNTAX_ERROR),
    "half a character": ("def solution():\n    return '\ud800'\n", SYNTAX_ERROR),
    "deep source": ("x = " + "[" * 100000 + "]" * 100000, SYNTAX_ERROR),
    "empty": ("", NO_ANSWER),
    "no function": ("result = 3", NO_ANSWER),
    "other name": ("def answer():\n    return 3\n", NO_ANSWER),
    "an argument": ("def solution(n):\n    return n\n", FAILED),
    "nothing returned": (solution("x = 1"), NO_ANSWER),
    "words": (solution("return 'seven'"), NO_ANSWER),
    "a list": (solution("return [1]"), NO_ANSWER),
    "itself": (solution("return solution"), NO_ANSWER),
    "complex": (solution("return 1j"), NO_ANSWER),
    "too large": (solution("return 10 ** 400"), NO_ANSWER),
    "name": (solution("return apples"), FAILED),
    "zero": (solution("return 1 / 0"), FAILED),
    "types": (solution("return 1 + 'a'"), FAILED),
    "own attribute": (solution("return A().size", first="class A:\n    pass\n"), FAILED),
    "own error": (solution("raise ValueError('no')"), FAILED),
    "own timeout": (solution("raise TimeoutError('mine')"), FAILED),
    "top level": (f"x = 1 / 0\n{solution('return 1')}", FAILED),
    "numpy": (solution("return np.mean([1, 2])", first="import numpy as np\n"), UNSUPPORTED),
    "sympy": (solution("return 1", first="from sympy import symbols\n"), UNSUPPORTED),
    "fractions": (solution("return 1", first="from fractions import Fraction\n"), UNSUPPORTED),
    "statistics": (solution("return 1", first="import statistics\n"), UNSUPPORTED),
    "part of a module": (
        solution("return 1", first="from collections import OrderedDict\n"),
        UNSUPPORTED,
    ),
    "method": (solution("return 'a'.translate({})"), UNSUPPORTED),
    "yield": (solution("return sum(f())", first="def f():\n    yield 1\n"), UNSUPPORTED),
    "del": (solution("x = [1]", "del x[0]", "return 1"), UNSUPPORTED),
    "called by its hidden name": (solution("return [1, 2].__len__()"), UNSUPPORTED),
    "clock time": (
        solution(
            "return datetime.strptime('10:30', '%H:%M').minute",
            first="from datetime import datetime\n",
        ),
        UNSUPPORTED,
    ),
    "wrong clock time": (
        solution(
            "return datetime.strptime('25:30', '%H:%M').minute",
            first="from datetime import datetime\n",
        ),
        FAILED,
    ),
    "no module of Python": (solution("return 1", first="import foo\n"), FAILED),
    "nothing of math": (solution("return math.mean([1])", first="import math\n"), FAILED),
    "no part of math": (solution("return 1", first="from math import foo\n"), FAILED),
    "to do": (solution("raise NotImplementedError('TODO')"), FAILED),
    "a message of its own": (solution("raise ValueError(\"name 'sum' is not defined\")"), FAILED),
    "a message of a module": (solution("raise ValueError(\"No module named 'os'\")"), FAILED),
    "a limit of its own": (solution("raise TimeoutError('limit exceeded')"), FAILED),
}
"""Text and outcome."""


def _importing(module: str) -> tuple[str, str]:
    return solution("return 1", first=f"import {module}\n"), FORBIDDEN


_LOOP = "while True: pass"

ATTACKS = {
    # Files.
    "open": (solution("return len(open('/etc/passwd').read())"), FORBIDDEN),
    "write": (solution("open('{place}', 'w').write('x')", "return 1"), FORBIDDEN),
    "path": (
        solution("Path('{place}').write_text('x')", "return 1", first="from pathlib import Path\n"),
        FORBIDDEN,
    ),
    "path read": (
        solution(
            "return len(Path('/proc/self/environ').read_text())", first="from pathlib import Path\n"
        ),
        FORBIDDEN,
    ),
    "listdir": (solution("return len(os.listdir('/'))", first="import os\n"), FORBIDDEN),
    "unlink": (solution("os.remove('{victim}')", "return 1", first="import os\n"), FORBIDDEN),
    "tempfile": _importing("tempfile"),
    "shutil": _importing("shutil"),
    "sqlite3": _importing("sqlite3"),
    # The environment and the process.
    "environment": (solution(f"return os.environ['{SECRET}']", first="import os\n"), FORBIDDEN),
    "getenv": (solution(f"return os.getenv('{SECRET}')", first="import os\n"), FORBIDDEN),
    "system": (solution("return os.system('touch {place}')", first="import os\n"), FORBIDDEN),
    "popen": (solution("return os.popen('id').read()", first="import os\n"), FORBIDDEN),
    "fork": (solution("return os.fork()", first="import os\n"), FORBIDDEN),
    "kill": (solution("os.kill(os.getppid(), 9)", first="import os\n"), FORBIDDEN),
    "exit": (solution("os._exit(0)", first="import os\n"), FORBIDDEN),
    "sys exit": (solution("sys.exit(0)", first="import sys\n"), FORBIDDEN),
    "modules": (solution("return len(sys.modules)", first="import sys\n"), FORBIDDEN),
    "frame": (
        solution("return sys._getframe(1).f_locals['answer']", first="import sys\n"),
        FORBIDDEN,
    ),
    "quit": (solution("quit()"), FORBIDDEN),
    "input": (solution("return int(input())"), FORBIDDEN),
    **{
        name: _importing(name)
        for name in (
            "signal socket subprocess ctypes threading multiprocessing urllib.request importlib "
            "builtins gc inspect pickle site pydantic_monty requests http.client"
        ).split()
    },
    # The interpreter.
    "__import__": (solution("return __import__('os').getpid()"), FORBIDDEN),
    "import in eval": (solution("return eval(\"__import__('os').getpid()\")"), FORBIDDEN),
    "system in exec": (
        solution("exec('import os; os.system(\"touch {place}\")')", "return 1"),
        FORBIDDEN,
    ),
    "compile": (solution("return compile('1', 'a', 'eval')"), FORBIDDEN),
    "builtins": (solution("return __builtins__"), FORBIDDEN),
    "globals": (solution("return globals()['answer']"), FORBIDDEN),
    "class walk": (solution("return ().__class__.__bases__[0].__subclasses__()"), FORBIDDEN),
    "hidden walk": (solution("return getattr((), '__cl' + 'ass__')"), FORBIDDEN),
    "walk in a format": (solution("return '{0.__class__}'.format(1)"), FORBIDDEN),
    "subclasses": (solution("return type(()).__subclasses__()"), FORBIDDEN),
    "function globals": (solution("return solution.__globals__"), FORBIDDEN),
    "code object": (solution("return solution.__code__.co_consts"), FORBIDDEN),
    "the answer": (solution("return answer"), FAILED),
    "the document": (solution("return document['answer']"), FAILED),
    # Time.
    "loop": (solution(_LOOP), TIME_LIMIT),
    "loop outside": (_LOOP, TIME_LIMIT),
    "loop that catches": (
        solution(
            "while True:",
            "    try:",
            f"        {_LOOP}",
            "    except BaseException:",
            "        pass",
        ),
        TIME_LIMIT,
    ),
    "endless output": (solution("while True: print('x' * 100000)"), TIME_LIMIT),
    "endless count": (
        solution("return sum(itertools.count())", first="import itertools\n"),
        TIME_LIMIT,
    ),
    "endless sleep": (
        solution(
            "return asyncio.run(f())",
            first="import asyncio\nasync def f():\n    while True: await asyncio.sleep(1)\n",
        ),
        TIME_LIMIT,
    ),
    "factorial": (solution("return math.factorial(10 ** 7)", first="import math\n"), TIME_LIMIT),
    # Memory.
    "large list": (solution("return [1] * 10 ** 9"), MEMORY_LIMIT),
    "large text": (solution("return len('a' * 10 ** 10)"), MEMORY_LIMIT),
    "large power": (solution("return 9 ** 9 ** 9"), MEMORY_LIMIT),
    "large format": (solution("return len('%1000000000d' % 1)"), MEMORY_LIMIT),
    "doubling": (solution("x = [1]", "while True: x = x + x"), MEMORY_LIMIT),
    "generator bomb": (solution("return sum(1 for _ in range(10 ** 12))"), MEMORY_LIMIT),
    "nested generators": (
        solution("return sum(1 for a in range(10 ** 6) for b in range(10 ** 6))"),
        MEMORY_LIMIT,
    ),
    "memory that catches": (
        solution(
            "while True:",
            "    try:",
            "        x = [0] * 10 ** 9",
            "    except MemoryError:",
            "        pass",
        ),
        MEMORY_LIMIT,
    ),
    "large result": (
        f"def float(x):\n    return 'a' * 150000000\n{solution('return 1')}",
        MEMORY_LIMIT,
    ),
    # Depth.
    "recursion": (solution("return solution()"), MEMORY_LIMIT),
    "mutual recursion": (
        solution("return a()", first="def a():\n    return b()\ndef b():\n    return a()\n"),
        MEMORY_LIMIT,
    ),
    "lambda recursion": (solution("return f(1)", first="f = lambda n: f(n + 1)\n"), MEMORY_LIMIT),
    "deep comparison": (
        solution("x, y = [], []", "for i in range(10 ** 5): x, y = [x], [y]", "return x == y"),
        MEMORY_LIMIT,
    ),
    # What comes out.
    "own float": (f"float = lambda x: 'hello'\n{solution('return 3')}", NO_ANSWER),
    "deep result": (
        "def float(x):\n    r = []\n    for i in range(10 ** 5): r = [r]\n    return r\n"
        + solution("return 1"),
        NO_ANSWER,
    ),
    "cyclic result": (
        f"def float(x):\n    r = []\n    r.append(r)\n    return r\n{solution('return 1')}",
        NO_ANSWER,
    ),
    "huge number": (f"def float(x):\n    return 7 ** 100000\n{solution('return 1')}", NO_ANSWER),
    "regular expression": (
        solution("return re.match('(a+)+$', 'a' * 40 + 'b') is None", first="import re\n"),
        RAN,
    ),
}
"""Text, with the fields `place` (a file that must not appear) and `victim` (one that must stay)."""
