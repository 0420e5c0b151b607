"""Bad input: one line on stderr, exit status 2, nothing written, before any model is loaded."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import ROOT
from scripts import DEMO_DATA, DEMO_TASKS, SCRIPTS, files_with_times

import FineTune
import LAPE
import MathNeuro
import MathNeuro_Ablations
import PathPatching
from data import prepare, text_task
from neurosurgery import __main__ as commands
from neurosurgery.cli.flags import OneLineParser
from neurosurgery.cli.parse import parse_experiment
from neurosurgery.common.errors import UsageError
from neurosurgery.edit.kinds import scale_by
from neurosurgery.settings.demo import DEMO, PUBLISHED_GRID


@pytest.fixture
def folder(tmp_path):
    """Files to point bad flags at."""
    (tmp_path / "columns.csv").write_text("words\na\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "latin.csv").write_bytes("qa\ncafé\n".encode("latin-1"))
    (tmp_path / "good.csv").write_text("qa\nhello\n")
    (tmp_path / "no_model").mkdir()
    quantised = tmp_path / "quantised"
    quantised.mkdir()
    config = {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}
    (quantised / "config.json").write_text(json.dumps(config))
    (tmp_path / "a_file").write_text("")
    return tmp_path


LONG = "x" * 300

CASES = [
    ("--train_dataset {0}/none.csv", "--train_dataset {0}/none.csv: No such file"),
    ("--train_dataset {0}/gsm8k.csv", "python data/prepare.py gsm8k writes data/gsm8k.csv"),
    ("--train_dataset {0}/empty.csv", "is empty"),
    (
        "--train_dataset {0}/columns.csv",
        "has the columns words; expected qa, question and solution, or text",
    ),
    ("--calibration_datasets {0}/latin.csv", "expected UTF-8 text"),
    (
        "--calibration_datasets {0}/good.csv {0}/latin.csv --calibration_dataset_names A",
        "--calibration_dataset_names A: expected one name per calibration set: 2, found 1",
    ),
    ("--calibration_dataset_names A B C", "expected one name per calibration set: 2, found 3"),
    (
        "--calibration_datasets {0}/good.csv {0}/good.csv --calibration_dataset_names A a",
        "two calibration sets of one name",
    ),
    (
        "--calibration_datasets {0}/good.csv --calibration_dataset_names ../x",
        "expected letters, digits",
    ),
    (
        "--calibration_datasets {0}/good.csv --calibration_dataset_names math",
        "stands for the skill's own set",
    ),
    ("--proportion 0.1 1.5", "--proportion 1.5: expected a fraction in (0, 1]"),
    ("--proportion 0", "--proportion 0: expected a fraction in (0, 1]"),
    ("--proportion nan", "--proportion nan: expected"),
    ("--proportion ten", "--proportion ten: expected a number"),
    ("--scalar inf", "--scalar inf: expected a finite number"),
    ("--num_samples 0", "--num_samples 0: expected a whole number of at least 1"),
    ("--num_repeats -1", "--num_repeats -1: expected"),
    ("--eval_limit 0", "--eval_limit 0: expected"),
    ("--eval_dataset_subset 0", "--eval_dataset_subset 0: expected"),
    ("--eval_batch_size 0", "--eval_batch_size 0: expected"),
    ("--num_fewshot -1", "--num_fewshot -1: expected"),
    ("--batch_tokens 0", "--batch_tokens 0: expected"),
    ("--random_state -1", "--random_state -1: expected"),
    ("--save_path {0}/a_file", "--save_path {0}/a_file: expected a folder that can be written"),
    ("--save_path {0}/a_file/x", "--save_path {0}/a_file/x: expected a folder"),
    ("--model {0}/no_model", "--model {0}/no_model: expected a folder with a config.json"),
    (
        "--model {0}/nowhere",
        "--model {0}/nowhere: expected a model folder, a GGUF file or a hub id",
    ),
    ("--model {0}/quantised", "is quantised"),
    ("--include_path {0}/none", "--include_path {0}/none: expected a folder of task files"),
    ("--text_file a/b.txt", "--text_file a/b.txt: expected a name NAME.txt"),
    ("--text_file pre_results.json", "--text_file pre_results.json: expected a name NAME.txt"),
    ("--device cpu --device_map auto", "--device cpu: cannot be had with --device_map"),
    ("--eval_datasets demo_race demo_race", "--eval_datasets demo_race: expected every task once"),
    ("--eval_datasets demo_gsm8k_cot", "expected every task once"),
    ("--device cuda:77", "--device cuda:77: expected a device of this machine"),
    ("--dtype float8", "--dtype float8: expected float32, bfloat16, float16"),
    ("--num_sample 5", "unrecognized arguments: --num_sample 5"),
    ("--num_samples 999999999", "--num_samples 999999999: expected a whole number of at most"),
    ("--num_samples 20000 --num_repeats 10000", "--num_samples 20000: expected a whole number of"),
    ("--num_repeats 1000000000", "--num_repeats 1000000000: expected a whole number of at most"),
    ("--eval_batch_size 99999999999", "--eval_batch_size 99999999999: expected a whole number of"),
    (f"--train_dataset {{0}}/{LONG}.csv", "has a name of 304 bytes; expected at most 255"),
    (f"--calibration_datasets {LONG}", "has a name of 300 bytes; expected at most 255"),
    (f"--model {LONG}", "has a name of 300 bytes; expected at most 255"),
    (f"--model {'é' * 130}", "has a name of 260 bytes; expected at most 255"),
    (f"--include_path {LONG}", "has a name of 300 bytes; expected at most 255"),
    (f"--save_path {{0}}/{LONG}", "has a name of 300 bytes; expected at most 255"),
    (f"--save_path {{0}}/{'d/' * 2500}", "bytes; expected at most 4000"),
    (f"--text_file {LONG}.txt", "has a name of 304 bytes; expected at most 255"),
    (f"--text_file {LONG[:230]}.txt", "has 234 bytes; expected at most 221, for the names of"),
    ("--save_path {0}/a\0b", "a\\x00b: expected a path in UTF-8 without control characters"),
    ("--model {0}/a\x1b[31mb", "a\\x1b[31mb: expected a path in UTF-8 without control"),
    ("--save_path {0}/\udcff", "\\udcff: expected a path in UTF-8 without control characters"),
    ("--margin 0", "--margin 0: expected a number in (0, 1], or TASK=NUMBER"),
    ("--margin -.1", "--margin"),
    ("--margin 1.5", "--margin 1.5: expected a number in (0, 1], or TASK=NUMBER"),
    ("--margin nan", "--margin nan: expected a number in (0, 1]"),
    ("--margin inf", "--margin inf: expected a number in (0, 1]"),
    ("--margin ten", "--margin ten: expected a number in (0, 1], or TASK=NUMBER"),
    ("--margin demo_race", "--margin demo_race: expected a number in (0, 1], or TASK=NUMBER"),
    ("--margin demo_race=", "--margin demo_race=: expected a number in (0, 1]"),
    ("--margin demo_race=0", "--margin demo_race=0: expected a number in (0, 1]"),
    ("--margin =.1", "--margin =.1: expected a number, and TASK=NUMBER once per task"),
    ("--margin .1 .2", "--margin .2: expected a number, and TASK=NUMBER once per task"),
    (
        "--margin demo_race=.1 demo_race=.2",
        "--margin demo_race=.2: expected a number, and TASK=NUMBER once per task",
    ),
    (
        "--margin .1 demo_rce=.2",
        "--margin demo_rce: expected one of the tasks: demo_gsm8k_cot, demo_race, demo_mmlu",
    ),
    ("--skill Nobody", "--skill Nobody: expected one of math, Race, MMLU"),
    ("--skill race", "--skill race: expected one of math, Race, MMLU"),
]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("flags", "message"), CASES, ids=[flags for flags, _ in CASES])
def test_refused_in_one_line(flags, message, script, folder, capsys, monkeypatch):
    size_flag = SCRIPTS[script].size_flag
    flags, message = (text.replace("--proportion", size_flag) for text in (flags, message))
    monkeypatch.setattr(
        "neurosurgery.models.load.load_model", lambda *_: pytest.fail("a model was loaded")
    )
    argv = flags.format(folder).split()
    if "--save_path" not in argv:
        argv += ["--save_path", str(folder / "results")]
    before = sorted(folder.rglob("*"))
    try:
        status = SCRIPTS[script].main(argv)
    except SystemExit as error:
        status = error.code
    output = capsys.readouterr()
    assert status == 2
    assert message.format(folder) in output.err
    assert len(output.err.strip().splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


LONGEST_SET = 255 - len("_calculate0.05_run0") - len("_train_task.json") - len("..ffff.4194304.tmp")


def test_a_set_has_the_longest_name_that_fits_and_no_longer_one(tiny_model, tmp_path, capsys):
    """One byte more would fail when the first cell is written, or never be found finished."""
    case = SCRIPTS["mathneuro"]

    def argv(length: int, *more: str) -> list[str]:
        names = ["--calibration_dataset_names", "s" * length, "MMLU"]
        return case.flags(tiny_model, tmp_path / "r", *names, *case.one("--save_masks", *more))

    assert case.main(argv(LONGEST_SET + 1)) == 2
    line = capsys.readouterr().err
    assert f"has {LONGEST_SET + 1} bytes; expected at most {LONGEST_SET}" in line
    assert not (tmp_path / "r").exists()
    # A longer suffix leaves less; the skill's own name counts, too.
    assert case.main(argv(LONGEST_SET, "--scalar", "1.0625")) == 2
    assert f"at most {LONGEST_SET - len('_scalar1.0625')}" in capsys.readouterr().err
    name = "s" * 240
    skilled = [*argv(240), "--skill", name]
    assert case.main(skilled) == 2
    assert "expected at most" in capsys.readouterr().err
    assert case.main(argv(LONGEST_SET)) == 0
    before = files_with_times(tmp_path / "r", "*.safetensors")
    assert before
    assert case.main(argv(LONGEST_SET)) == 0
    assert files_with_times(tmp_path / "r", "*.safetensors") == before


def test_methods_are_checked(tmp_path, capsys):
    flags = ["--methods", "lape", "--save_path", str(tmp_path / "r")]
    assert MathNeuro_Ablations.main(flags) == 2
    assert "--methods lape: expected random, wanda" in capsys.readouterr().err


def test_lapes_fraction_has_its_own_name(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        LAPE.main(["--proportion", "0.1", "--save_path", str(tmp_path / "r")])
    assert "unrecognized arguments: --proportion" in capsys.readouterr().err


def test_an_unknown_task_gets_suggestions(tmp_path, capsys, tiny_model):
    argv = SCRIPTS["mathneuro"].flags(tiny_model, tmp_path / "r")
    assert MathNeuro.main([*argv, "--train_lm_eval_task", "gsm8k_cott"]) == 2
    output = capsys.readouterr()
    assert "--train_lm_eval_task gsm8k_cott: expected a task of the lm-eval" in output.err
    assert "gsm8k_cot" in output.err.partition("did you mean")[2]
    assert len(output.err.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_a_hub_model_that_cannot_be_had(tmp_path, capsys):
    """The test session is offline, so that no hub id resolves."""
    argv = SCRIPTS["mathneuro"].flags("nobody/nothing", tmp_path / "r")
    assert MathNeuro.main(argv) == 2
    error = capsys.readouterr().err
    assert "--model nobody/nothing: cannot be loaded" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("script", ["MathNeuro", "MathNeuro_Ablations", "LAPE"])
@pytest.mark.parametrize("flag", ["--help", "--scalar nan"])
def test_answers_without_importing_torch(flag, script):
    code = (
        f"import sys, {script}\n"
        f"try: {script}.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *flag.split()],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )


def test_no_flags_mean_the_demo():
    config = parse_experiment("MathNeuro.py", "", [])
    assert config.model.name == DEMO.model
    assert config.grid.sizes == DEMO.proportions
    assert config.data.num_repeats == 3
    assert config.grid.pre_train_eval
    assert config.grid.methods == ("mathneuro", "random")
    asked = config.evaluation
    assert (asked.documents_from, asked.math_documents, asked.other_documents) == ("own", 66, 66)
    # Their repeats share no document of the 200 that a task has.
    assert config.data.num_repeats * asked.other_documents <= 200
    assert [source.name for source in config.data.calibration] == ["Race", "MMLU"]


def test_flags_that_change_the_demo_bring_its_control_and_documents_as_far_as_they_fit():
    few = parse_experiment("MathNeuro.py", "", ["--proportion", ".05"])
    assert few.grid.methods == ("mathneuro",)
    assert few.evaluation.documents_from == "own"
    programs = ["--skill_data", str(ROOT / "data" / "demo" / "sgsm.csv")]
    own = parse_experiment("MathNeuro.py", "", programs)
    assert own.grid.methods == ("mathneuro",)
    assert (own.evaluation.documents_from, own.evaluation.math_documents) == ("first", 100)
    assert own.evaluation.other_documents is None
    trained = parse_experiment("LAPE.py", "", []).evaluation
    assert trained == parse_experiment("MathNeuro_Ablations.py", "", []).evaluation


NEEDED = (*DEMO_DATA, *DEMO_TASKS, "--save_path", "r")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (
            "",
            "--train_dataset, --calibration_datasets, --train_lm_eval_task, --eval_datasets, "
            "--save_path",
        ),
        (
            "--save_path r --train_lm_eval_task gsm8k_cot --calibration_dataset_names Race MMLU",
            "--train_dataset, --calibration_datasets, --eval_datasets",
        ),
        (" ".join(DEMO_DATA), "--train_lm_eval_task, --eval_datasets, --save_path"),
        (" ".join(NEEDED[:-2]), "--save_path"),
    ],
)
@pytest.mark.parametrize("model", [DEMO.model, "org/model"])
def test_a_model_without_its_data_is_not_given_the_demos(
    model, given, missing, script, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert SCRIPTS[script].main(["--model", model, *given.split()]) == 2
    line = capsys.readouterr().err.strip()
    expected = f"--model {model}: expected with it {missing}; only the demo brings its own"
    assert line.endswith(f"error: {expected}")
    assert not list(tmp_path.iterdir())


def test_a_model_brings_the_published_defaults():
    config = parse_experiment("MathNeuro.py", "", ["--model", DEMO.model, *NEEDED])
    assert config.grid.sizes == PUBLISHED_GRID
    assert config.grid.edits == (scale_by(0.0),)
    assert config.data.num_repeats == 5
    assert config.data.num_samples == 500
    assert config.data.random_state == 42
    assert config.evaluation.math_documents == 100
    assert config.evaluation.other_documents is None
    assert not config.grid.pre_train_eval


def test_grid_flags_leave_the_demos_grid():
    config = parse_experiment("MathNeuro.py", "", ["--scalar", "1.1"])
    assert config.grid.sizes == PUBLISHED_GRID


def test_eval_limit_caps_both_limits():
    config = parse_experiment(
        "MathNeuro.py", "", ["--eval_limit", "20", "--eval_dataset_subset", "5"]
    )
    assert (config.evaluation.math_documents, config.evaluation.other_documents) == (5, 20)


def test_repeated_grid_values_count_once():
    config = parse_experiment("MathNeuro.py", "", "--proportion .1 .10 --scalar 0 -0.0".split())
    assert config.grid.sizes == (0.1,)
    assert config.grid.edits == (scale_by(0.0),)


def test_a_usage_error_is_always_one_line():
    assert str(UsageError("--x", "a\nb", "expected\n  c")) == "--x a b: expected c"


MAINS = [
    *(script.main for script in SCRIPTS.values()),
    *(module.main for module in (FineTune, PathPatching, commands, prepare, text_task)),
]


class Built(Exception):
    """Carries the parser of a script out of it."""


def parser_of(main, monkeypatch) -> OneLineParser:
    def stop(parser, _argv):
        raise Built(parser)

    with monkeypatch.context() as patch:
        patch.setattr(OneLineParser, "parse_args", stop)
        with pytest.raises(Built) as caught:
            main([])
    return caught.value.args[0]


def values_of(parser: argparse.ArgumentParser) -> Iterator[tuple[list[str], argparse.Action]]:
    """Every flag and position that takes a value, with the commands that lead to it."""
    before: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, of_command in action.choices.items():
                for path, each in values_of(of_command):
                    yield [name, *path], each
        elif action.nargs != 0:
            yield ([] if action.option_strings else list(before)), action
            # What stands before a position is given, so that the value is its own.
            before += [] if action.option_strings else ["1"]


@pytest.mark.parametrize("main", MAINS, ids=lambda main: main.__module__)
def test_an_empty_value_is_never_taken_for_none(main, tmp_path, capsys, monkeypatch):
    """`--save_path "$UNSET" --overwrite` must delete nothing; so for every flag, lists included."""
    monkeypatch.chdir(tmp_path)
    actions = list(values_of(parser_of(main, monkeypatch)))
    assert actions
    for path, action in actions:
        flag = action.option_strings[:1]
        good = str(next(iter(action.choices or ["1"])))
        tries = [[*flag, blank] for blank in ("", " ", "\t\n")]
        if flag:
            tries += [[f"{flag[0]}={blank}"] for blank in ("", " ")]
        if action.nargs == "+":
            tries += [[*flag, good, ""], [*flag, "", good]]
        for words in tries:
            try:
                status = main([*path, *words])
            except SystemExit as error:
                status = error.code
            assert status == 2
            error = capsys.readouterr().err
            assert len(error.strip().splitlines()) == 1
            assert (flag or [action.metavar])[0] in error, (words, error)
    assert not list(tmp_path.iterdir())
