"""Sites: where an activation is read and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from transformers import PreTrainedModel

from neurosurgery.models.hooks import Observe, first_output_hooks, input_hooks

INPUT, OUTPUT = "input", "output"
ROUTING = "routing"
"""Of routed experts: who of them a token goes to, and with what weight (`edit/routing.py`)."""


class Place(NamedTuple):
    """One side of a module, by the module's name: its `input`, its `output`, or its `routing`."""

    module: str
    side: str


class Site(NamedTuple):
    """Location of a unit's activation: some features of a module's `input` or `output`.

    Of `routing`, some of its experts.
    """

    module: str
    side: str
    start: int
    stop: int

    @property
    def place(self) -> Place:
        """Where these features are."""
        return Place(self.module, self.side)


@contextmanager
def site_hooks(model: PreTrainedModel, hooks: Mapping[Place, Observe]) -> Iterator[None]:
    """Call each hook with the tensor at its place in every forward pass inside the block.

    Of an output with parts it is the first; a returned tensor takes its place.

    Raises:
        ValueError: a place is neither an input nor an output.
    """
    for place in hooks:
        if place.side not in (INPUT, OUTPUT):
            raise ValueError(f"{place.module} has no activation at its {place.side}")

    def at(side: str) -> dict:
        return {
            model.get_submodule(place.module): hook
            for place, hook in hooks.items()
            if place.side == side
        }

    with input_hooks(at(INPUT)), first_output_hooks(at(OUTPUT)):
        yield
