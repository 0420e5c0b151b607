"""The model card of an edited model: its base model, the edit, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from neurosurgery.common.terminal import visible_line
from neurosurgery.edit.scale import AppliedFactor
from neurosurgery.masks.files import named_provenance
from neurosurgery.masks.kinds import UNITS
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.overlap import by_kind, overlap_by_parameter
from neurosurgery.methods.registry import METHODS, counts_units
from neurosurgery.settings.gguf import SUFFIX

_CITATION = """\
    @inproceedings{christ2025math,
      title     = {Math Neurosurgery: Isolating Language Models' Math Reasoning Abilities
                   Using Only Forward Passes},
      author    = {Christ, Bryan R. and Gottesman, Zack and Kropko, Jonathan and
                   Hartvigsen, Thomas},
      booktitle = {Proceedings of the 63rd Annual Meeting of the Association for
                   Computational Linguistics},
      year      = {2025},
      url       = {https://arxiv.org/abs/2410.16930}
    }"""

_CITATION_OF_UNITS = """

    @inproceedings{zhang2024interpreting,
      title     = {Interpreting and Improving Large Language Models in Arithmetic Calculation},
      author    = {Zhang, Wei and Wan, Chaoqun and Zhang, Yonggang and Cheung, Yiu-ming and
                   Tian, Xinmei and Shen, Xu and Ye, Jieping},
      booktitle = {International Conference on Machine Learning},
      year      = {2024},
      url       = {https://arxiv.org/abs/2409.01659}
    }"""

_ROWS = {
    "quantised": "weights come from",
    "mask_model": "mask found in",
    "method": "method",
    "skill": "skill",
    "calibration": "told apart from (calibration set)",
    "proportion": "size",
    "num_samples": "samples of each set",
    "num_prompts": "prompts that units were found with",
    "evaluated_as": "the mask's cells were",
    "repeat": "repeat",
    "seed": "seed",
}
"""Keys of a mask's provenance, and their labels on the card."""


_LM_EVAL = {
    "AutoModelForCausalLM": "lm_eval --model hf --model_args pretrained=THIS_FOLDER,dtype=auto "
    "--tasks …"
}
_LM_EVAL_PYTHON = "lm_eval.models.huggingface.HFLM(pretrained=model, tokenizer=tokenizer)"
"""By the class that loads the model: the command knows no other."""


@dataclass(frozen=True)
class AppliedEdit:
    """The edit of one model.

    `factor` is the factor actually applied, after rounding to `dtype`; None if all selected weights
    were zero. `parameters` is the model's total number of parameters. `provenance` is the mask's
    (`write_mask_file`), with the edited model as `model`. `trained`: the selected weights were
    trained, not scaled. `loader` is the class of transformers that loads the folder.
    """

    mask: ParameterMask
    scalar: float
    factor: AppliedFactor | None
    dtype: str
    parameters: int
    provenance: Mapping[str, Any]
    trained: bool = False
    loader: str = "AutoModelForCausalLM"

    @property
    def base_model(self) -> str:
        """The edited model's hub id, or its folder's name."""
        return model_label(self.provenance.get("model"))


def model_label(model: object) -> str:
    """The hub id, or the folder's or file's name: a local path is useless on other machines."""
    name = str(model or "unknown")
    return visible_line(name if is_hub_id(name) else Path(name).resolve().name)


def is_hub_id(name: str) -> bool:
    """Whether a model's name can be a hub id and is not a local folder or file."""
    local = Path(name).is_dir() or name.startswith((".", "/", "~")) or name.endswith(SUFFIX)
    return not (local or name.count("/") > 1)


def model_card(edit: AppliedEdit) -> str:
    """The text of README.md, YAML front matter included."""
    base = str(edit.provenance.get("model") or "")
    data = ModelCardData(
        base_model=base if base and is_hub_id(base) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["mathneuro", "neurosurgery", "parameter-editing"],
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(edit)}"))


def _text(edit: AppliedEdit) -> str:
    selected = edit.mask.count()
    kinds = "\n".join(
        f"| {kind} | {overlap.count_a:,} | {overlap.size:,} |"
        for kind, overlap in by_kind(overlap_by_parameter(edit.mask, edit.mask)).items()
    )
    return f"""\
# {edit.base_model}, edited

{_action(edit)} in `{edit.base_model}`{_revision(edit)}, the rest left as it was.

{_provenance_table(edit)}

{_factor_text(edit)}

| kind of module | weights edited | of |
|---|---|---|
{kinds}
| whole model | {selected:,} | {edit.parameters:,} |

## Use

```python
from transformers import {edit.loader}, AutoTokenizer

model = {edit.loader}.from_pretrained("THIS_FOLDER", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```

or in [lm-eval](https://github.com/EleutherAI/lm-evaluation-harness):
`{_LM_EVAL.get(edit.loader, _LM_EVAL_PYTHON)}`

This is a research artefact: it shows what the edited weights do. Other effects of the edit have to
be measured. The licence of `{edit.base_model}` applies.

## Citation

{_CITATION}{_CITATION_OF_UNITS if counts_units(str(edit.provenance.get("method"))) else ""}
"""


def _action(edit: AppliedEdit) -> str:
    share = edit.mask.count() / edit.parameters
    count = f"{edit.mask.count():,} weights ({share:.2%} of the model)"
    if edit.trained:
        return f"{count} trained"
    return f"{count} set to zero" if edit.scalar == 0 else f"{count} scaled by {edit.scalar:g}"


def _revision(edit: AppliedEdit) -> str:
    revision = edit.provenance.get("revision")
    return f" (revision {_plain(revision)})" if revision else ""


def _provenance_table(edit: AppliedEdit) -> str:
    provenance = named_provenance(edit.provenance)
    labels = _ROWS | {"proportion": _size_label(str(edit.provenance.get("method")))}
    rows = [
        f"| {label} | {_plain(provenance[key])} |"
        for key, label in labels.items()
        if provenance.get(key) not in (None, "")
    ]
    training = edit.provenance.get("training")
    if isinstance(training, dict):
        rows += [f"| {_plain(flag)} | {_plain(value)} |" for flag, value in training.items()]
    topk = edit.provenance.get("skill_topk")
    if isinstance(topk, int) and topk > 0:
        share = edit.mask.count() / topk
        rows.append(f"| share of the skill's top-K that is edited | {share:.1%} |")
    return "\n".join(["| | |", "|---|---|", *rows])


def _plain(value: object) -> str:
    """A value of the provenance as a cell of a table, whatever a foreign file says."""
    text = f"{value:g}" if isinstance(value, float) else visible_line(value)
    return text.replace("|", "\\|")


def _size_label(method: str) -> str:
    """What the size of a method's selection means."""
    unit = METHODS[method].unit if method in METHODS else ""
    if not unit:
        return "proportion of every matrix's weights in a top-K"
    return f"{'number' if METHODS[method].counts_units else 'ratio'} of {UNITS[unit].plural}"


def _factor_text(edit: AppliedEdit) -> str:
    if edit.trained:
        return (
            "The changes were trained in float32 beside the weights, added to them, and rounded to "
            f"{edit.dtype} once."
        )
    if edit.factor is None:
        return "No selected weight differed from zero, so that nothing changed."
    found = {f"{value:.5g}" for value in edit.factor}
    if found == {f"{edit.scalar:.5g}"}:
        return f"Factor really applied: {edit.scalar:.5g}, to five digits, in {edit.dtype}."
    return (
        f"Factor asked for: {edit.scalar:.5g}; rounding to {edit.dtype} made it "
        f"{edit.factor.median:.5g} (median; {edit.factor.smallest:.5g} to "
        f"{edit.factor.largest:.5g})."
    )
