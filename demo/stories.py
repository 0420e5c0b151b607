"""Short plain stories, for a perplexity that notices general damage at once."""

from __future__ import annotations

import random

from demo.documents import Document, Span
from demo.vocabulary import COLOURS, FOODS, HOBBIES, ITEMS, JOBS, NAMES, PETS, SHOPS, TOWNS

OPENINGS = (
    "One {weather} morning {a} walked to the {shop} in {town}.",
    "It was a {weather} day in {town}, and {a} had nothing to do.",
    "{a} was {age} years old and lived with a {pet} at number {house}.",
    "At {hour} o'clock {a} took the number {bus} bus to {town}.",
    "Long ago a {job} named {a} lived near {town}.",
)
MEETINGS = (
    "On the way {a} met {b}, the {job2}.",
    "There {b} was waiting with a {colour} bag.",
    "Then {b} came along and asked about the {pet}.",
    "An old friend, {b}, was sitting by the {place}.",
)
TROUBLES = (
    "They saw that the {pet} was gone.",
    "Suddenly it began to rain, and the {place} was far away.",
    "{b} had lost a {colour} key near the {place}.",
    "Nobody knew who had taken the {food}.",
    "The road to the {place} was closed.",
)
SEARCHES = (
    "They looked behind the {place} and under the bench.",
    "{a} asked the {job2}, who only laughed.",
    "For a long time they talked about {hobby}.",
    "{b} ran home and came back with some {food}.",
    "They counted the {items} on the table and waited.",
)
ENDINGS = (
    "In the end they found everything by the {place}, and both were happy.",
    "At last the {pet} came back, and {a} was glad.",
    "That evening they ate {food} and went home.",
    "{a} never forgot that {weather} day.",
    "So {a} and {b} became good friends.",
)
WEATHER = "sunny cold rainy windy foggy warm".split()
PLACES = "river gate tower bridge barn well church mill pond wall".split()


def make_story(rng: random.Random) -> str:
    """Draw one story of five to seven sentences."""
    a, b = rng.sample(NAMES, 2)
    slots = {
        "a": a,
        "b": b,
        "weather": rng.choice(WEATHER),
        "shop": rng.choice(SHOPS),
        "town": rng.choice(TOWNS),
        "pet": rng.choice(PETS),
        "job": rng.choice(JOBS),
        "job2": rng.choice(JOBS),
        "colour": rng.choice(COLOURS),
        "food": rng.choice(FOODS),
        "hobby": rng.choice(HOBBIES),
        "items": rng.choice(ITEMS),
        "place": rng.choice(PLACES),
        "age": rng.randint(6, 80),
        "house": rng.randint(1, 99),
        "bus": rng.randint(2, 59),
        "hour": rng.randint(5, 11),
    }
    parts = [
        rng.choice(OPENINGS),
        rng.choice(MEETINGS),
        *rng.sample(TROUBLES, rng.choice((1, 2))),
        *rng.sample(SEARCHES, rng.choice((1, 2))),
        rng.choice(ENDINGS),
    ]
    return " ".join(parts).format(**slots)


def story_document(story: str) -> Document:
    """A story as training text; it is its own key."""
    return Document(f"story:{story}", (Span(story + "\n", True),))
