"""MathNeuro from the paper's formulas, literally: float64, one sample at a time, full scores.

Shares no code with the package. Memory and time do not matter here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def linear_modules(model: nn.Module) -> dict[str, tuple[nn.Module, bool]]:
    """Name to (module, stored transposed) of everything with a two-dimensional weight that is no
    embedding; a head that shares its storage with the embedding is left out."""
    embedding = model.get_input_embeddings().weight
    found = {}
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in ("Linear", "Conv1D") and module.weight.data_ptr() != embedding.data_ptr():
            found[name] = (module, kind == "Conv1D")
    return found


def scores(
    model: nn.Module, samples: list[list[int]], multiplicity: np.ndarray
) -> dict[str, np.ndarray]:
    """Σ_n m_n |W| · ‖X_n‖ per module, as stored, in float64."""
    modules = linear_modules(model)
    inputs: dict[str, np.ndarray] = {}
    handles = [
        module.register_forward_hook(
            lambda _m, args, _o, name=name: inputs.__setitem__(
                name, args[0].detach().double().numpy()
            )
        )
        for name, (module, _) in modules.items()
    ]
    totals: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for ids, times in zip(samples, multiplicity, strict=True):
            for _ in range(times):
                model(input_ids=torch.tensor([ids]))
                for name, (module, transposed) in modules.items():
                    x = inputs[name].reshape(-1, inputs[name].shape[-1])
                    norm = np.zeros(x.shape[1])
                    for token in x:
                        norm += token**2
                    norm = np.sqrt(norm)
                    weight = np.abs(module.weight.detach().double().numpy())
                    score = weight * (norm[:, None] if transposed else norm[None, :])
                    totals[name] = totals.get(name, 0) + score
    for handle in handles:
        handle.remove()
    return totals


def top_k(score: np.ndarray, count: int) -> np.ndarray:
    """The `count` largest, ties to the lowest flat index, by a full stable sort."""
    order = np.argsort(-score.reshape(-1), kind="stable")
    mask = np.zeros(score.size, dtype=bool)
    mask[order[:count]] = True
    return mask.reshape(score.shape)
