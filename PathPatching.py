r"""Find the attention heads and MLPs that carry arithmetic, and knock them out.

On the embedded demo, offline, in a few minutes:
    python PathPatching.py

On a real model, two solved examples before every prompt:
    python PathPatching.py --model HuggingFaceTB/SmolLM2-135M-Instruct --save_path results/smollm2 \
        --operators + - --templates equations --digits 2 --num_prompts 80

Any skill, with prompts of your own (columns prompt, counterfactual, answer):
    python PathPatching.py --model MODEL --save_path results/mine --prompts prompts.csv

Path patching: a prompt is run with one unit's output at the last position taken from its
counterfactual, every later head frozen; the change of the answer's log-probability is the unit's
effect (the paper's: --metric logit, relative to the clean logit). The strongest units are then
knocked out on prompts that none was found with, beside random units.

Paper: Zhang et al., arXiv 2409.01659, sections 3 and 4; no code was published.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neurosurgery.cli.path_patching import run_path_patching


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, 1 where a run cannot go on, or 2 for bad input."""
    return run_path_patching(__doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
