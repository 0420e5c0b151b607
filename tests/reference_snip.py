"""SNIP from the paper's formulas (arXiv 2402.05162, §3.1), literally: float64, a sample at a time.

Shares no code with the package.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import reference
import torch
from torch import nn


def scores(
    model: nn.Module, samples: list[list[int]], starts: list[int], multiplicity: np.ndarray
) -> dict[str, np.ndarray]:
    """mean_n |W · ∂L/∂W| per module, as stored; L = -Σ log p(token | before) from `start` on."""
    exact = deepcopy(model).double()
    modules = reference.linear_modules(exact)
    totals = {name: np.zeros(module.weight.shape) for name, (module, _) in modules.items()}
    for ids, start, times in zip(samples, starts, multiplicity, strict=True):
        for _ in range(times):
            exact.zero_grad(set_to_none=True)
            loss = torch.zeros((), dtype=torch.float64)
            chances = exact(input_ids=torch.tensor([ids])).logits[0].softmax(dim=-1)
            for place in range(start, len(ids)):
                loss = loss - chances[place - 1, ids[place]].log()
            if start < len(ids):
                loss.backward()
            for name, (module, _) in modules.items():
                if module.weight.grad is not None:
                    product = module.weight.detach() * module.weight.grad
                    totals[name] += product.abs().numpy()
    return {name: total / multiplicity.sum() for name, total in totals.items()}
