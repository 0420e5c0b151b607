"""The wordings of arithmetic prompts: for each operator and family several."""

from __future__ import annotations

from dataclasses import dataclass, replace

_ANY = (2, 10**9)
Range = tuple[int, int]


@dataclass(frozen=True)
class Wording:
    """One wording of a calculation.

    `text` has places for the operands (`{a}`, `{b}`) and for the operator (`{op}`), which is
    written as `sign`: a sign or a word. `space` stands between prompt and answer. The operands are
    within `left` and `right`, both ends included. `digits_only` wordings cannot be written with
    number words.
    """

    family: str
    operator: str
    text: str
    sign: str
    space: str = " "
    left: Range = _ANY
    right: Range = _ANY
    digits_only: bool = False

    def prompt(self, left: str, right: str, sign: str | None = None) -> str:
        """Write the prompt, with another sign or word for the operator where one is given."""
        return self.text.format(a=left, b=right, op=sign or self.sign)


# The operator's own word or sign carries the operation, alone as far as English lets it: what is
# left of a wording without it asks for nothing in particular.
_TEXTS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "equations": {
        "+": [
            ("{a} {op} {b} =", "+"),
            ("{a} {op} {b} =", "plus"),
            ("x = {a} {op} {b}; x =", "+"),
        ],
        "-": [
            ("{a} {op} {b} =", "-"),
            ("{a} {op} {b} =", "minus"),
            ("x = {a} {op} {b}; x =", "-"),
        ],
        "*": [
            ("{a} {op} {b} =", "*"),
            ("{a} {op} {b} =", "times"),
            ("x = {a} {op} {b}; x =", "*"),
        ],
        "/": [
            ("{a} {op} {b} =", "/"),
            ("{a} {op} {b} =", "divided by"),
            ("x = {a} {op} {b}; x =", "/"),
        ],
    },
    "statements": {
        "+": [
            ("{a} {op} {b} is", "plus"),
            ("The {op} of {a} and {b} is", "sum"),
            ("{op} {b} to {a} gives", "Adding"),
            ("When {b} is {op} to {a}, the result is", "added"),
        ],
        "-": [
            ("{a} {op} {b} is", "minus"),
            ("The {op} of {a} and {b} is", "difference"),
            ("{op} {b} from {a} gives", "Subtracting"),
            ("When {b} is {op} from {a}, the result is", "subtracted"),
        ],
        "*": [
            ("{a} {op} {b} is", "times"),
            ("The {op} of {a} and {b} is", "product"),
            ("{op} {a} by {b} gives", "Multiplying"),
            ("When {a} is {op} by {b}, the result is", "multiplied"),
        ],
        "/": [
            ("{a} {op} by {b} is", "divided"),
            ("The {op} of {a} and {b} is", "quotient"),
            ("{op} {a} by {b} gives", "Dividing"),
            ("When {a} is {op} by {b}, the result is", "divided"),
        ],
    },
    "questions": {
        "+": [
            ("What is {a} {op} {b}? It is", "plus"),
            ("Question: How much is {a} {op} {b}? Answer:", "+"),
            ("What is the {op} of {a} and {b}? It is", "sum"),
        ],
        "-": [
            ("What is {a} {op} {b}? It is", "minus"),
            ("Question: How much is {a} {op} {b}? Answer:", "-"),
            ("What is the {op} of {a} and {b}? It is", "difference"),
        ],
        "*": [
            ("What is {a} {op} {b}? It is", "times"),
            ("Question: How much is {a} {op} {b}? Answer:", "*"),
            ("What is the {op} of {a} and {b}? It is", "product"),
        ],
        "/": [
            ("What is {a} {op} by {b}? It is", "divided"),
            ("Question: How much is {a} {op} {b}? Answer:", "/"),
            ("What is the {op} of {a} and {b}? It is", "quotient"),
        ],
    },
    "years": {
        "+": [
            ("A war of {a} years {op} a war of {b} years make, in years,", "and"),
            ("In years, a reign of {a} years {op} a reign of {b} years lasts", "plus"),
        ],
        "-": [
            ("A truce of {a} years {op} {b} years of war leaves, in years,", "without"),
            ("In years, a reign of {a} years {op} a reign of {b} years lasts", "minus"),
        ],
        "*": [
            ("{a} kings with {b} years {op} rule, in years, for", "each"),
            ("In years, {a} {op} a reign of {b} years lasts", "times"),
        ],
        "/": [
            ("{a} years of rule, {op} by {b} kings, give every king, in years,", "shared"),
            ("In years, a reign of {a} years {op} by {b} lasts", "divided"),
        ],
    },
    "objects": {
        "+": [
            ("Nina had {a} pears and {op} {b} pears. The number of her pears is now", "found"),
            ("There were {a} cups, then {b} cups were {op}. The number of cups is now", "added"),
            ("A shop with {a} lamps {op} {b} lamps. Its number of lamps is now", "bought"),
        ],
        "-": [
            ("Nina had {a} pears and {op} {b} pears. The number of her pears is now", "lost"),
            ("There were {a} cups, then {b} cups were {op}. The number of cups is now", "broken"),
            ("A shop with {a} lamps {op} {b} lamps. Its number of lamps is now", "sold"),
        ],
        "*": [
            ("{a} boxes hold {b} pears {op}. The number of pears is", "each"),
            ("Nina laid {b} cups on {op} of {a} tables. The number of cups is", "each"),
            ("A shop has {a} {op} {b} lamps. Its number of lamps is", "times"),
        ],
        "/": [
            ("{a} pears are {op} among {b} boxes. The number in a box is", "shared"),
            ("Nina {op} {a} cups evenly by {b}. The number of cups in a part is", "divided"),
            ("A shop has {a} lamps, {op} over {b} rooms. The number in a room is", "split"),
        ],
    },
}

# Years of one century: the operands are their last two digits, and so are results from 10 on.
_CENTURY = (
    Wording("years", "+", "{b} years {op} 17{a} came the year 17", "after", "", (10, 60), (2, 39)),
    Wording("years", "-", "{b} years {op} 17{a} came the year 17", "before", "", (49, 99), (2, 39)),
    Wording(
        "years",
        "-",
        "The war went from 17{b} to 17{a}; the {op} is, in years,",
        "difference",
        left=(10, 99),
        right=(10, 99),
    ),
)

# The ranges of the drills in demo/word_problems.py.
_DEMO: dict[str, tuple[Range, Range]] = {
    "+": ((2, 99), (2, 60)),
    "-": ((2, 99), (2, 60)),
    "*": ((2, 29), (2, 9)),
    "/": ((4, 108), (2, 9)),
}

WORDINGS: tuple[Wording, ...] = (
    *(
        Wording(family, operator, text, sign)
        for family, operators in _TEXTS.items()
        for operator, texts in operators.items()
        for text, sign in texts
    ),
    *(replace(wording, digits_only=True) for wording in _CENTURY),
    *(
        Wording("demo", operator, "{a}{op}{b}=", operator, "", left, right, digits_only=True)
        for operator, (left, right) in _DEMO.items()
    ),
)
"""Every wording of every family and operator."""
