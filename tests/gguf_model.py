"""Write a tiny random Qwen 2 as a GGUF file, from its configuration: no download."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import gguf
import numpy as np

LAYERS, HIDDEN, FEED_FORWARD, HEADS, KV_HEADS = 2, 64, 128, 4, 2
MERGE = ("1", "2")
END, END_ID = "<|endoftext|>", 257


def _byte_letters() -> list[str]:
    """The 256 letters that stand for bytes in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain}
    letters |= {byte: chr(256 + index) for index, byte in enumerate(moved)}
    return [letters[byte] for byte in range(256)]


def random_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """GGUF's tensor names with float32 weights, (out_features, in_features)."""
    draw = np.random.default_rng(seed)
    key_value = HIDDEN // HEADS * KV_HEADS
    shapes = {"token_embd.weight": (END_ID + 1, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        block = {
            "attn_norm.weight": (HIDDEN,),
            "ffn_norm.weight": (HIDDEN,),
            "attn_q.weight": (HIDDEN, HIDDEN),
            "attn_q.bias": (HIDDEN,),
            "attn_k.weight": (key_value, HIDDEN),
            "attn_k.bias": (key_value,),
            "attn_v.weight": (key_value, HIDDEN),
            "attn_v.bias": (key_value,),
            "attn_output.weight": (HIDDEN, HIDDEN),
            "ffn_gate.weight": (FEED_FORWARD, HIDDEN),
            "ffn_up.weight": (FEED_FORWARD, HIDDEN),
            "ffn_down.weight": (HIDDEN, FEED_FORWARD),
        }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return {
        name: (draw.standard_normal(shape) * 0.1 + name.endswith("norm.weight")).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_gguf(
    path: Path,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q4_0,
    others: Mapping[str, gguf.GGMLQuantizationType] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """Write the model, its matrices in the format `kind` where `others` names no other format.

    Returns:
        The weights that the file holds, by GGUF's names.
    """
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("tiny")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(END_ID + 1)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*_byte_letters(), "".join(MERGE), END])
    writer.add_token_types([gguf.TokenType.NORMAL] * END_ID + [gguf.TokenType.CONTROL])
    writer.add_token_merges([" ".join(MERGE)])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(END_ID)
    held = {}
    for name, weight in random_weights().items():
        if weight.ndim == 1:
            writer.add_tensor(name, weight)
            held[name] = weight
            continue
        blocks = gguf.quantize(weight, others.get(name, kind))
        writer.add_tensor(name, blocks, raw_dtype=others.get(name, kind))
        held[name] = gguf.dequantize(blocks, others.get(name, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held
