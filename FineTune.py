r"""Train only what was found: a mask, neurons or attention heads, and see what else moves.

On the embedded demo, offline, in a few minutes: teach it new kinds of word problems
    python FineTune.py

Several selections, three draws and seeds; full tuning wants a smaller rate than few weights:
    python FineTune.py --selection mathneuro random all --num_repeats 3 --learning_rate 1e-2 1e-3

Attention heads that PathPatching.py has found:
    python PathPatching.py
    python FineTune.py --selection heads random_heads --top 4 --path_patching results/demo

On a real model:
    python FineTune.py --model HuggingFaceTB/SmolLM2-135M-Instruct --save_path results/tuned \
        --train_dataset data/gsm8k.csv --calibration_datasets data/race.csv data/mmlu.csv \
        --train_data new_problems.csv --learning_rate 1e-3 \
        --train_lm_eval_task gsm8k_cot --eval_datasets race mmlu

The selected weights, and only these, are trained on samples that neither calibration nor tests use.
The trained numbers are float32 changes beside the weights; the model is evaluated before and after.

Papers: Zhang et al., arXiv 2409.01659, section 5 (heads); Christ et al., arXiv 2410.16930 (masks).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neurosurgery.cli.fine_tune import run_fine_tuning


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, 1 where a run cannot go on, or 2 for bad input."""
    return run_fine_tuning(__doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
