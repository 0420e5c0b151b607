"""Sums of activation statistics over samples, one row per repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import nn

from neurosurgery.common.errors import RunError
from neurosurgery.models.experts import Experts, Seen, watched_experts
from neurosurgery.models.neurons import NeuronLayer, expert_name
from neurosurgery.models.targets import Target, experts_of

NORM_DTYPE = torch.float32
"""The dtype of the norm of one sample, independent of the model's dtype."""

TOKENS = "tokens"
"""Key of the token count in the firing counts."""


def tokens_of(experts: str) -> str:
    """Key of the numbers of tokens that reached each expert of a module, (experts,)."""
    return f"{TOKENS} of {experts}"


class NonFiniteActivations(RunError):
    """The model produced infinities or NaN; the message names the module."""


class SampleSums:
    """Per module and repeat, the sum over samples n of m_n · f(activation on sample n).

    m_n is how often the repeat drew sample n; a subclass defines f. Memory is one vector per module
    and repeat, for any number of samples. A batch counts only after `commit_batch`, so that a
    failed batch leaves no trace.
    """

    def __init__(self, num_repeats: int, experts: Sequence[Experts] = ()) -> None:
        self._num_repeats = num_repeats
        self.experts = experts
        self._sums: dict[str, torch.Tensor] = {}
        self._pending: dict[str, torch.Tensor] = {}
        # Modules that see only some tokens (routed experts), whose samples are unknown there, or
        # that run in some batches only.
        self._unattributable: set[str] = set()
        self._several_runs: set[str] = set()
        # Experts' sums: what no token of a batch has reached adds nothing.
        self._routed: set[str] = set()
        self._batches = 0
        self._lengths: list[int]
        self._longest: int
        self._weights: torch.Tensor

    def begin_batch(self, lengths: Sequence[int], multiplicities: np.ndarray) -> None:
        """Set the next batch: tokens per sample, and multiplicities (repeats, samples)."""
        self._lengths, self._longest = list(lengths), max(lengths)
        self._weights = torch.from_numpy(multiplicities)
        self.discard_batch()

    def discard_batch(self) -> None:
        """Drop the sums of a failed forward pass."""
        self._pending = {}

    def commit_batch(self) -> None:
        """Add the sums of a successful forward pass."""
        if self._batches:
            self._unattributable |= (self._sums.keys() ^ self._pending.keys()) - self._routed
        self._batches += 1
        for name, values in self._pending.items():
            earlier = self._sums.get(name)
            self._sums[name] = values if earlier is None else earlier + values
        self.discard_batch()

    def _routing(self, tokens: torch.Tensor) -> torch.Tensor:
        """Which sample each routed token belongs to, (samples, routed), float32; padding to none.

        A product with it sums over every sample's own tokens, in one fixed order on any device.
        """
        samples, positions = tokens // self._longest, tokens % self._longest
        lengths = torch.tensor(self._lengths, device=tokens.device)
        rows = torch.arange(len(self._lengths), device=tokens.device)
        own = (samples == rows[:, None]) & (positions < lengths[samples])
        return own.to(NORM_DTYPE)

    def watching(self) -> AbstractContextManager[None]:
        """Sees what every expert reads inside the block."""
        return watched_experts(self.experts, self._see)

    def _see(self, experts: Experts, seen: Seen) -> None:
        """Count the tokens that an expert has seen; a subclass sums more."""
        self._count_tokens(experts, seen.expert, self._routing(seen.tokens))

    def _count_tokens(self, experts: Experts, expert: int, belongs: torch.Tensor) -> None:
        """Add to the numbers of tokens that the experts have seen, (repeats, experts)."""
        counts = self._weigh(belongs.sum(dim=1, keepdim=True))
        name = tokens_of(experts.name)
        self._routed.add(name)
        if name not in self._pending:
            self._pending[name] = counts.new_zeros(self._num_repeats, experts.count)
        self._pending[name][:, expert] += counts[:, 0]

    def _add_routed(self, name: str, values: torch.Tensor) -> None:
        """Add an expert's sums, (samples, features)."""
        self._routed.add(name)
        self._add(name, self._weigh(values))

    def _all_experts(
        self, sums: dict[str, torch.Tensor], parts: Iterable[tuple[str, str, int]]
    ) -> dict[str, torch.Tensor]:
        """The sums, with zeros for experts that no token reached in a module that has run.

        `parts` are names of sums, the experts that they belong to, and their lengths.
        """
        for name, experts, length in parts:
            if tokens_of(experts) in sums and name not in sums:
                sums[name] = torch.zeros(self._num_repeats, length, dtype=torch.float64)
        return sums

    def _attributable(self, name: str, activation: torch.Tensor) -> bool:
        """Whether the activation, (samples, tokens, …) in any layout, holds every token."""
        tokens = len(self._lengths) * self._longest
        whole = activation.numel() == tokens * activation.shape[-1]
        if not whole:
            self._unattributable.add(name)
        return whole

    def _by_sample(self, activation: torch.Tensor) -> torch.Tensor:
        """Reshape to (samples, tokens, features), padding included."""
        return activation.reshape(len(self._lengths), self._longest, activation.shape[-1])

    def _own_tokens(self, activation: torch.Tensor) -> list[torch.Tensor]:
        """One tensor per sample, (tokens, features), without padding."""
        samples = self._by_sample(activation).unbind()
        return [sample[:n] for sample, n in zip(samples, self._lengths, strict=True)]

    def _without_padding(self, activation: torch.Tensor) -> torch.Tensor:
        """Reshape to (samples, tokens, features), with zeros in place of padding."""
        activation = self._by_sample(activation)
        if min(self._lengths) == self._longest:
            return activation
        lengths = torch.tensor(self._lengths, device=activation.device)
        positions = torch.arange(self._longest, device=activation.device)
        return activation.masked_fill((positions >= lengths[:, None])[:, :, None], 0)

    def _weigh(self, values: torch.Tensor) -> torch.Tensor:
        """Σ_n m_n · values_n: (samples, features) to (repeats, features).

        In float64, which only Apple's GPUs lack.
        """
        precise = torch.float32 if values.device.type == "mps" else torch.float64
        # The converted weights are kept: most other modules are on the same device.
        self._weights = self._weights.to(values.device, precise)
        return self._weights @ values.to(precise)

    def _add(self, name: str, values: torch.Tensor) -> None:
        earlier = self._pending.get(name)
        if earlier is not None:
            self._several_runs.add(name)
        self._pending[name] = values if earlier is None else earlier + values

    def _totals(self) -> dict[str, torch.Tensor]:
        """Name to (repeats, features), float64 on the CPU, without unattributable modules."""
        return {
            name: values.cpu().double()
            for name, values in self._sums.items()
            if name not in self._unattributable
        }


class ActivationNorms(SampleSums):
    """Per target and repeat, the vector v_j = Σ_n m_n · ‖X_n[:, j]‖₂ over samples n.

    X_n, shape (tokens, in_features), is the target's input on sample n (MathNeuro,
    arXiv 2410.16930, §3). A target that runs several times in a pass adds the norm of every run.
    """

    def __init__(self, targets: Sequence[Target], num_repeats: int) -> None:
        super().__init__(num_repeats, experts_of(targets))
        self._targets = targets
        self._last_input: torch.Tensor | None = None
        self._last_sum: torch.Tensor

    def hooks(self) -> dict[nn.Module, Callable[[torch.Tensor], None]]:
        """The hook of every linear module, for `input_hooks`."""
        return {t.module: self._hook(t.name) for t in self._targets if t.expert is None}

    def discard_batch(self) -> None:
        """Drop the sums of a failed forward pass."""
        super().discard_batch()
        self._last_input = None

    def _hook(self, name: str) -> Callable[[torch.Tensor], None]:
        def record(inputs: torch.Tensor) -> None:
            # Modules that share an input (q, k, v; gate, up) share its norms.
            if inputs is not self._last_input:
                if not self._attributable(name, inputs):
                    return
                self._last_input = inputs
                self._last_sum = self._weigh(self._norms(inputs))
            self._add(name, self._last_sum)

        return record

    def _norms(self, inputs: torch.Tensor) -> torch.Tensor:
        """Norms over each sample's own tokens: (samples, features)."""
        if inputs.device.type == "cpu":
            # A tenth of vector_norm's time: a sample's squares stay in the cache, the sum of rows
            # is vectorised (and pairwise, so more accurate), and padding needs no masked copy.
            # A GPU is faster with few large kernels.
            sums = [torch.sum(_squares(sample), dim=0) for sample in self._own_tokens(inputs)]
            return torch.stack(sums).sqrt_()
        return torch.linalg.vector_norm(self._without_padding(inputs), dim=1, dtype=NORM_DTYPE)

    def _see(self, experts: Experts, seen: Seen) -> None:
        belongs = self._routing(seen.tokens)
        self._count_tokens(experts, seen.expert, belongs)
        for parameter, inputs in zip(experts.parameters, (seen.inputs, seen.inner), strict=True):
            name = f"{experts.name}.{parameter}.{seen.expert}"
            self._add_routed(name, self._routed_norms(belongs, inputs))

    def _routed_norms(self, belongs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Norms over each sample's tokens that reached an expert: (samples, features)."""
        return (belongs @ _squares(inputs)).sqrt_()

    def result(self) -> list[dict[str, torch.Tensor]]:
        """Per repeat: target name to v, shape (in_features,), float64 on the CPU.

        Of experts also the numbers of tokens that reached them (`tokens_of`); one that none reached
        has zeros. Targets without a forward pass, or with only some tokens, are absent.

        Raises:
            NonFiniteActivations: a target's input held an infinity or NaN.
            RunError: no target has seen all tokens of all samples.
        """
        routed = (
            (t.name, t.name.rsplit(".", 2)[0], t.in_features)
            for t in self._targets
            if t.expert is not None
        )
        sums = self._all_experts(self._totals(), routed)
        if self._targets and not sums:
            raise RunError("no linear module of this model sees every token of the samples")
        for name, values in sums.items():
            if not torch.isfinite(values).all():
                raise NonFiniteActivations(
                    f"the input of {name} is not finite on the calibration samples; "
                    "try --dtype float32 or bfloat16"
                )
        return [
            {name: values[repeat].clone() for name, values in sums.items()}
            for repeat in range(self._num_repeats)
        ]


class ActivationSquares(ActivationNorms):
    """Per target and repeat, the vector Σ_n m_n · ‖X_n[:, j]‖₂² (Wanda, arXiv 2306.11695, §3)."""

    def _norms(self, inputs: torch.Tensor) -> torch.Tensor:
        return super()._norms(inputs).square_()

    def _routed_norms(self, belongs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return super()._routed_norms(belongs, inputs).square_()


def _squares(values: torch.Tensor) -> torch.Tensor:
    converted = values.to(NORM_DTYPE)
    # In place if the conversion made a copy: half the time in bfloat16.
    return converted.square() if converted is values else converted.mul_(converted)


class FiringCounts(SampleSums):
    """Per MLP, neuron and repeat, the number of tokens with a positive activation.

    Padding does not count; a token counts as often as its sample was drawn (LAPE, Tang et al.,
    arXiv 2402.16438, §2.2: probability over tokens).
    """

    def __init__(self, layers: Sequence[NeuronLayer], num_repeats: int) -> None:
        super().__init__(num_repeats, list(dict.fromkeys(e.experts for e in layers if e.experts)))
        self._layers = layers

    def hooks(self) -> dict[nn.Module, Callable[[torch.Tensor], None]]:
        """The hook of every activation, for `output_hooks`."""
        return {e.activation: self._hook(e.name) for e in self._layers if e.activation is not None}

    def _see(self, experts: Experts, seen: Seen) -> None:
        belongs = self._routing(seen.tokens)
        self._count_tokens(experts, seen.expert, belongs)
        activated = experts.activated(seen.gate)
        counts = belongs @ (activated > 0).to(NORM_DTYPE)
        finite = torch.isfinite(activated).all()
        name = expert_name(experts.name, seen.expert)
        self._add_routed(name, torch.where(finite, counts, torch.nan))

    def _hook(self, name: str) -> Callable[[torch.Tensor], None]:
        def record(outputs: torch.Tensor) -> None:
            if not self._attributable(name, outputs):
                return
            counts, finite = self._counts(outputs)
            # NaN > 0 is False and would hide a NaN; NaN in the sum makes `result` raise.
            self._add(name, torch.where(finite, self._weigh(counts), torch.nan))

        return record

    def _counts(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The counts, (samples, neurons), and whether every real token is finite."""
        if outputs.device.type == "cpu":
            # An eighth of the time: padding needs no masked copy, int32 sums are vectorised, and
            # isfinite of the extremes (NaN if any value is NaN) is faster than of all values.
            own = self._own_tokens(outputs)
            counts = [torch.sum(sample > 0, dim=0, dtype=torch.int32) for sample in own]
            extremes = [torch.stack(torch.aminmax(sample)) for sample in own if len(sample)]
            return torch.stack(counts), torch.isfinite(torch.cat(extremes)).all()
        outputs = self._without_padding(outputs)
        return (outputs > 0).sum(dim=1), torch.isfinite(outputs).all()

    def commit_batch(self) -> None:
        """Add the sums of a successful forward pass."""
        self._add(TOKENS, self._weigh(torch.tensor(self._lengths)[:, None]))
        super().commit_batch()

    def result(self) -> list[dict[str, torch.Tensor]]:
        """Per repeat: layer name to counts, shape (neurons,), and `tokens`, shape (1,); int64.

        Of experts also the numbers of tokens that reached them (`tokens_of`).

        Raises:
            NonFiniteActivations: an activation was an infinity or NaN.
            RunError: a layer sees only some of the tokens (a routed expert), or runs several times
                in a pass.
        """
        routed = ((e.name, e.experts.name, e.neurons) for e in self._layers if e.experts)
        sums = self._all_experts(self._totals(), routed)
        for layer in self._layers:
            if layer.name not in sums:
                raise RunError(f"{layer.name} does not see every token; LAPE needs a count of all")
            if layer.name in self._several_runs:
                raise RunError(f"{layer.name} runs several times in a pass; LAPE needs one run")
            if not torch.isfinite(sums[layer.name]).all():
                raise NonFiniteActivations(
                    f"the activation of {layer.name} is not finite on the calibration samples; "
                    "try --dtype float32 or bfloat16"
                )
        return [
            {name: values[repeat].to(torch.int64) for name, values in sums.items()}
            for repeat in range(self._num_repeats)
        ]
