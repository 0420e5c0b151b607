r"""Find the parameters that carry math, prune or scale them, and evaluate what is left.

On the embedded demo, offline, in a few minutes:
    python MathNeuro.py

Prune the math of a real model:
    python MathNeuro.py --model meta-llama/Llama-3.2-1B-Instruct --save_path results/llama \
        --train_dataset data/gsm8k.csv --calibration_datasets data/race.csv data/mmlu.csv \
        --calibration_dataset_names Race MMLU --train_lm_eval_task gsm8k_cot \
        --eval_datasets race mmlu --eval_dataset_subset 200 --pre_train_eval

Scale it instead: add `--scalar 1.1`.

Paper: Christ et al., "Math Neurosurgery", arXiv 2410.16930.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neurosurgery.cli.parse import run_experiment_script


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, 1 where a run cannot go on, or 2 for bad input."""
    return run_experiment_script("MathNeuro.py", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
