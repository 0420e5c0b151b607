"""Tiny random-weight models of every family, and a tokenizer; nothing is downloaded."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# One thread for each of the processes that run the tests, and for the scripts that they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import torch
import transformers
from lm_eval.tasks import _index as harness_index
from transformers import AutoTokenizer, PreTrainedModel

from neurosurgery.data import overlap
from neurosurgery.report.figures import figure

ROOT = Path(__file__).resolve().parent.parent

# No test judges a time: on a busy machine any example may take long.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the tests by how long they take.

    `slow` is written at a test: a plain run takes a sample of its cases, the first `sample` of
    them (1 if nothing is said, 0 where another test goes the same way), and `-m slow` all. `whole`
    stands in files that run whole commands, and holds for all of `top_level/`, `run/` and
    `studies/`. `quick` is every other test.
    """
    for item in items:
        if item.path.parent.name in ("top_level", "run", "studies"):
            item.add_marker("whole")
        if not (item.get_closest_marker("slow") or item.get_closest_marker("whole")):
            item.add_marker("quick")
    if config.option.markexpr or any("::" in argument for argument in config.args):
        return
    taken: Counter[tuple[str, str]] = Counter()
    beyond = []
    for item in items:
        if (slow := item.get_closest_marker("slow")) is not None:
            test = (str(item.path), getattr(item, "originalname", item.name))
            taken[test] += 1
            if taken[test] > slow.kwargs.get("sample", 1):
                beyond.append(item)
    if beyond:
        config.hook.pytest_deselected(items=beyond)
        items[:] = [item for item in items if item not in set(beyond)]


DRAWN = (ROOT / "tests" / "report", ROOT / "tests" / "cli" / "test_commands.py")
"""Tests that look at figures."""


@pytest.fixture(scope="module", autouse=True)
def figures_without_ink(request: pytest.FixtureRequest) -> Iterator[None]:
    """A run in the test's own process lays its figures out, but the files that it saves are empty.

    To draw them takes half the time of a run on a tiny model. Commands in a process of their own
    draw them, and so does what is `DRAWN`.
    """

    with pytest.MonkeyPatch.context() as patch:
        if not any(request.path.is_relative_to(path) for path in DRAWN):
            patch.setattr(figure, "svg_of", lambda _chart: "<svg></svg>")
            patch.setattr(figure, "png_of", lambda _svg: b"")
            patch.setattr(figure, "pdf_of", lambda _svg: b"")
        yield


@pytest.fixture(scope="session", autouse=True)
def texts_split_once() -> Iterator[None]:
    """Every run in a process compares the demo's samples with its tests: the same texts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "segments", cache(overlap.segments))
        yield


@pytest.fixture(scope="session", autouse=True)
def harness_tasks_read_once() -> Iterator[None]:
    """The harness has thousands of task files, and reads all of them to find one of the user's."""
    folder, read = Path(harness_index.__file__).parent, harness_index.load_yaml
    known = cache(lambda path, options: read(path, **dict(options)))

    def load_yaml(path: Path, **options: bool) -> dict:
        if not path.is_relative_to(folder):
            return read(path, **options)
        return deepcopy(known(path, tuple(options.items())))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness_index, "load_yaml", load_yaml)
        yield


VOCABULARY = 1536

_COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_LLAMA_LIKE = _COMMON | {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
_CONFIGS: dict[str, tuple[str, dict]] = {
    "llama": ("LlamaConfig", _LLAMA_LIKE),
    "mistral": ("MistralConfig", _LLAMA_LIKE | {"sliding_window": None}),
    "qwen2": ("Qwen2Config", _LLAMA_LIKE),
    "qwen3": ("Qwen3Config", _LLAMA_LIKE),
    "gemma2": ("Gemma2Config", _LLAMA_LIKE | {"query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", _LLAMA_LIKE | {"query_pre_attn_scalar": 8}),
    "phi": ("PhiConfig", _LLAMA_LIKE | {"num_key_value_heads": 3}),
    "phi3": ("Phi3Config", _LLAMA_LIKE),
    "gpt2": (
        "GPT2Config",
        _COMMON | {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 512},
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        _COMMON
        | {
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "max_position_embeddings": 512,
        },
    ),
    "opt": (
        "OPTConfig",
        _COMMON
        | {
            "hidden_size": 24,
            "ffn_dim": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "max_position_embeddings": 512,
            "word_embed_proj_dim": 24,
        },
    ),
}
FAMILIES = sorted(_CONFIGS)


def build_model(family: str, *, tied: bool = True, seed: int = 0) -> PreTrainedModel:
    """A float32 model of a family with a few thousand random weights."""
    class_name, arguments = _CONFIGS[family]
    config = getattr(transformers, class_name)(**arguments, tie_word_embeddings=tied)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    # Default initialisation is so small that every token looks alike; spread the activations.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    return model


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    return build_model


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "demo" / "model")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, tokenizer) -> Path:
    """A saved tiny Llama with the demo's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    build_model("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ragged_samples() -> list[list[int]]:
    """Token ids of eleven samples of different lengths, two of one length."""
    generator = torch.Generator().manual_seed(1)
    lengths = [3, 17, 9, 1, 30, 9, 12, 25, 5, 2, 21]
    return [
        torch.randint(1, VOCABULARY, (length,), generator=generator).tolist() for length in lengths
    ]
