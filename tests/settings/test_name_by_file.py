"""What the skill is called if nobody names it, and where the paths of a file lead."""

from __future__ import annotations

import pytest
from scripts import SCRIPTS

from neurosurgery.cli.parse import parse_experiment
from neurosurgery.common.errors import UsageError
from neurosurgery.settings.experiment import skill_name_of


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (None, "math"),
        ("data/gsm8k.csv", "math"),
        ("data/demo/math.csv", "math"),
        ("data/sgsm.csv", "math"),
        ("a/code.jsonl", "code"),
        ("past tense.txt", "past tense"),
        ("hub:openai/openai_humaneval:test:prompt", "openai_humaneval"),
        ("hub:openai/gsm8k@main:train:question", "math"),
        ("hub:nothing", "math"),
        ("x" * 60 + ".csv", "x" * 40),
        # The names of other sets are taken.
        ("b/Race.csv", "math"),
    ],
)
def test_the_name_of_its_file_unless_that_is_math(file, name):
    assert skill_name_of(file, ["race", "MMLU"]) == name


def test_a_run_takes_it_where_none_is_given(tmp_path):
    def called(*more):
        argv = ["--save_path", str(tmp_path / "r"), "--skill_data", "code.jsonl", *more]
        return parse_experiment("MathNeuro.py", "", argv).output.skill_name

    assert called() == "code"
    assert called("--skill_name", "programs") == "programs"
    assert called("--other_data", "code.csv", "--overwrite") == "math"
    of_demo = parse_experiment("MathNeuro.py", "", ["--save_path", str(tmp_path)])
    assert of_demo.output.skill_name == "math"


def test_a_path_that_leads_somewhere_from_the_file_alone_is_explained(tmp_path, monkeypatch):
    (tmp_path / "skill").mkdir()
    (tmp_path / "skill" / "code.txt").write_text("a\n")
    config = tmp_path / "skill" / "skill.yaml"
    config.write_text("skill_data: code.txt\n")
    monkeypatch.chdir(tmp_path)
    argv = ["--config", "skill/skill.yaml", "--save_path", "r"]
    with pytest.raises(UsageError, match=r"--skill_data code.txt: is not here.* skill/code.txt"):
        parse_experiment("MathNeuro.py", "", argv)
    monkeypatch.chdir(tmp_path / "skill")
    parse_experiment("MathNeuro.py", "", ["--config", "skill.yaml", "--save_path", "r"])


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_other_sets_may_not_have_the_id_of_the_skill(script, tmp_path, capsys):
    argv = ["--other_names", "math", "MMLU", "--save_path", str(tmp_path / "r")]
    assert script.main(argv) == 2
    assert "math: stands for the skill's own set" in capsys.readouterr().err
