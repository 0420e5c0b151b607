"""Write tiny quantised checkpoints by hand, from the definitions of their formats: no download."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

BLOCK = (128, 128)
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""E2M1: the values of the eight codes without a sign; the sign is bit 3."""


def write_quantised(
    model: PreTrainedModel,
    folder: Path,
    settings: Mapping[str, object],
    quantise: Callable[[str, torch.Tensor], dict[str, torch.Tensor]],
) -> dict[str, torch.Tensor]:
    """Save a model, then replace its tensors by what `quantise` makes of each, by names on disk.

    Returns:
        What the file holds.
    """
    model.save_pretrained(folder)
    held: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        held |= quantise(name, tensor)
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    content["quantization_config"] = dict(settings)
    (folder / "config.json").write_text(json.dumps(content))
    return held


def to_fp8(
    name: str, weight: torch.Tensor, block: tuple[int, int] = BLOCK
) -> dict[str, torch.Tensor]:
    """DeepSeek V3's format: float8_e4m3fn, and a float32 scale for every block; 448 is the largest.

    A block at the edge is cut off.
    """
    if not name.endswith("proj.weight") and "proj_with_mqa" not in name and "_b_proj" not in name:
        return {name: weight}
    rows, columns = weight.shape
    scales = torch.empty(-(-rows // block[0]), -(-columns // block[1]))
    codes = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            place = (
                slice(i * block[0], (i + 1) * block[0]),
                slice(j * block[1], (j + 1) * block[1]),
            )
            scales[i, j] = weight[place].abs().max() / 448
            codes[place] = (weight[place] / scales[i, j]).to(torch.float8_e4m3fn)
    return {name: codes, f"{name}_scale_inv": scales}


def from_fp8(codes: torch.Tensor, scales: torch.Tensor, block: tuple[int, int]) -> np.ndarray:
    """The float64 weights that the codes stand for, element by element."""
    bits = codes.view(torch.uint8).numpy()
    found = np.empty(bits.shape)
    for (row, column), code in np.ndenumerate(bits):
        sign, exponent, mantissa = -1.0 if code >> 7 else 1.0, int(code >> 3 & 15), int(code & 7)
        size = (
            mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
        )
        found[row, column] = sign * size * float(scales[row // block[0], column // block[1]])
    return found


def from_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> np.ndarray:
    """The float64 weights (experts, in_features, out_features) of GPT-OSS's packed experts.

    Args:
        blocks: bytes (experts, out_features, groups, 16), the first of two codes in the low bits.
        scales: E8M0 (experts, out_features, groups): 2 ** (byte - 127).
    """
    experts, rows, groups, width = blocks.shape
    found = np.empty((experts, groups * width * 2, rows))
    for (expert, row, group, byte), pair in np.ndenumerate(blocks.numpy()):
        scale = 2.0 ** (int(scales[expert, row, group]) - 127)
        for half, code in enumerate((int(pair) & 15, int(pair) >> 4)):
            value = FP4_VALUES[code & 7] * (-1 if code & 8 else 1)
            found[expert, (group * width + byte) * 2 + half, row] = value * scale
    return found
