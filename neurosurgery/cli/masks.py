"""`masks compare` measures how well masks agree beyond chance; `masks show` describes a mask."""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say, visible_line
from neurosurgery.settings.checks import check_writable

_COMPARE = """\
Count what masks of one model have in common: for every pair the Jaccard index (common weights over
those in either) and the overlap coefficient (common weights over those of the smaller mask), whole,
per kind of module and per layer.

"By chance" is what two independent random masks with as many weights in every matrix would have in
common: exact for counts and overlap coefficient, for the Jaccard index the ratio of the expected
counts.

example:
  neurosurgery masks compare results/masks/MODEL/*.safetensors --figure masks.pdf
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add `masks compare` and `masks show`."""
    masks = subparsers.add_parser("masks", help="compare masks, or show one", allow_abbrev=False)
    commands = masks.add_subparsers(metavar="COMMAND", required=True)
    compare = commands.add_parser(
        "compare",
        help="agreement of two or more masks, against chance",
        description=_COMPARE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    compare.add_argument("masks", nargs="+", type=Path, metavar="MASK", help="two files or more")
    compare.add_argument("--csv", type=Path, metavar="FILE.csv", help="write the tables here")
    compare.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw all pairs as a matrix, .png or .pdf"
    )
    compare.set_defaults(action=_compare)
    show = commands.add_parser(
        "show",
        help="where a mask comes from, and its counts",
        description="Print a mask's provenance and how many weights it selects: in all, per kind "
        "of module, per layer.",
        allow_abbrev=False,
    )
    show.add_argument(
        "mask", type=Path, metavar="MASK", help="a file that --save_masks has written"
    )
    show.set_defaults(action=_show)


def run(arguments: argparse.Namespace) -> None:
    """Run `compare` or `show`.

    Raises:
        UsageError: fewer than two masks, an unreadable one, masks of different models, an output
            that cannot be written.
    """
    arguments.action(arguments)


def _compare(arguments: argparse.Namespace) -> None:
    paths: list[Path] = arguments.masks
    if len(paths) < 2:
        raise UsageError("MASK", paths[0], "expected two masks or more to compare")
    _check_output("--csv", arguments.csv, (".csv",))
    _check_output("--figure", arguments.figure, (".png", ".pdf"))

    # torch and pandas are imported from here on.
    from neurosurgery.common.files import write_atomically
    from neurosurgery.masks.files import read_mask_file
    from neurosurgery.masks.overlap import first_difference, overlap_by_parameter, total
    from neurosurgery.report.overlap import (
        overlap_table,
        overlap_text,
        short_names,
        tidy_table,
    )

    files = [read_mask_file(path) for path in paths]
    for file in files[1:]:
        difference = first_difference(file.mask.shapes, files[0].mask.shapes)
        if difference is not None:
            raise UsageError(
                "MASK", file.path, f"is of another model than {files[0].path}: {difference}"
            )
    names = short_names(paths)
    pairs, tables, texts = {}, [], []
    for a, b in combinations(range(len(files)), 2):
        overlaps = overlap_by_parameter(files[a].mask, files[b].mask)
        pairs[a, b] = total(overlaps)
        table = overlap_table(overlaps)
        tables.append((paths[a], paths[b], table))
        texts.append(f"{names[a]} (A) and {names[b]} (B)\n\n{overlap_text(table)}\n")
    # Files first: the reader of the text (`| head`) may end the program.
    if arguments.csv is not None:
        write_atomically(arguments.csv, tidy_table(tables).to_csv(index=False))
    if arguments.figure is not None:
        from neurosurgery.report.figures.overlap import overlap_figure

        image = overlap_figure(names, pairs, arguments.figure.suffix[1:].lower())
        write_atomically(arguments.figure, image)
    say("\n".join(texts))


def _show(arguments: argparse.Namespace) -> None:
    from neurosurgery.masks.files import named_provenance, read_mask_file
    from neurosurgery.masks.overlap import overlap_by_parameter
    from neurosurgery.masks.units import read_unit_csv
    from neurosurgery.report.overlap import counts_text
    from neurosurgery.report.unit_lists import units_text

    file = read_mask_file(arguments.mask)
    say(visible_line(arguments.mask))
    for key, value in named_provenance(file.provenance).items():
        # The counts are printed as a table below.
        if key != "counts":
            say(f"  {visible_line(key):<12} {'–' if value is None else visible_line(value)}")
    say(f"\n{counts_text(overlap_by_parameter(file.mask, file.mask))}")
    units = read_unit_csv(arguments.mask.with_suffix(".csv"))
    if units is not None:
        say(f"\n{units_text(units)}")


def _check_output(flag: str, path: Path | None, suffixes: tuple[str, ...]) -> None:
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise UsageError(flag, path, f"expected a file name that ends in {' or '.join(suffixes)}")
    if path.is_dir():
        raise UsageError(flag, path, "is a folder; expected a file name")
    check_writable(path.parent, flag)
