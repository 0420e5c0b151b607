"""Documents that changed: found in records with known answers, and shown as text."""

from __future__ import annotations

import json
import math
from statistics import fmean
from typing import Any

import pytest
from browsers import chromium

from neurosurgery.edit.kinds import ablate_by, scale_by
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.report import documents, make_report
from neurosurgery.report.documents import Answer, changed_documents
from neurosurgery.report.read.folder import read_folder
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.store import FORMAT, ResultStore
from neurosurgery.settings.identity import Fact, Identity
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.finding import nearest_first
from neurosurgery.verdicts.points import VerdictTable

pytestmark = pytest.mark.whole

MODEL, SUMS, FACTS, STORIES = "m", "sums", "facts", "stories"
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


def sums(*answers: str, targets: str = "abcdef", **more: Any) -> list[dict[str, Any]]:
    """Generated answers; document n wants letter n."""
    return [
        record(SUMS, n, {"exact_match": float(answer == targets[n])}, answer=answer,
               target=targets[n], generated=f"It is {answer}") | more
        for n, answer in enumerate(answers)
    ]  # fmt: skip


def facts(*chosen: int) -> list[dict[str, Any]]:
    """Options that were chosen; the first is right."""
    return [
        record(FACTS, n, {"acc": float(option == 0)}, answer=option, target=0,
               loglikelihoods=[-1.0, -2.0, -3.0])
        for n, option in enumerate(chosen)
    ]  # fmt: skip


def stories(*nats: float) -> list[dict[str, Any]]:
    """Texts of ten words with some nats per word."""
    return [
        record(STORIES, n, {"word_perplexity": [-10 * one, 10]}, answer=-10 * one, target=f"t{n}")
        for n, one in enumerate(nats)
    ]


def record(task: str, number: int, metrics: dict[str, Any], **more: Any) -> dict[str, Any]:
    place = {"doc_id": number, "doc_hash": f"d{number}", "prompt_hash": "p"}
    guess = {"exact_match": 0.0, "acc": 0.25}
    return {"task": task, "filter": "none", **place, "broken": False, "metrics": metrics,
            "guessing": guess, **more}  # fmt: skip


def evaluation(answers: list[dict[str, Any]], better: dict[str, bool]) -> Evaluation:
    """The harness's numbers of some documents."""
    results: dict[str, dict[str, Any]] = {}
    for one in answers:
        (metric,) = one["metrics"]
        own = [other["metrics"][metric] for other in answers if other["task"] == one["task"]]
        value = math.exp(-fmean(v[0] / 10 for v in own)) if metric[0] == "w" else fmean(own)
        results[one["task"]] = {"alias": one["task"], f"{metric},none": value}
    recorded = {task: {name.split(",")[0]: better.get(task, task != STORIES)
                       for name in numbers if "," in name}
                for task, numbers in results.items()}  # fmt: skip
    return Evaluation(results, answers, {}, recorded)


def pruned(repeat: int = 0, method: str = "mathneuro", against: str = "Race", size: float = 0.01):
    return CellKey(SelectionKey(method, against=against, size=size, repeat=repeat), scale_by(0.0))


def write(
    path,
    cells: dict[CellKey, list[dict[str, Any]]],
    better: dict[str, bool] | None = None,
    groups: dict[str, list[str]] | None = None,
):
    """A results folder of records, with the tables that a run makes of them."""
    store = ResultStore(path, MODEL)
    path.mkdir(parents=True, exist_ok=True)
    others = [*(groups or [FACTS]), STORIES]
    identity = Identity([Fact("skill_task", SUMS), Fact("other_tasks", others)])
    run = {"script": "MathNeuro.py", "settings": {"margin": ["0.03"]}}
    config = {"format": FORMAT, "identity": identity.to_json(), "runs": [run]}
    (path / "config.json").write_text(json.dumps(config))
    for key, answers in cells.items():
        own, rest = ([a for a in answers if (a["task"] == SUMS) is of] for of in (True, False))
        parts = [evaluation(part, better or {}) for part in (own, rest)]
        directions = parts[0].higher_is_better | parts[1].higher_is_better
        of_cell = CellRecord(key, 10, 0.1, 0.5, None, 1.0, groups or {}, None, directions)
        for group, (member,) in (groups or {}).items():
            parts[1].results[group] = parts[1].results[member]
        store.write_cell(CellResult(of_cell, *parts))
    verdicts = VerdictTable(store, MODEL, SUMS, others, Margins(0.03, {}))
    verdicts.update()
    verdicts.write_all()
    return path


def found(path):
    """What changed at every point of a folder."""
    folder = read_folder(path)
    return changed_documents(folder, nearest_first(folder.isolation, folder.skill))


def lists(point) -> dict[tuple[str, str], tuple[int, int, list[int]]]:
    """How many changed of how many, and the numbers of those that are listed."""
    return {
        (one.task, one.kind): (one.total, one.compared, [doc.number for doc in one.documents])
        for one in point.changes
    }


BEFORE = [*sums(*"abcdeX"), *facts(0, 0, 1), *stories(1.0, 1.0)]


@pytest.fixture
def three(tmp_path):
    """Three repeats: sum 1 breaks in all, sum 0 in two, sum 5 is mended in one."""
    return write(
        tmp_path / "three",
        {
            BASELINE_KEY: BEFORE,
            pruned(0): [*sums(*"aYcdeX"), *facts(0, 2, 0), *stories(1.5, 1.0)],
            pruned(1): [*sums(*"ZYcdef"), *facts(0, 2, 1), *stories(0.9, 1.0)],
            pruned(2): [*sums(*"VVcdeX"), *facts(0, 0, 1), *stories(1.6, 1.0)],
        },
    )


def test_what_breaks_in_most_repeats_comes_first(three):
    (point,) = found(three)
    assert lists(point) == {
        (SUMS, "broken"): (2, 6, [1, 0]),
        (SUMS, "mended"): (1, 6, [5]),
        (FACTS, "broken"): (1, 3, [1]),
        (FACTS, "mended"): (1, 3, [2]),
        (STORIES, "worse"): (1, 2, [0]),
    }
    broken = point.changes[0].documents
    assert [(one.times, one.repeats) for one in broken] == [(3, 3), (2, 3)]
    assert point.title == "MathNeuro (Race), proportion 0.01, pruned"
    assert point.files == [f"cells/m/{name}.json" for name in (
        "pre_results", *(f"Race_calculate0.01_run{n}" for n in range(3)))]  # fmt: skip
    assert all((three / file).is_file() for file in point.files)


def test_answers_stand_side_by_side(three):
    (point,) = found(three)
    first, second = point.changes[0].documents
    assert (first.task, first.target, first.baseline) == (SUMS, "b", Answer("b", "It is b"))
    assert first.edited == Answer("Y (2 times), V", "It is Y")
    # The whole answer is that of the first repeat that broke, not of one that stayed right.
    assert (second.edited, second.repeat) == (Answer("a, Z, V", "It is Z"), 1)
    option = point.changes[2].documents[0]
    assert (option.target, option.baseline.line) == ("option 1 of 3", "option 1 of 3")
    assert option.edited.line == "option 3 of 3 (2 times), option 1 of 3"
    assert option.edited.whole == "log-likelihoods of the options: −1.000, −2.000, −3.000"


def test_a_perplexity_lists_what_changed_most(tmp_path):
    before, after = [1.0] * 13, [1.0 + n / 10 for n in range(12)] + [0.5]
    cells = {BASELINE_KEY: [*BEFORE[:-2], *stories(*before)],
             pruned(): [*sums(*"XXXXXX"), *facts(0, 0, 1), *stories(*after)]}  # fmt: skip
    (point,) = found(write(tmp_path, cells))
    # Document 0 did not change; the eleventh of the worse is counted, and not listed.
    assert lists(point)[STORIES, "worse"] == (11, 13, list(range(11, 1, -1)))
    assert lists(point)[STORIES, "better"] == (1, 13, [12])
    worst = next(one for one in point.changes if one.kind == "worse").documents[0]
    assert (worst.target, worst.baseline.line, worst.edited.line) == ("t11", "2.718", "8.166")


def test_an_error_that_rises_is_broken(tmp_path):
    wrong = [*sums(*"aaaaaa", targets="aaaaab"), *facts(0, 0, 1), *stories(1.0)]
    right = [*sums(*"aaaaaa", targets="bbbbbb"), *facts(0, 0, 1), *stories(1.0)]
    folder = write(tmp_path, {BASELINE_KEY: right, pruned(): wrong}, better={SUMS: False})
    points = read_folder(folder).cells.drop_duplicates("method")
    (point,) = changed_documents(read_folder(folder), points)
    assert lists(point) == {(SUMS, "broken"): (5, 6, [0, 1, 2, 3, 4])}


def test_only_equal_documents_are_compared(tmp_path):
    """Repeats can have documents of their own (`--documents_from own`), or other prompts."""
    left = BEFORE[6:]
    other_prompt = sums(*"ZZZZZZ", prompt_hash="q")
    cells = {BASELINE_KEY: BEFORE, pruned(0): [*sums(*"ZZ", generated=" Z "), *left],
             pruned(1): [*sums(*"ZZZ"), *left], pruned(2): [*other_prompt, *left]}  # fmt: skip
    folder = read_folder(write(tmp_path, cells))
    (point,) = changed_documents(folder, folder.cells.drop_duplicates("method"))
    assert lists(point) == {(SUMS, "broken"): (3, 3, [0, 1, 2])}
    assert [one.repeats for one in point.changes[0].documents] == [2, 2, 1]
    # All repeats say the same, and the text that was generated is the answer.
    assert point.changes[0].documents[0].edited == Answer("Z", "")
    assert point.unchanged == [FACTS, STORIES]


def test_a_broken_number_is_not_compared_and_told(tmp_path):
    after = [*sums(*"ZZZZZZ"), *facts(0, 0, 1), *stories(1.0, 1.0)]
    broken = [one | {"broken": one["task"] == FACTS} for one in after]
    folder = read_folder(write(tmp_path, {BASELINE_KEY: BEFORE, pruned(): broken}))
    (point,) = changed_documents(folder, folder.cells.drop_duplicates("method"))
    assert (point.not_compared, point.unchanged) == ([FACTS], [STORIES])
    assert "facts: not compared" in make_report(tmp_path).read_text()


def test_members_of_a_group_keep_their_names(tmp_path):
    after = [*sums(*"ZZZZZZ"), *facts(0, 1, 1), *stories(1.0, 1.0)]
    cells = {BASELINE_KEY: BEFORE, pruned(): after}
    (point,) = found(write(tmp_path, cells, groups={"knowledge": [FACTS]}))
    assert lists(point)["knowledge", "broken"] == (1, 3, [1])
    assert [one.task for one in point.changes[1].documents] == [FACTS]


def test_units_without_a_value_of_the_edit(tmp_path):
    key = CellKey(SelectionKey("heads", size=5), ablate_by("mean"))
    after = [*sums(*"ZZZZZZ"), *facts(0, 1, 1), *stories(1.0, 1.0)]
    (point,) = found(write(tmp_path, {BASELINE_KEY: BEFORE, key: after}))
    assert point.title == "Heads, top 5, knocked out"
    assert point.files[1] == "cells/m/heads/top5_run0.json"


def points_of_two(path, answers: str = "ZZZZZZ"):
    after = [*sums(*answers), *facts(0, 0, 1), *stories(1.0, 1.0)]
    return write(
        path,
        {
            BASELINE_KEY: BEFORE,
            pruned(): after,
            pruned(size=0.05): [*sums(*"abcdXX"), *facts(0, 0, 1), *stories(1.0, 1.0)],
            pruned(against="MMLU"): [*sums(*"aXXXXX"), *facts(1, 0, 1), *stories(1.1, 1.0)],
            pruned(method="random"): [*sums(*"XXXXXX"), *facts(0, 0, 1), *stories(1.0, 1.0)],
        },
    )


def test_the_page_has_the_nearest_point_of_every_method_and_set(tmp_path):
    page = make_report(points_of_two(tmp_path)).read_text()
    titles = [line for line in page.splitlines() if line.startswith("<h3>MathNeuro (")]
    assert titles == [
        f"<h3>MathNeuro ({name}), proportion 0.01, pruned</h3>" for name in ("Race", "MMLU")
    ]
    assert "5 of 6 broken" in page


def test_the_page_has_room_for_some_and_tells_of_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "IN_PAGE", 6)
    page = make_report(points_of_two(tmp_path)).read_text()
    assert page.count("<details data-task") == 6
    # All lists get one document, then those of the points in their order another one.
    assert "sums (exact_match): 5 of 6 broken; 2 of them here, 3 left out" in page
    assert "sums (exact_match): 4 of 6 broken; 2 of them here, 2 left out" in page
    assert "facts (acc): 1 of 3 broken</li>" in page


def test_hostile_answers_stay_text(tmp_path):
    after = [*sums(*[HOSTILE] * 6), *facts(0, 0, 1), *stories(1.0, 1.0)]
    text = make_report(write(tmp_path, {BASELINE_KEY: BEFORE, pruned(): after})).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m\\u202e" in text
    assert not {"\x1b", "\u202e"} & set(text)


def test_long_answers_are_cut(tmp_path):
    after = [*sums(*["Z" * 9999] * 6), *facts(0, 0, 1), *stories(1.0, 1.0)]
    (point,) = found(write(tmp_path, {BASELINE_KEY: BEFORE, pruned(): after}))
    line, whole = point.changes[0].documents[0].edited
    assert (line, len(whole), whole[-2:]) == ("Z" * 80 + "…", 501, "Z…")


def test_records_without_texts_have_numbers(tmp_path):
    def bare(answers):
        kept = ("answer", "target", "generated", "loglikelihoods")
        return [{k: v for k, v in one.items() if k not in kept} for one in answers]

    after = [*sums(*"ZZZZZZ"), *facts(0, 0, 1), *stories(1.0, 1.0)]
    path = write(tmp_path, {BASELINE_KEY: bare(BEFORE), pruned(): bare(after)})
    (point,) = found(path)
    first = point.changes[0].documents[0]
    assert (first.number, first.target) == (0, "not recorded")
    assert (first.baseline, first.edited) == (Answer("not recorded", ""),) * 2


def test_without_records_there_is_nothing(three):
    (three / "cells" / "m" / "pre_results.json").unlink()
    folder = read_folder(three)
    assert changed_documents(folder, folder.isolation) == []
    assert 'id="documents"' not in make_report(three).read_text()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from chromium(tmp_path_factory.mktemp("chromium"))


def test_the_lists_filter(browser, tmp_path):
    browser.get(make_report(points_of_two(tmp_path, "QZZZZf")).as_uri())

    def choose(**values: str) -> tuple[str, int]:
        return tuple(
            browser.execute_script(
                "const form = document.querySelector('#documents form');"
                "for (const [name, value] of Object.entries(arguments[0]))"
                " form.elements[name].value = value;"
                "form.elements.words.dispatchEvent(new Event('input', { bubbles: true }));"
                "const seen = [...document.querySelectorAll('#documents details')];"
                "return [form.querySelector('output').textContent,"
                " seen.filter((one) => one.checkVisibility()).length];",
                values,
            )
        )

    assert choose() == ("6 of 6 documents", 6)
    assert choose(words="it q") == ("1 of 6 documents", 1)
    assert choose(words="", kind="mended better") == ("1 of 6 documents", 1)
    assert choose(point="2", kind="broken worse") == ("6 of 6 documents", 6)
    assert choose(task=STORIES) == ("1 of 6 documents", 1)
