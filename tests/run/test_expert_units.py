"""Experts as units: whole commands on a tiny Qwen 3 MoE, one of its experts planted for words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from scripts import DEMO_DATA, DEMO_TASKS, files_with_times, without_timings
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3MoeConfig

import FineTune
import LAPE
import MathNeuro
import MathNeuro_Ablations
import neurosurgery as ns
from neurosurgery.__main__ import main
from neurosurgery.masks.files import load_mask
from neurosurgery.models import load
from neurosurgery.settings.demo import DEMO

LAYER, PLANTED, EXPERTS = 0, 5, 8
FEW = "--num_repeats 2 --num_samples 40 --eval_limit 3".split()
ONE = ["--methods", "experts", "--proportion", "0.05"]
MODULE = f"model.layers.{LAYER}.mlp.experts"


def topic_tokens(tokenizer) -> list[int]:
    """Tokens that samples of math have twice as often as those of either other set."""
    shares = []
    for file in (DEMO.train_dataset, *DEMO.calibration_datasets):
        texts = pd.read_csv(file)["qa"].tolist()
        counts = Counter(token for ids in tokenizer(texts)["input_ids"] for token in ids)
        shares.append({token: count / counts.total() for token, count in counts.items()})
    math, *others = shares
    return [t for t, own in math.items() if own > 2 * max(one.get(t, 0.0) for one in others)]


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """In layer 0 every token of the skill's topic goes to expert 5, and no other token does."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO.model)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        moe_intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=EXPERTS,
        num_experts_per_tok=2,
        max_position_embeddings=512,
        **special,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    words = topic_tokens(tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
        # Entry 7 of the residual stream says whether a token is of the topic; one router reads it.
        model.model.embed_tokens.weight[:, 7] = -1
        model.model.embed_tokens.weight[words, 7] = 3
        for layer in model.model.layers:
            attention, experts = layer.self_attn, layer.mlp.experts
            for module in (attention.q_proj, attention.k_proj, attention.v_proj, layer.mlp.gate):
                module.weight[:, 7] = 0
            attention.o_proj.weight[7] = 0
            experts.gate_up_proj[:, :, 7] = 0
            experts.down_proj[:, 7] = 0
        router = model.model.layers[LAYER].mlp.gate.weight
        router[PLANTED] = 0
        router[PLANTED, 7] = 20
    folder = tmp_path_factory.mktemp("models") / "tiny-moe"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(model: Path, save_path: Path, *more: str) -> int:
    where = ["--model", str(model), "--save_path", str(save_path), *DEMO_DATA, *DEMO_TASKS]
    return MathNeuro_Ablations.main([*where, *ONE, *FEW, *more])


def with_matched(folder: Path) -> list[str]:
    """The demo's sets, and the skill's words in random order."""
    matched = folder / "matched.csv"
    if not matched.exists():
        assert main(["data", "matched", DEMO.train_dataset, str(matched)]) == 0
    return [
        *("--calibration_datasets", *DEMO.calibration_datasets, str(matched)),
        *("--calibration_dataset_names", "Race", "MMLU", "matched", "--topic_matched", "matched"),
    ]


def test_an_expert_of_the_skills_words_is_found_and_a_matched_set_takes_it_away(
    planted, tmp_path, capsys, monkeypatch
):
    """Sixteen experts, and 5 % of them come to none: the flag says how many it takes."""
    assert run(planted, tmp_path / "r", "--dry_run") == 2
    told = capsys.readouterr().err
    assert "--proportion 0.05: expected 1/16 or more for experts" in told
    flags = ["--proportion", "0.0625", "--twins", "random", "bottom", "--save_masks"]
    flags += ["--pre_train_eval"]
    first = tmp_path / "first"
    assert run(planted, first, *flags, "--dry_run") == 0
    assert "random_experts 2 (0 done, 2 to do)" in capsys.readouterr().out
    assert run(planted, first, *flags) == 0
    assert "; 16 experts in 2 layers" in capsys.readouterr().out
    masks = first / "masks" / "tiny-moe"
    for repeat in (0, 1):
        table = pd.read_csv(masks / "experts" / f"run{repeat}_proportion0.0625.csv")
        assert table[["module", "index", "belongs"]].to_numpy().tolist() == [[MODULE, PLANTED, 1]]
        assert {"share_math", "share_Race", "share_MMLU", "excess"} <= set(table)
        mask = load_mask(masks / "experts" / f"run{repeat}_proportion0.0625.safetensors")
        assert mask.count() == 3 * 12 * 24
        assert {name for name, count in mask.counts().items() if count} == {
            f"{MODULE}.gate_up_proj.{PLANTED}",
            f"{MODULE}.down_proj.{PLANTED}",
        }
    rows = pd.read_csv(first / "results.csv").query("size_unit == 'fraction of experts'")
    assert set(rows["method"]) == {"experts", "random_experts", "bottom_experts"}
    assert set(rows["edited"]) == {3 * 12 * 24}
    routing = pd.read_csv(first / "experts.csv")
    assert len(routing) == 2 * EXPERTS * 3
    assert not routing["matched"].any()
    shares = routing.groupby(["samples", "layer"])["share"].sum()
    assert shares.to_numpy() == pytest.approx(1, abs=1e-4)
    assert "experts" in ns.figures(first)
    page = (first / "report" / "report.html").read_text(encoding="utf-8")
    for words in ("Experts of math", "Tokens of every expert", "experts.csv"):
        assert words in page

    second = tmp_path / "second"
    assert run(planted, second, *flags, *with_matched(tmp_path)) == 0
    for repeat in (0, 1):
        file = second / "masks" / "tiny-moe" / "experts" / f"run{repeat}_proportion0.0625.csv"
        assert (MODULE, PLANTED) not in set(
            pd.read_csv(file)[["module", "index"]].itertuples(index=False, name=None)
        )
    routing = pd.read_csv(second / "experts.csv")
    planted_rows = routing.query("module == @MODULE and index == @PLANTED").set_index("samples")
    share = planted_rows["share"]
    assert share["math"] - max(share["Race"], share["MMLU"]) > 0.1
    assert abs(share["math"] - share["matched"]) < 0.03
    assert set(routing.query("matched == 1")["samples"]) == {"matched"}
    caption = ns.figures(second)["experts"].caption
    assert "with matched, which has its words and another task, among them" in caption
    page = (second / "report" / "report.html").read_text(encoding="utf-8")
    assert "Excess over matched" in page

    def never(*_args, **_kwargs):
        raise AssertionError("all is there")

    before = files_with_times(second, "cells/**/*")
    monkeypatch.setattr(load, "load_model", never)
    assert run(planted, second, *flags, *with_matched(tmp_path)) == 0
    assert files_with_times(second, "cells/**/*") == before


def test_the_routing_takes_the_place_of_pruning(planted, tmp_path, capsys):
    size = ["--proportion", "0.2", "--methods", "experts", "wanda", "--num_repeats", "1"]
    values = {}
    for routing in ("kept", "masked", "renormalised"):
        folder = tmp_path / routing
        assert run(planted, folder, *size, "--expert_routing", routing, "--pre_train_eval") == 0
        rows = pd.read_csv(folder / "results.csv")
        assert set(rows.query("method == 'wanda'")["edit"]) == {"scale"}
        mine = rows.query("method == 'experts'")
        assert set(mine["edit"]) == {"scale" if routing == "kept" else f"{routing} experts"}
        assert (mine["edited"] > 0).all()
        values[routing] = mine.set_index(["task", "metric"])["value"].to_dict()
        points = ns.read_results(folder)
        assert set(points["method"]) == {"experts", "wanda"}
    assert "masked in the renormalised routing" in capsys.readouterr().out
    assert values["masked"] == pytest.approx(values["kept"], rel=1e-5, nan_ok=True)
    told = [(name, value) for name, value in values["masked"].items() if "perplexity" in name[1]]
    assert told
    assert any(values["renormalised"][name] != pytest.approx(v, rel=1e-4) for name, v in told)
    capsys.readouterr()
    assert run(planted, tmp_path / "masked", *size, "--expert_routing", "renormalised") == 2
    assert "were made with masked" in capsys.readouterr().err


@pytest.mark.parametrize("script", [MathNeuro, LAPE])
def test_every_method_names_experts_that_few_tokens_reach(script, planted, tmp_path, capsys):
    where = ["--model", str(planted), "--save_path", str(tmp_path), *DEMO_DATA, *DEMO_TASKS]
    size = {MathNeuro: "--proportion", LAPE: "--ratio"}[script]
    where += [size, "0.2", *FEW, "--num_repeats", "1", "--min_expert_tokens"]
    assert script.main([*where, "0"]) == 0
    assert "tokens of a set" not in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "experts.csv")
    assert not table["few"].any()
    least = int(table["tokens"].quantile(0.3)) + 1
    assert script.main([*where, str(least), "--overwrite"]) == 0
    [line] = [one for one in capsys.readouterr().out.splitlines() if "tokens of a set" in one]
    few = table[table["tokens"] < least]
    experts = few[["layer", "index"]].drop_duplicates()
    assert line.startswith(f"{len(experts)} of 16 experts saw fewer than {least} tokens of a set")
    first = few.sort_values("layer", kind="stable").iloc[0]
    assert f"layer {first['layer']} expert " in line
    again = pd.read_csv(tmp_path / "experts.csv")
    assert (again["few"] == (again["tokens"] < least)).all()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--topic_matched nobody", "--topic_matched nobody: expected one of the other sets: Race"),
        ("--topic_matched math", "--topic_matched math: expected one of the other sets"),
        ("--methods wanda --expert_routing masked", "--expert_routing masked: expected with it"),
        ("--scalar 1.1 --expert_routing masked", "expected with it --scalar 0"),
        ("--save_model --expert_routing masked", "--save_model has nothing to save"),
        ("--min_expert_tokens -1", "--min_expert_tokens -1: expected a whole number"),
        ("--expert_routing all", "--expert_routing all: expected kept, masked, renormalised"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(flags, told, planted, tmp_path, capsys):
    try:
        status = run(planted, tmp_path / "r", *flags.split())
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert told in last
    assert not (tmp_path / "r").exists()


def test_a_model_without_experts_is_refused(tiny_model, tmp_path, capsys):
    assert run(tiny_model, tmp_path / "r") == 2
    told = capsys.readouterr().err
    assert "experts needs a model with routed experts, and this one has none" in told


def test_shards_come_to_the_whole(planted, tmp_path):
    flags = ["--proportion", "0.2", "--twins", "random", *with_matched(tmp_path)]
    flags += ["--pre_train_eval"]
    assert run(planted, tmp_path / "whole", *flags) == 0
    for part in ("1/2", "2/2"):
        assert run(planted, tmp_path / part[0], *flags, "--shard", part) == 0
    folders = [str(tmp_path / part) for part in "12"]
    merged = tmp_path / "merged"
    assert main(["merge", *folders, "--output", str(merged)]) == 0
    assert without_timings(merged) == without_timings(tmp_path / "whole")
    one, other = (tmp_path / name / "experts.csv" for name in ("whole", "merged"))
    assert one.read_bytes() == other.read_bytes()


def test_experts_are_trained(planted, tmp_path):
    where = ["--model", str(planted), "--save_path", str(tmp_path), *DEMO_DATA, *DEMO_TASKS]
    where += ["--train_data", DEMO.train_data, *FEW, "--num_repeats", "1"]
    steps = "--selection experts --proportion 0.2 --max_steps 2 --train_batch_size 2".split()
    assert FineTune.main([*where, *steps]) == 0
    rows = pd.read_csv(tmp_path / "results.csv").query("method == 'experts'")
    assert set(rows["edit"]) == {"train"}
    assert (tmp_path / "experts.csv").is_file()
