"""Make a task for the harness from a text file: the perplexity of a text, or of code.

    python data/text_task.py book.txt --name book --output tasks
    python MathNeuro.py … --include_path tasks --eval_datasets book

The same is `neurosurgery data text`; `neurosurgery/cli/data.py` does it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from neurosurgery.cli.data import text_script


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, or 2 for bad input."""
    return text_script(argv)


if __name__ == "__main__":
    sys.exit(main())
