"""The kinds of units that methods select. Imports no torch; `units.py` holds the units."""

from __future__ import annotations

NEURON = "neuron"
HEAD = "head"
MLP = "mlp"
PLURALS = {NEURON: "neurons", HEAD: "heads", MLP: "MLPs"}
"""The kinds of units, and each in texts and figures."""

UNIT_KINDS = {"heads": HEAD, "mlps": MLP}
"""The values of `PathPatching.py --units`, and the kind of unit that each means."""
