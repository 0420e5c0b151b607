"""A key/value cache with spare memory: a decoding step copies no earlier tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

_ROOM = 64
"""Spare tokens per allocation: a step beyond them copies all keys and values."""


@dataclass
class _Place:
    """Memory for keys and values, each of shape (rows, heads, capacity, dimension).

    `used` counts the tokens that any layer has written.
    """

    keys: torch.Tensor
    values: torch.Tensor
    used: int


class GrowingLayer(DynamicLayer):
    """A DynamicLayer whose keys and values are views of preallocated memory.

    DynamicLayer concatenates, so it copies all earlier tokens at every step. Shallow copies of a
    layer share memory: the first that adds tokens keeps it, the others copy to their own.
    """

    keys: torch.Tensor
    values: torch.Tensor
    is_initialized: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._place: _Place | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add tokens, shape (rows, heads, tokens, dimension); return all keys and values."""
        if not self.is_initialized:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self.is_initialized = True
        length = self.keys.shape[2]
        total = length + key_states.shape[2]
        place = self._place
        if place is None or place.used != length or place.keys.shape[2] < total:
            place = _Place(_roomy(self.keys, total), _roomy(self.values, total), length)
            place.keys[:, :, :length] = self.keys
            place.values[:, :, :length] = self.values
        place.keys[:, :, length:total] = key_states
        place.values[:, :, length:total] = value_states
        place.used = total
        self._look_at(place)
        return self.keys, self.values

    def _look_at(self, place: _Place) -> None:
        """Set this layer's keys and values to views of all tokens in `place`."""
        self._place = place
        self.keys, self.values = place.keys[:, :, : place.used], place.values[:, :, : place.used]

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Copy the given rows (an index may repeat) to new memory with room to grow."""
        if not self.is_initialized:
            # A layer that uses another layer's keys and values has none of its own.
            return
        index, length = beam_idx.to(self.keys.device), self.keys.shape[2]
        place = _Place(
            _roomy(self.keys, length, len(index)), _roomy(self.values, length, len(index)), length
        )
        torch.index_select(self.keys, 0, index, out=place.keys[:, :, :length])
        torch.index_select(self.values, 0, index, out=place.values[:, :, :length])
        self._look_at(place)

    @classmethod
    def joined(cls, layers: Sequence[GrowingLayer]) -> GrowingLayer:
        """Stack the rows of all layers; shorter rows are padded with zeros on the right."""
        whole = copy.copy(layers[0])
        if not whole.is_initialized:
            return whole
        rows = sum(len(layer.keys) for layer in layers)
        length = max(layer.keys.shape[2] for layer in layers)
        place = _Place(_roomy(whole.keys, length, rows), _roomy(whole.values, length, rows), length)
        start = 0
        for layer in layers:
            end, used = start + len(layer.keys), layer.keys.shape[2]
            for to, states in ((place.keys, layer.keys), (place.values, layer.values)):
                to[start:end, :, :used] = states
                # Attention multiplies masked values by 0, and 0 times NaN is NaN.
                to[start:end, :, used:length] = 0
            start = end
        whole._look_at(place)
        return whole


def _roomy(states: torch.Tensor, tokens: int, rows: int | None = None) -> torch.Tensor:
    """Uninitialised memory like `states`, for `tokens` and `_ROOM` more."""
    shape = states.shape
    return states.new_empty(rows or shape[0], shape[1], tokens + _ROOM, shape[3])


def growing_cache() -> Cache:
    """An empty cache that keeps all keys and values, also in sliding-window layers."""
    return Cache(layer_class_to_replicate=GrowingLayer)
