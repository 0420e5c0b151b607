"""Keys and values with room to grow: a decoding step writes its own, and copies no others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

_ROOM = 64
"""Tokens that can be added before keys and values move to a larger place."""


@dataclass
class _Place:
    """Memory for keys and values, shape (rows, heads, capacity, dimension) each.

    `used` is how many tokens anyone has written.
    """

    keys: torch.Tensor
    values: torch.Tensor
    used: int


class GrowingLayer(DynamicLayer):
    """A DynamicLayer whose keys and values are views of a larger place.

    Concatenation, which it replaces, copies everything that came before at every step. Shallow
    copies of a layer share its place: the first to add tokens goes on in it, others move out.
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
        """Add tokens, shape (rows, heads, tokens, dimension); returns all keys and values."""
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
        """All that is written in the place is this layer's from now on."""
        self._place = place
        self.keys, self.values = place.keys[:, :, : place.used], place.values[:, :, : place.used]

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Choose rows, each as often as it is named, and leave them room."""
        if not self.is_initialized:
            # Layers that use another layer's keys and values keep none.
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
        """The rows of all layers; those with fewer tokens have zeros behind them."""
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
                # What is masked is still multiplied by 0, which no NaN survives.
                to[start:end, :, used:length] = 0
            start = end
        whole._look_at(place)
        return whole


def _roomy(states: torch.Tensor, tokens: int, rows: int | None = None) -> torch.Tensor:
    """Uninitialised memory like `states`, for so many tokens and some more."""
    shape = states.shape
    return states.new_empty(rows or shape[0], shape[1], tokens + _ROOM, shape[3])


def growing_cache() -> Cache:
    """An empty cache; full keys and values in every layer, whatever a window needs of them."""
    return Cache(layer_class_to_replicate=GrowingLayer)
