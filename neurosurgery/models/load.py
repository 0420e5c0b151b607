"""Load a model and its tokenizer."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.tokenization_utils_base import (
    ADDED_TOKENS_FILE,
    FULL_TOKENIZER_FILE,
    SPECIAL_TOKENS_MAP_FILE,
    TOKENIZER_CONFIG_FILE,
)
from transformers.utils import (
    ADAPTER_CONFIG_NAME,
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    WEIGHTS_INDEX_NAME,
    cached_file,
    logging,
)
from transformers.utils.hub import extract_commit_hash
from transformers.utils.logging import disable_progress_bar

from neurosurgery.common.arguments import checked
from neurosurgery.common.errors import RunError, UsageError, first_line
from neurosurgery.common.json_files import read_object
from neurosurgery.common.tensor_files import what_it_is
from neurosurgery.common.terminal import has_bars
from neurosurgery.models.devices import choose_device, choose_dtype
from neurosurgery.models.gguf import gguf_source
from neurosurgery.models.quantised import Quantised, take_quantisation
from neurosurgery.models.text_part import auto_class
from neurosurgery.settings.checks import read_device_map
from neurosurgery.settings.experiment import ModelConfig
from neurosurgery.settings.gguf import gguf_file
from neurosurgery.settings.quantised import check_quantised


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, its tokenizer, and the name of its dtype.

    `quantised` says what of a quantised checkpoint was so; None for one in float weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: str
    quantised: str | None = None


def _source(config: ModelConfig) -> dict[str, Any]:
    file = gguf_file(config.name)
    if file is not None:
        return gguf_source(file)
    return {
        "pretrained_model_name_or_path": config.name,
        "revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
    }


@contextmanager
def loading(config: ModelConfig) -> Iterator[None]:
    """Turn any error for a model that cannot be loaded into one line.

    Raises:
        UsageError: the block raised anything but a lack of memory.
        RunError: the model does not fit on the device.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise RunError(f"{config.name} does not fit on the device; try --device_map auto") from None
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise _not_loaded(config, first_line(error)) from None
    except Exception as error:  # noqa: BLE001
        # A broken file or code from the hub can raise anything (an AttributeError for a config that
        # is a list); such messages say little without the class.
        raise _not_loaded(config, f"{type(error).__name__}: {first_line(error)}") from None


def _not_loaded(config: ModelConfig, reason: str) -> UsageError:
    # The reader of GGUF files checks no length: what is missing at the end shows as any error.
    expected = "; expected a whole GGUF file" if gguf_file(config.name) else ""
    reason = _damaged_file(Path(config.name)) or f"{reason}{expected}"
    return UsageError("--model", config.name, f"cannot be loaded: {reason}")


_JSON_FILES = (
    *(CONFIG_NAME, GENERATION_CONFIG_NAME, ADAPTER_CONFIG_NAME),
    *(SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME),
    *(FULL_TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_MAP_FILE, ADDED_TOKENS_FILE),
)
"""What transformers reads of a model's folder as JSON objects."""


def _damaged_file(folder: Path) -> str | None:
    """The first file of a model's folder that cannot be read, and why: no library names it."""
    for name in _JSON_FILES:
        try:
            if (folder / name).is_file():
                read_object(folder / name)
        except (OSError, ValueError) as error:
            return f"{name} is damaged ({first_line(error)})"
    for path in sorted(folder.glob("*.safetensors")):
        if reason := what_it_is(path):
            return f"{path.name}: {reason}"
    return None


def read_model_config(config: ModelConfig) -> PretrainedConfig:
    """Fetch the model's configuration: the cheapest check that the model exists.

    A quantised checkpoint's is that of the float model that it stands for.

    Raises:
        UsageError: it cannot be loaded, is quantised in a way that cannot be undone, or is an
            encoder-decoder.
    """
    return _read_config(config)[0]


def _read_config(config: ModelConfig) -> tuple[PretrainedConfig, Quantised | None]:
    with loading(config):
        found = AutoConfig.from_pretrained(**_source(config))
        found._commit_hash = _commit(config)
    if found.is_encoder_decoder:
        raise UsageError("--model", config.name, "is an encoder-decoder; expected a causal LM")
    settings = take_quantisation(found)
    if settings is None or gguf_file(config.name) is not None:
        return found, None
    check_quantised(config.name, settings)
    return found, Quantised(config, settings)


def _commit(config: ModelConfig) -> str | None:
    """The commit of a hub's model that was just read; None for a folder or file.

    transformers 5.23 no longer notes it in the configuration (`_commit_hash`).
    """
    if Path(config.name).exists():
        return None
    file = cached_file(config.name, CONFIG_NAME, revision=config.revision, local_files_only=True)
    return extract_commit_hash(file, None)


@checked
def load_tokenizer(
    config: ModelConfig, *, with_chat_template: bool = False
) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer.

    >>> ns.load_tokenizer(ns.ModelConfig(ns.DEMO.model)).decode([1])
    '!'

    Raises:
        UsageError: it cannot be loaded, or the wanted chat template is not there.
    """
    with loading(config):
        tokenizer = AutoTokenizer.from_pretrained(**_source(config))
    if with_chat_template:
        check_chat_template(tokenizer)
    return tokenizer


def check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the tokenizer has a chat template to apply.

    Raises:
        UsageError: it has none, or several and none of them is the default.
    """
    template = tokenizer.chat_template
    if template is None:
        raise UsageError("--apply_chat_template", "", "the tokenizer has no chat template")
    if isinstance(template, dict) and "default" not in template:
        names = ", ".join(sorted(template))
        raise UsageError(
            "--apply_chat_template",
            "",
            f"the tokenizer has several chat templates ({names}); expected one named default",
        )


@checked
def load_model(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase, dtype: str | None = None
) -> LoadedModel:
    """Load the weights for inference.

    `dtype` replaces the configured one; `auto` is the checkpoint's dtype, which keeps every bit. A
    quantised checkpoint becomes float weights. A model that reads images, too, is loaded whole.

    >>> config = ns.ModelConfig(ns.DEMO.model, device="cpu")
    >>> loaded = ns.load_model(config, ns.load_tokenizer(config))
    >>> loaded.dtype, loaded.model.num_parameters()
    ('float32', 3803392)

    Raises:
        UsageError: the model cannot be loaded, its checkpoint does not hold exactly its weights, or
            --device_map names what is no part of it.
    """
    device = choose_device(config)
    wanted = dtype or choose_dtype(config, device)
    is_gguf = gguf_file(config.name) is not None
    architecture, quantised = _read_config(config)
    if is_gguf:
        quantised = Quantised(config, None)
    reading = nullcontext() if quantised is None else quantised.reading()
    if not has_bars():
        # It is the only thing that transformers prints here.
        disable_progress_bar()
    with loading(config), _without_reports(), reading:
        model, found_keys = auto_class(architecture).from_pretrained(
            dtype=wanted,
            device_map=read_device_map(config.device_map),
            offload_folder=_offload_folder(config),
            output_loading_info=True,
            # Reported with the other keys below; transformers itself names none.
            ignore_mismatched_sizes=True,
            **_source(config),
            **({} if quantised is None else quantised.as_floats()),
        )
        model.config._commit_hash = _commit(config)
    if quantised is not None:
        found_keys["unexpected_keys"] = quantised.without_scales(found_keys["unexpected_keys"])
    _check_keys(config, found_keys)
    with loading(config), _without_reports():
        if quantised is not None:
            model = quantised.to_floats(model)
        if config.device_map is None:
            model = model.to(device)
    found = model.dtype if wanted == "auto" else wanted
    said = None if quantised is None else quantised.describe()
    return LoadedModel(model.eval(), tokenizer, str(found).removeprefix("torch."), said)


def _offload_folder(config: ModelConfig) -> str | None:
    """Where transformers writes weights that it converts before they go to a disk (experts).

    All others are read from the checkpoint. The folder goes with the process.
    """
    if config.device_map is None:
        return None
    folder = tempfile.TemporaryDirectory(prefix="neurosurgery_offload_")
    atexit.register(folder.cleanup)
    return folder.name


@contextmanager
def _without_reports() -> Iterator[None]:
    """Keep transformers from printing its table of keys: `_check_keys` reports them in one line."""
    before = logging.get_verbosity()
    # It says which weights are off the devices; `describe_evidence` does.
    of_accelerate = getLogger("accelerate.big_modeling")
    level = of_accelerate.level
    logging.set_verbosity_error()
    of_accelerate.setLevel("ERROR")
    try:
        yield
    finally:
        logging.set_verbosity(before)
        of_accelerate.setLevel(level)


def _check_keys(config: ModelConfig, found: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that does not hold exactly the model's weights.

    transformers only warns, and fills what is missing with random numbers. Tied weights, and what
    the model's class declares as ignorable, are not in its lists.
    """
    problems = []
    for key, saved, wanted in sorted(found["mismatched_keys"], key=lambda each: each[0])[:1]:
        problems.append(f"{key} has the shape {list(saved)}, the model's has {list(wanted)}")
    for kind, text in (
        ("missing_keys", "weights of the model are missing"),
        ("unexpected_keys", "keys are not the model's"),
    ):
        keys = sorted(found[kind])
        if keys:
            problems.append(f"{len(keys)} {text} (first: {keys[0]})")
    problems += found["error_msgs"][:1]
    if problems:
        reason = "; ".join(problems)
        raise UsageError("--model", config.name, f"has a checkpoint of another model: {reason}")
