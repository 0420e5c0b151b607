from __future__ import annotations

import csv
import importlib.util
import sys

import pytest
from conftest import ROOT

SHARED_CACHE = ROOT.parent / "shared" / "data" / "hf_datasets"


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "data" / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["prepare"] = module
    spec.loader.exec_module(module)
    return module


def test_gsm8k_keeps_calculator_marks(prepare):
    row = {"question": "How many?", "answer": "She has 1+1=<<1+1=2>>2.\nSo 2.\n#### 1,002"}
    assert list(prepare.gsm8k_samples([row])) == [
        "Q: How many?\nA: Let's think step by step.\nShe has 1+1=<<1+1=2>>2.\nSo 2.\n"
        "The answer is 1,002"
    ]


def test_mmlu_gives_the_text_of_the_answer(prepare):
    row = {"question": "Which?", "choices": ["red", "it's blue"], "answer": 1}
    assert list(prepare.mmlu_samples([row])) == [
        "Question: Which?\n\nChoices: ['red', \"it's blue\"]\n\nAnswer: it's blue"
    ]


def test_race_puts_all_questions_below_their_article(prepare):
    rows = [
        {"article": "One.", "question": "Q1?", "options": ["a", "b", "c", "d"], "answer": "B"},
        {"article": "One.", "question": "Q2?", "options": ["e", "f", "g", "h"], "answer": "D"},
        {"article": "Two.", "question": "Q3?", "options": ["i", "j", "k", "l"], "answer": "A"},
    ]
    assert list(prepare.race_samples(rows)) == [
        "One.\n\nQuestion: Q1?\nOptions: ['a', 'b', 'c', 'd']\nAnswer: b"
        "\n\nQuestion: Q2?\nOptions: ['e', 'f', 'g', 'h']\nAnswer: h",
        "Two.\n\nQuestion: Q3?\nOptions: ['i', 'j', 'k', 'l']\nAnswer: i",
    ]


def test_no_quantitative_subject(prepare):
    assert len(prepare.SUBJECTS) == 41
    assert not {"college_mathematics", "econometrics", "astronomy"} & set(prepare.SUBJECTS)


@pytest.mark.parametrize("name", ["race", "gsm8k"])
def test_without_network_and_cache_one_clear_line(prepare, name, tmp_path, monkeypatch, capsys):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "empty")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert prepare.main([name, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "neither the hub nor the local cache has it" in error
    assert not (tmp_path / "out").exists()


def test_unknown_names_are_refused(prepare, capsys):
    with pytest.raises(SystemExit, match="2"):
        prepare.main(["gsm9k"])
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.skipif(not SHARED_CACHE.is_dir(), reason="needs the developers' datasets cache")
def test_real_data(tmp_path):
    """In a process of its own: the library reads its settings when it is imported."""
    import os
    import shutil
    import subprocess

    cache = tmp_path / "cache"
    shutil.copytree(SHARED_CACHE, cache)
    subprocess.run(
        [sys.executable, ROOT / "data" / "prepare.py", "gsm8k", "mmlu", "--output", tmp_path],
        env=os.environ | {"HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
        check=True,
        capture_output=True,
    )
    csv.field_size_limit(1 << 20)
    for name, rows, start in (("gsm8k", 7473, "Q: "), ("mmlu", 1066, "Question: ")):
        with (tmp_path / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            samples = [row["qa"] for row in csv.DictReader(file)]
        assert len(samples) == rows
        assert all(sample.startswith(start) for sample in samples)
