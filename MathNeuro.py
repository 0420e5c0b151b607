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

from neurosurgery.cli import parse_experiment, run_script


def run(argv: Sequence[str] | None) -> None:
    """Parse, check what can be checked at once, then do the work."""
    config = parse_experiment(__doc__, argv)

    # Heavy imports come one by one, so that bad input is refused before the next one is paid for.
    from neurosurgery.dataset import read_calibration_set

    sets = {
        source.name: read_calibration_set(source) for source in (config.math, *config.calibration)
    }

    from neurosurgery.experiment import run_experiment

    run_experiment(config, sets, sys.argv if argv is None else ["MathNeuro.py", *argv])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is 0, or 2 for bad input."""
    return run_script(run, argv)


if __name__ == "__main__":
    sys.exit(main())
