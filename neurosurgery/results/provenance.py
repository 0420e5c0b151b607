"""The provenance of a run: hashes, versions, hardware, and the flags that define its cells."""

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
from neurosurgery.config.gguf import gguf_file
from neurosurgery.config.methods import METHODS

_PACKAGES = ("torch", "transformers", "lm_eval", "accelerate", "datasets", "numpy", "scipy")
_MODEL_FILES = {".json", ".safetensors", ".bin", ".jinja", ".model", ".txt", ".tiktoken", ".py"}
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
    """Map every flag that changes the meaning of a result to its value.

    The grid is not included: more proportions, scalars, repeats or sets only add cells.
    `--num_samples` belongs to a kind of statistics, because methods share statistics. What the
    tasks themselves ask is added once they are loaded (`Harness.prepare`). Which samples
    `--drop_used` leaves is left out, too, while it is unknown.
    """
    content = meaning_of_model(model, dtype, commit) | meaning_of_evaluation(evaluation)
    content |= {
        "--random_state": data.random_state,
        **{f"--num_samples[{kind}]": data.num_samples for kind in grid.statistics},
    }
    if not (data.drop_used and sets[data.math.name].left_out is None):
        content["--train_dataset"] = _samples_text(sets[data.math.name])
        for source in data.calibration:
            flag = f"--calibration_datasets[{source.name}]"
            content[flag] = _samples_text(sets[source.name])
    for method in grid.methods:
        if METHODS[method].over_all_sets:
            # For such a method, another set changes the cells instead of adding some.
            names = sorted(source.name for source in data.calibration)
            content[f"--calibration_dataset_names[{method}]"] = names
    return content


def _samples_text(found: CalibrationSet) -> str:
    """Which samples of which file a calibration set has."""
    split = "" if found.programs is None else f", {len(found.programs.samples)} of its problems"
    left_out = f", {found.left_out} left out by --drop_used" if found.left_out else ""
    return content_text(found.sha256) + split + left_out


def meaning_of_model(model: ModelConfig, dtype: str, commit: str | None) -> dict[str, object]:
    """The entries for the model; its files' are left out while a hub model's commit is unknown."""
    content: dict[str, object] = {
        "--model": model.label,
        "--revision": model.revision,
        "--dtype": dtype,
    }
    state = model_fingerprint(model.name, commit)
    return content if state is None else content | {"--model[files]": content_text(state)}


def meaning_of_evaluation(evaluation: EvaluationConfig) -> dict[str, object]:
    """The entries for the tasks; what the tasks themselves ask is added by `Harness.prepare`."""
    return {
        "--train_lm_eval_task": evaluation.math_task,
        "--eval_datasets": sorted(evaluation.other_tasks),
        "--eval_dataset_subset/--eval_limit": evaluation.math_documents,
        "--eval_dataset_size/--eval_limit": evaluation.other_documents,
        "lm-eval": importlib.metadata.version("lm_eval"),
        "--num_fewshot": evaluation.num_fewshot,
        "--apply_chat_template": evaluation.apply_chat_template,
    }


def content_text(sha256: str) -> str:
    """A short text for the content of a file."""
    return f"content {sha256[:16]}"


def model_fingerprint(name: str, commit: str | None) -> str | None:
    """The commit of a hub model, or a hash of a local folder or of a GGUF file.

    Of a file over 16 MiB, about 256 chunks of 64 KiB are read: an edited or retrained model differs
    everywhere, and reading many gigabytes at every start is slow.
    """
    folder = Path(name)
    gguf = gguf_file(name)
    if gguf is not None:
        files = [gguf]
    elif folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES)
    else:
        return commit
    digest = hashlib.sha256()
    for path in files:
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


def describe_run(argv: list[str], device: str, quantised: str | None = None) -> dict[str, object]:
    """Command, time, versions and hardware of this call; what of its weights was quantised."""
    weights = {} if quantised is None else {"weights": quantised}
    return weights | {
        "command": argv,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }
