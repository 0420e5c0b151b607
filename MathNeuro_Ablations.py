r"""The baselines beside MathNeuro: prune or scale the math top-K, or as many weights at random.

On the embedded demo, offline, in a few minutes, into the folder of MathNeuro.py:
    python MathNeuro_Ablations.py

On a real model, only one of the two:
    python MathNeuro_Ablations.py --methods wanda --model meta-llama/Llama-3.2-1B-Instruct \
        --save_path results/llama --train_dataset data/gsm8k.csv \
        --calibration_datasets data/race.csv data/mmlu.csv --calibration_dataset_names Race MMLU \
        --train_lm_eval_task gsm8k_cot --eval_datasets race mmlu --eval_dataset_subset 200 \
        --pre_train_eval

random  in every matrix as many random weights as MathNeuro's mask has there, for the same
        calibration set, repeat and proportion
wanda   the math top-K without the set difference, as the paper uses the name; it depends on no
        calibration set and has one cell per repeat and proportion

Paper: Christ et al., "Math Neurosurgery", arXiv 2410.16930, §4.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neurosurgery.cli.parse import run_experiment_script


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, 1 where a run cannot go on, or 2 for bad input."""
    return run_experiment_script("MathNeuro_Ablations.py", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
