"""Write the calibration CSVs of the published commands from the hub's data sets.

    python data/prepare.py gsm8k race mmlu math sgsm

The same is `neurosurgery data prepare`; `neurosurgery/cli/data.py` does it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from neurosurgery.cli.data import prepare_script


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, or 2 where a data set cannot be had."""
    return prepare_script(argv, Path(__file__).resolve().parent)


if __name__ == "__main__":
    sys.exit(main())
