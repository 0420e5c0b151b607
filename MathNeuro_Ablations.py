"""The baselines beside MathNeuro: other ways to find weights, and as many weights at random.

`python MathNeuro_Ablations.py --help` lists the settings. The command is `neurosurgery ablate`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neurosurgery.cli.entries import run_entry


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, 1 where a run cannot go on, or 2 for bad input."""
    return run_entry("MathNeuro_Ablations.py", argv)


if __name__ == "__main__":
    sys.exit(main())
