"""The provenance of a run: hashes, versions, hardware, and the flags that define its cells."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

import torch

from neurosurgery import __version__
from neurosurgery.common.environment import arithmetic_settings
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.methods.registry import METHODS, statistics_of
from neurosurgery.results.file_hashes import file_hash, json_object
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.experiment import (
    CalibrationSource,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
)
from neurosurgery.settings.gguf import gguf_file
from neurosurgery.settings.identity import MATH, Fact, Identity, content_of
from neurosurgery.settings.parts import FIRST

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


def facts_of_model(model: ModelConfig, dtype: str, commit: str | None) -> Identity:
    """Model and number format; the files are left out while a hub model's commit is unknown."""
    state = model_fingerprint(model.name, commit)
    files = () if state is None else (Fact("model", content_of(state), "files", model.label),)
    named = {"model": model.label, "revision": model.revision, "dtype": dtype}
    return Identity([*(Fact(name, value) for name, value in named.items()), *files])


def facts_of_tasks(evaluation: EvaluationConfig) -> Identity:
    """What every task depends on; what tasks themselves ask is added by `Harness.prepare`."""
    found = [Fact("lm-eval", importlib.metadata.version("lm_eval"))]
    if evaluation.documents_from != FIRST or evaluation.stop_early:
        found.append(Fact("random_state", evaluation.random_state, "documents"))
    return Identity(found)


def facts_of_sets(
    data: DataConfig, methods: Collection[str], sets: Mapping[str, CalibrationSet]
) -> Identity:
    """The samples of every set, and how many of them the methods' statistics take.

    `--num_samples` belongs to a kind of statistics, because methods share statistics. While it is
    unknown which samples `--drop_used` leaves, no set is a fact.
    """
    facts = [Fact("num_samples", data.num_samples, kind) for kind in statistics_of(methods)]
    if not (data.drop_used and sets[data.math.name].left_out is None):
        facts.append(_fact_of_set("skill_data", data.math, sets[MATH]))
        for source in data.calibration:
            facts.append(_fact_of_set("other_data", source, sets[source.name], source.name))
    # For a method over all sets, another set changes the cells instead of adding some.
    names = sorted(source.name for source in data.calibration)
    over_all = {METHODS[m].basis.name: None for m in methods if METHODS[m].over_all_sets}
    facts += [Fact("other_names", names, method) for method in over_all]
    return Identity(facts)


def _fact_of_set(
    setting: str, source: CalibrationSource, found: CalibrationSet, about: str = ""
) -> Fact:
    """Which samples of which file a set has."""
    problems = 0 if found.programs is None else len(found.programs.samples)
    value = content_of(found.sha256, problems=problems, left_out=found.left_out or 0)
    return Fact(setting, value, about, source.path.name)


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
        "versions": {
            "neurosurgery": __version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "environment": dict(arithmetic_settings()),
    }
