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


def random_mxfp4(name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Random codes and scales for GPT-OSS's experts (experts, in_features, out_features)."""
    if not name.endswith(("gate_up_proj", "down_proj")):
        return {name: weight.to(torch.bfloat16)}
    draw = torch.Generator().manual_seed(len(name))
    experts, columns, rows = weight.shape
    groups = (experts, rows, columns // 32)
    return {
        f"{name}_blocks": torch.randint(256, (*groups, 16), generator=draw, dtype=torch.uint8),
        f"{name}_scales": torch.randint(115, 125, groups, generator=draw, dtype=torch.uint8),
    }


def compressed(kind: str) -> dict[str, object]:
    """The settings of compressed-tensors: int4 in groups of eight, FP8 or int8 by row."""
    weights: dict[str, object] = {"num_bits": 4, "type": "int", "strategy": "group"}
    weights |= {"group_size": 8, "symmetric": True}
    if kind != "pack-quantized":
        number = kind.removesuffix("-quantized")
        weights = {"num_bits": 8, "type": number, "strategy": "channel", "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": kind,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


def to_compressed_int4(
    name: str, weight: torch.Tensor, exact: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Random int4, eight in an int32, the first in the lowest bits, 8 added to each.

    Args:
        exact: gets the float64 weights that they stand for.
    """
    if not name.endswith("proj.weight"):
        return {name: weight.to(torch.bfloat16)}
    draw = torch.Generator().manual_seed(len(name))
    rows, columns = weight.shape
    codes = torch.randint(-8, 8, (rows, columns), generator=draw)
    scales = (torch.rand(rows, columns // 8, generator=draw) / 100 + 0.001).to(torch.bfloat16)
    exact[name] = codes.double() * scales.double().repeat_interleave(8, 1)
    words = np.zeros((rows, columns // 8), np.uint32)
    for place in range(8):
        words |= (codes[:, place::8] + 8).numpy().astype(np.uint32) << np.uint32(4 * place)
    module = name.removesuffix("weight")
    return {
        f"{module}weight_packed": torch.from_numpy(words.view(np.int32)),
        f"{module}weight_scale": scales,
        f"{module}weight_shape": torch.tensor([rows, columns]),
    }


def to_compressed_fp8(
    name: str, weight: torch.Tensor, exact: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """float8_e4m3fn with a bfloat16 scale for each row; `exact` as above."""
    if not name.endswith("proj.weight"):
        return {name: weight.to(torch.bfloat16)}
    scales = (weight.abs().amax(1, keepdim=True) / 448).to(torch.bfloat16)
    codes = (weight / scales.float()).to(torch.float8_e4m3fn)
    exact[name] = codes.double() * scales.double()
    return {name: codes, f"{name}_scale": scales}


def to_compressed_int8(
    name: str, weight: torch.Tensor, exact: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """int8 with a bfloat16 scale for each row; `exact` as above."""
    if not name.endswith("proj.weight"):
        return {name: weight.to(torch.bfloat16)}
    scales = (weight.abs().amax(1, keepdim=True) / 126).to(torch.bfloat16)
    codes = (weight / scales.float()).round().to(torch.int8)
    exact[name] = codes.double() * scales.double()
    return {name: codes, f"{name}_scale": scales}
