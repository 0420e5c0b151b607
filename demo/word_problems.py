"""GSM8K-like word problems: 17 templates of one to three steps, with a chain of thought.

The difficulty is graded on purpose: from sums of small numbers to products of a two-digit number
in a chain of three steps, so that accuracy stays below 100 % and an intervention can move it in
both directions.
"""

from __future__ import annotations

import operator
import random
from dataclasses import dataclass

from demo.documents import Document, Span
from demo.vocabulary import ITEMS, NAMES, SHOPS

_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
_LARGEST = 500


@dataclass(frozen=True)
class Step:
    """One line of reasoning: `result = left operation right`, both operands named or literal."""

    result: str
    left: str
    operation: str
    right: str
    text: str


@dataclass(frozen=True)
class Template:
    """A word problem: its question, the ranges of its numbers and its steps."""

    name: str
    question: str
    numbers: dict[str, tuple[int, int]]
    steps: tuple[Step, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class WordProblem:
    """A problem with its numbers drawn, its reasoning in words, and a program that solves it."""

    key: str
    question: str
    reasoning: str
    program: str
    answer: int


TEMPLATES = (
    Template(
        "gain",
        "{A} has {a} {items}. {B} gives {A} {b} more {items}. How many {items} does {A} have now?",
        {"a": (12, 60), "b": (5, 39)},
        (Step("x", "a", "+", "b", "{A} has {sum} {items} now."),),
    ),
    Template(
        "lose",
        "{A} had {a} {items} and sold {b} of them at the {shop}. How many {items} are left?",
        {"a": (30, 99), "b": (5, 29)},
        (Step("x", "a", "-", "b", "There are {sum} {items} left."),),
    ),
    Template(
        "boxes",
        "There are {a} boxes at the {shop}. Each box holds {b} {items}. "
        "How many {items} are there?",
        {"a": (2, 9), "b": (2, 12)},
        (Step("x", "a", "*", "b", "The boxes hold {sum} {items}."),),
    ),
    Template(
        "share",
        "{A} shares {a} {items} equally among {b} friends. How many {items} does each friend get?",
        {"a": (4, 99), "b": (2, 9)},
        (Step("x", "a", "/", "b", "Each friend gets {sum} {items}."),),
    ),
    Template(
        "pallets",
        "A truck brings {a} crates to the {shop}. Each crate holds {b} {items}. "
        "How many {items} does the truck bring?",
        {"a": (11, 29), "b": (4, 9)},
        (Step("x", "a", "*", "b", "The truck brings {sum} {items}."),),
        weight=1.6,
    ),
    Template(
        "three_friends",
        "{A} has {a} {items}, {B} has {b} and {C} has {c}. How many {items} do they have together?",
        {"a": (5, 30), "b": (5, 30), "c": (5, 30)},
        (
            Step("x", "a", "+", "b", "{A} and {B} have {sum} {items}."),
            Step("y", "x", "+", "c", "With {C} they have {sum} {items}."),
        ),
    ),
    Template(
        "change",
        "{A} buys {a} {items} for {b} coins each and pays with {c} coins. "
        "How many coins does {A} get back?",
        {"a": (2, 6), "b": (2, 9), "c": (40, 99)},
        (
            Step("x", "a", "*", "b", "The {items} cost {sum} coins."),
            Step("y", "c", "-", "x", "{A} gets {sum} coins back."),
        ),
    ),
    Template(
        "more_than",
        "{A} has {a} {items}. {B} has {b} more than {A}. How many {items} do they have together?",
        {"a": (11, 40), "b": (3, 20)},
        (
            Step("x", "a", "+", "b", "{B} has {sum} {items}."),
            Step("y", "a", "+", "x", "Together they have {sum} {items}."),
        ),
    ),
    Template(
        "fewer_than",
        "{A} collected {a} {items}. {B} collected {b} fewer. How many did they collect together?",
        {"a": (25, 50), "b": (3, 20)},
        (
            Step("x", "a", "-", "b", "{B} collected {sum} {items}."),
            Step("y", "a", "+", "x", "Together they collected {sum} {items}."),
        ),
    ),
    Template(
        "times_as_many",
        "{A} has {a} {items}. {B} has {b} times as many as {A}. "
        "How many {items} do they have together?",
        {"a": (3, 12), "b": (2, 6)},
        (
            Step("x", "a", "*", "b", "{B} has {sum} {items}."),
            Step("y", "a", "+", "x", "Together they have {sum} {items}."),
        ),
    ),
    Template(
        "bags",
        "{A} packs {a} {items} into bags of {b}. {A} already had {c} full bags. "
        "How many bags are there now?",
        {"a": (12, 72), "b": (3, 9), "c": (3, 20)},
        (
            Step("x", "a", "/", "b", "{A} packs {sum} bags."),
            Step("y", "x", "+", "c", "There are {sum} bags now."),
        ),
    ),
    Template(
        "per_day",
        "{A} makes {a} {items} a day for {b} days and gives {c} of them to {B}. "
        "How many {items} does {A} keep?",
        {"a": (3, 12), "b": (3, 9), "c": (2, 20)},
        (
            Step("x", "a", "*", "b", "{A} makes {sum} {items}."),
            Step("y", "x", "-", "c", "{A} keeps {sum} {items}."),
        ),
    ),
    Template(
        "shelves",
        "The {shop} has {a} shelves with {b} {items} each. On Monday {c} {items} are sold. "
        "How many {items} are left?",
        {"a": (11, 19), "b": (3, 9), "c": (5, 30)},
        (
            Step("x", "a", "*", "b", "The shelves hold {sum} {items}."),
            Step("y", "x", "-", "c", "There are {sum} {items} left."),
        ),
        weight=1.4,
    ),
    Template(
        "two_prices",
        "At the {shop} a lamp costs {a} coins and a chair costs {b} coins. {A} buys {c} lamps and "
        "one chair. How many coins does {A} pay?",
        {"a": (3, 12), "b": (11, 40), "c": (2, 6)},
        (
            Step("x", "a", "*", "c", "The lamps cost {sum} coins."),
            Step("y", "x", "+", "b", "{A} pays {sum} coins."),
        ),
    ),
    Template(
        "week",
        "{A} had {a} {items}. {A} gave {b} to {B}, then found {c} more and bought {d} more. "
        "How many {items} does {A} have now?",
        {"a": (40, 70), "b": (5, 30), "c": (3, 15), "d": (3, 15)},
        (
            Step("x", "a", "-", "b", "After the gift {A} has {sum} {items}."),
            Step("y", "x", "+", "c", "Then {A} has {sum} {items}."),
            Step("z", "y", "+", "d", "Now {A} has {sum} {items}."),
        ),
    ),
    Template(
        "team",
        "{A} and {B} each make {a} {items} a day for {b} days. They sell {c} of them. "
        "How many {items} are left?",
        {"a": (3, 12), "b": (2, 6), "c": (3, 20)},
        (
            Step("x", "a", "*", "b", "{A} makes {sum} {items}."),
            Step("y", "x", "+", "x", "Together they make {sum} {items}."),
            Step("z", "y", "-", "c", "There are {sum} {items} left."),
        ),
    ),
    Template(
        "orchard",
        "An orchard has {a} rows of {b} trees. Each tree gives {c} baskets of fruit, and {d} "
        "baskets are already full. How many baskets are needed in all?",
        {"a": (2, 6), "b": (3, 9), "c": (2, 4), "d": (3, 20)},
        (
            Step("x", "a", "*", "b", "There are {sum} trees."),
            Step("y", "x", "*", "c", "The trees give {sum} baskets."),
            Step("z", "y", "+", "d", "In all {sum} baskets are needed."),
        ),
    ),
)


def make_problem(rng: random.Random) -> WordProblem:
    """Draw one problem; every intermediate result is a whole number from 1 to 500."""
    return problem_from(rng.choices(TEMPLATES, weights=[t.weight for t in TEMPLATES])[0], rng)


def problem_from(template: Template, rng: random.Random) -> WordProblem:
    """Draw the numbers and names of a problem of one kind."""
    while True:
        drawn = {name: rng.randint(*bounds) for name, bounds in template.numbers.items()}
        solution = _solve(template, drawn)
        if solution is not None:
            break
    values, expressions = solution
    names = rng.sample(NAMES, 3)
    slots = dict(zip("ABC", names, strict=True)) | {
        "items": rng.choice(ITEMS),
        "shop": rng.choice(SHOPS),
    }
    question = template.question.format(**slots, **drawn)
    reasoning = " ".join(
        step.text.format(**slots, sum=expression)
        for step, expression in zip(template.steps, expressions, strict=True)
    )
    numbers = ",".join(str(value) for value in drawn.values())
    return WordProblem(
        key=f"math:{template.name}:{numbers}",
        question=question,
        reasoning=reasoning,
        program=_program(template, drawn),
        answer=values[template.steps[-1].result],
    )


def _solve(template: Template, drawn: dict[str, int]) -> tuple[dict[str, int], list[str]] | None:
    """Carry out the steps; None where a result would be fractional, non-positive or too large."""
    values = dict(drawn)
    expressions = []
    for step in template.steps:
        left, right = values[step.left], values[step.right]
        if step.operation == "/" and left % right:
            return None
        result = _OPERATIONS[step.operation](left, right)
        if not 0 < result <= _LARGEST:
            return None
        values[step.result] = result
        expressions.append(f"{left}{step.operation}{right}={result}")
    return values, expressions


def _program(template: Template, drawn: dict[str, int]) -> str:
    """A function without arguments that computes the answer, as in SGSM."""
    lines = [f"{name} = {value}" for name, value in drawn.items()]
    for step in template.steps:
        name = "result" if step is template.steps[-1] else step.result
        lines.append(f"{name} = {step.left} {step.operation} {step.right}")
    lines.append("return result")
    return "def solution():\n" + "\n".join(f"    {line}" for line in lines)


def prompt_of(problem: WordProblem) -> str:
    """What the model sees of a problem, in the published calibration format."""
    return f"Q: {problem.question}\nA: Let's think step by step.\n"


def problem_document(problem: WordProblem) -> Document:
    """The whole problem with its reasoning and final answer."""
    answer = f"{problem.reasoning}\n#### {problem.answer}"
    return Document(problem.key, (Span(prompt_of(problem), False), Span(answer, True)))


def drill_document(rng: random.Random) -> Document:
    """A few bare calculations, which teach the arithmetic that the word problems need."""
    spans = []
    for _ in range(rng.randint(4, 8)):
        operation = rng.choice("+-**/")
        if operation in "+-":
            left, right = rng.randint(2, 99), rng.randint(2, 60)
            if operation == "-" and right > left:
                left, right = right, left
        elif operation == "*":
            left, right = rng.randint(2, 29), rng.randint(2, 9)
        else:
            right = rng.randint(2, 9)
            left = right * rng.randint(2, 12)
        result = _OPERATIONS[operation](left, right)
        spans += [Span(f"{left}{operation}{right}=", False), Span(f"{result}\n", True)]
    text = "".join(span.text for span in spans)
    return Document(f"drill:{text}", tuple(spans))
