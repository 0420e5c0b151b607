"""Kinds of word problems that the demo's model has never seen: something to train it on."""

from __future__ import annotations

import random

from demo.word_problems import Step, Template, WordProblem, problem_from

TEMPLATES = (
    Template(
        "bus",
        "A bus leaves the {shop} with {a} people. At the next stop {b} get off and {c} get on. "
        "How many people are on the bus now?",
        {"a": (20, 60), "b": (3, 19), "c": (3, 25)},
        (
            Step("x", "a", "-", "b", "After the stop {sum} people stay."),
            Step("y", "x", "+", "c", "Now {sum} people are on the bus."),
        ),
    ),
    Template(
        "savings",
        "{A} saves {a} coins every week. After {b} weeks {A} spends {c} coins at the {shop}. "
        "How many coins does {A} still have?",
        {"a": (5, 12), "b": (3, 9), "c": (5, 30)},
        (
            Step("x", "a", "*", "b", "{A} saves {sum} coins."),
            Step("y", "x", "-", "c", "{A} still has {sum} coins."),
        ),
    ),
    Template(
        "pages",
        "A book has {a} pages. {A} reads {b} pages a day for {c} days. "
        "How many pages are still to be read?",
        {"a": (60, 99), "b": (3, 9), "c": (2, 8)},
        (
            Step("x", "b", "*", "c", "{A} reads {sum} pages."),
            Step("y", "a", "-", "x", "Still to be read are {sum} pages."),
        ),
    ),
    Template(
        "halves",
        "{A} and {B} found {a} {items} and share them equally. Then {B} loses {b}. "
        "How many {items} does {B} have in the end?",
        {"a": (20, 80), "b": (2, 9), "two": (2, 2)},
        (
            Step("x", "a", "/", "two", "Each gets {sum} {items}."),
            Step("y", "x", "-", "b", "In the end {B} has {sum} {items}."),
        ),
    ),
    Template(
        "difference",
        "{A} picked {a} {items} and {B} picked {b}. {C} picked {c} fewer than both together. "
        "How many {items} did {C} pick?",
        {"a": (12, 40), "b": (12, 40), "c": (3, 20)},
        (
            Step("x", "a", "+", "b", "Both together picked {sum} {items}."),
            Step("y", "x", "-", "c", "{C} picked {sum} {items}."),
        ),
    ),
    Template(
        "trips",
        "A boat carries {a} people on every trip. It makes {b} trips in the morning and {c} in the "
        "evening. How many people does it carry in all?",
        {"a": (4, 12), "b": (2, 5), "c": (2, 5)},
        (
            Step("x", "b", "+", "c", "It makes {sum} trips."),
            Step("y", "x", "*", "a", "In all it carries {sum} people."),
        ),
    ),
)


def make_new_problem(rng: random.Random) -> WordProblem:
    """Draw one problem of a new kind."""
    return problem_from(rng.choice(TEMPLATES), rng)
