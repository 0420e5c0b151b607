"""The GPU kit: what it writes down of parts that end well, fail, take too long or find no time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT

from benchmarks import gpu
from benchmarks.gpu import BEGIN, END, PARTS, Figure, Outcome, Part, replace_section, run_parts

MODULES = {
    "kit_good": "import sys; open(sys.argv[-1], 'w').write('{\"ratios\": {\"speed\": 3.14159}}')",
    "kit_bad": "print('measuring'); raise ValueError('no memory | left')",
    "kit_silent": "",
    "kit_wrong": "import sys; open(sys.argv[-1], 'w').write('{\"rat')",
    "kit_slow": "import subprocess, time\n"
    "print(subprocess.Popen(['sleep', '99']).pid, flush=True)\ntime.sleep(99)",
}


def speed(file: Path) -> list[Figure]:
    found = json.loads(file.read_text())["ratios"]["speed"]
    return [Figure("speed", found, at_least=2, note="of light")]


def part(module: str, share: int = 1) -> Part:
    return Part(share, module, speed, sizes=("", ""))


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gpu, "TOO_LITTLE", 0.1)


def run_all(*modules: str, budget: float = 60) -> list[Outcome]:
    reports: list[int] = []
    outcomes = run_parts(
        [part(name) for name in modules],
        budget,
        smallest=False,
        report=lambda found: reports.append(len(found)),
    )
    assert reports == list(range(1, len(modules) + 1))
    return outcomes


@pytest.mark.parametrize(
    ("figure", "limit", "met"),
    [
        (Figure("a", 1.1, at_most=1.1), "≤ 1.1", "yes"),
        (Figure("a", 1.11, at_most=1.1), "≤ 1.1", "**missed**"),
        (Figure("a", 50, at_least=50), "≥ 50", "yes"),
        (Figure("a", 49.9, at_least=50), "≥ 50", "**missed**"),
        (Figure("a", float("nan"), at_least=50), "≥ 50", "**missed**"),
        (Figure("a", 7), "", ""),
    ],
)
def test_a_figure_keeps_its_limit_or_not(figure, limit, met):
    assert (figure.limit, figure.met) == (limit, met)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"# R\n\n{BEGIN}\nold\n{END}\n\n## More\n", "# R\n\nNEW\n\n## More\n"),
        (f"{BEGIN}{END}", "NEW"),
        ("# R\n\ntext\n\n\n", "# R\n\ntext\n\nNEW\n"),
    ],
)
def test_the_section_is_replaced_and_the_rest_stays(before, after):
    assert replace_section(before, "NEW") == after


@pytest.mark.parametrize("text", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_marks_that_are_no_pair_are_refused(text, tmp_path, capsys):
    results = tmp_path / "RESULTS.md"
    results.write_text(text)
    with pytest.raises(ValueError, match="not a pair"):
        replace_section(text, "NEW")
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--smallest", "--results", str(results)])
    assert "not a pair" in capsys.readouterr().err.splitlines()[-1]
    assert results.read_text() == text


def test_what_fails_is_written_down_and_the_others_go_on():
    bad, silent, wrong, good = run_all("kit_bad", "kit_silent", "kit_wrong", "kit_good")
    assert bad.trouble == "exit status 1: ValueError: no memory | left"
    assert "measuring" in bad.output
    assert silent.trouble == "it wrote no figures"
    assert wrong.trouble.startswith("what it wrote cannot be read: ")
    assert [bad.figures, silent.figures, wrong.figures] == [[], [], []]
    assert not good.trouble
    assert [figure.value for figure in good.figures] == [3.14159]
    assert good.content == {"ratios": {"speed": 3.14159}}


def test_a_part_that_takes_too_long_is_stopped_with_all_that_it_started():
    # A half of the time for the first; the second has what is left.
    slow, good = run_all("kit_slow", "kit_good", budget=8)
    assert slow.trouble == "stopped after 4 s"
    assert 4 <= slow.seconds < 99
    child = int(slow.output.split()[0])
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"
    assert not good.trouble


def test_what_is_not_needed_the_later_parts_have():
    """The second of three parts has nearly a half of the time, not a third."""
    _, slow, last = run_all("kit_good", "kit_slow", "kit_good", budget=9)
    assert slow.trouble == "stopped after 4 s"
    assert not last.trouble


def test_parts_without_time_are_skipped():
    outcomes = run_all("kit_slow", "kit_good", budget=0.1)
    assert [one.trouble for one in outcomes] == ["skipped, 0 s were left for it"] * 2
    assert [one.seconds for one in outcomes] == [0, 0]


def test_the_command_replaces_its_section_whole_and_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "PARTS", (part("kit_good"), part("kit_bad")))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Z9")
    results, before, numbers = tmp_path / "R.md", tmp_path / "before", tmp_path / "numbers.json"
    text = f"# R\n\n{BEGIN}\nold\n{END}\n\n## More\n"
    results.write_text(text)
    os.link(results, before)
    for _ in range(2):
        command = ["--seconds", "60", "--results", str(results), "--json", str(numbers)]
        assert gpu.main(command) == 1
        # Another file took its place: no reader has ever seen half of one.
        assert before.read_text() == text
        written = results.read_text()
        assert written.startswith(f"# R\n\n{BEGIN}\n## `bash benchmarks/gpu.sh`\n")
        assert written.endswith(f"\n{END}\n\n## More\n")
        assert written.count(BEGIN) == written.count(END) == 1
        assert "old" not in written
        assert f"NVIDIA Z9, torch {torch.__version__}, " in written
        assert "| speed | 3.14 | ≥ 2 | yes | of light | `python -m kit_good` |" in written
        assert r"ValueError: no memory \| left | `python -m kit_bad` |" in written
        assert written[written.index(BEGIN) : written.index(END)] in capsys.readouterr().out
        assert [one["figures"] for one in json.loads(numbers.read_text())][1] == []


def test_the_smallest_sizes_are_compared_with_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PARTS", (part("kit_good"),))
    results = tmp_path / "R.md"
    results.write_text("# R\n")
    assert gpu.main(["--smallest", "--results", str(results)]) == 0
    assert "| speed | 3.14 | ≥ 2 | not judged | of light |" in results.read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "torch finds no GPU here; --smallest runs on a CPU"),
        (["--results", "nowhere.md"], "--results nowhere.md: expected a file that is there"),
    ],
)
def test_what_cannot_run_says_so_in_one_line(flags, message, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        gpu.main(flags)
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)


def test_the_results_have_one_section_for_the_kit():
    text = gpu.RESULTS.read_text(encoding="utf-8")
    assert replace_section(text, "NEW").count("NEW") == 1
    assert text.count(BEGIN) == 1


def test_the_parts_name_modules_and_tests_that_are_there():
    for each in PARTS:
        for word in each.words(smallest=True):
            if word.startswith("benchmarks."):
                assert (ROOT / f"{word.replace('.', '/')}.py").is_file()
            if word.startswith("tests/"):
                assert (ROOT / word).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("each", sorted(PARTS, key=lambda one: one.share), ids=lambda p: p.module)
def test_a_part_runs_through_at_its_smallest_size(each, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    outcome = gpu.run(each, 300, smallest=True)
    assert not outcome.trouble, outcome.output
    assert outcome.figures
    assert all(figure.value >= 0 for figure in outcome.figures)
