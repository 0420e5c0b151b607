"""`consistency`: the file and its folder, bad flags, the defaults."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT
from scripts import DEMO_DATA, DEMO_TASKS

import MathNeuro
from neurosurgery.__main__ import main
from neurosurgery.localisation import consistency as measuring
from neurosurgery.results.lock import NAME as LOCK
from neurosurgery.results.store import FORMAT
from neurosurgery.settings.identity import Fact, Identity

pytestmark = pytest.mark.whole

COLUMNS = (
    "model against num_samples proportion subset_a subset_b count_a count_b overlap jaccard "
    "overlap_coefficient overlap_by_chance jaccard_by_chance"
).split()


def consistency(model, save_path, *flags: str) -> int:
    argv = ["consistency", "--model", str(model), "--save_path", str(save_path), *DEMO_DATA]
    small = ["--sizes", "1", "5", "--num_subsets", "2", "--proportion", "0.05"]
    return main([*argv, *small, *flags])


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file but the lock, which says who held it last."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop(folder / LOCK, None)
    return files


def test_in_the_folder_of_a_run(tiny_model, tmp_path, capsys):
    """Beside the scripts' results, which stay as they are and go on afterwards."""
    flags = "--proportion 0.05 --num_repeats 1 --num_samples 5 --eval_limit 2".split()
    where = ["--model", str(tiny_model), "--save_path", str(tmp_path)]
    script = [*where, *DEMO_DATA, *DEMO_TASKS, *flags]
    assert MathNeuro.main(script) == 0
    before = contents(tmp_path)
    capsys.readouterr()
    assert consistency(tiny_model, tmp_path) == 0
    output = capsys.readouterr().out
    after = contents(tmp_path)
    content = after.pop(tmp_path / "consistency.csv")
    assert after == before
    table = pd.read_csv(tmp_path / "consistency.csv")
    assert list(table.columns) == COLUMNS
    assert table["model"].unique().tolist() == ["tiny-llama"]
    assert table["against"].tolist() == ["Race", "Race", "MMLU", "MMLU"]
    assert f"{table['overlap'][0]:.3f}" in output

    assert consistency(tiny_model, tmp_path) == 2
    assert "holds consistency.csv; --overwrite replaces it" in capsys.readouterr().err
    torch.manual_seed(3)
    assert consistency(tiny_model, tmp_path, "--overwrite") == 0
    assert (tmp_path / "consistency.csv").read_bytes() == content
    assert MathNeuro.main(script) == 0
    assert (tmp_path / "consistency.csv").read_bytes() == content


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files to point bad flags at."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "good.csv").write_text("qa\nhello\nyou\n")
    (folder / "columns.csv").write_text("words\na\n")
    for name, fact in (("another", Fact("model", "gpt2")), ("revised", Fact("revision", "v9"))):
        (folder / name).mkdir()
        config = {"format": FORMAT, "identity": Identity([fact]).to_json()}
        (folder / name / "config.json").write_text(json.dumps(config))
    (folder / "foreign").mkdir()
    (folder / "foreign" / "results.csv").write_text("mine")
    (folder / "file").write_text("")
    (folder / "taken" / "consistency.csv").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--sizes 0", "--sizes 0: expected a whole number of at least 1"),
        (
            "--sizes 1 3 --train_dataset {0}/good.csv",
            "--sizes 3: {0}/good.csv has only 2 samples",
        ),
        ("--num_subsets 1", "--num_subsets 1: expected a whole number of at least 2"),
        ("--random_state -1", "--random_state -1: expected a whole number of at least 0"),
        ("--batch_tokens 0", "--batch_tokens 0: expected a whole number of at least 1"),
        ("--proportion 2", "--proportion 2: expected a fraction in (0, 1]"),
        ("--train_dataset {0}/none.csv", "--train_dataset {0}/none.csv: No such file"),
        (
            "--calibration_datasets {0}/columns.csv --calibration_dataset_names A",
            "has the columns words; expected qa, question and solution, or text",
        ),
        (
            "--calibration_datasets {0}/good.csv --calibration_dataset_names math",
            "stands for the skill's own set",
        ),
        ("--save_path {0}/file", "--save_path {0}/file: expected a folder"),
        ("--save_path {0}/foreign", "holds results.csv, but no results of ours"),
        ("--save_path {0}/another", "--model tiny-llama: the results in {0}/another were made"),
        ("--save_path {0}/revised", "--revision: the results in {0}/revised were made with"),
        ("--save_path {0}/taken --overwrite", "holds a folder consistency.csv"),
        ("--model {0}", "--model {0}: expected a folder with a config.json"),
        ("--device cuda:77", "--device cuda:77: expected a device of this machine"),
        ("--device cpu --device_map auto", "--device cpu: cannot be had with --device_map"),
        ("--scalar 0", "unrecognized arguments: --scalar 0"),
    ],
)
def test_refused_in_one_line(flags, message, folder, tiny_model, capsys, monkeypatch):
    monkeypatch.setattr(
        "neurosurgery.models.load.load_model", lambda *_: pytest.fail("a model was loaded")
    )
    before = sorted(folder.rglob("*"))
    argv = ["consistency", "--model", str(tiny_model), *DEMO_DATA, *flags.format(folder).split()]
    if "--save_path" not in argv:
        argv += ["--save_path", str(folder / "new")]
    try:
        status = main(argv)
    except SystemExit as error:
        status = error.code
    error = capsys.readouterr().err
    assert status == 2
    assert message.format(folder) in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


def test_a_model_without_its_data_is_not_given_the_demos(tiny_model, capsys):
    assert main(["consistency", "--model", str(tiny_model)]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            f"--model {tiny_model}: expected with it --train_dataset, --calibration_datasets, "
            "--save_path; only the demo brings its own"
        )
    )


def test_no_flags_mean_the_demo(tmp_path, monkeypatch):
    """What a call without flags asks for; nothing is measured here."""
    calls = []

    def remember(_loaded, _data, sets, sizes, num_subsets, proportions, *_rest):
        calls.append((list(sets), sizes, num_subsets, proportions))
        return pd.DataFrame(columns=COLUMNS[1:])

    monkeypatch.setattr(measuring, "measure_consistency", remember)
    monkeypatch.setattr(measuring, "consistency_text", lambda _table: "")
    monkeypatch.chdir(tmp_path)
    assert main(["consistency"]) == 0
    sizes = (1, 10, 50, 100, 500)
    grid = (0.001, 0.005, 0.01, 0.05, 0.075, 0.1)
    assert calls == [(["math", "Race", "MMLU"], {"Race": sizes, "MMLU": sizes}, 5, grid)]
    assert (tmp_path / "results" / "demo" / "consistency.csv").exists()
    model = ["--model", str(ROOT / "demo" / "model"), "--save_path", "results/demo"]
    assert main(["consistency", *model, *DEMO_DATA, "--overwrite"]) == 0
    assert calls[1][3] == (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15)
