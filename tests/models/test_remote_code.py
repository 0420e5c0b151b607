"""A model whose code comes with it: run with --trust_remote_code, refused without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import transformers.dynamic_module_utils as dynamic
from scripts import SCRIPTS

pytestmark = pytest.mark.whole

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own(tiny_model, tmp_path, monkeypatch) -> Path:
    """The tiny model, as a class that transformers does not know."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "own"))
    (folder / "own_code.py").write_text(CODE)
    file = folder / "config.json"
    config = json.loads(file.read_text()) | {
        "model_type": "own",
        "architectures": ["OwnModel"],
        "auto_map": {
            "AutoConfig": "own_code.OwnConfig",
            "AutoModelForCausalLM": "own_code.OwnModel",
        },
    }
    file.write_text(json.dumps(config))
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


@pytest.mark.parametrize("more", [["--dry_run"], []], ids=["dry_run", "run"])
def test_code_of_the_model_runs_where_it_is_trusted(more, own, tmp_path, capsys):
    case = SCRIPTS["mathneuro"]
    flags = case.one("--trust_remote_code", *more)
    assert case.run(own, tmp_path / "r", *flags) == 0
    if more:
        # 2 · (3 · 24 · 40 + 2 · 24 · 24 + 2 · 24 · 8) + 5 · 24 + 1536 · 24 weights of 4 bytes.
        assert f"weights {(8832 + 120 + 36864) * 4 / 1e6:.1f} MB" in capsys.readouterr().out
        assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("more", [["--dry_run"], []], ids=["dry_run", "run"])
def test_it_is_refused_where_it_is_not(more, own, tmp_path, capsys):
    case = SCRIPTS["mathneuro"]
    assert case.run(own, tmp_path / "r", *case.one(*more)) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert f"--model {own}: cannot be loaded" in error[-1]
    assert not list((tmp_path / "r").glob("*"))
