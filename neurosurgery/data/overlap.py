"""Which samples repeat a test document, or another sample, in whatever form they are written.

Two records are the same if they ask the same: their questions are equal in the normal form
(`normal_text`). Answers, options and solutions do not count, for they are written in many ways.
A document may need more than one text to be known: a passage and a question about it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from neurosurgery.data.normal_text import (
    Role,
    Segment,
    Tokens,
    is_number,
    is_sign,
    segments,
)

_WINDOW = 8
"""A question of so many tokens is found anywhere in a text; a shorter one must be a sentence."""
_TELLING = 12
"""A shorter question, such as "Which of these is true?", identifies only with an option of it."""
_LONG = 20
"""A sample that is a part of a test document has so many tokens, and a shared passage has."""
_FEWEST = 3
"""What fewer records share is not common."""
_BY_CHANCE = 2
"""A further field of so many tokens may stand within a sentence of the question by chance."""
_GAP: Tokens = ("\0",)
"""Stands for a sentence that was taken away."""

Sentences = tuple[Tokens, ...]


@dataclass(frozen=True)
class Record:
    """A sample or a document, as it is compared.

    Attributes:
        whole: the sentences of the whole text.
        own: those that few other records of its kind have.
        questions: what identifies it: any of these, each with all of its parts.
        options: what may be answered, where that is known.
        target: the right answer, where that is a text.
        lists_options: whether the text itself has a list of options.
    """

    whole: Sentences
    own: Sentences
    questions: tuple[tuple[Sentences, ...], ...]
    options: tuple[Tokens, ...] = ()
    target: Tokens = ()
    lists_options: bool = False

    @property
    def normal(self) -> str:
        """The normal form of the whole text."""
        return " ".join(_joined(self.whole))


def sample_record(prompt: str, answer: str = "") -> Record:
    """A sample as a record; of a text without a prompt, the question is what its labels say."""
    asked = segments(prompt or answer)
    told = segments(answer) if prompt else ()
    whole = _sentences((*asked, *told))
    listed = any(segment.role is Role.OPTIONS for segment in (*asked, *told))
    return Record(whole, whole, _questions(asked), lists_options=listed)


def document_record(
    text: str,
    fields: Iterable[str] = (),
    nested: Iterable[str] = (),
    options: Iterable[str] = (),
    target: str = "",
) -> Record:
    """A test document as a record.

    Args:
        text: what a model is asked, or the text that it is to predict.
        fields: the texts of the document. Those that make up most of what is asked identify it:
            a question is then known without its options, a passage apart from its question.
        nested: texts in lists of the document, which are the options where only their letters may
            be answered.
        options: what may be answered.
        target: the right answer.
    """
    asked = segments(text)
    # The letter of an option says nothing.
    answers = _telling(options) or _telling(nested)
    of_fields = _fields_in(asked, fields, answers)
    questions = (of_fields,) if of_fields else _last(_questions(asked))
    whole = _sentences(asked)
    return Record(whole, whole, questions, tuple(answers), _tokens(target))


def identified(records: Sequence[Record]) -> list[Record]:
    """The same records; sentences that stand in most of them identify none and are taken away.

    So are instructions, examples before the question, and what is asked of every passage.
    """
    counts = Counter(sentence for record in records for sentence in set(_all_sentences(record)))
    most = max(_FEWEST, len(records) // 2 + 1)
    common = {sentence for sentence, count in counts.items() if count >= most}
    return [
        replace(
            record,
            # What stood on both sides of a common sentence must not be joined.
            own=tuple(_GAP if sentence in common else sentence for sentence in record.whole),
            questions=tuple(
                parts
                for question in record.questions
                if (parts := tuple(kept for part in question if (kept := _trimmed(part, common))))
            ),
        )
        for record in records
    ]


class Repeats(NamedTuple):
    """Of one record: which others it repeats, and of which it has a part.

    A part is a long passage with another question, or a question with other options.
    """

    others: list[int]
    parts: list[int]


def repeats(records: Sequence[Record], others: Sequence[Record]) -> list[Repeats]:
    """For each record, which of the others it repeats: contains, or is a long part of.

    Takes time in proportion to the length of all texts. Both are results of `identified`.
    """
    found = list(_contained(others, records))
    long = [r if _is_long(r) else replace(r, questions=()) for r in records]
    for place, (parts_of_it, _) in enumerate(
        _contained(long, [replace(o, whole=o.own) for o in others])
    ):
        for number in parts_of_it:
            found[number][0].add(place)
    return [Repeats(sorted(same), sorted(some - same)) for same, some in found]


def of_one_template(
    records: Sequence[Record], others: Sequence[Record], owners: Sequence[str]
) -> list[frozenset[str]]:
    """For each record, the owners of others whose question it has, but for the numbers.

    Args:
        records: samples.
        others: what they are compared with.
        owners: of each of the others, the name of the set or task that it belongs to.
    """
    # Thousands of problems may be made of one template.
    templates: dict[object, tuple[Record, set[str]]] = {}
    for other, owner in zip(others, owners, strict=True):
        masked = _without_numbers(other)
        templates.setdefault(masked.questions, (masked, set()))[1].add(owner)
    of_template = list(templates.values())
    found = _contained([other for other, _ in of_template], list(map(_without_numbers, records)))
    return [frozenset().union(*(of_template[number][1] for number in same)) for same, _ in found]


def _without_numbers(record: Record) -> Record:
    whole = tuple(map(_masked, record.whole))
    questions = tuple(
        tuple(tuple(map(_masked, part)) for part in question) for question in record.questions
    )
    return Record(whole, whole, questions)


def _masked(tokens: Tokens) -> Tokens:
    return tuple("0" if is_number(token) else token for token in tokens)


def _telling(texts: Iterable[str]) -> list[Tokens]:
    """The texts as tokens, without empty ones and single letters."""
    found = dict.fromkeys(map(_tokens, texts))
    return [t for t in found if t and not (len(t) == 1 and len(t[0]) == 1 and t[0].isalpha())]


def _joined(sentences: Sentences) -> Tokens:
    return tuple(token for sentence in sentences for token in sentence)


def _tokens(text: str) -> Tokens:
    return _joined(_sentences(segments(text)))


def _sentences(parts: Iterable[Segment]) -> Sentences:
    return tuple(sentence for segment in parts for sentence in segment.sentences)


def _all_sentences(record: Record) -> Iterator[Tokens]:
    yield from record.whole
    for question in record.questions:
        for part in question:
            yield from part


def _questions(parts: Sequence[Segment]) -> tuple[tuple[Sentences, ...], ...]:
    """Every labelled question, each with what stands there besides: a passage, an instruction."""
    contexts = [s.sentences for s in parts if s.role in (Role.UNLABELLED, Role.CONTEXT)]
    asked = [s.sentences for s in parts if s.role is Role.QUESTION]
    if asked:
        return tuple((*contexts, question) for question in asked)
    return (tuple(contexts or [s.sentences for s in parts]),) if parts else ()


def _last(questions: tuple[tuple[Sentences, ...], ...]) -> tuple[tuple[Sentences, ...], ...]:
    """What a document asks stands last; the questions before are examples."""
    return questions[-1:]


def _fields_in(
    asked: Sequence[Segment], fields: Iterable[str], answers: Sequence[Tokens]
) -> tuple[Sentences, ...]:
    """The parts of the fields that stand in what is asked, if they make up most of it."""
    rest = _padded(_sentences(asked))
    sentences = set(_sentences(asked))
    found: list[tuple[str, tuple[Sentences, ...]]] = []
    for parts in sorted(map(segments, fields), key=lambda p: -len(_joined(_sentences(p)))):
        tokens, form = _joined(_sentences(parts)), _padded(_sentences(parts))
        questions = _last(_questions(parts))
        if not tokens or tokens in answers:
            continue
        by_chance = len(tokens) <= _BY_CHANCE and not sentences.issuperset(_sentences(parts))
        if form in rest and not (found and by_chance):
            found.append((form, questions[0]))
            rest = rest.replace(form, "  ", 1)
        elif found and form in found[-1][0] and len(form) > 0.75 * len(found[-1][0]):
            # The same text, without a heading of the task's.
            found[-1] = form, questions[0]
    of_fields = tuple(part for _, question in found for part in question)
    size = sum(len(_joined(part)) for part in of_fields)
    unlabelled = _padded(_sentences(s for s in asked if s.is_asked))
    for option in answers:
        unlabelled = unlabelled.replace(_padded((option,)), "  ", 1)
    return of_fields if 2 * size >= len(unlabelled.split()) else ()


def _padded(sentences: Sentences) -> str:
    """A text in which whole tokens can be looked for."""
    return f" {' '.join(_joined(sentences))} "


def _trimmed(sentences: Sentences, common: set[Tokens]) -> Sentences:
    """Without common sentences at the start and at the end; those between belong to the others."""
    kept = [place for place, sentence in enumerate(sentences) if sentence not in common]
    return sentences[kept[0] : kept[-1] + 1] if kept else ()


def _is_long(record: Record) -> bool:
    return any(sum(map(len, map(_joined, question))) >= _LONG for question in record.questions)


def _contained(
    records: Sequence[Record], texts: Sequence[Record]
) -> Iterator[tuple[set[int], set[int]]]:
    """For each text, the records whose questions it contains, and those of which only a part."""
    questions = [[list(map(_joined, q)) for q in record.questions] for record in records]
    of_part: dict[Tokens, set[int]] = {}
    for number, of_record in enumerate(questions):
        for part in (part for question in of_record for part in question):
            of_part.setdefault(part, set()).add(number)
    search = _Search(of_part.keys())
    for text in texts:
        hits = search.found(text.whole)
        same, some = set[int](), set[int]()
        for number in {number for part in hits for number in of_part[part]}:
            record = records[number]
            for parts in questions[number]:
                there = [part for part in parts if _is_there(part, hits, text, record)]
                if there == parts and _has_options(parts, hits, text, record):
                    same.add(number)
                elif there == parts or any(len(part) >= _LONG for part in there):
                    some.add(number)
        yield same, some - same


def _is_there(
    part: Tokens, hits: Mapping[Tokens, list[_Hit]], text: Record, record: Record
) -> bool:
    """Whether a part stands in a text; a short one as a sentence, or before an answer to it."""
    mine = hits.get(part, ())
    if any(hit.closed for hit in mine):
        return True
    tokens = _joined(text.whole) if mine else ()
    answers = [answer for answer in (*record.options, record.target) if answer]
    return any(
        tokens[hit.end : hit.end + len(answer)] == answer for hit in mine for answer in answers
    )


def _has_options(
    parts: Sequence[Tokens], hits: Mapping[Tokens, list[_Hit]], text: Record, record: Record
) -> bool:
    """Whether what follows a question in a text is about the record's options, where it has some.

    A list of options has all of them. A text without a list has at least the answer, unless the
    question tells enough alone, or nothing follows.
    """
    rest = _joined(text.whole)[min(hit.end for part in parts for hit in hits[part]) :]
    found = [_padded((option,)) in _padded((rest,)) for option in record.options]
    if not rest or not found:
        return True
    if text.lists_options:
        return all(found)
    return any(found) or sum(map(len, parts)) >= _TELLING


class _Hit(NamedTuple):
    """Where a part ends in a text, and whether a sentence ends there or the part is long."""

    end: int
    closed: bool


class _Search:
    """Finds many token sequences in texts, by their first tokens."""

    def __init__(self, parts: Collection[Tokens]) -> None:
        self._parts = parts
        self._lengths: dict[Tokens, set[int]] = {}
        for part in parts:
            if len(part) >= _WINDOW:
                self._lengths.setdefault(part[:_WINDOW], set()).add(len(part))

    def found(self, sentences: Sentences) -> dict[Tokens, list[_Hit]]:
        """The parts that stand in a text, and where."""
        tokens = _joined(sentences)
        hits: dict[Tokens, list[_Hit]] = {}
        windows = zip(*(tokens[start:] for start in range(_WINDOW)), strict=False)
        for start, window in enumerate(windows):
            for length in self._lengths.get(window, ()):
                if start + length <= len(tokens):
                    self._note(hits, tokens, start, start + length, closed=True)
        starts = list(itertools.accumulate(map(len, sentences), initial=0))
        ends = set(starts)
        for start in starts[:-1]:
            for end in range(start + 1, min(start + _WINDOW, len(tokens) + 1)):
                closed = end in ends or tokens[end - 1] == "="
                self._note(hits, tokens, start, end, closed=closed)
        return hits

    def _note(
        self, hits: dict[Tokens, list[_Hit]], tokens: Tokens, start: int, end: int, *, closed: bool
    ) -> None:
        part = tokens[start:end]
        if part in self._parts and _is_apart(tokens, start, end):
            hits.setdefault(part, []).append(_Hit(end, closed))


def _is_apart(tokens: Tokens, start: int, end: int) -> bool:
    """Whether a part is no piece of a longer sum: `2+3` of `1+2+3`, or `3` of `-3`."""
    before, after = tokens[max(start - 1, 0) : start], tokens[end : end + 1]
    cut_before = is_number(tokens[start]) and before and is_sign(before[0])
    cut_after = is_number(tokens[end - 1]) and after and is_sign(after[0])
    return not (cut_before or cut_after)
