"""The provenance of a run: hashes, versions, hardware, and the flags that define its cells."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

import torch

from neurosurgery.common.environment import arithmetic_settings
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.results.file_hashes import file_hash, json_object
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.experiment import DataConfig, EvaluationConfig, GridConfig, ModelConfig
from neurosurgery.settings.gguf import gguf_file
from neurosurgery.settings.methods import METHODS

_PACKAGES = ("torch", "transformers", "lm_eval", "accelerate", "datasets", "numpy", "scipy")
_NOT_OF_THE_MODEL = re.compile(
    r"\..*|LICEN[CS]E.*|NOTICE.*|USE_POLICY.*|trainer_state\.json|training_args\.bin"
    r"|(optimizer|scheduler|scaler|rng_state.*)\.(pt|pth|bin)"
    r"|.*\.(md|png|jpe?g|gif|svg|webp|pdf|html|ipynb|log|csv|lock|tmp|gguf)",
    re.IGNORECASE,
)
"""Files beside a model that loading it does not read; a GGUF file is a model of its own."""

_CODE_AND_TEMPLATES = (".py", ".jinja")
"""What loading a model reads from folders below its own, besides weights that an index names."""

_ADAPTER = "adapter_config.json"
_INDEX = ".index.json"


def meaning(
    model: ModelConfig,
    data: DataConfig,
    grid: GridConfig,
    evaluation: EvaluationConfig,
    sets: Mapping[str, CalibrationSet],
    dtype: str,
    commit: str | None,
    identity: Mapping[str, object],
) -> dict[str, object]:
    """Map every flag that changes the meaning of a result to its value.

    The grid is not included: more proportions, scalars, repeats or sets only add cells.
    `--num_samples` belongs to a kind of statistics, because methods share statistics. What the
    tasks themselves ask is added once they are loaded (`Harness.prepare`). Which samples
    `--drop_used` leaves is left out, too, while it is unknown. `identity` has the settings that are
    declared to be part of it (`Settings.identity`).
    """
    content = meaning_of_model(model, dtype, commit) | meaning_of_evaluation(evaluation)
    content |= {f"--num_samples[{kind}]": data.num_samples for kind in grid.statistics}
    content |= identity
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
    }


def content_text(sha256: str) -> str:
    """A short text for the content of a file."""
    return f"content {sha256[:16]}"


def model_fingerprint(name: str, commit: str | None) -> str | None:
    """The commit of a hub model, or a hash of a local folder or of a GGUF file.

    Every byte counts of weights, configuration, tokenizer and code of the model's own (`file_hash`
    reads it once); documentation, hidden files and states of an optimiser do not.

    Raises:
        OSError: a file cannot be read.
    """
    gguf = gguf_file(name)
    folder = Path(name)
    if gguf is not None:
        files = {gguf.name: gguf}
    elif folder.is_dir():
        files = {path.relative_to(folder).as_posix(): path for path in _files_of(folder)}
    else:
        return commit
    digest = hashlib.sha256()
    for place in sorted(files):
        digest.update(f"{place}\0{file_hash(files[place])}\0".encode(errors="surrogateescape"))
    if gguf is None and (base := _base_of_adapter(folder)) is not None:
        digest.update(f"{_ADAPTER}\0{model_fingerprint(base, None)}\0".encode())
    return digest.hexdigest()


def _files_of(folder: Path) -> Iterator[Path]:
    """The files of a model folder that loading it may read."""
    for path in folder.iterdir():
        if path.is_file() and not _NOT_OF_THE_MODEL.fullmatch(path.name):
            yield path
    for path in folder.glob("*/**/*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in _CODE_AND_TEMPLATES and path.is_file() and not hidden:
            yield path
    for index in folder.glob(f"*{_INDEX}"):
        content = json_object(index).get("weight_map")
        names = set(content.values()) if isinstance(content, dict) else set()
        for name in names:
            # The others stand in the folder itself.
            if isinstance(name, str) and "/" in name and (folder / name).is_file():
                yield folder / name


def _base_of_adapter(folder: Path) -> str | None:
    """The local model that an adapter in the folder changes; transformers loads both."""
    base = json_object(folder / _ADAPTER).get("base_model_name_or_path")
    if not isinstance(base, str) or not Path(base).is_dir() or (Path(base) / _ADAPTER).exists():
        return None
    return base


def describe_run(
    settings: Settings, device: str, quantised: str | None = None
) -> dict[str, object]:
    """Command, settings, time, versions and hardware; what of the weights was quantised."""
    weights = {} if quantised is None else {"weights": quantised}
    return weights | {
        "command": list(settings.command),
        "script": settings.script,
        "settings": settings.travelling,
        "flags_alone": settings.flags_alone,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "environment": dict(arithmetic_settings()),
    }
