"""Write the calibration CSVs of the published commands from the hub's data sets.

    python data/prepare.py gsm8k race mmlu math sgsm

One row per sample, in the formats of the published files: the column `qa`, and for sgsm `question`,
`solution`, `answer` and `subset`. A script that needs such a file in data/ makes it by itself.
Without network the data sets must be in the local cache (HF_DATASETS_CACHE); set HF_HUB_OFFLINE=1
to ask for that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from neurosurgery.cli.flags import OneLineParser  # noqa: E402
from neurosurgery.cli.parse import run_script  # noqa: E402
from neurosurgery.data.hub_samples import SOURCES  # noqa: E402
from neurosurgery.data.prepared import write_samples  # noqa: E402


def run(argv: Sequence[str] | None) -> None:
    """Parse the command line and write the files."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="+",
        choices=sorted(SOURCES),
        metavar="NAME",
        help=", ".join(SOURCES),
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "data", help="folder (default: data/)"
    )
    arguments = parser.parse_args(argv)
    for name in arguments.names:
        print(write_samples(arguments.output / f"{name}.csv"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, or 2 where a data set cannot be had."""
    return run_script(run, argv)


if __name__ == "__main__":
    sys.exit(main())
