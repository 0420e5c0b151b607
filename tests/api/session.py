"""The demo's model and texts, as a notebook has them."""

from __future__ import annotations

from functools import cache

import pandas as pd
from transformers import AutoModelForCausalLM, AutoTokenizer

from neurosurgery.settings.demo import DEMO


@cache
def demo_model():
    """Shared by tests that leave it as it is."""
    return AutoModelForCausalLM.from_pretrained(DEMO.model, dtype="float32")


@cache
def demo_tokenizer():
    return AutoTokenizer.from_pretrained(DEMO.model)


def texts(path: str, count: int) -> list[str]:
    return pd.read_csv(path)["qa"][:count].tolist()


def problems(count: int = 12) -> list[str]:
    return texts(DEMO.train_dataset, count)


def passages(count: int = 12) -> list[str]:
    return texts(DEMO.calibration_datasets[0], count)


def facts(count: int = 12) -> list[str]:
    return texts(DEMO.calibration_datasets[1], count)


def sums() -> list[dict[str, str]]:
    """Prompts for heads."""
    numbers = [(a, b) for a in range(11, 60, 6) for b in (12, 25, 31)]
    return [
        {"prompt": f"{a}+{b}=", "counterfactual": f"{a}@{b}=", "answer": str(a + b)}
        for a, b in numbers
    ]
