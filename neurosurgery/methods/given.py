"""What `FineTune.py` trains besides: all weights, the user's masks, adapters of PEFT."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from neurosurgery.activations.kinds import ACTIVATION_NORMS
from neurosurgery.methods.base import RANDOM, TRAINED_ONLY, Method, OfMask, twin
from neurosurgery.methods.mathneuro import MATHNEURO

if TYPE_CHECKING:
    from neurosurgery.masks.mask import ParameterMask
    from neurosurgery.masks.selection import Selection
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.methods.keys import SelectionKey


class Everything(Method):
    """Every weight of the model: embeddings, norms and biases, too."""

    def select(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """The whole model."""
        from neurosurgery.masks.mask import ParameterMask
        from neurosurgery.masks.selection import Selection

        return Selection(ParameterMask.full(evidence.parameters))


class OfFile(OfMask):
    """What a file of masks says; `against` is its name."""

    def specific(self, evidence: Evidence, key: SelectionKey) -> tuple[ParameterMask, None]:
        """The file's mask; it is not known of which top-K it is."""
        return evidence.files[key.against], None


class OfAdapter(Method):
    """LoRA and SHiRA: nothing is selected; a skill-specific mask says how many are trained."""

    def select(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """Of MathNeuro's masks against each other set the one of median size."""
        from neurosurgery.masks.selection import Selection

        others = [name for name in evidence.statistics[ACTIVATION_NORMS] if name != key.skill]
        found = [
            Selection(*MATHNEURO.specific(evidence, replace(key, against=name))) for name in others
        ]
        found.sort(key=lambda selection: selection.mask.count())
        return found[len(found) // 2]


def _adapter(name: str, label: str) -> OfAdapter:
    return OfAdapter(name, label, TRAINED_ONLY, over_all_sets=True, own_counts=False, adapter=True)


LORA, SHIRA = _adapter("lora", "LoRA"), _adapter("shira", "SHiRA")

MASK_FILE = OfFile(
    "mask_file",
    "Mask file",
    TRAINED_ONLY,
    statistics="",
    of_one_size="the whole mask",
    given=True,
    stem="{against}run{repeat}",
)

METHODS = (
    Everything(
        "all",
        "All weights",
        TRAINED_ONLY,
        statistics="",
        own_counts=False,
        of_one_size="all weights",
        stem="run{repeat}",
    ),
    MASK_FILE,
    twin(MASK_FILE, RANDOM, label="Random mask file"),
    LORA,
    SHIRA,
)
