"""Quantised checkpoints as `--model`: which can become float weights. Imports no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from neurosurgery.common.errors import UsageError

METHODS = {
    "fp8": None,
    "mxfp4": None,
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
}
"""`quant_method` of a config.json, and the package that turns such weights into floats, if it is
not transformers itself."""

_COMPRESSED = {"pack-quantized", "float-quantized", "int-quantized"}
"""Formats of compressed-tensors whose weights were compared with a reference."""

KEY = "quantization_config"
_ORIGINAL = "expected its original in float weights, or one of these: GGUF, " + ", ".join(METHODS)


def quantisation_of(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a config.json says of quantisation, for all of the model or for its text part."""
    text = content.get("text_config")
    for part in (content, text if isinstance(text, Mapping) else {}):
        if (found := part.get(KEY)) is not None:
            return found if isinstance(found, Mapping) else {}
    return None


def method_of(settings: Mapping[str, Any]) -> str:
    """The name of the method; old files of bitsandbytes give none."""
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    return str(settings.get("quant_method"))


def check_quantised(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse a quantised checkpoint that cannot become float weights exactly.

    Args:
        name: the model's.
        settings: the result of `quantisation_of`.

    Raises:
        UsageError: nothing here turns this method into float weights, or its package is missing.
    """
    method = method_of(settings)
    if method not in METHODS:
        raise UsageError("--model", name, f"is quantised ({method}); {_ORIGINAL}")
    if method == "compressed-tensors":
        _check_compressed(name, settings)
    package = METHODS[method]
    if package is not None and importlib.util.find_spec(package.replace("-", "_")) is None:
        reason = f"is quantised ({method}); expected `pip install {package}` first"
        raise UsageError("--model", name, reason)


def _check_compressed(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse several formats at once: transformers reads every dense matrix in the first one."""
    groups = settings.get("config_groups")
    groups = groups if isinstance(groups, Mapping) else {}
    own = {each.get("format") for each in groups.values() if isinstance(each, Mapping)}
    formats = {str(each) for each in {settings.get("format"), *own} - {None, "mixed-precision"}}
    if len(groups) > 1 or not formats <= _COMPRESSED:
        found = ", ".join(sorted(formats)) + f", {len(groups)} groups" * (len(groups) > 1)
        expected = f"one group of matrices in {' or '.join(sorted(_COMPRESSED))}"
        reason = f"is quantised (compressed-tensors: {found}); expected {expected}"
        raise UsageError("--model", name, reason)
