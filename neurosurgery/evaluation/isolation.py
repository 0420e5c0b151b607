"""Contain the harness's side effects: random generators, logging and printed text."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Iterator
from typing import TextIO

import numpy as np
import torch

FEWSHOT_SEED = 1234
"""The harness's default seed, so that few-shot examples equal those of `lm_eval`."""

_CHATTY = ("lm_eval", "transformers", "datasets", "huggingface_hub", "accelerate", "evaluate")


@contextlib.contextmanager
def preserved_generators() -> Iterator[None]:
    """Seed the global random generators for the block, then restore their states."""
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    random.seed(0)
    np.random.seed(FEWSHOT_SEED)
    torch.manual_seed(FEWSHOT_SEED)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextlib.contextmanager
def chatter_to(file: TextIO) -> Iterator[None]:
    """Send the libraries' logs, progress bars and prints to a file inside the block."""
    # Otherwise the harness's bootstrap starts a pool of processes and prints for every cell.
    os.environ["DISABLE_MULTIPROC"] = "1"
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in _CHATTY]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
