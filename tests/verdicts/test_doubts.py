"""Baselines that no sensible task gives, and ordinary ones."""

from __future__ import annotations

import math

import pytest

from neurosurgery.results.cells import Cell, CellRecord
from neurosurgery.results.keys import BASELINE_KEY
from neurosurgery.verdicts.doubts import doubts


def cell(results, documents, higher=True):
    """A finished baseline with one task, `own`."""
    names = ("task", "filter", "doc_hash", "prompt_hash")
    answers = [
        dict.fromkeys(names, "own") | {"filter": "none", "doc_id": number} | document
        for number, document in enumerate(documents)
    ]
    metric = next(iter(results)).partition(",")[0]
    direction = {"own": {metric: higher}}
    record = CellRecord(BASELINE_KEY, 0, 0.0, None, None, 1.0, {}, None, direction)
    return Cell(record, {"math": {"own": results}, "other": {}}, answers)


def choices(right, count, chance=0.25, chosen=(0, 1, 2, 3)):
    documents = [
        {
            "metrics": {"acc": float(n < right)},
            "guessing": {"acc": chance},
            "answer": chosen[n % len(chosen)],
            "loglikelihoods": [0.0],
        }
        for n in range(count)
    ]
    return cell({"acc,none": right / count}, documents)


@pytest.mark.parametrize(("right", "said"), [(25, False), (12, True), (13, False), (90, False)])
def test_an_accuracy_three_errors_below_chance(right, said):
    # The standard error of .25 on 100 documents is .0433, and three of them end at .120.
    found = doubts(choices(right, 100))
    assert bool(found) == (right / 100 < 0.25 - 3 * math.sqrt(0.25 * 0.75 / 100)), said


def test_a_perplexity_worse_than_random_words():
    def texts(nats):
        documents = [{"metrics": {"word_perplexity": [-10.0 * nats, 10]}}] * 3
        return cell({"word_perplexity,none": math.exp(nats)}, documents, higher=False)

    assert doubts(texts(13.0)) == []
    [line] = doubts(texts(38.9))  # 7.8e16
    assert "7.84e+16" in line
    assert "bits_per_byte" in line


def test_a_perplexity_worse_than_random_bytes():
    documents = [{"metrics": {"byte_perplexity": [-6.0 * 10, 10]}}] * 3
    [line] = doubts(cell({"byte_perplexity,none": math.exp(6)}, documents, higher=False))
    assert "random bytes" in line


@pytest.mark.parametrize(("texts", "said"), [(["", " \n", "a"], True), (["", "a", "b"], False)])
def test_generated_texts_that_are_empty(texts, said):
    documents = [
        {"metrics": {"exact_match": 0.0}, "guessing": {"exact_match": 0.0}, "generated": text}
        for text in texts
    ]
    found = doubts(cell({"exact_match,none": 0.0}, documents))
    assert [("2 of 3 texts" in line) for line in found] == [True] * said


def test_one_option_for_every_document():
    [line] = doubts(choices(10, 40, chosen=(2,)))
    assert "option 3 of every document" in line
    assert doubts(choices(4, 16, chosen=(2,))) == []
