"""What a model's folder holds besides weights: processors, code, templates, licences."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import snapshot_download, try_to_load_from_cache
from transformers import PreTrainedModel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import CONFIG_NAME

from neurosurgery.edit.export_folder import CARD, RECORD
from neurosurgery.edit.model_card import is_hub_id

_WEIGHTS = [
    *"*.safetensors *.bin *.pt *.pth *.ckpt *.ckpt.* *.gguf *.ggml *.msgpack *.h5 *.ot".split(),
    *"*.onnx *.onnx_data *.onnx.data *.tflite *.litertlm *.mlmodel *.npy *.npz *.pkl".split(),
    *"*.pickle *.nemo *.distcp *.pdparams *.llamafile *.engine *.zip *.tar *.gz".split(),
    # What names the files of weights, or is of no use without them.
    *"*.index.json *.index.*.json openvino_*.xml adapter_config.json".split(),
]
"""Patterns of names: weights, states of optimisers, archives of them, in every format."""


def copy_other_files(model: PreTrainedModel, name: object, folder: Path) -> None:
    """Copy into an exported model's folder what its source holds besides weights.

    What the folder has already stays, for it describes the edited model. Hidden files and folders,
    checkpoints of trainings and earlier exports inside the source are left out; nothing comes from
    beside a GGUF file. Of a hub model the hub is asked, then the local cache.

    Args:
        model: the loaded model, which knows the commit of a hub model.
        name: the hub id, folder or file that it was loaded from; nothing comes without it.
        folder: the new folder, with all that transformers writes.

    Raises:
        OSError: a file cannot be copied.
    """
    if not isinstance(name, str) or not name:
        return
    source = Path(name)
    if not source.is_dir():
        if not is_hub_id(name):
            return
        found = _snapshot(name, getattr(model.config, "_commit_hash", None))
        if found is None:
            return
        source = found
    for path in _other_files(source):
        copy = folder / path.relative_to(source)
        if not copy.exists() and copy not in (folder / CARD, folder / RECORD):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def other_bytes(name: str) -> int:
    """The size of what a model's folder on this machine holds besides weights; nothing is asked."""
    source = Path(name)
    if not source.is_dir():
        config = try_to_load_from_cache(name, CONFIG_NAME) if is_hub_id(name) else None
        if not isinstance(config, str):
            return 0
        source = Path(config).parent
    return sum(path.stat().st_size for path in _other_files(source))


def _snapshot(name: str, commit: str | None) -> Path | None:
    """The local folder of a hub model without its weights; None if there is none."""
    try:
        return Path(snapshot_download(name, revision=commit, ignore_patterns=_WEIGHTS))
    except (OSError, ValueError):
        # Offline, and the cache does not know whether it has all files of the model.
        config = try_to_load_from_cache(name, CONFIG_NAME, revision=commit)
        return Path(config).parent if isinstance(config, str) else None


def _other_files(source: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(source):
        # Sorted, and changed in place: `os.walk` goes only where this list says.
        folders[:] = sorted(each for each in folders if not _is_left_out(Path(place, each)))
        paths = [Path(place, each) for each in sorted(files) if not each.startswith(".")]
        yield from (path for path in paths if path.is_file() and not _is_weights(path))


def _is_left_out(folder: Path) -> bool:
    hidden = folder.name.startswith((".", "__pycache__", f"{PREFIX_CHECKPOINT_DIR}-"))
    return hidden or (folder / RECORD).is_file()


def _is_weights(path: Path) -> bool:
    return any(fnmatch(path.name.lower(), pattern) for pattern in _WEIGHTS)
