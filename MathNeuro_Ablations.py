r"""The baselines beside MathNeuro: other ways to find weights, and as many weights at random.

On the embedded demo, offline, in a few minutes, into the folder of MathNeuro.py:
    python MathNeuro_Ablations.py

Other methods, each beside as many random weights and as many of its least important ones:
    python MathNeuro_Ablations.py --methods snip magnitude wanda_rows --twins random bottom \
        --proportion .02 .05

On a real model, one alone:
    python MathNeuro_Ablations.py --methods wanda --model meta-llama/Llama-3.2-1B-Instruct \
        --save_path results/llama --train_dataset data/gsm8k.csv \
        --calibration_datasets data/race.csv data/mmlu.csv --calibration_dataset_names Race MMLU \
        --train_lm_eval_task gsm8k_cot --eval_datasets race mmlu --eval_dataset_subset 200 \
        --pre_train_eval

random      in every matrix as many random weights as MathNeuro's mask has there, for the same
            calibration set, repeat and proportion
wanda       the math top-K without the set difference, as the paper uses the name; it depends on no
            calibration set and has one cell per repeat and proportion
wanda_rows  Wanda itself: the top of every output row, by |W| times the root mean square of inputs
snip        by |W times gradient of the loss|, math's top-K minus another set's, as MathNeuro
magnitude   by |W| alone; it draws no samples and has one repeat

The first two run by default. Papers: Christ et al., "Math Neurosurgery", arXiv 2410.16930, §4
(random, wanda); Sun et al., arXiv 2306.11695 (wanda_rows); Wei et al., arXiv 2402.05162 (snip).
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
