"""Find the parameters that carry math, prune or scale them, and evaluate what is left.

`python MathNeuro.py --help` lists the settings. The package's command is `neurosurgery run`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neurosurgery.cli.entries import run_entry


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, 1 where a run cannot go on, or 2 for bad input."""
    return run_entry("MathNeuro.py", argv)


if __name__ == "__main__":
    sys.exit(main())
