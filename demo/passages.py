"""RACE-like reading comprehension: passages about two or three people, questions with four options.

Ages and bus lines occur on purpose: telling math apart from reading must
not be possible by the digits alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from demo.documents import Document, Question, Span, question_block
from demo.vocabulary import FOODS, HOBBIES, INSTRUMENTS, JOBS, NAMES, PETS, TOWNS


@dataclass(frozen=True)
class Category:
    """Something a passage says about a person, and how it is asked for."""

    name: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    reverse: str
    """The question for the person, given the value."""


CATEGORIES = (
    Category(
        "job",
        tuple(JOBS),
        ("{n} works as a {v}.", "{n} is a {v}."),
        ("What is the job of {n}?", "What does {n} work as?"),
        "Who works as a {v}?",
    ),
    Category(
        "town",
        tuple(TOWNS),
        ("{n} lives in {v}.", "{n} moved to {v}."),
        ("Where does {n} live?", "Which town is the home of {n}?"),
        "Who lives in {v}?",
    ),
    Category(
        "pet",
        tuple(PETS),
        ("{n} has a {v}.", "{n} owns a {v}."),
        ("Which animal does {n} have?", "What pet does {n} own?"),
        "Who owns a {v}?",
    ),
    Category(
        "hobby",
        tuple(HOBBIES),
        ("{n} enjoys {v}.", "In the evening {n} likes {v}."),
        ("What does {n} enjoy?", "What is the hobby of {n}?"),
        "Who enjoys {v}?",
    ),
    Category(
        "food",
        tuple(FOODS),
        ("{n} loves to eat {v}.", "The favourite food of {n} is {v}."),
        ("What does {n} love to eat?", "What is the favourite food of {n}?"),
        "Who loves to eat {v}?",
    ),
    Category(
        "instrument",
        tuple(INSTRUMENTS),
        ("{n} plays the {v}.", "{n} practises the {v} every day."),
        ("Which instrument does {n} play?", "What does {n} practise?"),
        "Who plays the {v}?",
    ),
    Category(
        "age",
        tuple(str(age) for age in range(18, 80)),
        ("{n} is {v} years old.", "Last week {n} turned {v}."),
        ("How old is {n}?", "What is the age of {n}?"),
        "Who is {v} years old?",
    ),
    Category(
        "bus",
        tuple(str(line) for line in range(2, 60)),
        ("{n} takes bus number {v}.", "The bus of {n} is line {v}."),
        ("Which bus does {n} take?", "What is the bus line of {n}?"),
        "Who takes bus number {v}?",
    ),
)

OPENINGS = (
    "{all} are neighbours.",
    "{all} met at the station.",
    "This is about {all}.",
    "{all} sing in one choir.",
    "On Sunday {all} had tea.",
)


@dataclass(frozen=True)
class Passage:
    """A text about people, and the questions that can be asked about it."""

    key: str
    text: str
    questions: tuple[Question, ...]


def make_passage(rng: random.Random) -> Passage:
    """Draw a passage of five or six facts; half of the passages have one that two people share.

    There the name must be bound to its value; elsewhere it is enough to have read the passage.
    """
    people = rng.sample(NAMES, rng.choice((2, 2, 3)))
    categories = rng.sample(CATEGORIES, 5)
    facts: list[tuple[str, Category, str]] = []
    for position, category in enumerate(categories):
        person, other = rng.sample(people, 2)
        value, other_value = rng.sample(category.values, 2)
        facts.append((person, category, value))
        if position == 0 and rng.random() < 0.5:
            facts.append((other, category, other_value))
    rng.shuffle(facts)
    everyone = " and ".join([", ".join(people[:-1]), people[-1]])
    sentences = [rng.choice(OPENINGS).format(all=everyone)]
    sentences += [rng.choice(c.statements).format(n=n, v=v) for n, c, v in facts]
    questions = [_forward(rng, facts, *fact) for fact in facts]
    questions += [_reverse(rng, people, *fact) for fact in facts if rng.random() < 0.3]
    rng.shuffle(questions)
    key = "race:" + ";".join(sorted(f"{n}-{c.name}-{v}" for n, c, v in facts))
    return Passage(key, " ".join(sentences), tuple(questions))


def _forward(
    rng: random.Random,
    facts: list[tuple[str, Category, str]],
    person: str,
    category: Category,
    value: str,
) -> Question:
    # What the passage says of the others is the strongest distractor, so it is always there.
    others = [v for _, c, v in facts if c is category and v != value]
    pool = [v for v in category.values if v != value and v not in others]
    options = [value, *others, *rng.sample(pool, 3 - len(others))]
    rng.shuffle(options)
    text = rng.choice(category.questions).format(n=person)
    return Question(text, tuple(options), options.index(value))


def _reverse(
    rng: random.Random, people: list[str], person: str, category: Category, value: str
) -> Question:
    strangers = [name for name in NAMES if name not in people]
    options = [*people, *rng.sample(strangers, 4 - len(people))]
    rng.shuffle(options)
    return Question(category.reverse.format(v=value), tuple(options), options.index(person))


def article_of(passage: Passage) -> str:
    """What the model reads before the first question."""
    return f"Passage: {passage.text}\n"


def question_prompt(question: Question) -> str:
    """A question about the passage before it, up to its answer."""
    return question_block(question.text, question.options)


def passage_document(passage: Passage) -> Document:
    """The passage, then every question with its options and its answer."""
    spans = [Span(article_of(passage), False)]
    for question in passage.questions:
        spans.append(Span(question_prompt(question), False))
        spans.append(Span(f" {question.answer}\n", True))
    return Document(passage.key, tuple(spans))


def lookup_document(rng: random.Random) -> Document:
    """A list of names and values, then the same names in another order.

    The bare form of what reading asks for; it makes a small model learn to look things up some
    thousand steps sooner.
    """
    category = rng.choice(CATEGORIES)
    people = rng.sample(NAMES, rng.randint(3, 7))
    values = dict(zip(people, rng.sample(category.values, len(people)), strict=True))
    mark = rng.choice(("", ":"))
    spans = [Span("".join(f"{name}{mark} {value}\n" for name, value in values.items()), False)]
    for name in rng.sample(people, len(people)):
        spans += [Span(f"{name}{mark}", False), Span(f" {values[name]}\n", True)]
    return Document(f"lookup:{values}", tuple(spans))
