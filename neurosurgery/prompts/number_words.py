"""Write whole numbers as English words."""

from __future__ import annotations

LARGEST = 9_999
"""The largest number that is written: products of two numbers up to ninety-nine are below it."""

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def number_words(number: int) -> str:
    """Write a number in words, as in `forty-two` or `one hundred seven`.

    Raises:
        ValueError: the number is below 0 or above `LARGEST`.
    """
    if not 0 <= number <= LARGEST:
        raise ValueError(f"{number} has no words here, expected 0 to {LARGEST}")
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            head, rest = divmod(number, size)
            words = f"{number_words(head)} {name}"
            return f"{words} {number_words(rest)}" if rest else words
    if number < len(_SMALL):
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return f"{_TENS[tens - 2]}-{_SMALL[ones]}" if ones else _TENS[tens - 2]
