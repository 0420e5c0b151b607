"""LoRA and SHiRA by PEFT, as controls with as many trained values as a mask has.

The weights of the model stay as they are; what is trained is added in the forward pass. PEFT is
an extra, and imported only here.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from neurosurgery.common.errors import RunError, UsageError, first_line
from neurosurgery.common.files import write_atomically
from neurosurgery.config.methods import LORA
from neurosurgery.masks.files import file_metadata, read_metadata

FORMAT = "neurosurgery-adapter/1"


@dataclass(frozen=True)
class Adapter:
    """An adapter of PEFT: `lora` (arXiv 2106.09685) or `shira` (arXiv 2406.13175).

    Attributes:
        method: which one.
        rank: r; the adapter of an (out, in) matrix has r · (in + out) values.
        modules: names of the linear modules that it is added to.
        seed: of its first values (LoRA), or of its places (SHiRA).
        values: the trained values by name, float32; empty before the training.
    """

    method: str
    rank: int
    modules: tuple[str, ...]
    seed: int
    values: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of_size(
        cls, method: str, model: nn.Module, weights: Sequence[str], count: int, seed: int
    ) -> Adapter:
        """The adapter of these weight matrices that comes closest to `count` values."""
        shapes = {name: model.get_parameter(name).shape for name in weights}
        if method != LORA:
            # SHiRA's values are entries of the matrix; a vector has too few of them.
            shapes = {n: s for n, s in shapes.items() if s[0] * s[1] >= sum(s)}
        per_rank = sum(sum(shape) for shape in shapes.values())
        rank = max(1, round(count / per_rank)) if per_rank else 1
        if method != LORA and shapes:
            rank = min(rank, *(s[0] * s[1] // sum(s) for s in shapes.values()))
        modules = tuple(name.removesuffix(".weight") for name in shapes)
        return cls(method, rank, modules, seed)

    @property
    def count(self) -> int:
        """The number of trained values."""
        return sum(value.numel() for value in self.values.values())

    @contextmanager
    def added(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Add the adapter inside the block, then take it away; yields the model as PEFT has it."""
        from peft import get_peft_model

        flags = {name: p.requires_grad for name, p in model.named_parameters()}
        training = model.training
        replaced = [model.get_submodule(name) for name in self.modules]
        with torch.random.fork_rng(), warnings.catch_warnings():
            # PEFT asks transformers for what has another name there since version 5.
            warnings.simplefilter("ignore", FutureWarning)
            torch.manual_seed(self.seed)
            adapted = get_peft_model(model, self._config(model))
        try:
            parameters = adapter_parameters(adapted)
            with torch.no_grad():
                for name, value in self.values.items():
                    parameters[name].copy_(value)
            # SHiRA makes a sparse tensor in every pass; torch wants to be told not to check it.
            with (
                warnings.catch_warnings(),
                torch.sparse.check_sparse_tensor_invariants(enable=False),
                _hooks_moved(replaced, [model.get_submodule(name) for name in self.modules]),
            ):
                # The engine's checks hook every module, the ones that SHiRA goes past, too.
                warnings.filterwarnings("ignore", "One of the base layers adapted with ShiRA has")
                yield adapted.train(training)
        finally:
            adapted.unload()
            if hasattr(model, "peft_config"):
                del model.peft_config
            model.train(training)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(flags[name])

    @contextmanager
    def applied(self, model: PreTrainedModel) -> Iterator[None]:
        """Add the adapter inside the block, as an edit."""
        with self.added(model):
            yield

    def _config(self, model: PreTrainedModel) -> Any:
        from peft import LoraConfig, ShiraConfig

        transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in self.modules)
        shared = {
            "r": self.rank,
            "target_modules": list(self.modules),
            "fan_in_fan_out": transposed,
        }
        if self.method == LORA:
            return LoraConfig(lora_alpha=self.rank, task_type="CAUSAL_LM", **shared)
        return ShiraConfig(random_seed=self.seed, **shared)


_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
"""Where torch keeps the hooks of a module's forward pass."""


@contextmanager
def _hooks_moved(
    replaced: Sequence[nn.Module], replacements: Sequence[nn.Module]
) -> Iterator[None]:
    """Inside the block the hooks of modules are those of what stands in their places.

    A knocked-out head would otherwise still reach the adapter, which is computed beside the module.
    Whoever has attached a hook can remove it inside the block and after it.
    """

    def swap() -> None:
        for one, other in zip(replaced, replacements, strict=True):
            for name in _HOOKS:
                first, second = getattr(one, name), getattr(other, name)
                setattr(one, name, second)
                setattr(other, name, first)

    swap()
    try:
        yield
    finally:
        swap()


def check_adapter(method: str, model: PreTrainedModel, weights: Sequence[str]) -> None:
    """Refuse a method that PEFT cannot add to a model.

    Args:
        method: which one.
        model: the model without weights, on the meta device; not to be used any more.
        weights: names of its weight matrices.

    Raises:
        UsageError: the reason is PEFT's.
    """
    from peft import get_peft_model

    adapter = Adapter.of_size(method, model, weights, 1, 0)
    config = adapter._config(model)
    if method != LORA:
        # Places cannot be drawn without memory for the matrices.
        config.mask_fn = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError, AttributeError, RuntimeError) as error:
        # PEFT's second sentence is advice on settings that a user does not have here.
        why = first_line(error).partition(". ")[0]
        reason = f"cannot be added to this model by PEFT ({why}); expected another selection"
        raise UsageError("--selection", method, reason) from error


def adapter_parameters(adapted: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters of a model that PEFT has adapted, by name."""
    return {name: p for name, p in adapted.named_parameters() if p.requires_grad}


def write_adapter(
    path: Path,
    adapter: Adapter,
    parameters: Mapping[str, nn.Parameter],
    provenance: Mapping[str, object],
) -> None:
    """Write the trained values; the metadata say how the adapter is made again."""
    values = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    settings = {
        "method": adapter.method,
        "rank": adapter.rank,
        "modules": adapter.modules,
        "seed": adapter.seed,
    }
    write_atomically(path, save(values, file_metadata(FORMAT, provenance, adapter=settings)))


def load_adapter(path: Path) -> Adapter:
    """Read an adapter that a run has written.

    Raises:
        RunError: the file is damaged or has another format.
    """
    try:
        settings = json.loads(read_metadata(path, FORMAT)["adapter"])
        with safe_open(path, framework="pt") as file:
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        settings["modules"] = tuple(settings["modules"])
        return replace(Adapter(**settings), values=values)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = f"is no readable adapter ({first_line(error)})"
        raise RunError(f"{path} {reason}; without it the same command trains it again") from error
