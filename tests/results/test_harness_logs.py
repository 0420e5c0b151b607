"""Reading logs of lm_eval: which files are a run, and what is refused."""

from __future__ import annotations

import json

import pytest
from harness_log_files import LATER, TIME, of_numbers, sample, write_answers, write_log

from neurosurgery.common.errors import UsageError
from neurosurgery.common.json_files import sealed
from neurosurgery.results.harness_logs import read_run
from neurosurgery.settings.identity import Fact, Identity

RIGHT = [1.0, 0.0, 1.0, 1.0]


@pytest.fixture
def log(tmp_path):
    return write_answers(tmp_path / "run", first=RIGHT, second=RIGHT[:2])


def place(log):
    [folder] = log.iterdir()
    return folder


@pytest.mark.parametrize("name", ["", "results_{0}.json"])
def test_folder_and_results_file_are_the_run(log, name):
    folder = place(log)
    for path in (log, folder) if not name else (folder / name.format(TIME),):
        run = read_run(path)
        assert run.name == "org/model"
        assert run.tasks == ["first", "second"]
        assert run.results["first"] == {"acc,none": 0.75}
        assert run.versions == {"first": "1.0", "second": "1.0"}
        answers = run.answers["first", "none"]
        assert [value for _, value in answers.metrics["acc"]] == RIGHT
        assert len(set(answers.names(with_prompts=True))) == 4


def test_a_samples_file_is_its_task_alone(log):
    run = read_run(place(log) / f"samples_second_{TIME}.jsonl")
    assert run.tasks == ["second"]
    assert set(run.answers) == {("second", "none")}


def test_an_output_path_that_is_a_file(tmp_path):
    """`--output_path x.json` names the results x_TIME.json, and puts samples beside it."""
    log = place(write_answers(tmp_path / "run", first=RIGHT))
    (log / f"results_{TIME}.json").rename(log / f"x_{TIME}.json")
    assert read_run(log / f"x_{TIME}.json").tasks == ["first"]
    assert read_run(log).tasks == ["first"]


def test_every_task_is_from_the_newest_log_that_has_it(tmp_path):
    write_answers(tmp_path / "run", first=RIGHT, second=RIGHT)
    write_log(tmp_path / "run", {"first": of_numbers([0.0, 0.0])}, {"first": {"acc,none": 0.0}},
              time=LATER)  # fmt: skip
    run = read_run(tmp_path / "run")
    assert len(run.answers["first", "none"].documents) == 2
    assert len(run.answers["second", "none"].documents) == 4
    assert any(LATER in note for note in run.notes)


def test_a_group_of_several_times_is_left_out(tmp_path):
    groups = {"both": ["first", "second"]}
    numbers = {"acc,none": 0.75}
    write_log(
        tmp_path / "run",
        {"first": of_numbers(RIGHT), "second": of_numbers(RIGHT)},
        {"both": numbers, "first": numbers, "second": numbers},
        group_subtasks=groups,
    )
    assert read_run(tmp_path / "run").groups == groups
    write_log(tmp_path / "run", {"first": of_numbers([0.0, 0.0])}, {"first": {"acc,none": 0.0}},
              time=LATER)  # fmt: skip
    run = read_run(tmp_path / "run")
    assert run.groups == {}
    assert set(run.results) == {"first", "second"}
    assert any(note.startswith("both: left out") for note in run.notes)


def test_groups_of_groups_have_the_tasks_below(tmp_path):
    numbers = {"acc,none": 0.75}
    write_log(
        tmp_path / "run",
        {"first": of_numbers(RIGHT), "second": of_numbers(RIGHT)},
        {"all": numbers, "some": numbers, "first": numbers, "second": numbers},
        group_subtasks={"all": ["some", "second"], "some": ["first"], "second": []},
    )
    assert read_run(tmp_path / "run").groups == {"all": ["first", "second"], "some": ["first"]}


def test_equal_documents_are_told_apart_by_their_order(tmp_path):
    lines = [sample(n, {"acc": 1.0}, document="the same") for n in range(3)]
    write_log(tmp_path / "run", {"first": lines}, {"first": {"acc,none": 1.0}})
    names = read_run(tmp_path / "run").answers["first", "none"].names(with_prompts=False)
    assert len(set(names)) == 3


@pytest.mark.parametrize("likelihood", ["nan", "-inf"])
def test_likelihoods_that_are_no_numbers_are_noticed(tmp_path, likelihood):
    """The harness takes the first option then, and the accuracy looks like any other."""
    lines = of_numbers(RIGHT)
    lines[2]["resps"] = [[["-1.5", "True"]], [[likelihood, "False"]]]
    write_log(tmp_path / "run", {"first": lines}, {"first": {"acc,none": 0.75}})
    assert read_run(tmp_path / "run").answers["first", "none"].broken


def test_a_generated_text_may_be_called_nan(tmp_path):
    lines = [line | {"resps": [["nan"]]} for line in of_numbers(RIGHT)]
    write_log(tmp_path / "run", {"first": lines}, {"first": {"acc,none": 0.75}})
    assert not read_run(tmp_path / "run").answers["first", "none"].broken


def test_numbers_that_are_none_are_left_out(tmp_path):
    numbers = {
        "acc,none": 0.75, "acc_stderr,none": 0.1, "bypass,none": 999, "alias": "x",
        "f1,none": None, "other,none": "N/A", "flag,none": True, "huge,none": 10**400,
    }  # fmt: skip
    write_log(tmp_path / "run", {"first": of_numbers(RIGHT)}, {"first": numbers})
    assert read_run(tmp_path / "run").results["first"] == {"acc,none": 0.75}


def _cut_in_a_line(folder):
    path = folder / f"samples_first_{TIME}.jsonl"
    path.write_bytes(path.read_bytes()[:-30])


def _cut_after_a_line(folder):
    path = folder / f"samples_first_{TIME}.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def _no_results(folder):
    (folder / f"results_{TIME}.json").unlink()


def _no_samples(folder):
    for path in folder.glob("samples*"):
        path.unlink()


def _empty(folder):
    _no_results(folder)
    _no_samples(folder)


def _no_json(folder):
    (folder / f"results_{TIME}.json").write_text("{")


def _of_numbers(folder):
    (folder / f"results_{TIME}.json").write_text(json.dumps({"results": {"first": 3}}))


def _a_list(folder):
    path = folder / f"samples_first_{TIME}.jsonl"
    path.write_text("[1]\n" + path.read_text())


def _old(folder):
    path = folder / f"samples_first_{TIME}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"doc_hash": None}) + "\n" for line in lines))


def _deep(folder):
    (folder / f"samples_first_{TIME}.jsonl").write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_cut_in_a_line, "line 4: "),
        (_cut_after_a_line, "3 documents of filter none; expected 4"),
        (_no_results, "has no results_"),
        (_no_samples, "--log_samples"),
        (_empty, "holds no results_"),
        (_no_json, "cannot be read"),
        (_of_numbers, "expected by task"),
        (_a_list, "line 1: expected a JSON object"),
        (_old, "line 1: expected doc_hash"),
        (_deep, "line 1: "),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_damaged_logs_are_refused_in_one_line(log, damage, told):
    damage(place(log))
    with pytest.raises(UsageError, match="RUN ") as refused:
        read_run(log)
    assert told in str(refused.value)
    assert str(log) in str(refused.value)


def test_several_models_are_refused_by_name(log):
    write_log(log, {"first": of_numbers(RIGHT)}, {"first": {"acc,none": 0.75}}, model="other")
    with pytest.raises(UsageError, match=f"{log}/org__model, {log}/other"):
        read_run(log)


def test_runs_of_several_settings_in_a_folder_are_refused_by_name(log):
    config = {"model": "hf", "model_args": {"pretrained": "org/model"}, "model_dtype": "bfloat16"}
    write_log(log, {"first": of_numbers(RIGHT)}, {"first": {"acc,none": 0.75}}, time=LATER,
              config=config)  # fmt: skip
    with pytest.raises(
        UsageError, match=r'model_dtype "float32", "bfloat16".*results_2026-01.*02-'
    ):
        read_run(log)
    assert read_run(place(log) / f"results_{LATER}.json").facts["Dtype"] == "bfloat16"


@pytest.mark.parametrize("name", ["none", "other.json", "text.txt"])
def test_what_is_no_run_is_refused(tmp_path, name):
    if name != "none":
        (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match="--log_samples"):
        read_run(tmp_path / name)


# Results folders of ours


def own_folder(tmp_path, **record):
    """A results folder with a baseline: a group of two tasks."""
    answers = [
        {"task": task, "filter": "none", "doc_id": n, "doc_hash": f"{task}{n}", "prompt_hash": "p",
         "broken": False, "metrics": {"acc": 1.0}, "cluster": f"passage {n // 2}"}
        for task in ("t", "u")
        for n in range(4)
    ]  # fmt: skip
    content = {
        "results": {"math": {"t": {"acc,none": 1.0}},
                    "other": {"g": {"acc,none": 1.0}, "u": {"acc,none": 1.0}}},
        "groups": {"g": ["t", "u"]},
        "higher_is_better": {"t": {"acc": True}},
        "answers": answers,
        "looks": {"g": [2, 4, ""]},
    }  # fmt: skip
    cells = tmp_path / "own" / "cells" / "model"
    cells.mkdir(parents=True)
    (cells / "pre_results.json").write_text(sealed(content | record))
    fact = Fact("skill_task", {"version": "3.0"}, "t version", "t")
    config = {"identity": Identity([fact]).to_json()}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    return tmp_path / "own"


def test_a_results_folder_stands_for_its_baseline(tmp_path):
    folder = own_folder(tmp_path)
    run = read_run(folder)
    assert run.name == "model, baseline"
    assert run.tasks == ["t", "u"]
    assert run.groups == {"g": ["t", "u"]}
    assert run.versions == {"t": "3.0"}
    assert run.looks == {"g": 4, "t": 4, "u": 4}
    found = run.answers["t", "none"].clusters
    assert found == ["t:passage 0", "t:passage 0", "t:passage 1", "t:passage 1"]
    assert read_run(folder / "cells" / "model" / "pre_results.json").sources == run.sources


def test_a_record_that_was_edited_is_refused(tmp_path):
    folder = own_folder(tmp_path)
    record = folder / "cells" / "model" / "pre_results.json"
    record.write_text(record.read_text().replace("1.0", "0.5", 1))
    with pytest.raises(UsageError, match="not what was written"):
        read_run(folder)


def test_a_results_folder_without_a_baseline_asks_for_a_cell(tmp_path):
    folder = own_folder(tmp_path)
    record = folder / "cells" / "model" / "pre_results.json"
    record.rename(record.with_name("eval_0.05_run0.json"))
    with pytest.raises(UsageError, match="without a baseline; name the record of a cell"):
        read_run(folder)
    assert read_run(record.with_name("eval_0.05_run0.json")).facts["Cell"] == "eval_0.05_run0"


@pytest.mark.parametrize("lack", ["results", "answers", "groups"])
def test_a_record_that_lacks_a_part_is_refused(tmp_path, lack):
    with pytest.raises(UsageError, match="nor a whole record"):
        read_run(own_folder(tmp_path, **{lack: None}))
