"""The commit of a hub's model is known, as the cache on this machine has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from neurosurgery.settings.demo import DEMO

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODE = """
from neurosurgery.models.load import load_model, load_tokenizer, read_model_config
from neurosurgery.settings.experiment import ModelConfig

config = ModelConfig("someone/demo", device="cpu")
print(read_model_config(config)._commit_hash)
print(load_model(config, load_tokenizer(config)).model.config._commit_hash)
"""


def test_configuration_and_model_have_the_commit_of_the_snapshot(tmp_path):
    repository = tmp_path / "models--someone--demo"
    shutil.copytree(DEMO.model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    here = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=here, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [COMMIT, COMMIT]
