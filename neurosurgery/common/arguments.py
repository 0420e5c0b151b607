"""Check the arguments of public functions against their annotations, before anything is computed.

Without it a wrong argument fails deep inside, with a message about something else, or not at all: a
text is a sequence of texts of one character. Imports nothing heavy.
"""

from __future__ import annotations

import inspect
import numbers
import types
import typing
from collections.abc import Callable, Collection, Mapping
from functools import cache, wraps
from itertools import islice
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from neurosurgery.common.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")
Class = TypeVar("Class", bound=type)

_IN_WORDS = {
    "PreTrainedModel": "a language model of transformers (AutoModelForCausalLM.from_pretrained)",
    "PreTrainedTokenizerBase": "a tokenizer of transformers (AutoTokenizer.from_pretrained)",
    "Module": "a model of torch (torch.nn.Module)",
    "ParameterMask": "a mask (ns.locate, ns.load_mask)",
    "Delta": "what a training has changed (ns.trainable)",
    "ModelConfig": "a ns.ModelConfig",
    "CalibrationSource": "a ns.CalibrationSource",
    "PromptPairs": "a ns.PromptPairs",
    "Target": "Target, as ns.find_targets gives them",
    "Unit": "Unit, as ns.find_heads gives them",
    "DataFrame": "a DataFrame of pandas",
    "ndarray": "an array of numpy",
    "Tensor": "a tensor of torch",
    "str": "a text",
    "Path": "a pathlib.Path",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "NoneType": "None",
}
_MANY = {"a text": "texts", "a whole number": "whole numbers", "a number": "numbers"}
_SHOWN = 60
_SEEN = (None, 4)
"""Of how many members it is looked at what they are, outside and within members."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A public function whose arguments are checked first.

    Raises, when it is called:
        UsageError: names function, argument, value and what was expected.
    """
    signature = inspect.signature(function)
    name = function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        hints = _hints(function)
        for argument, value in signature.bind(*args, **kwargs).arguments.items():
            hint = hints.get(argument, Any)
            if not _fits(value, hint):
                found = f"expected {_in_words(hint)}, found {_kind(value)}"
                raise UsageError(f"{name}: {argument}", shown(value), found)
        return function(*args, **kwargs)

    return call


def checked_fields(kind: Class) -> Class:
    """A public class whose constructor checks its arguments first (`checked`)."""
    kind.__init__ = checked(kind.__init__)  # type: ignore[misc]
    return kind


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function)


def shown(value: object) -> str:
    """A value in a message: short, and nothing of one whose text would be long."""
    if isinstance(value, (str, int, float, bool, Path, types.NoneType)):
        text = repr(str(value)) if isinstance(value, (str, Path)) else repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return ""


def _kind(value: object) -> str:
    """What a value is, in words."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    if isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        kinds = dict.fromkeys(type(each).__name__ for each in value) if len(value) else ()
        return f"{name} of {', '.join(kinds)}" if kinds else f"an empty {name}"
    return "one text" if name == "str" else name


def _fits(value: Any, hint: Any, depth: int = 0) -> bool:
    """Whether a value has an annotation's type, as far as that can be seen.

    All members of a collection are looked at, of those within members only the first.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each, depth) for each in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is type:
        return isinstance(value, type)
    if isinstance(origin, type):
        return _holds(value, origin, inner, depth)
    return _is_a(value, hint)


def _holds(value: Any, origin: type, inner: tuple[Any, ...], depth: int) -> bool:
    """The same of a collection or a function."""
    # A text is a collection of texts, and never meant as one.
    if not isinstance(value, origin) or isinstance(value, (str, bytes)):
        # Arrays of numbers are as good as lists of them.
        return hasattr(value, "__array__") and issubclass(list, origin)
    if not isinstance(value, Collection) or not inner:
        return True
    members = list(islice(value.values() if isinstance(value, Mapping) else value, _SEEN[depth]))
    if issubclass(origin, tuple) and inner[-1] is not ...:
        return len(value) == len(inner) and all(map(_fits, members, inner))
    wanted = inner[1] if issubclass(origin, Mapping) else inner[0]
    return all(_fits(each, wanted, 1) for each in members)


def _is_a(value: Any, hint: Any) -> bool:
    if hint is None:
        return value is None
    if hint is Any or not isinstance(hint, type) or getattr(hint, "_is_protocol", False):
        return True
    if hint in (int, float) and isinstance(value, bool):
        return False
    # Those of numpy are numbers, too.
    of_numbers = {int: numbers.Integral, float: numbers.Real}
    return isinstance(value, of_numbers.get(hint, hint))


def _in_words(hint: Any) -> str:
    """What an annotation asks for, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_in_words, inner)))
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a dict of {_many(inner[-1])}"
    if isinstance(origin, type) and inner and origin is not type:
        return f"a list of {_many(inner[0])}"
    name = getattr(hint, "__name__", str(hint))
    return _IN_WORDS.get(name, f"a {name}")


def _many(hint: Any) -> str:
    one = _in_words(hint)
    return _MANY.get(one, one.replace("a list of", "lists of"))
