"""The functions that the task files of programs name; they live in the package."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

# `lm_eval` can be called from anywhere, with this folder as its --include_path.
if find_spec("neurosurgery") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from neurosurgery.evaluation.program_of_thought import (
    cut_programs,
    load_problems,
    prompt,
    score_program,
)

__all__ = ["cut_programs", "load_problems", "prompt", "score_program"]
