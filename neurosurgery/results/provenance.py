"""What a run depended on: hashes, versions, hardware; and what gives a cell its meaning."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import torch

from neurosurgery.activations.calibration import CalibrationSet
from neurosurgery.config.experiment import DataConfig, EvaluationConfig, GridConfig, ModelConfig
from neurosurgery.config.methods import METHODS

_PACKAGES = ("torch", "transformers", "lm_eval", "accelerate", "datasets", "numpy", "scipy")
_MODEL_FILES = {".json", ".safetensors", ".bin", ".jinja", ".model", ".txt"}
_WHOLE = 1 << 24
_CHUNKS = 256
_CHUNK = 1 << 16


def meaning(
    model: ModelConfig,
    data: DataConfig,
    grid: GridConfig,
    evaluation: EvaluationConfig,
    sets: Mapping[str, CalibrationSet],
    dtype: str,
    commit: str | None,
) -> dict[str, object]:
    """Flag to value for all that changes what a number in the results means.

    The grid is not among it: more proportions, scalars, repeats or sets are more cells.
    `--num_samples` belongs to a kind of statistics, which methods share.
    """
    content: dict[str, object] = {
        "--model": model.label,
        "--revision": model.revision,
        "--dtype": dtype,
        "--train_lm_eval_task": evaluation.math_task,
        "--eval_datasets": sorted(evaluation.other_tasks),
        "--eval_dataset_subset/--eval_limit": evaluation.math_documents,
        "--eval_dataset_size/--eval_limit": evaluation.other_documents,
        "--num_fewshot": evaluation.num_fewshot,
        "--apply_chat_template": evaluation.apply_chat_template,
        "--random_state": data.random_state,
        **{f"--num_samples[{kind}]": data.num_samples for kind in grid.statistics},
        "--train_dataset": _content(sets[data.math.name].sha256),
    }
    state = model_fingerprint(model.name, commit)
    # A hub model's commit is known only once its configuration has been fetched.
    if state is not None:
        content["--model[files]"] = _content(state)
    for source in data.calibration:
        content[f"--calibration_datasets[{source.name}]"] = _content(sets[source.name].sha256)
    for method in grid.methods:
        if METHODS[method].over_all_sets:
            # Another set does not add cells to such a method, it changes them.
            names = sorted(source.name for source in data.calibration)
            content[f"--calibration_dataset_names[{method}]"] = names
    return content


def _content(sha256: str) -> str:
    return f"content {sha256[:16]}"


def model_fingerprint(name: str, commit: str | None) -> str | None:
    """What tells one state of a model from another: a hub commit, or a hash of a local folder.

    Files up to 16 MiB are read whole, of larger ones a sample of chunks spread over the file: an
    edited or retrained model differs all over, and reading many gigabytes at every start would
    cost more than it is worth.
    """
    folder = Path(name)
    if not folder.is_dir():
        return commit
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _WHOLE:
                digest.update(file.read())
                continue
            for position in range(0, size, size // _CHUNKS):
                file.seek(position)
                digest.update(file.read(_CHUNK))
    return digest.hexdigest()


def describe_run(argv: list[str], device: str) -> dict[str, object]:
    """Command, time, versions and hardware of this call."""
    return {
        "command": argv,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }
