"""`apply`: write a model, edited by a mask, as an ordinary model folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from neurosurgery.common.errors import UsageError
from neurosurgery.config.checks import check_finite, check_model_folder
from neurosurgery.config.experiment import ModelConfig
from neurosurgery.edit.export_folder import check_output

if TYPE_CHECKING:
    # torch takes seconds to import, so bad flags are refused first.
    from neurosurgery.edit.delta import Delta
    from neurosurgery.masks.files import MaskFile

_DESCRIPTION = """\
Multiply the weights that a mask selects by a scalar (0 prunes them), or add what a training has
changed, and write the whole model as a folder that transformers and lm-eval load like any other,
with a model card that says what was done. All other weights stay as they are in the checkpoint, bit
for bit.

example: prune what a run has found
  python -m neurosurgery apply results/masks/MODEL/Race_calculate0.05_run0.safetensors \\
      --scalar 0 --output edited
example: keep what FineTune.py has trained
  python -m neurosurgery apply \\
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
    file, delta = _read_input(arguments.mask, scalar)
    found_in = file.provenance.get("model")
    name = arguments.model or found_in
    if not isinstance(name, str):
        raise UsageError("--model", "", "expected, for the mask does not say where it was found")
    revision = arguments.revision
    if revision is None and arguments.model is None:
        revision = file.provenance.get("revision")
    check_model_folder(name)
    _check_apart(output, arguments.mask, Path(name))
    config = ModelConfig(
        name, revision, device="cpu", trust_remote_code=arguments.trust_remote_code
    )

    # These import transformers, which takes seconds.
    from neurosurgery.edit.delta import lost_changes
    from neurosurgery.edit.export import export_model, export_trained
    from neurosurgery.edit.model_card import model_label
    from neurosurgery.masks.overlap import first_misfit
    from neurosurgery.models.load import load_model, load_tokenizer
    from neurosurgery.models.shapes import model_shapes
    from neurosurgery.results.provenance import model_fingerprint

    shapes = model_shapes(config)
    misfit = first_misfit(file.mask.shapes, shapes.parameters, shapes.targets)
    if misfit is not None:
        raise UsageError("MASK", arguments.mask, f"is of another model than {name}: {misfit}")
    loaded = load_model(config, load_tokenizer(config), dtype=arguments.dtype)
    provenance = file.provenance | {"model": name, "revision": revision}
    provenance["quantised"] = loaded.quantised
    if loaded.quantised is not None:
        print(loaded.quantised)
    content = model_fingerprint(name, getattr(loaded.model.config, "_commit_hash", None))
    other_weights = file.provenance.get("model_content") not in (None, content)
    if found_in is not None and (other_weights or model_label(found_in) != model_label(name)):
        provenance["mask_model"] = model_label(found_in)
    if other_weights:
        # A fine-tuned relative is a valid target, but the user must know about it.
        print(
            f"warning: the mask was found in a model with other weights than {name}",
            file=sys.stderr,
        )
    parts = loaded.model, loaded.tokenizer
    if delta is not None:
        edit = export_trained(*parts, delta, output, provenance, overwrite=arguments.overwrite)
        if lost := lost_changes(loaded.model, delta):
            print(
                f"{lost:,} of {delta.count:,} changes are too small for {edit.dtype} and are lost; "
                "--dtype float32 keeps them"
            )
    else:
        edit = export_model(
            *parts, file.mask, scalar or 0.0, output, provenance, overwrite=arguments.overwrite
        )
    done = "changed by the training" if scalar is None else f"multiplied by {scalar:g}"
    print(
        f"{output}: {edit.mask.count():,} of {edit.parameters:,} weights of {edit.base_model} "
        f"{done}, in {edit.dtype}"
    )
    if scalar is not None and edit.factor is not None and edit.factor.blurs(scalar):
        print(
            f"after rounding the factor is {edit.factor.median:.5g} (median; "
            f"{edit.factor.smallest:.5g} to {edit.factor.largest:.5g})"
        )


def _read_input(path: Path, scalar: float | None) -> tuple[MaskFile, Delta | None]:
    """Read a mask with its scalar, or the changes of a training, which need none.

    Raises:
        UsageError: the file is neither, or the scalar does not go with it.
    """
    from neurosurgery.edit.delta_files import holds_delta, read_delta_file
    from neurosurgery.masks.files import MaskFile, read_mask_file

    if not holds_delta(path):
        file = read_mask_file(path)
        if scalar is None:
            raise UsageError("--scalar", "", "expected with a mask; 0 prunes")
        return file, None
    if scalar is not None:
        raise UsageError("--scalar", f"{scalar:g}", "cannot be had with the changes of a training")
    delta, provenance = read_delta_file(path, "MASK")
    return MaskFile(path, delta.mask, provenance), delta


def _check_apart(output: Path, *inputs: Path) -> None:
    """Refuse an output folder that holds an input, because --overwrite would delete it."""
    for path in inputs:
        if path.exists() and path.resolve().is_relative_to(output.resolve()):
            raise UsageError("--output", output, f"holds {path}, which is read; expected another")
