"""How many tokens the router sends to every expert."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from neurosurgery.activations.sums import SampleSums, tokens_of
from neurosurgery.common.errors import RunError
from neurosurgery.models.experts import Experts


class RoutingCounts(SampleSums):
    """Per layer of experts and repeat, the number of tokens that reached every expert.

    Padding does not count; a token counts as often as its sample was drawn, and once for each of
    the experts that it goes to.
    """

    def __init__(self, experts: Sequence[Experts], num_repeats: int) -> None:
        super().__init__(num_repeats, experts)

    def result(self) -> list[dict[str, torch.Tensor]]:
        """Per repeat: `tokens_of(module)` to counts, shape (experts,), int64.

        Raises:
            RunError: no token of the samples reached any expert of a layer.
        """
        sums = self._totals()
        for experts in self.experts:
            if tokens_of(experts.name) not in sums:
                raise RunError(f"no token of the samples reaches an expert of {experts.name}")
        return [
            {name: values[repeat].to(torch.int64) for name, values in sums.items()}
            for repeat in range(self._num_repeats)
        ]
