"""The libraries that can be told of finished cells (`--report_to`). Imports them only if asked."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Sequence

from neurosurgery.common.errors import UsageError

LOGGERS = ("trackio", "wandb")
"""The names of `report_to` in transformers."""

_WITHOUT_ACCOUNT = ("offline", "dryrun", "disabled")
"""Modes of wandb that send nothing."""


def check_loggers(names: Sequence[str]) -> None:
    """Check that the libraries are installed, and that wandb knows an account if it needs one.

    Raises:
        UsageError: one of them cannot be used.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UsageError("--report_to", name, f"expected with it pip install {name}")
    if "wandb" in names and not _can_send():
        # Left to itself, wandb would ask for a key in the middle of the run.
        reason = "expected with it wandb login, WANDB_API_KEY or WANDB_MODE=offline"
        raise UsageError("--report_to", "wandb", reason)


def _can_send() -> bool:
    wandb = importlib.import_module("wandb")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if wandb.setup().settings.mode in _WITHOUT_ACCOUNT:
            return True
        return bool(wandb.login(prompt=False))
