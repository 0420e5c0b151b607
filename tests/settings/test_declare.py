"""A setting is one declaration; flag, help, check, file, identity and page follow from it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from conftest import ROOT
from scripts import COMMON, DEMO_DATA, DEMO_TASKS, SCRIPTS

import FineTune
import MathNeuro
import PathPatching
from neurosurgery.__main__ import main as commands
from neurosurgery.cli import scripts as scripts_settings
from neurosurgery.cli.fine_tune import parse as parse_fine_tuning
from neurosurgery.cli.parse import parse_experiment
from neurosurgery.cli.path_patching import parse as parse_path_patching
from neurosurgery.cli.reference import reference_text
from neurosurgery.common.errors import UsageError
from neurosurgery.results.store import ResultStore
from neurosurgery.settings import parts
from neurosurgery.settings.declare import FRACTION, Setting, whole
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.identity import CELLS
from neurosurgery.settings.yaml_file import run_yaml

NEW = Setting("loudness", float, "how loud it is", default=0.5, range=FRACTION, identity=CELLS)
MODEL = ["--model", DEMO.model, *DEMO_DATA, *DEMO_TASKS, "--save_path", "r"]


def parse(script: str, argv: list[str]):
    if script == "PathPatching.py":
        return parse_path_patching("", argv)
    if script == "FineTune.py":
        return parse_fine_tuning("", argv)
    return parse_experiment(script, "", argv)


@pytest.mark.whole
def test_a_new_setting_is_one_declaration(monkeypatch, tmp_path, capsys, tiny_model):
    """Nothing in the package is touched."""
    monkeypatch.setattr(parts, "OUTPUT", (*parts.OUTPUT, NEW))
    with pytest.raises(SystemExit, match="0"):
        MathNeuro.main(["--help"])
    assert "--loudness LOUDNESS   how loud it is (default: .5)" in capsys.readouterr().out
    assert "| `loudness` | a fraction in (0, 1] | .5 | how loud it is *(identity)* |" in (
        reference_text()
    )
    flags = SCRIPTS["mathneuro"].flags(tiny_model, tmp_path / "r")
    assert MathNeuro.main([*flags, "--loudness", "2"]) == 2
    assert "--loudness 2: expected a fraction in (0, 1]" in capsys.readouterr().err
    assert MathNeuro.main([*flags, "--loudness", ".25"]) == 0
    run = tmp_path / "r" / "run.yaml"
    assert yaml.safe_load(run.read_text())["MathNeuro.py"]["loudness"] == 0.25
    assert "loudness" in (tmp_path / "r" / "report" / "report.html").read_text()
    capsys.readouterr()
    assert MathNeuro.main([*flags, "--loudness", ".75"]) == 2
    error = capsys.readouterr().err
    assert "--loudness 0.75: the results in" in error
    assert "were made with 0.25" in error
    # A file has the same flag, and the run that it describes makes the same tables.
    again = ["--config", str(run), "--save_path", str(tmp_path / "again")]
    assert MathNeuro.main(again) == 0
    first, second = ((tmp_path / name / "summary.csv").read_bytes() for name in ("r", "again"))
    assert first == second
    assert ResultStore(tmp_path / "again", "").identity.value("loudness") == 0.25
    assert yaml.safe_load((tmp_path / "again" / "run.yaml").read_text()) == yaml.safe_load(
        run.read_text()
    )


CALLS = [
    ("MathNeuro.py", ""),
    ("MathNeuro.py", "--proportion .05 --no_pre_train_eval --save_masks"),
    ("MathNeuro.py", "--skill Race --scalar 0 1.1 -.5 --num_fewshot 0 --margin .03 demo_race=.1"),
    ("MathNeuro_Ablations.py", "--methods wanda --random_state 0 --report_to"),
    ("LAPE.py", "--ratio .01 .05 --eval_limit 9 --apply_chat_template"),
    ("PathPatching.py", ""),
    ("PathPatching.py", "--operators + - --shots 0 --top 2 .5 --units mlps --no_pre_train_eval"),
    ("PathPatching.py", "--ablation resample --prompts data/demo/math.csv"),
    ("FineTune.py", ""),
    ("FineTune.py", "--selection wanda all --learning_rate 1e-3 5e-05 --weight_decay 0"),
    ("FineTune.py", "--selection lape heads --ratio .02 --max_steps 9 --train_seed 0"),
]
OF_MODEL = [
    ("MathNeuro.py", [*MODEL, "--pre_train_eval", "--device", "cpu"]),
    ("PathPatching.py", ["--model", DEMO.model, "--save_path", "r", "--digits", "2"]),
    ("PathPatching.py", ["--model", DEMO.model, "--save_path", "r", *DEMO_TASKS]),
    ("FineTune.py", [*MODEL, "--train_data", "data/demo/new_problems.csv"]),
]


@pytest.mark.parametrize(
    ("script", "argv"), [*((script, words.split()) for script, words in CALLS), *OF_MODEL]
)
def test_run_yaml_repeats_a_call(script, argv, tmp_path):
    argv = [word for word in argv if word != "--report_to"]
    asked = parse(script, argv)
    file = tmp_path / "run.yaml"
    file.write_text(run_yaml({script: asked.settings.travelling, "Other.py": {"model": "x"}}))
    where = [] if asked.settings.of_demo else ["--save_path", "r"]
    again = parse(script, ["--config", str(file), *where])
    plain = replace(asked.settings, given={}, command=(), values={})
    assert replace(again, settings=plain) == replace(asked, settings=plain)
    assert again.settings.travelling == asked.settings.travelling


def test_a_file_never_says_where_to_and_what_to_trust(tmp_path):
    flags = ["--save_path", str(tmp_path), "--overwrite", "--dry_run", "--trust_remote_code"]
    flags += ["--json", "--shard", "1/2"]
    for script in ("MathNeuro.py", "PathPatching.py", "FineTune.py"):
        found = parse(script, [*flags, "--include_path", str(tmp_path), "--quiet"]).settings
        alone = {"save_path", "overwrite", "dry_run", "trust_remote_code", "include_path", "quiet"}
        alone |= {"json", "shard"}
        assert not alone & set(found.travelling)
        # A budget is gone in the numbers that it chose.
        assert {one.name for one in found.declared if not one.travels} == alone | {"budget"}
        assert str(tmp_path) not in str(found.travelling)
        assert found.flags_alone == ["--trust_remote_code", "--include_path", str(tmp_path)]


def test_flags_win_over_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("num_samples: 7\ntrain_dataset: a.csv\nsave_masks: true\neval_limit: 3\n")
    config = parse_experiment("MathNeuro.py", "", ["--config", str(file)])
    assert (config.data.num_samples, config.data.math.path.name) == (7, "a.csv")
    assert config.output.save_masks
    flags = ["--config", str(file), "--num_samples", "9", "--no_save_masks", "--documents", "5"]
    config = parse_experiment("MathNeuro.py", "", flags)
    assert config.data.num_samples == 9
    assert not config.output.save_masks
    assert config.evaluation.other_documents == 5


BAD_FILES = [
    ("num_sample: 5", "MathNeuro.py has no setting num_sample; did you mean num_samples?"),
    ("save_path: x", "save_path is taken from the command line alone: --save_path"),
    ("trust_remote_code: true", "is taken from the command line alone"),
    ("skill_data: a\ntrain_dataset: b", "train_dataset and skill_data are one setting"),
    ("num_samples: [1, 2]", "num_samples is a list of 2; expected one value"),
    ("proportion: []", "proportion is a list of 0; expected one value or more"),
    ("num_samples: ten", "bad.yaml: --num_samples ten: expected a whole number"),
    ("documents: 1:30", "bad.yaml: --documents 1:30: expected a whole number"),
    ("num_samples: 0", "bad.yaml: --num_samples 0: expected a whole number of at least 1"),
    (f"num_samples: {'9' * 6000}", "…: expected a whole number"),
    (f"skill_name: {'x' * 9000}", "…: expected a name of one line"),
    ("num_samples: true", "bad.yaml: --num_samples true: expected a whole number"),
    ("num_samples: {a: 1}", "num_samples holds settings or lists; expected one value"),
    ("MathNeuro.py: 5", "MathNeuro.py: expected settings, NAME: VALUE"),
    ("num_samples: 5\nnum_samples: 6", "num_samples stands there twice"),
    ("MathNeuro.py: {num_samples: 5, num_samples: 5}", "num_samples stands there twice"),
    ("num_samples:", "num_samples is empty; expected a value"),
    ("? [a]\n: 5", "expected a YAML file of settings"),
    ("model: {", "expected a YAML file of settings"),
    ("model: !!python/object/apply:os.getcwd []", "model is a list of 0; expected one value"),
    ("proportion: [[.1]]", "proportion holds settings or lists; expected one value or more"),
    ("- model", "expected a YAML file of settings, NAME: VALUE"),
    ("", "expected a YAML file of settings, NAME: VALUE"),
    ("[" * 5000, "expected a YAML file of settings"),
    ("save_masks: 1", "save_masks is 1; expected true or false"),
    ("dtype: float8", "bad.yaml: --dtype float8: expected float32, bfloat16, float16"),
    ("save_masks: yes", "save_masks is yes; expected true or false"),
    ("LAPE.py: {num_samples: 5}", "has no settings of MathNeuro.py, only of LAPE.py"),
    ("skill_documents: 0", "--skill_documents 0: expected a whole number of at least 1"),
    ('revision: ""', "revision is empty; expected a value"),
]


@pytest.mark.parametrize(("text", "expected"), BAD_FILES)
def test_a_bad_file_is_one_line(text, expected, tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    try:
        status = MathNeuro.main(["--config", str(file)])
    except SystemExit as error:
        status = error.code
    assert status == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", "a folder"])
def test_a_file_that_cannot_be_read(content, tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    if content == "a folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    assert MathNeuro.main(["--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert f"--config {file}: expected a YAML file of settings" in error
    assert len(error.strip().splitlines()) == 1


def test_clear_and_published_names_are_one(capsys):
    published = [*DEMO_DATA, *DEMO_TASKS, "--eval_dataset_subset", "7", "--eval_dataset_size", "8"]
    groups = scripts_settings.groups_of("MathNeuro.py")
    clear = {
        f"--{one.published}": f"--{one.name}"
        for group in groups.values()
        for one in group
        if one.published
    }
    assert len(clear) == 8
    by_clear = [clear.get(word, word) for word in published]
    assert by_clear != published
    one, other = (parse_experiment("MathNeuro.py", "", words) for words in (published, by_clear))
    assert one.settings.values == other.settings.values
    # A message names the flag as it was typed.
    for flag in ("--eval_limit", "--documents"):
        assert MathNeuro.main([flag, "0"]) == 2
        assert f"error: {flag} 0: expected" in capsys.readouterr().err
    assert MathNeuro.main(["--skill-data", "none.csv"]) == 2
    assert "error: --skill_data none.csv" in capsys.readouterr().err


@pytest.mark.parametrize("main", [MathNeuro.main, PathPatching.main, FineTune.main])
def test_a_mistyped_flag_gets_the_nearest(main, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--eval-dataset", "x"])
    assert "unrecognized arguments: --eval-dataset x (did you mean --eval_datasets?)" in (
        capsys.readouterr().err
    )
    with pytest.raises(SystemExit, match="2"):
        main(["--xyz"])
    assert "did you mean" not in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        commands(["consistency", "--num_subset", "3"])
    assert "did you mean --num_subsets?" in capsys.readouterr().err


def test_dashes_are_underscores(tmp_path):
    config = parse_experiment("MathNeuro.py", "", ["--num-samples", "7", "--random-state=3"])
    assert (config.data.num_samples, config.data.random_state) == (7, 3)
    file = tmp_path / "mine.yaml"
    file.write_text("num-samples: 8\neval-limit: 3\n")
    config = parse_experiment("MathNeuro.py", "", ["--config", str(file)])
    assert (config.data.num_samples, config.evaluation.math_documents) == (8, 3)


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        MathNeuro.main(["--version"])
    lines = capsys.readouterr().out.splitlines()
    names = ["neurosurgery", "torch", "transformers", "lm_eval", "device"]
    assert [line.split()[0] for line in lines] == names


@pytest.mark.whole
def test_quiet_prints_errors_alone(tmp_path, capsys, tiny_model):
    flags = SCRIPTS["mathneuro"].flags(tiny_model, tmp_path / "r")
    capsys.readouterr()
    assert MathNeuro.main([*flags, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "r" / "eval_results").exists()
    assert MathNeuro.main([*flags, "--num_samples", "0", "--quiet"]) == 2
    assert "--num_samples 0" in capsys.readouterr().err
    # The next call is heard again.
    assert MathNeuro.main(flags) == 0
    assert "results in" in capsys.readouterr().out


def test_a_users_own_run_yaml_stays(tmp_path, tiny_model, capsys):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "run.yaml").write_text("num_samples: 3\n")
    flags = SCRIPTS["mathneuro"].flags(tiny_model, tmp_path / "r")
    assert MathNeuro.main([*flags, "--config", str(tmp_path / "r" / "run.yaml")]) == 0
    assert (tmp_path / "r" / "run.yaml").read_text() == "num_samples: 3\n"


def test_ranges_tell_what_was_expected():
    assert whole(1).refuse(0) == "expected a whole number of at least 1"
    assert whole(1, 5).refuse(6) == "expected a whole number of at most 5"
    assert whole(0, None).refuse(10**12) is None
    with pytest.raises(UsageError, match=r"--loudness nan: expected a fraction in \(0, 1\]"):
        NEW.check(float("nan"))


def test_no_negative_zero():
    scalar = next(one for one in scripts_settings.grid("MathNeuro.py") if one.name == "scalar")
    assert str(scalar.value([-0.0, 0.0, 1.0], {"scalar": None})) == "(0.0, 1.0)"


def test_the_reference_page_is_current():
    assert (ROOT / "docs" / "SETTINGS.md").read_text(encoding="utf-8") == reference_text()


def test_help_is_quick():
    """Neither torch nor YAML is imported for it."""
    code = (
        "import sys, FineTune\n"
        "try: FineTune.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'pandas', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_common_flags_are_settings():
    """The tests' own flags, to see that the names above are those that scripts take."""
    assert parse_experiment("MathNeuro.py", "", list(COMMON)).settings.values
