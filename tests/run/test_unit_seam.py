"""A kind of units of ours, added from here: quarters of an MLP's neurons, as experts would be."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from conftest import build_model
from scripts import files_with_times, without_timings

import neurosurgery as ns
import PathPatching
from neurosurgery.localisation.patching_metrics import PromptPairs
from neurosurgery.localisation.path_patching import head_effects
from neurosurgery.masks.files import load_mask
from neurosurgery.masks.kinds import UNITS, UnitKind
from neurosurgery.masks.units import Site, Slice, Unit, place_of
from neurosurgery.methods.base import with_its_twins
from neurosurgery.methods.heads import by_effects
from neurosurgery.methods.registry import METHODS
from neurosurgery.models import load

QUARTER = "quarter"


def find_quarters(architecture) -> list[Unit]:
    units = []
    for layer in architecture.neuron_layers:
        projection, size = layer.output, layer.neurons // 4
        dimension = 0 if projection.transposed else 1
        for index in range(4):
            start, stop = index * size, (index + 1) * size
            part = Slice(projection.parameter_name, dimension, start, stop)
            site = Site(projection.name, "input", start, stop)
            number = place_of(layer.name).layer
            units.append(Unit(QUARTER, number, layer.name, index, (part,), site))
    return units


@pytest.fixture
def quarters(monkeypatch):
    """A kind of units and the method that selects it, and nothing else."""
    monkeypatch.setitem(UNITS, QUARTER, UnitKind(QUARTER, "quarters", find_quarters))
    for method in with_its_twins(by_effects("quarters", "Quarters", QUARTER)):
        monkeypatch.setitem(METHODS, method.name, method)


FEW = "--num_prompts 30 --num_draws 2 --top 1 2 --num_repeats 1 --eval_limit 6".split()


def run(save_path, *more: str) -> int:
    return PathPatching.main(["--save_path", str(save_path), *FEW, *more])


def test_a_unit_of_ours_is_asked_for_patched_knocked_out_pruned_and_shown(
    tmp_path, quarters, monkeypatch, capsys
):
    with pytest.raises(SystemExit, match="0"):
        PathPatching.main(["--help"])
    assert "{heads,mlps,quarters}" in capsys.readouterr().out
    flags = ["--units", "quarters", "heads", "--scalar", "0", "--twins", "random", "bottom"]
    assert run(tmp_path, *flags, "--save_masks") == 0
    told = capsys.readouterr().out
    assert "Strongest quarters: effect on the answer's logprob" in told
    assert "Knock-out of quarters" in told
    effects = pd.read_csv(tmp_path / "path_patching" / "model" / "effects.csv")
    assert effects["kind"].value_counts().to_dict() == {"quarter": 16, "head": 16}
    assert effects[effects["kind"] == QUARTER]["effect"].abs().min() > 0
    rows = pd.read_csv(tmp_path / "results.csv").query("size_unit == 'quarters'")
    assert set(rows["method"]) == {"quarters", "random_quarters", "bottom_quarters"}
    # A quarter is 192 of 768 columns of a projection to 256 features.
    assert set(rows["edited"] / rows["size"]) == {192 * 256}
    mask = tmp_path / "masks" / "model" / "quarters" / "top2_run0.safetensors"
    assert load_mask(mask).count() == 2 * 192 * 256
    assert set(pd.read_csv(mask.with_suffix(".csv"))["kind"]) == {QUARTER}
    assert {"quarters", "heads"} <= set(pd.read_csv(tmp_path / "comparison.csv")["method"])
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    for words in ("Quarters of math", "Random quarters"):
        assert words in page
    effects = ns.figures(tmp_path)["effects"].chart.to_dict(validate=False)
    assert "unit: layer 0, quarter 0\n" in str(effects["datasets"].values()).replace("\\n", "\n")

    def never(*_args, **_kwargs):
        raise AssertionError("all is there")

    before = files_with_times(tmp_path, "cells/**/*")
    monkeypatch.setattr(load, "load_model", never)
    assert run(tmp_path, *flags, "--save_masks") == 0
    assert files_with_times(tmp_path, "cells/**/*") == before


def test_a_unit_of_ours_goes_to_the_workers(tmp_path, quarters):
    ray = pytest.importorskip("ray", reason="needs Ray: pip install ray")
    import sys

    # The workers cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for name, more in (("one", []), ("workers", ["--workers", "1"])):
        assert run(tmp_path / name, "--units", "quarters", *more) == 0
    assert without_timings(tmp_path / "workers") == without_timings(tmp_path / "one")
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.parametrize("freeze_mlps", [False, True])
def test_its_effect_is_that_of_the_definition(quarters, freeze_mlps):
    """Written out for llama: the quarter at END from the counterfactual, later heads frozen."""
    model = build_model("llama")
    prompts, others = [[5, 9, 11, 3], [7, 2, 4, 8]], [[5, 1, 11, 3], [7, 6, 4, 8]]
    answers = [4, 9]
    pairs = PromptPairs(prompts, others, answers, None)
    found = head_effects(model, pairs, units=("quarters",), freeze_mlps=freeze_mlps)
    assert (found.used, found.reason) == ("hooks", "the chain knows heads and MLPs alone")
    layers = model.model.layers

    def run_with(ids, patches):
        """Log-probabilities and every projection's input and MLP's output at END."""
        seen, handles = {}, []
        for number, layer in enumerate(layers):
            for name, module in (("o", layer.self_attn.o_proj), ("down", layer.mlp.down_proj)):

                def before(_module, inputs, key=(name, number)):
                    values = inputs[0].clone()
                    for start, stop, new in patches.get(key, ()):
                        values[:, -1, start:stop] = new[start:stop]
                    seen[key] = values[0, -1].clone()
                    return (values,)

                handles.append(module.register_forward_pre_hook(before))

            def after(_module, _inputs, output, key=("mlp", number)):
                values = output.clone()
                for start, stop, new in patches.get(key, ()):
                    values[:, -1, start:stop] = new[start:stop]
                seen[key] = values[0, -1].clone()
                return values

            handles.append(layer.mlp.register_forward_hook(after))
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        for handle in handles:
            handle.remove()
        return logits.log_softmax(-1), seen

    for unit, row in zip(found.units, found.effects, strict=True):
        for number, (prompt, other) in enumerate(zip(prompts, others, strict=True)):
            clean, reference = run_with(prompt, {})
            _, counterfactual = run_with(other, {})
            key = ("down", unit.layer)
            patches = {key: [(unit.site.start, unit.site.stop, counterfactual[key])]}
            for later in range(unit.layer + 1, len(layers)):
                patches["o", later] = [(0, None, reference["o", later])]
                if freeze_mlps:
                    patches["mlp", later] = [(0, None, reference["mlp", later])]
            patched, _ = run_with(prompt, patches)
            expected = float((patched - clean)[answers[number]])
            assert float(row[number]) == pytest.approx(expected, abs=1e-6)
