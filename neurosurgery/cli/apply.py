"""`apply`: write a model, edited by a mask, as an ordinary model folder."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say, say_error
from neurosurgery.edit.export_folder import check_output
from neurosurgery.settings.checks import check_finite, check_model_folder
from neurosurgery.settings.experiment import ModelConfig

if TYPE_CHECKING:
    # torch takes seconds to import, so bad flags are refused first.
    from neurosurgery.edit.adapters import Adapter
    from neurosurgery.edit.delta import Delta
    from neurosurgery.masks.mask import ParameterMask
    from neurosurgery.models.load import LoadedModel
    from neurosurgery.models.shapes import ModelShapes

_DESCRIPTION = """\
Multiply the weights that a mask selects by a scalar (0 prunes them), or add what a training has
changed (an adapter of LoRA or SHiRA is merged), and write the whole model as a folder that
transformers and lm-eval load like any other, with a model card that says what was done. All other
weights stay as they are in the checkpoint, bit for bit. What the model's folder holds besides
weights (processors, code, licences) comes along.

example: prune what a run has found
  neurosurgery apply results/masks/MODEL/Race_calculate0.05_run0.safetensors \\
      --scalar 0 --output edited
example: keep what FineTune.py has trained
  neurosurgery apply \\
      results/deltas/MODEL/Race_calculate0.05_run0_trained0.01.safetensors --output trained
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add `apply`."""
    parser = subparsers.add_parser(
        "apply",
        help="write a model edited by a mask",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "mask",
        type=Path,
        metavar="MASK",
        help="a file that --save_masks wrote, or what FineTune.py left in deltas/",
    )
    parser.add_argument(
        "--scalar", type=float, help="factor for the weights that a mask selects; 0 prunes"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="the folder to write"
    )
    parser.add_argument(
        "--model",
        help="hub id, local folder or GGUF file (default: the model that the mask was found in)",
    )
    parser.add_argument("--revision", help="branch, tag or commit (default: the mask's)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="number format of the weights; auto is the checkpoint's own (default: %(default)s)",
    )
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run the Python code that comes with a model, on this machine: use it only for a "
        "model that you trust",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier export in --output"
    )


def run(arguments: argparse.Namespace) -> None:
    """Check all input that needs no weights, then load the model, edit it and write it.

    Raises:
        UsageError: an unusable value, a mask of another model, a model that cannot be loaded.
    """
    scalar: float | None = None if arguments.scalar is None else arguments.scalar + 0.0
    check_finite("--scalar", [] if scalar is None else [scalar])
    output: Path = arguments.output
    check_output(output, overwrite=arguments.overwrite)

    # torch is imported from here on.
    given = _read_input(arguments.mask, scalar)
    found_in = given.provenance.get("model")
    name = arguments.model or found_in
    if not isinstance(name, str):
        raise UsageError("--model", "", "expected, for the mask does not say where it was found")
    revision = arguments.revision
    if revision is None and arguments.model is None:
        revision = _revision(given.provenance)
    check_model_folder(name)
    _check_apart(output, arguments.mask, Path(name))
    config = ModelConfig(
        name, revision, device="cpu", trust_remote_code=arguments.trust_remote_code
    )

    # These import transformers, which takes seconds.
    from neurosurgery.edit.export import export_model, export_trained, non_finite
    from neurosurgery.models.load import load_model, load_tokenizer
    from neurosurgery.models.shapes import model_shapes

    _check_fits(given, arguments.mask, name, model_shapes(config))
    loaded = load_model(config, load_tokenizer(config), dtype=arguments.dtype)
    if loaded.quantised is not None:
        say(loaded.quantised)
    provenance = _provenance(given, loaded, name, revision)
    delta = _delta(given.change, loaded, arguments.mask)
    edited = (given.mask if delta is None else delta.mask).shapes
    # Those that are edited must be finite; the others stay as they are.
    others = (each for each, _ in loaded.model.named_parameters() if each not in edited)
    if bad := non_finite(loaded.model, others):
        say_error(f"warning: {name} has weights that are NaN or infinite ({bad} first)")
    parts = loaded.model, loaded.tokenizer
    if delta is not None:
        edit = export_trained(*parts, delta, output, provenance, overwrite=arguments.overwrite)
        _say_lost(loaded, delta, edit.dtype)
    else:
        edit = export_model(
            *parts, given.mask, scalar or 0.0, output, provenance, overwrite=arguments.overwrite
        )
    done = "changed by the training" if scalar is None else f"multiplied by {scalar:g}"
    say(
        f"{output}: {edit.mask.count():,} of {edit.parameters:,} weights of {edit.base_model} "
        f"{done}, in {edit.dtype}"
    )
    if scalar is not None and edit.factor is not None and edit.factor.blurs(scalar):
        say(
            f"after rounding the factor is {edit.factor.median:.5g} (median; "
            f"{edit.factor.smallest:.5g} to {edit.factor.largest:.5g})"
        )


class _Given(NamedTuple):
    """What the file holds: a mask, and what a training has changed; of an adapter only that."""

    mask: ParameterMask
    provenance: dict[str, Any]
    change: Delta | Adapter | None = None


def _read_input(path: Path, scalar: float | None) -> _Given:
    """Read a mask with its scalar, or the changes of a training, which need none.

    Raises:
        UsageError: the file is neither, or the scalar does not go with it.
    """
    from neurosurgery.common.tensor_files import ADAPTER, DELTA, MASK, read_metadata
    from neurosurgery.edit.delta_files import read_delta_file
    from neurosurgery.masks.files import file_errors, read_mask_file
    from neurosurgery.masks.mask import ParameterMask

    with file_errors(path, "MASK"):
        kind = read_metadata(path, MASK, DELTA, ADAPTER)["format"]
    if kind == MASK:
        file = read_mask_file(path)
        if scalar is None:
            raise UsageError("--scalar", "", "expected with a mask; 0 prunes")
        return _Given(file.mask, file.provenance)
    if scalar is not None:
        raise UsageError("--scalar", f"{scalar:g}", "cannot be had with the changes of a training")
    if kind == DELTA:
        delta, provenance = read_delta_file(path, "MASK")
        return _Given(delta.mask, provenance, delta)
    if importlib.util.find_spec("peft") is None:
        reason = "is an adapter; expected PEFT: pip install peft"
        raise UsageError("MASK", path, reason)

    from neurosurgery.edit.adapters import read_adapter_file

    adapter, provenance = read_adapter_file(path, "MASK")
    return _Given(ParameterMask({}, {}), provenance, adapter)


def _revision(provenance: Mapping[str, Any]) -> str | None:
    revision = provenance.get("revision")
    if revision is not None and not isinstance(revision, str):
        raise UsageError("--revision", "", "expected, for that of the mask is no text")
    return revision


def _check_fits(given: _Given, path: Path, name: str, shapes: ModelShapes) -> None:
    """Refuse a mask or changes of another model.

    Raises:
        UsageError: names the first parameter that differs.
    """
    from neurosurgery.edit.delta import Delta
    from neurosurgery.masks.overlap import first_misfit

    misfit = first_misfit(given.mask.shapes, shapes.parameters, shapes.targets)
    if given.change is not None and not isinstance(given.change, Delta):
        missing = [each for each in given.change.modules if f"{each}.weight" not in shapes.targets]
        misfit = f"{missing[0]} is no matrix of the model" if missing else None
    if misfit is not None:
        raise UsageError("MASK", path, f"is of another model than {name}: {misfit}")


def _provenance(
    given: _Given, loaded: LoadedModel, name: str, revision: str | None
) -> dict[str, Any]:
    """The mask's provenance with the model that is edited; warn if it was found in another."""
    from neurosurgery.edit.model_card import model_label
    from neurosurgery.results.provenance import model_fingerprint

    found_in = given.provenance.get("model")
    provenance = given.provenance | {"model": name, "revision": revision}
    provenance["quantised"] = loaded.quantised
    content = model_fingerprint(name, getattr(loaded.model.config, "_commit_hash", None))
    other_weights = given.provenance.get("model_content") not in (None, content)
    if found_in is not None and (other_weights or model_label(found_in) != model_label(name)):
        provenance["mask_model"] = model_label(found_in)
    if other_weights:
        # A fine-tuned relative is a valid target, but the user must know about it.
        say_error(f"warning: the mask was found in a model with other weights than {name}")
    return provenance


def _delta(change: Delta | Adapter | None, loaded: LoadedModel, path: Path) -> Delta | None:
    """The changes of the weights, those of an adapter merged into them.

    Raises:
        UsageError: the adapter is of another model.
    """
    from neurosurgery.edit.delta import Delta

    if change is None or isinstance(change, Delta):
        return change
    try:
        return change.delta(loaded.model)
    except ValueError as error:
        raise UsageError("MASK", path, f"is of another model: {error}") from None


def _say_lost(loaded: LoadedModel, delta: Delta, dtype: str) -> None:
    """Say how many changes rounding has undone."""
    from neurosurgery.edit.delta import lost_changes

    if lost := lost_changes(loaded.model, delta):
        say(
            f"{lost:,} of {delta.count:,} changes are too small for {dtype} and are lost; "
            "--dtype float32 keeps them"
        )


def _check_apart(output: Path, *inputs: Path) -> None:
    """Refuse an output folder that holds an input, because --overwrite would delete it."""
    for path in inputs:
        if path.exists() and path.resolve().is_relative_to(output.resolve()):
            raise UsageError("--output", output, f"holds {path}, which is read; expected another")
