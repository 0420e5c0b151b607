from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from neurosurgery.common.errors import UsageError
from neurosurgery.data import hub_samples, prepared
from neurosurgery.data.calibration import read_calibration_sets
from neurosurgery.settings.experiment import CalibrationSource

SHARED_CACHE = ROOT.parent / "shared" / "data" / "hf_datasets"


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "data" / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["prepare"] = module
    spec.loader.exec_module(module)
    return module


def test_gsm8k_keeps_calculator_marks():
    row = {"question": "How many?", "answer": "She has 1+1=<<1+1=2>>2.\nSo 2.\n#### 1,002"}
    assert list(hub_samples.gsm8k_rows([row])) == [
        [
            "Q: How many?\nA: Let's think step by step.\nShe has 1+1=<<1+1=2>>2.\nSo 2.\n"
            "The answer is 1,002"
        ]
    ]


def test_mmlu_gives_the_text_of_the_answer():
    row = {"question": "Which?", "choices": ["red", "it's blue"], "answer": 1}
    assert list(hub_samples.mmlu_rows([row])) == [
        ["Question: Which?\n\nChoices: ['red', \"it's blue\"]\n\nAnswer: it's blue"]
    ]


def test_race_puts_all_questions_below_their_article():
    rows = [
        {"article": "One.", "question": "Q1?", "options": ["a", "b", "c", "d"], "answer": "B"},
        {"article": "One.", "question": "Q2?", "options": ["e", "f", "g", "h"], "answer": "D"},
        {"article": "Two.", "question": "Q3?", "options": ["i", "j", "k", "l"], "answer": "A"},
    ]
    assert list(hub_samples.race_rows(rows)) == [
        [
            "One.\n\nQuestion: Q1?\nOptions: ['a', 'b', 'c', 'd']\nAnswer: b"
            "\n\nQuestion: Q2?\nOptions: ['e', 'f', 'g', 'h']\nAnswer: h"
        ],
        ["Two.\n\nQuestion: Q3?\nOptions: ['i', 'j', 'k', 'l']\nAnswer: i"],
    ]


def test_no_quantitative_subject():
    assert len(hub_samples.SUBJECTS) == 41
    assert not {"college_mathematics", "econometrics", "astronomy"} & set(hub_samples.SUBJECTS)


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


def test_math_keeps_the_worked_solution():
    row = {"problem": "What is $1+1$?", "solution": "It is $\\boxed{2}$."}
    assert list(hub_samples.math_rows([row])) == [
        ["Problem:\nWhat is $1+1$?\n\nSolution:\nIt is $\\boxed{2}$."]
    ]


def test_sgsm_keeps_every_row_with_its_columns():
    rows = [
        {"question": "1+1?", "solution": "def", "answer": 2.0, "subset": "sgsm_train", "id": 7},
        {"question": "2+2?", "solution": "f", "answer": None, "subset": "sgsm_unverified"},
    ]
    assert hub_samples.SOURCES["sgsm"].columns == ("question", "solution", "answer", "subset")
    assert list(hub_samples.sgsm_rows(rows)) == [
        ["1+1?", "def", "2.0", "sgsm_train"],
        ["2+2?", "f", "", "sgsm_unverified"],
    ]


SUMS = [{"question": "1+1?", "answer": "1+1=2.\n#### 2"}]


@pytest.fixture
def hub(monkeypatch) -> list[str]:
    """A hub with GSM8K alone; the data sets that were asked for."""
    asked: list[str] = []

    def load(_name, source, config):
        asked.append(source.path)
        if "gsm8k" not in source.path:
            raise UsageError(source.path, config, "neither the hub nor the local cache has it")
        return SUMS

    monkeypatch.setattr(prepared, "_load_rows", load)
    return asked


def sources(folder: Path, **names: str) -> list[CalibrationSource]:
    return [CalibrationSource(name, folder / file) for name, file in names.items()]


def test_a_missing_file_is_made_when_it_is_needed(hub, tmp_path, capsys):
    found = read_calibration_sets(sources(tmp_path / "data", math="gsm8k.csv"))
    assert found["math"].samples == (
        "Q: 1+1?\nA: Let's think step by step.\n1+1=2.\nThe answer is 2",
    )
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith("gsm8k.csv is not there: making it from openai/gsm8k")
    assert "1 rows, 0.0 MB, sha256 " in told[1]
    assert found["math"].sha256 in told[1]
    hub.clear()
    assert read_calibration_sets(sources(tmp_path / "data", math="gsm8k.csv")) == found
    assert hub == []


def test_a_file_that_is_there_is_never_replaced(hub, tmp_path):
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "gsm8k.csv"
    file.write_text("qa\nmine\n")
    assert read_calibration_sets(sources(tmp_path / "data", math=file.name))["math"].samples == (
        "mine",
    )
    assert hub == []


def test_all_that_can_be_made_is_made_before_one_line_says_what_cannot(hub, tmp_path):
    wanted = sources(tmp_path / "data", math="race.csv", Race="mmlu.csv", more="gsm8k.csv")
    with pytest.raises(UsageError, match=r"--train_dataset .*race.csv: is not there: ehovy/race "):
        read_calibration_sets(wanted)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["gsm8k.csv"]


@pytest.mark.parametrize("file", ["data/mine.csv", "elsewhere/gsm8k.csv", "data/gsm8k.txt"])
def test_other_files_are_not_made(hub, file, tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_calibration_sets(sources(tmp_path, math=file))
    assert hub == []
