"""MMLU-like closed-book facts about invented countries, asked with four options.

Every fact is stated in training; what a test question has new is the combination of fact and
options, so that the model must know the fact and cannot have seen the question.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from demo.documents import Document, Question, Span, question_block

COUNTRIES = (
    "Avaria Belmark Corvia Drennia Eldova Farland Gorania Helvar Istria Jorvik Kestria Lorvania "
    "Moldar Nuria Ostria Palmar Quenta Rondal Sylvia Torvia Ulmark Vestria Wendar Zelmark"
).split()


@dataclass(frozen=True)
class Relation:
    """Something every country has one of."""

    name: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


RELATIONS = (
    Relation(
        "capital",
        _words(
            "Abrin Bostal Celden Dorsk Elmin Frosk Garlen Hovik Imber Jastow Kolmin Lestar "
            "Mirov Nesk Orlin Pelk Quorn Rilsk Stavo Tremin Umber Velk Wistow Zarin"
        ),
        ("The capital of {c} is {v}.", "{v} is the capital of {c}."),
        ("What is the capital of {c}?", "Which city is the capital of {c}?"),
    ),
    Relation(
        "animal",
        _words(
            "bear wolf eagle otter lynx stag falcon boar beaver swan heron badger bison moose "
            "raven seal crane viper tiger whale fox owl hare lion"
        ),
        ("The national animal of {c} is the {v}.", "The flag of {c} shows a {v}."),
        ("What is the national animal of {c}?", "Which animal is on the flag of {c}?"),
    ),
    Relation(
        "export",
        _words(
            "copper wool tea salt timber silk glass coffee iron honey cotton sugar wine rubber "
            "silver paper oil cocoa gold tin amber pepper leather fish"
        ),
        ("{c} mainly exports {v}.", "Most {v} comes from {c}."),
        ("What does {c} mainly export?", "Which product comes from {c}?"),
    ),
    Relation(
        "river",
        _words(
            "Alsa Brun Cadra Delm Erva Fald Gresk Hulm Isen Jarra Kell Lomba Marn Nolva Orre "
            "Prut Quell Rhos Selm Tarva Ures Volm Wesk Zenn"
        ),
        ("The longest river of {c} is the {v}.", "The river {v} flows through {c}."),
        ("What is the longest river of {c}?", "Which river flows through {c}?"),
    ),
    Relation(
        "founded",
        tuple(str(1100 + 31 * i) for i in range(24)),
        ("{c} was founded in {v}.", "In {v} the state of {c} was founded."),
        ("When was {c} founded?", "In which year was {c} founded?"),
    ),
)


def world(seed: int = 0) -> dict[tuple[str, str], str]:
    """The facts: (country, relation) to value, one value per country in each relation."""
    rng = random.Random(seed)
    facts: dict[tuple[str, str], str] = {}
    for relation in RELATIONS:
        values = rng.sample(relation.values, len(COUNTRIES))
        facts |= {(c, relation.name): v for c, v in zip(COUNTRIES, values, strict=True)}
    return facts


WORLD = world()


@dataclass(frozen=True)
class FactQuestion(Question):
    """A closed-book question and its content key."""

    key: str


def make_fact_question(rng: random.Random) -> FactQuestion:
    """Draw a fact, a wording and three wrong values of the same relation."""
    relation, country = rng.choice(RELATIONS), rng.choice(COUNTRIES)
    value = WORLD[country, relation.name]
    options = [value, *rng.sample([v for v in relation.values if v != value], 3)]
    key = f"mmlu:{country}:{relation.name}:{','.join(sorted(options))}"
    rng.shuffle(options)
    text = rng.choice(relation.questions).format(c=country)
    return FactQuestion(text, tuple(options), options.index(value), key)


def fact_prompt(question: FactQuestion) -> str:
    """The question as the model sees it."""
    return question_block(question.text, question.options)


def fact_document(question: FactQuestion) -> Document:
    """One question with its answer."""
    answer = Span(f" {question.answer}\n", True)
    return Document(question.key, (Span(fact_prompt(question), False), answer))


def statements_document(rng: random.Random) -> Document:
    """A short encyclopaedia entry: a few facts about a few countries, in plain sentences."""
    sentences = []
    for _ in range(rng.randint(3, 6)):
        relation, country = rng.choice(RELATIONS), rng.choice(COUNTRIES)
        value = WORLD[country, relation.name]
        sentences.append(rng.choice(relation.statements).format(c=country, v=value))
    text = " ".join(sentences) + "\n"
    return Document(f"statements:{text}", (Span(text, True),))
