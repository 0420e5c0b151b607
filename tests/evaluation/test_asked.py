"""Which documents are asked: without a task, and of the demo's."""

from __future__ import annotations

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from neurosurgery.evaluation.asked import asked_of
from neurosurgery.evaluation.harness import Harness
from neurosurgery.settings.demo import TASKS_FOLDER
from neurosurgery.settings.experiment import EvaluationConfig

counts = st.integers(1, 60)
limits = st.none() | st.integers(1, 70)
sources = st.sampled_from(["first", "random", "own"])


def config(source: str, repeats: int = 1, documents: int | None = None, **more) -> EvaluationConfig:
    return EvaluationConfig(
        "demo_race", (), documents, documents, None, False, None, 4,
        documents_from=source, num_repeats=repeats, **more,
    )  # fmt: skip


@given(counts, limits, st.integers(1, 6), sources)
def test_every_repeat_asks_as_many_and_no_document_twice(count, limit, repeats, source):
    asked = asked_of("t", count, limit, config(source, repeats))
    assert asked.each == min(limit or count, count)
    everything = set()
    for repeat in range(repeats):
        own = asked.of(repeat)
        assert len(own) == len(set(own)) == asked.each
        assert own == sorted(own)
        everything |= set(own)
    assert everything == set(asked.order) == set(asked.of(None)) <= set(range(count))
    # No document is asked a second time before every other one was asked.
    wanted = asked.each * (repeats if source == "own" else 1)
    assert len(everything) == min(count, wanted)


@given(counts, limits, st.integers(1, 5), st.integers(1, 5))
def test_more_repeats_change_nothing_of_the_others(count, limit, few, more):
    fewer, longer = (asked_of("t", count, limit, config("own", n)) for n in (few, few + more))
    assert longer.order[: len(fewer.order)] == fewer.order
    for repeat in range(few):
        assert longer.of(repeat) == fewer.of(repeat)


def test_the_first_are_the_first_and_random_ones_follow_from_seed_and_task():
    assert asked_of("t", 9, 4, config("first", 3)).order == (0, 1, 2, 3)
    drawn = [
        asked_of(task, 500, 50, config("random", random_state=seed)).order
        for task, seed in (("t", 42), ("t", 42), ("u", 42), ("t", 7))
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3
    assert asked_of("t", 500, 100, config("random")).order[:50] == drawn[0]
    # Spread over the task, as chance has it.
    assert 180 < sum(drawn[0]) / 50 < 320
    assert asked_of("t", 1, 5, config("own", 4)).of(3) == [0]


class Longest(LM):
    """Takes the longest option, and writes how long the prompt is."""

    batch_size = 1
    batch_size_per_gpu = 1

    def loglikelihood(self, requests, **_):
        return [(float(len(request.args[1])), True) for request in requests]

    def loglikelihood_rolling(self, requests, **_):
        return [-float(len(request.args[0])) for request in requests]

    def generate_until(self, requests, **_):
        return [str(len(request.args[0])) for request in requests]


def answers(source: str, repeats: int, shots: int | None = None):
    """What every repeat and the baseline answer, by document."""
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
    chosen = config(source, repeats, documents=7)
    if shots is not None:
        chosen = EvaluationConfig(**vars(chosen) | {"num_fewshot": shots})
    tasks = ["demo_gsm8k_cot", "demo_race", "demo_stories"]
    harness = Harness(manager, "other_tasks", tasks, chosen)
    found = {}
    for repeat in (*range(repeats), None, 0):
        documents = harness.evaluate(Longest(), repeat).documents
        records = {(one["task"], one["doc_id"]): one for one in documents}
        assert len(records) == len(documents)
        assert found.setdefault(repeat, records) == records
    return found


@pytest.mark.parametrize("shots", [None, 3])
def test_a_document_has_one_prompt_whoever_asks_it(shots):
    """Also where examples are drawn anew for every document, and in a run of more repeats."""
    few, many = answers("own", 2, shots), answers("own", 4, shots)
    assert len(few[None]) == 3 * 14
    assert len(many[None]) == 3 * 28
    for found in (few, many):
        for repeat, records in found.items():
            assert len(records) == (len(found[None]) if repeat is None else 21)
            for place, record in records.items():
                assert record == many[None][place]
    assert not few[0].keys() & few[1].keys()


def test_numbers_of_a_subset_are_those_of_its_documents():
    found = answers("own", 2)
    first = answers("first", 2)
    assert sorted({number for _, number in first[0]}) == list(range(7))
    assert first[0] == first[1] == first[None]
    for (task, number), record in first[None].items():
        if (task, number) in found[None] and task == "demo_race":
            assert record["metrics"] == found[None][task, number]["metrics"]
            assert record["doc_hash"] == found[None][task, number]["doc_hash"]


def test_the_demo_has_as_many_documents_as_this_file_takes():
    folder = ROOT / "lm-evaluation-harness" / "demo"
    assert len((folder / "demo_race.jsonl").read_text().splitlines()) > 28
