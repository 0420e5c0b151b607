"""What CPython makes of a program's text: its syntax tree is read, nothing of it is run.

The sandbox refuses texts that CPython takes, and does some things otherwise without an error: it
computes lazy iterators at once, as lists, and ignores some special methods. Both show in the tree.
"""

from __future__ import annotations

import ast
import symtable
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum

LONGEST = 250_000
"""Characters; a longer text is not read, so that a hostile one costs little."""

_OPERATORS = "add sub mul truediv floordiv mod divmod pow and or xor lshift rshift matmul".split()

_HONOURED = (
    "init str repr eq hash call getitem setitem delitem contains iter next int float index round "
    "abs neg pos invert floor ceil trunc enter exit post_init doc slots match_args"
).split()

_SPECIAL = frozenset(
    f"__{name}__" for name in (*_HONOURED, *_OPERATORS, *(f"r{name}" for name in _OPERATORS))
)
"""Names with underscores that mean in a class of the sandbox what they mean in CPython."""

_ORDINARY = frozenset("__init__ __str__ __repr__ __post_init__".split())
"""Special methods that no operator and no function of another type calls."""

_LAZY = frozenset("map filter zip enumerate reversed".split())
"""Built-in functions whose iterators are lists in the sandbox, like generator expressions."""

_TAKES_ALL = frozenset(
    "list tuple set frozenset dict sorted sum min max bytes bytearray print join extend update "
    "union intersection difference symmetric_difference fromkeys prod fsum reduce Counter deque "
    "OrderedDict".split()
)
"""Functions and methods that take an iterator to its end at once."""

_MAY_STOP = frozenset(
    "any all chain accumulate islice takewhile dropwhile groupby starmap compress filterfalse "
    "pairwise product permutations combinations zip_longest cycle tee batched".split()
)
"""Those that may leave a rest, which the sandbox has computed nevertheless."""

_ENDLESS = frozenset("count cycle repeat iter".split())

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LOOPS = (ast.For, ast.While, *_COMPREHENSIONS)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class _Use(IntEnum):
    """How a lazy iterator is used."""

    WHOLE = 0
    """To its end, at once: as in the sandbox."""
    MAY_STOP = 1
    """Perhaps not to its end: what the rest raises, or how long it takes, CPython never sees."""
    OTHERWISE = 2
    """In a way that tells it from a list."""


class TooDeepError(Exception):
    """A text is too long or nested too deeply to be read; CPython might run it."""


def python_tree(text: str) -> ast.Module | None:
    """The syntax tree of a program; None where CPython's parser refuses the text.

    Raises:
        TooDeepError: the text cannot be read.
    """
    if len(text) > LONGEST:
        raise TooDeepError
    with _reading():
        return ast.parse(text)
    return None


def is_refused(text: str, tree: ast.Module) -> bool:
    """Whether CPython parses a text and then refuses it: for `return` outside of a function, ….

    Raises:
        TooDeepError: the text cannot be read.
    """
    with _reading():
        symtable.symtable(text, "program", "exec")
        return any(_misplaced(tree))
    return True


@contextmanager
def _reading() -> Iterator[None]:
    """Pass over the block's end where CPython refuses the text."""
    with warnings.catch_warnings(), suppress(SyntaxError, ValueError):
        warnings.simplefilter("ignore")
        try:
            yield
        except (RecursionError, MemoryError):
            raise TooDeepError from None


def _misplaced(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that stand where CPython does not take them."""
    left: list[tuple[ast.AST, bool, bool, bool]] = [(tree, False, False, False)]
    while left:
        node, in_function, in_async, in_loop = left.pop()
        if isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) and not in_function:
            yield node
        if isinstance(node, ast.Await) and not in_async:
            yield node
        if isinstance(node, (ast.Break, ast.Continue)) and not in_loop:
            yield node
        if _is_malformed(node):
            yield node
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            in_function = not isinstance(node, ast.ClassDef)
            in_async, in_loop = isinstance(node, ast.AsyncFunctionDef), False
        for name, value in ast.iter_fields(node):
            repeats = isinstance(node, (ast.For, ast.AsyncFor, ast.While)) and name == "body"
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    left.append((child, in_function, in_async, in_loop or repeats))


def _is_malformed(node: ast.AST) -> bool:
    """What CPython finds wrong with one node only after it has parsed it."""
    if isinstance(node, ast.Call):
        names = [keyword.arg for keyword in node.keywords if keyword.arg is not None]
        return len(set(names)) < len(names)
    if isinstance(node, (ast.Tuple, ast.List)) and isinstance(node.ctx, ast.Store):
        return sum(isinstance(element, ast.Starred) for element in node.elts) > 1
    if isinstance(node, ast.Try):
        return any(handler.type is None for handler in node.handlers[:-1])
    return False


class Differences:
    """Where the sandbox may do otherwise than CPython, without an error that says so.

    Attributes:
        reason: what a program uses whose result in the sandbox is not CPython's; empty if nothing.
        operators: whether a class has special methods, so that an error of types may be ours.
        eager: the lines (first, last) of iterators of which CPython may compute less.
    """

    def __init__(self, tree: ast.Module) -> None:
        nodes = list(ast.walk(tree))
        self._parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
        self._loads = [n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        self._stores = Counter(_bound(nodes))
        special = set(_special_methods(nodes))
        self.operators = bool(special - _ORDINARY)
        self.reason = "".join(f"a class has {name}" for name in sorted(special - _SPECIAL)[:1])
        self.eager: list[tuple[int, int]] = []
        for node in nodes:
            if self._asks_for_attributes(node):
                self.reason = "asks which attributes an object has"
            if isinstance(node, ast.expr) and self._is_lazy(node):
                use = self._use(node)
                if use is _Use.OTHERWISE:
                    self.reason = "uses an iterator that is a list in the sandbox"
                elif use is _Use.MAY_STOP:
                    self.eager.append((node.lineno, node.end_lineno or node.lineno))

    def is_eager(self, lines: Sequence[int]) -> bool:
        """Whether a line stands in an iterator of which CPython may compute less."""
        return any(first <= line <= last for first, last in self.eager for line in lines)

    def _called(self, node: ast.AST) -> str | None:
        """The built-in function or the method that is called."""
        if not isinstance(node, ast.Call):
            return None
        if isinstance(node.func, ast.Attribute):
            return node.func.attr
        name = node.func.id if isinstance(node.func, ast.Name) else None
        return None if name in self._stores else name

    def _asks_for_attributes(self, node: ast.AST) -> bool:
        """Methods are no attributes of the sandbox's own types, and no error says so here."""
        name = self._called(node)
        return name == "hasattr" or (name == "getattr" and len(getattr(node, "args", ())) > 2)

    def _is_lazy(self, node: ast.expr) -> bool:
        if isinstance(node, ast.GeneratorExp):
            return True
        return isinstance(getattr(node, "func", None), ast.Name) and self._called(node) in _LAZY

    def _use(self, node: ast.expr) -> _Use:
        parent = self._parents[node]
        if isinstance(parent, ast.Call) and node is not parent.func:
            return self._argument(parent)
        if isinstance(parent, ast.comprehension) and node is parent.iter:
            owner = self._parents[parent]
            return self._use(owner) if isinstance(owner, ast.GeneratorExp) else self._endless(node)
        if isinstance(parent, ast.For) and node is parent.iter:
            return self._loop(parent, node)
        if isinstance(parent, ast.Assign) and len(parent.targets) == 1:
            return self._assigned(parent, parent.targets[0])
        if isinstance(parent, ast.Compare) and isinstance(parent.ops[-1], (ast.In, ast.NotIn)):
            return _Use.MAY_STOP if node is parent.comparators[-1] else _Use.OTHERWISE
        taken = isinstance(parent, (ast.Starred, ast.AugAssign, ast.YieldFrom))
        return _Use.WHOLE if taken else _Use.OTHERWISE

    def _argument(self, call: ast.Call) -> _Use:
        name = self._called(call)
        if isinstance(call.func, ast.Name) and name in _LAZY:
            return max(self._use(call), self._endless(call))
        if name in _TAKES_ALL:
            return self._endless(call)
        return _Use.MAY_STOP if name in _MAY_STOP else _Use.OTHERWISE

    def _loop(self, loop: ast.For, iterator: ast.expr) -> _Use:
        """A loop that can be left computes less of what the program itself computes."""
        computes = any(
            isinstance(node, ast.GeneratorExp) or self._called(node) in ("map", "filter")
            for node in ast.walk(iterator)
        )
        left = any(
            isinstance(node, (ast.Break, ast.Return, ast.Raise))
            for statement in loop.body
            for node in ast.walk(statement)
        )
        return _Use.MAY_STOP if computes and left else self._endless(iterator)

    def _endless(self, iterator: ast.expr) -> _Use:
        endless = any(self._called(node) in _ENDLESS for node in ast.walk(iterator))
        return _Use.MAY_STOP if endless else _Use.WHOLE

    def _assigned(self, assignment: ast.Assign, target: ast.expr) -> _Use:
        """An iterator that is given a name must be used once, and what it reads must not change."""
        if not isinstance(target, ast.Name):
            return _Use.OTHERWISE if isinstance(target, ast.Attribute) else _Use.WHOLE
        name = target.id
        uses = [node for node in self._loads if node.id == name]
        changed = [
            node.id
            for node in ast.walk(assignment.value)
            if isinstance(node, ast.Name) and self._stores[node.id] > 1
        ]
        if len(uses) != 1 or self._stores[name] != 1 or changed:
            return _Use.OTHERWISE
        if self._repeated(uses[0]) != self._repeated(assignment):
            return _Use.OTHERWISE
        return self._use(uses[0])

    def _repeated(self, node: ast.AST) -> list[ast.AST]:
        """The loops and functions that compute a node again and again."""
        found: list[ast.AST] = []
        while node in self._parents:
            node, child = self._parents[node], node
            if isinstance(node, ast.For) and child is node.iter:
                continue
            if isinstance(node, ast.comprehension) and child is node.iter:
                owner = self._parents[node]
                if isinstance(owner, _COMPREHENSIONS) and node is owner.generators[0]:
                    node = owner
                continue
            if isinstance(node, (*_LOOPS, *_FUNCTIONS)):
                found.append(node)
        return found


def _bound(nodes: list[ast.AST]) -> Iterator[str]:
    """The names that a program gives a meaning, once for each time."""
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg


def _special_methods(nodes: list[ast.AST]) -> Iterator[str]:
    """The names with underscores that the program's classes give a meaning."""
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                names = [getattr(statement, "name", "")]
                if isinstance(statement, ast.Assign):
                    names = [getattr(target, "id", "") for target in statement.targets]
                yield from (name for name in names if name.startswith("__") and name[-2:] == "__")
