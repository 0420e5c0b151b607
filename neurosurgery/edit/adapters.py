"""LoRA and SHiRA by PEFT, as controls with as many trained values as a mask has.

The weights of the model stay as they are; what is trained is added in the forward pass. PEFT is
an extra, and imported only here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from neurosurgery.common.errors import RunError, UsageError, first_line
from neurosurgery.common.files import write_atomically
from neurosurgery.common.json_files import parse_json
from neurosurgery.common.tensor_files import (
    ADAPTER,
    UNREADABLE,
    file_error,
    file_metadata,
    in_fixed_order,
    read_metadata,
    read_provenance,
)
from neurosurgery.edit.delta import Delta
from neurosurgery.masks.files import file_errors
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.methods.given import LORA
from neurosurgery.methods.registry import METHODS
from neurosurgery.models.offload import check_on_devices

_NAME = "default"
"""What PEFT calls the one adapter of a model."""


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
        """The adapter of these weight matrices that comes closest to `count` values.

        PEFT adds to linear modules alone: experts' matrices among `weights` stay without.
        """
        own = dict(model.named_parameters())
        shapes = {name: own[name].shape for name in weights if name in own}
        if method != LORA.name:
            # SHiRA's values are entries of the matrix; a vector has too few of them.
            shapes = {n: s for n, s in shapes.items() if s[0] * s[1] >= sum(s)}
        per_rank = sum(sum(shape) for shape in shapes.values())
        rank = max(1, round(count / per_rank)) if per_rank else 1
        if method != LORA.name and shapes:
            rank = min(rank, *(s[0] * s[1] // sum(s) for s in shapes.values()))
        modules = tuple(name.removesuffix(".weight") for name in shapes)
        return cls(method, rank, modules, seed)

    @property
    def count(self) -> int:
        """The number of trained values."""
        return sum(value.numel() for value in self.values.values())

    @contextmanager
    def added(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Add the adapter inside the block, then take it away; yields the model as PEFT has it.

        It is taken away by our own hands, because PEFT may raise with half of the modules adapted.
        """
        from peft import get_peft_model

        check_on_devices(model, "an adapter")
        flags = {name: p.requires_grad for name, p in model.named_parameters()}
        own, training = set(vars(model)), model.training
        replaced = [model.get_submodule(name) for name in self.modules]
        try:
            with torch.random.fork_rng(), warnings.catch_warnings():
                # PEFT asks transformers for what has another name there since version 5.
                warnings.simplefilter("ignore", FutureWarning)
                torch.manual_seed(self.seed)
                adapted = get_peft_model(model, self._config(model))
            parameters = adapter_parameters(adapted)
            self._check_values(parameters)
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
            for name, module in zip(self.modules, replaced, strict=True):
                model.set_submodule(name, module)
            for name in vars(model).keys() - own:
                delattr(model, name)
            model.train(training)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(flags[name])

    @contextmanager
    def applied(self, model: PreTrainedModel) -> Iterator[None]:
        """Add the adapter inside the block, as an edit."""
        with self.added(model):
            yield

    def delta(self, model: PreTrainedModel) -> Delta:
        """What the adapter adds to the weights of its modules, as changes that can be written.

        LoRA changes every weight of a matrix, SHiRA those that it has chosen. Takes 4 bytes for
        each weight of the modules.

        Raises:
            ValueError: the adapter is of another model.
        """
        missing = [name for name in self.modules if not _has_matrix(model, name)]
        if missing:
            raise ValueError(f"the model has no matrix {missing[0]}")
        with self.added(model), torch.no_grad():
            added = {
                f"{name}.weight": model.get_submodule(name).get_delta_weight(_NAME).float().cpu()
                for name in self.modules
            }
        dense = {name: each.to_dense() if each.is_sparse else each for name, each in added.items()}
        mask = ParameterMask.from_tensors({name: each != 0 for name, each in dense.items()})
        return Delta(mask, {n: each.reshape(-1)[mask.indices(n)] for n, each in dense.items()})

    def _check_values(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Refuse values that are not exactly those of the adapted model; before a training is none.

        Raises:
            ValueError: names the first that differs.
        """
        there = {name: tuple(p.shape) for name, p in parameters.items()}
        mine = {name: tuple(value.shape) for name, value in self.values.items()}
        for name, _ in sorted(there.items() ^ mine.items() if mine else ()):
            shapes = mine.get(name, "missing"), there.get(name, "missing")
            raise ValueError(f"{name} is {shapes[0]} in the adapter and {shapes[1]} in the model")

    def _config(self, model: PreTrainedModel) -> Any:
        from peft import LoraConfig, ShiraConfig

        transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in self.modules)
        shared = {
            "r": self.rank,
            "target_modules": list(self.modules),
            "fan_in_fan_out": transposed,
        }
        if self.method == LORA.name:
            return LoraConfig(lora_alpha=self.rank, task_type="CAUSAL_LM", **shared)
        return ShiraConfig(random_seed=self.seed, **shared)


def _has_matrix(model: nn.Module, name: str) -> bool:
    try:
        return isinstance(model.get_submodule(name), (nn.Linear, Conv1D))
    except AttributeError:
        return False


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
    if method != LORA.name:
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
    metadata = file_metadata(ADAPTER, provenance, adapter=settings)
    write_atomically(path, *in_fixed_order(save(values, metadata)))


def load_adapter(path: Path) -> Adapter:
    """Read an adapter that a run has written.

    Raises:
        RunError: the file is damaged or has another format.
    """
    try:
        return _read(path)
    except UNREADABLE as error:
        reason = f"is no readable adapter ({file_error(path, error)})"
        raise RunError(f"{path} {reason}; without it the same command trains it again") from error


def read_adapter_file(path: Path, flag: str) -> tuple[Adapter, dict[str, Any]]:
    """Read an adapter and its provenance from a file that the user gives.

    Raises:
        UsageError: the file is missing or damaged; names `flag`.
    """
    with file_errors(path, flag, "adapter"):
        return _read(path), read_provenance(read_metadata(path, ADAPTER))


def _read(path: Path) -> Adapter:
    settings = parse_json(read_metadata(path, ADAPTER).get("adapter", "null"))
    match settings:
        case {"method": str(method), "rank": int(rank), "modules": [*modules], "seed": int(seed)}:
            known = method in METHODS and METHODS[method].adapter and rank > 0
            known = known and all(isinstance(name, str) for name in modules)
        case _:
            known = False
    if not known:
        raise ValueError("the metadata do not say how the adapter is made")
    with safe_open(path, framework="pt") as file:
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, value in values.items():
        if value.dtype != torch.float32:
            raise ValueError(f"{name} is {value.dtype}; expected {torch.float32}")
        if not value.isfinite().all():
            raise ValueError(f"a value of {name} is NaN or infinite")
    if not values:
        raise ValueError("it holds no values")
    return Adapter(method, rank, tuple(modules), seed, values)
