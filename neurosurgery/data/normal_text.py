"""The normal form in which two texts are compared: which of them are the same record.

What does not count: case; blanks and line ends; punctuation, quotes and currency signs; compatible
forms of Unicode (NFKC); how LaTeX sets a fraction or a product; the calculator's marks of GSM8K
(`<<2*3=6>>`); and frames: labels as `Q:`, `### Question`, `A:`, `Answer:`, `Choices:`, and "Let's
think step by step". What counts: every word and every number (1.5 is not 15, -3 is not 3, 1,000 is
1000), and the signs of arithmetic beside numbers and single letters.
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from typing import NamedTuple

Tokens = tuple[str, ...]


class Role(Enum):
    """What a label says of the text behind it."""

    UNLABELLED = ""
    CONTEXT = "\x01"
    QUESTION = "\x02"
    ANSWER = "\x03"
    OPTIONS = "\x04"


class Segment(NamedTuple):
    """A text between two labels, as the tokens of its sentences."""

    role: Role
    sentences: tuple[Tokens, ...]

    @property
    def is_asked(self) -> bool:
        """Whether this is no answer, and no list of answers."""
        return self.role not in (Role.ANSWER, Role.OPTIONS)

    @property
    def tokens(self) -> Tokens:
        """The tokens of all sentences."""
        return tuple(token for sentence in self.sentences for token in sentence)


def normal(text: str) -> str:
    """The normal form of a text: its tokens, with blanks between. It is its own normal form."""
    return " ".join(token for segment in segments(text) for token in segment.tokens)


def is_number(token: str) -> bool:
    """Whether a token of a normal form is a number."""
    return token[0].isdigit()


def is_sign(token: str) -> bool:
    """Whether a token of a normal form is a sign of arithmetic."""
    return token in _SIGNS


def segments(text: str) -> tuple[Segment, ...]:
    """Split a text at its labels, and each part into sentences; empty ones are left out."""
    pieces = _TOKEN.findall(_prepared(text))
    found: list[Segment] = []
    role, sentences, sentence = Role.UNLABELLED, list[Tokens](), list[str]()
    for place, piece in enumerate(pieces):
        if _counts(piece, pieces[place - 1] if place else "", pieces[place + 1 : place + 2]):
            sentence.append(_plain_number(piece))
            continue
        if piece in _SIGNS or not _ENDS.match(piece):
            continue
        if sentence:
            sentences.append(tuple(sentence))
            sentence = []
        if piece in _MARKS:
            found.append(Segment(role, tuple(sentences)))
            role, sentences = Role(piece), []
    if sentence:
        sentences.append(tuple(sentence))
    found.append(Segment(role, tuple(sentences)))
    return tuple(segment for segment in found if segment.sentences)


_SIGNS = frozenset("-+*/^=<>%")
_MARKS = frozenset(role.value for role in Role if role.value)
_ENDS = re.compile(r"[\x01-\x04.?!;:\n]|[=*_#~-]{3}")
"""What ends a sentence. It matters only where texts of many documents have sentences in common."""

_TOKEN = re.compile(
    r"(?<![\w.])\.\d+"  # .5
    r"|\d+(?:\.\d+)?"
    r"|[^\W\d_]+"
    r"|[=*_#~-]{3,}"
    r"|[-+*/^=<>%]"
    r"|[\x01-\x04]|[.?!;:\n]+"
    r"|[^\x00-\x7f\s\w]"  # emoji, ≤, combining marks
)

_CONTEXTS = "passage article context text story background instructions? system document paragraph"
_QUESTIONS = "q question problem exercise query input prompt task instruct user human riddle"
_ANSWERS = (
    "a answers? solution output response assistant explanation rationale reasoning "
    "completion target"
)


def _labels(words: str) -> re.Pattern[str]:
    """A label with a colon, perhaps numbered or bold; or as a heading of Markdown."""
    label = "|".join(words.split())
    return re.compile(
        rf"\**(?<!\w)(?:{label})\s*\d*\s*\**\s*:\**"
        rf"|(?<!\S)\#+[ \t]*\**(?:{label})\**[ \t]*(?=\n|$)"
    )


_LABELS = (
    (re.compile(r"let\W?s\W+(?:think\W+step\W+by\W+step|write\W+a\W+python\W+program)"), "\x03"),
    (re.compile(r"(?<!\w)the\s+(?:final\s+)?answer\s+is(?!\w)|\#{4,}"), "\x03"),
    (_labels(_CONTEXTS), "\x01"),
    (_labels(_QUESTIONS), "\x02"),
    (_labels(_ANSWERS), "\x03"),
    (_labels("choices options"), "\x04"),
)

_OPTION_A = re.compile(r"(?=(?:^[ \t]*A[.)]|\(A\))[\s\S]*?(?:^[ \t]*B[.)]|\(B\)))", re.MULTILINE)
"""Where a list of options with letters starts; small letters stand in texts of law, too."""

_FORMS = str.maketrans(
    dict.fromkeys("−‐‑‒–", "-")
    | dict.fromkeys("‘’ʼ`´", "'")
    | dict.fromkeys("×·⋅∙", "*")
    | {"÷": "/", "⁄": "/", "。": "."}
)
_COMPATIBLE_DIGITS = re.compile("[⁰-ⁿ²³¹]+|[₀-₉¼-¾⅐-↉①-⓿]")
_CHARACTERS_AS_WORDS = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_REWRITTEN = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"<<[^<>]*>>", " "),
        (r"<\|[^|<>]*\|>", "\n"),
        (r"\{,\}|,\\!", ","),
        (r"(?<=\d),(?=\d{3}(?:,\d{3})*(?!\d))", ""),
        (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1 / \2 "),
        (r"\\(?:times|cdot)(?![a-z])", "*"),
        (r"\\div(?![a-z])", "/"),
        (r"\\(?:left|right|text\w*|math\w+|mbox|displaystyle)(?![a-z])", " "),
        (r"(?<=[^\W\d_])'(?=[^\W\d_])", ""),
        # Hyphens of words; bold type.
        (r"(?<=[^\W\d_]{2})-(?=\w)", " "),
        (r"(?<!\w)\*\*(?=\w)|(?<=\w)\*\*(?!\w)", " "),
    )
)


def _prepared(text: str) -> str:
    """Case, compatible characters, LaTeX; a mark (`Role`) in the place of every label."""
    text = _OPTION_A.sub(Role.OPTIONS.value, text.translate(dict.fromkeys(range(1, 5), " ")))
    if not text.isascii():
        # NFKC would make 102 of 10².
        text = _COMPATIBLE_DIGITS.sub(_apart, text)
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = _CHARACTERS_AS_WORDS.sub(r" \g<0> ", text)
    text = text.translate(_FORMS)
    for pattern, by in (*_REWRITTEN, *_LABELS):
        text = pattern.sub(by, text)
    return text


def _apart(found: re.Match[str]) -> str:
    digits = unicodedata.normalize("NFKC", found[0])
    is_power = unicodedata.decomposition(found[0][0]).startswith("<super>")
    return f"^{digits} " if is_power else f" {digits} "


def _counts(piece: str, before: str, after: list[str]) -> bool:
    """Whether a piece is a token: a word, a number, or a sign beside a number or a letter."""
    if piece in _SIGNS:
        return _is_operand(before) or any(map(_is_operand, after))
    if piece[0].isalnum() or _is_operand(piece):
        return True
    return not piece.isascii() and unicodedata.category(piece)[0] in "SM"


def _is_operand(piece: str) -> bool:
    """Whether a piece is a number or a single letter."""
    return piece.lstrip(".")[:1].isdigit() or (len(piece) == 1 and piece.isalpha())


def _plain_number(piece: str) -> str:
    return f"0{piece}" if piece[0] == "." else piece
