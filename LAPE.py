r"""The LAPE baseline: prune or scale the MLP neurons that fire for math and hardly elsewhere.

On the embedded demo, offline, in a few minutes, into the folder of MathNeuro.py:
    python LAPE.py

On a real model:
    python LAPE.py --model meta-llama/Llama-3.2-1B-Instruct --save_path results/llama \
        --train_dataset data/gsm8k.csv --calibration_datasets data/race.csv data/mmlu.csv \
        --calibration_dataset_names Race MMLU --train_lm_eval_task gsm8k_cot \
        --eval_datasets race mmlu --eval_dataset_subset 200 --pre_train_eval

Language activation probability entropy over math and all calibration sets: for every neuron the
probability over tokens that its activation is positive, one per set; of the neurons that are
active anywhere (95th percentile) the `--ratio` of lowest entropy is selected, and those whose math
probability is above that bar belong to math.

Papers: Tang et al., arXiv 2402.16438, §2.2; as a baseline in Christ et al., arXiv 2410.16930, §4.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neurosurgery.cli.parse import run_experiment_script


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, 1 where a run cannot go on, or 2 for bad input."""
    return run_experiment_script("LAPE.py", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
