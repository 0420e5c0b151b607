"""Load quantised checkpoints as float weights, and say what of them was quantised.

Everything that is measured, masked and edited is then the float model that the stored numbers stand
for. transformers does it for most formats, with faults that are mended here (release 5.23):

1. FP8 with a block that the matrix cuts off: it takes smaller blocks for granted, and scales
   weights by their neighbours' factor, or stops. `whole_blocks`
2. Weights that were not quantised keep the checkpoint's number format beside those that were.
   `_in_one_format`
3. A model of bitsandbytes, and a mixture of experts of any kind, cannot be saved after it was
   dequantised. `_forget_how_it_was_read`
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    cached_file,
)

from neurosurgery.common.json_files import read_object
from neurosurgery.models.gguf import AS_FLOATS, describe_gguf, line_about
from neurosurgery.models.gguf import as_floats as gguf_as_floats
from neurosurgery.settings.experiment import ModelConfig
from neurosurgery.settings.gguf import gguf_file
from neurosurgery.settings.quantised import KEY, method_of

_GGUF = "gguf"
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_SMALL = re.compile("F8_E[45].*|[IU](8|16|32)")
"""Number formats in a checkpoint, as safetensors names them, that are no ordinary floats."""

_BESIDES = re.compile(
    r"(_scale|_scale_inv|_scales|\.scale|\.qscale_\w+|_zero_point|weight_shape"
    r"|_global_scale|weight_format|\.SCB|absmax|quant_map|\.quant_state\.\w+)$"
)
"""How the names end of tensors that say how to read another: no weights of their own."""

_OF_ACTIVATIONS = re.compile(
    r"\.((in|out)put_(scale|zero_point|global_scale)|activation_scale|[qkv]_(scale|zero_point))$"
)


def take_quantisation(architecture: PretrainedConfig) -> Mapping[str, Any] | None:
    """Take from a configuration what says that its checkpoint is quantised, and return it.

    What is left describes the model with float weights.
    """
    parts = [architecture, getattr(architecture, "text_config", None)]
    parts = [part for part in parts if isinstance(part, PretrainedConfig)]
    found = [vars(part).pop(KEY) for part in parts if KEY in vars(part)]
    return next((each for each in found if each is not None), None)


class Quantised:
    """A quantised checkpoint: how to load it as floats, and what to say of it."""

    def __init__(self, config: ModelConfig, settings: Mapping[str, Any] | None) -> None:
        """`settings`: what its config.json says; None for a GGUF file."""
        self._config = config
        self._settings = settings
        self._method = _GGUF if settings is None else method_of(settings)

    @property
    def _named(self) -> str:
        """The method, and the variety of it that the settings give."""
        settings = self._settings or {}
        kind = "bnb_4bit_quant_type" if settings.get("load_in_4bit") else "format"
        return " ".join([self._method, *([str(settings[kind])] if settings.get(kind) else [])])

    def as_floats(self) -> dict[str, Any]:
        """The arguments that make `from_pretrained` turn what is stored into float weights."""
        if self._method == _GGUF:
            return gguf_as_floats()
        kind = {
            "fp8": transformers.FineGrainedFP8Config,
            "mxfp4": transformers.Mxfp4Config,
            "compressed-tensors": transformers.CompressedTensorsConfig,
        }.get(self._method)
        # bitsandbytes has no such setting: `to_floats` does it.
        return {} if kind is None else {"quantization_config": kind(dequantize=True)}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Mend what transformers does wrong while it loads, inside the block.

        Raises:
            ValueError: it cannot turn a tensor into floats; it shows why in a table of its own.
        """
        mended = whole_blocks() if self._method == "fp8" else nullcontext()
        with mended, warnings.catch_warnings():
            # It says that `as_floats` overwrites what the checkpoint says.
            warnings.filterwarnings("ignore", "You passed `quantization_config`")
            try:
                yield
            except RuntimeError as error:
                if "conversion" not in str(error):
                    raise
                reason = f"transformers cannot turn its weights ({self._named}) into floats"
                raise ValueError(reason) from None

    def without_scales(self, keys: Iterable[str]) -> set[str]:
        """Keys of a checkpoint but those that quantise activations, which stay floats here."""
        return {key for key in keys if not _OF_ACTIVATIONS.search(key)}

    def to_floats(self, model: PreTrainedModel) -> PreTrainedModel:
        """Finish the loaded model: nothing in it is quantised, or says so.

        Raises:
            ValueError: a weight has a number format that is no ordinary float.
        """
        if self._method == "bitsandbytes":
            model = model.dequantize(dtype=model.config.dtype)
        _forget_quantisation(model)
        for name, weight in model.named_parameters():
            if weight.dtype not in _FLOATS:
                stored = str(weight.dtype).removeprefix("torch.")
                raise ValueError(f"{name} stays quantised ({stored}); its scales are missing")
        if self._method != _GGUF:
            _in_one_format(model)
        return model

    def describe(self) -> str:
        """Say in one line how many tensors were quantised, and in which number formats.

        Files other than safetensors are not read a second time to count them.
        """
        file = gguf_file(self._config.name)
        if file is not None or self._settings is None:
            return describe_gguf(file or Path(self._config.name))
        kinds = Counter(_stored_formats(self._config))
        if not kinds:
            return f"{self._config.label}: its weights were quantised ({self._named}); {AS_FLOATS}"
        quantised = {kind: n for kind, n in kinds.most_common() if _SMALL.fullmatch(kind)}
        return line_about(self._config.label, kinds.total(), quantised, self._named)


def _forget_quantisation(model: PreTrainedModel) -> None:
    """Take from a model with float weights what says that it is quantised.

    Otherwise transformers would refuse to move or to save it, or write a configuration with which
    the saved folder cannot be loaded.
    """
    take_quantisation(model.config)
    for name in ("quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        if name in vars(model):
            delattr(model, name)
    model.hf_quantizer = None
    model.is_quantized = False
    _forget_how_it_was_read(model)


def _forget_how_it_was_read(model: PreTrainedModel) -> None:
    """Let saving revert the model's own conversions, as after loading a float checkpoint.

    Those that dequantised as well, of which the experts' made one tensor of many, cannot be.
    """
    used = getattr(model, "_weight_conversions", None)
    if used is None:
        return

    def key(conversion: Any) -> tuple[str | None, ...]:
        return (conversion.scope_prefix, *conversion.target_patterns)

    own = {key(each): each for each in get_model_conversion_mapping(model)}
    kept = [own.get(key(each)) if _dequantises(each) else each for each in used]
    model._weight_conversions = [each for each in kept if each is not None]


def _dequantises(conversion: object) -> bool:
    return any(hasattr(each, "hf_quantizer") for each in getattr(conversion, "operations", ()))


def _in_one_format(model: PreTrainedModel) -> None:
    """Give every weight the model's number format, but those that the class keeps in float32."""
    dtype = model.config.dtype
    if dtype is None:
        return
    kept = [re.compile(rf"(^|\.){name}(\.|$)") for name in model._get_dtype_plan(dtype)]
    for name, weight in model.named_parameters():
        if weight.dtype != dtype and not weight.is_meta:
            is_kept = weight.dtype == torch.float32 and any(each.search(name) for each in kept)
            weight.data = weight.data if is_kept else weight.data.to(dtype)


def _stored_formats(config: ModelConfig) -> Iterator[str]:
    """The number format of every tensor of the checkpoint that is no scale of another."""
    for path in _weight_files(config):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                if not _BESIDES.search(name):
                    yield file.get_slice(name).get_dtype()


def _weight_files(config: ModelConfig) -> list[str]:
    """The safetensors files that were just loaded, from the folder or from the hub's cache."""

    def found(name: str) -> str | None:
        return cached_file(
            config.name,
            name,
            revision=config.revision,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
        )

    whole, index = found(SAFE_WEIGHTS_NAME), found(SAFE_WEIGHTS_INDEX_NAME)
    names = set(read_object(Path(index))["weight_map"].values()) if index and not whole else ()
    paths = [whole, *map(found, sorted(names))]
    return [path for path in paths if path is not None]


@contextmanager
def whole_blocks() -> Iterator[None]:
    """Make transformers scale FP8 weights block by block where the last block is cut off.

    It takes the size of a block from the matrix and the number of its scales: 192 rows with two
    scales are two blocks of 96 to it, where the checkpoint has 128 and 64; and 576 rows with five,
    which DeepSeek V3 has, are an error. A scale for every weight leaves nothing to guess.
    """
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    original = Fp8Dequantize._dequantize_one

    def dequantise(
        self: Fp8Dequantize, codes: torch.Tensor, scales: torch.Tensor, *more: Any, **named: Any
    ) -> torch.Tensor:
        block = self.hf_quantizer.quantization_config.weight_block_size
        return original(self, codes, _for_every_weight(codes, scales, block), *more, **named)

    Fp8Dequantize._dequantize_one = dequantise
    try:
        yield
    finally:
        Fp8Dequantize._dequantize_one = original


def _for_every_weight(
    codes: torch.Tensor, scales: torch.Tensor, block: Sequence[int] | None
) -> torch.Tensor:
    """Repeat the scales of cut blocks; leave those of whole ones, and of other grids, as they are.

    Args:
        codes: FP8 (…, out_features, in_features).
        scales: (…, blocks down, blocks across).
        block: rows and columns of a block; None where a matrix has one scale.
    """
    if block is None or scales.ndim < 2 or codes.dtype not in _FP8:
        return scales
    shape = codes.shape[-2:]
    if all(size % wide == 0 for size, wide in zip(shape, block, strict=True)):
        return scales
    if tuple(scales.shape[-2:]) != tuple(
        -(-size // wide) for size, wide in zip(shape, block, strict=True)
    ):
        return scales
    if scales.dtype != torch.uint8:
        # E8M0 scales are powers of two, which float32 holds; torch cannot repeat them.
        scales = scales.float()
    for axis, wide in ((-2, block[0]), (-1, block[1])):
        scales = scales.repeat_interleave(wide, axis)
    return scales[..., : shape[0], : shape[1]]
