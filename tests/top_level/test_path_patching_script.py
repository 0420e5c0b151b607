"""PathPatching.py as a whole: files, resume, growth of a folder, prompts of one's own, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

import PathPatching
from neurosurgery.models import load
from neurosurgery.report.read.heads import KEY_UNITS, RANDOM_UNITS
from neurosurgery.results.effects import effects_file, read_effects
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.identity import EFFECTS
from neurosurgery.settings.patching import DEMO_FAMILY
from neurosurgery.studies import patching_bench

MADE = [*"--operators + --digits 2 --shots 0 --num_prompts 40 --templates".split(), DEMO_FAMILY]
SMALL = "--num_draws 2 --top 1 3".split()
FIGURES = [
    f"{name}.{kind}"
    for name in ("attention", "effects", "knock_out_mean_all")
    for kind in ("pdf", "png")
]
TABLES = ["agreement.csv", "attention.csv", "effects.csv", "knock_out.csv"]


def run(save_path: Path, *more: str, made: Sequence[str] = MADE) -> int:
    """On the demo's model and its prompts, without tasks, so that there are no cells."""
    where = ["--model", DEMO.model, "--save_path", str(save_path)]
    return PathPatching.main([*where, *SMALL, *made, *more])


def folder(save_path: Path) -> Path:
    return save_path / "path_patching" / "model"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    save_path = tmp_path_factory.mktemp("finished")
    assert run(save_path) == 0
    return save_path


def test_files_of_a_run(finished):
    assert sorted(path.name for path in folder(finished).iterdir()) == sorted([*TABLES, *FIGURES])
    # The effects are a statistic like any other, with the names of units.
    kept = read_effects(ResultStore(finished, "model"))
    table = pd.read_csv(folder(finished) / "effects.csv")
    names = table["kind"] + "/" + table["module"] + "/" + table["index"].astype(str)
    means = pd.Series({name: float(effects.mean()) for name, effects in kept.items()})
    assert means[names].to_list() == pytest.approx(table["effect"].to_list())
    assert ResultStore(finished, "").identity.value("operators", EFFECTS) == ["+"]


@pytest.fixture(scope="module")
def shifted(tmp_path_factory, tokenizer) -> Path:
    """The demo's model with about 60 taken off every logit: the same probabilities."""
    model = AutoModelForCausalLM.from_pretrained(DEMO.model, dtype=torch.float32)
    ends: list[torch.Tensor] = []
    head = model.get_output_embeddings()
    with (
        torch.inference_mode(),
        head.register_forward_pre_hook(lambda _module, inputs: ends.append(inputs[0][0, -1])),
    ):
        for number in range(11, 99):
            for sign in "+@":
                text = f"{number}{sign}{(37 * number) % 89 + 10}="
                model(torch.tensor([tokenizer.encode(text)]))
    hidden = torch.stack(ends)
    # h · vector is about −60 for every prompt.
    vector = torch.linalg.lstsq(hidden, torch.full((len(hidden), 1), -60.0)).solution[:, 0]
    model.config.tie_word_embeddings = False
    head.weight = torch.nn.Parameter(head.weight.detach() + vector)
    folder = tmp_path_factory.mktemp("shifted") / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_constant_in_the_logits_changes_nothing(finished, shifted, tmp_path, capsys):
    assert run(tmp_path, "--model", str(shifted), "--units", "heads") == 0
    assert "below -0.05 nats" in capsys.readouterr().out
    found, expected = (
        pd.read_csv(folder(path) / "effects.csv").query("kind == 'head'").sort_values("rank")
        for path in (tmp_path, finished)
    )
    assert found["effect"].tolist() == pytest.approx(expected["effect"].tolist(), abs=1e-4)
    unit = ["layer", "index"]
    assert found[unit].head(5).values.tolist() == expected[unit].head(5).values.tolist()
    curve, usual = (
        pd.read_csv(folder(path) / "knock_out.csv").query("kind == 'head'")
        for path in (tmp_path, finished)
    )
    assert curve["accuracy"].tolist() == usual["accuracy"].tolist()


def test_a_share_of_logits_below_zero_is_refused_and_writes_nothing(shifted, tmp_path, capsys):
    flags = ["--model", str(shifted), "--metric", "logit"]
    assert run(tmp_path / "results", *flags) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--metric logit: " in error
    assert "not well above 0" in error
    assert "--metric logprob" in error
    assert not (tmp_path / "results").exists()


def test_effects_have_a_row_per_unit(finished):
    table = pd.read_csv(folder(finished) / "effects.csv")
    assert table["kind"].value_counts().to_dict() == {"head": 16, "mlp": 4}
    for _, rows in table.groupby("kind"):
        assert sorted(rows["rank"]) == list(range(1, len(rows) + 1))
        assert rows.sort_values("rank")["effect"].is_monotonic_increasing
    assert table["same_sign"].between(0, 1).all()


def test_key_units_matter_more_than_random_ones(finished):
    points = pd.read_csv(folder(finished) / "knock_out.csv")
    assert len(points) == 2 * 2 * 2
    assert (points["baseline"] == 1).all()
    assert points["commonest"].nunique() == 1
    assert 0 < points["commonest"].iloc[0] < 0.7
    at_one = points[(points["number"] == 1) & (points["kind"] == "head")].set_index("group")
    assert at_one.loc[KEY_UNITS, "accuracy"] < at_one.loc[RANDOM_UNITS, "accuracy"]
    low, high = points["baseline"] + points["ci_low"], points["baseline"] + points["ci_high"]
    assert (low <= points["accuracy"]).all()
    assert (points["accuracy"] <= high).all()


def test_attention_sums_to_one(finished):
    table = pd.read_csv(folder(finished) / "attention.csv")
    assert len(table) == 10
    assert table.drop(columns=["layer", "head"]).sum(axis=1).to_list() == pytest.approx([1] * 10)


def test_a_run_goes_on_and_grows(tmp_path, monkeypatch, capsys):
    assert run(tmp_path, "--top", "1") == 0
    before = (folder(tmp_path) / "knock_out.csv").read_text()
    effects = (folder(tmp_path) / "effects.csv").read_bytes()

    def never(*_args, **_kwargs):
        raise AssertionError("the effects are there")

    monkeypatch.setattr(patching_bench, "head_effects", never)
    assert run(tmp_path, "--top", "1", "2") == 0
    grown = (folder(tmp_path) / "knock_out.csv").read_text()
    assert grown.startswith(before)
    assert (folder(tmp_path) / "effects.csv").read_bytes() == effects
    for ablation in ("zero", "resample", "mean_by_position"):
        assert run(tmp_path, "--top", "1", "--ablation", ablation) == 0
    assert run(tmp_path, "--top", "1", "--positions", "end") == 0
    points = pd.read_csv(folder(tmp_path) / "knock_out.csv")
    assert points.groupby(["ablation", "positions"]).size().to_dict() == {
        ("mean", "all"): 8,
        ("zero", "all"): 4,
        ("resample", "all"): 4,
        ("mean_by_position", "all"): 4,
        ("mean", "end"): 4,
    }
    capsys.readouterr()
    assert run(tmp_path, "--metric", "logit") == 2
    refusal = capsys.readouterr().err
    assert "--metric logit: the results in" in refusal
    assert "were made with logprob" in refusal
    monkeypatch.undo()
    assert run(tmp_path, "--metric", "logit", "--units", "mlps", "--overwrite") == 0
    assert "below -5%" in capsys.readouterr().out
    assert set(pd.read_csv(folder(tmp_path) / "effects.csv")["kind"]) == {"mlp"}


def test_a_finished_run_loads_no_model_and_a_lost_table_is_made_again(
    finished, tmp_path, monkeypatch, capsys
):
    def never(*_args, **_kwargs):
        raise AssertionError("all is there")

    copied = tmp_path / "copy"
    shutil.copytree(finished, copied)
    with monkeypatch.context() as patch:
        patch.setattr(load, "load_model", never)
        assert run(copied) == 0
    told = capsys.readouterr().out
    assert "Strongest heads" in told
    assert "Knock-out of MLPs" in told
    for lost in ("attention.csv", "knock_out.csv"):
        (folder(copied) / lost).unlink()
        assert run(copied) == 0
        again = (folder(copied) / lost).read_bytes()
        assert again == (folder(finished) / lost).read_bytes()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("knock_out.csv", lambda text: text[:-30]),
        ("knock_out.csv", lambda text: text[: text.index("\n", 200) + 20]),
        ("knock_out.csv", lambda _text: "x\n"),
        ("knock_out.csv", lambda _text: ""),
        ("knock_out.csv", lambda text: text.replace("0.", "-0.0.", 1)),
        ("effects.csv", lambda text: text[: len(text) // 2]),
        ("effects.csv", lambda text: text[: text.index("\n", 300) + 1]),
        ("attention.csv", lambda text: text[:-3]),
    ],
)
def test_a_damaged_table_is_named_and_made_again(finished, tmp_path, name, damage, capsys):
    copied = tmp_path / "copy"
    shutil.copytree(finished, copied)
    file = folder(copied) / name
    before = file.read_text()
    file.write_text(damage(before))
    assert run(copied) == 0
    told = capsys.readouterr()
    assert " nan" not in told.out
    if name == "knock_out.csv":
        assert f"{file} is damaged" in told.err
    assert sorted(file.read_text().splitlines()) == sorted(before.splitlines())


def test_a_dry_run_says_what_is_done(finished, capsys):
    assert run(finished, "--dry_run") == 0
    told = capsys.readouterr().out
    assert "effects      16 heads, 4 MLPs: done" in told
    assert "8 points (8 done), 0 × " in told
    assert run(finished, "--dry_run", "--top", "1", "2", "3") == 0
    assert "12 points (8 done), 7 × " in capsys.readouterr().out


def test_the_order_of_units_on_the_command_line_changes_no_effect(finished, tmp_path):
    """Effects are joined to units by name."""
    assert run(tmp_path, "--units", "mlps", "heads") == 0
    unit = ["kind", "module", "index"]
    found, usual = (
        pd.read_csv(folder(path) / "effects.csv").sort_values(unit).reset_index(drop=True)
        for path in (tmp_path, finished)
    )
    pd.testing.assert_frame_equal(found, usual)


def test_points_that_are_there_are_kept_to_the_digit(tmp_path, monkeypatch):
    assert run(tmp_path, "--top", "1", "--units", "mlps") == 0
    curve = folder(tmp_path) / "knock_out.csv"
    before = curve.read_text()
    exact = pd.read_csv

    def last_digit_off(*args, **kwargs):
        # As pandas before 3.1 reads numbers.
        table = exact(*args, **kwargs)
        return table.apply(lambda column: column * (1 + 2e-16) if column.dtype == float else column)

    monkeypatch.setattr(pd, "read_csv", last_digit_off)
    assert run(tmp_path, "--top", "1", "2", "--units", "mlps") == 0
    assert curve.read_text().startswith(before)


def test_the_same_command_gives_the_same_tables(finished, tmp_path):
    assert run(tmp_path) == 0
    for name in TABLES:
        assert (folder(tmp_path) / name).read_bytes() == (folder(finished) / name).read_bytes()
    kept = (effects_file(ResultStore(path, "model")) for path in (tmp_path, finished))
    assert len({path.read_bytes() for path in kept}) == 1


def test_prompts_of_ones_own_and_transfer(tmp_path):
    rows = []
    for a in range(11, 45, 2):
        for b in range(12, 50, 9):
            for sign, result in (("+", a + b), ("-", a - b)):
                if result > 9:
                    rows.append((f"{a}{sign}{b}=", f"{a}@{b}=", f"{result}", sign))
    table = pd.DataFrame(rows, columns=["prompt", "counterfactual", "answer", "operator"])
    table.to_csv(tmp_path / "prompts.csv", index=False)
    flags = ["--prompts", str(tmp_path / "prompts.csv"), "--units", "heads"]
    assert run(tmp_path / "results", *flags, made=()) == 0
    moved = pd.read_csv(folder(tmp_path / "results") / "transfer.csv")
    assert set(zip(moved["found_on"], moved["tested_on"], strict=True)) == {
        ("+", "+"),
        ("+", "-"),
        ("-", "+"),
        ("-", "-"),
    }
    assert (folder(tmp_path / "results") / "transfer.png").exists()
    lost = folder(tmp_path / "results") / "transfer.csv"
    before = lost.read_bytes()
    lost.unlink()
    assert run(tmp_path / "results", *flags, made=()) == 0
    assert lost.read_bytes() == before
    agreement = pd.read_csv(folder(tmp_path / "results") / "agreement.csv")
    assert list(zip(agreement["found_on"], agreement["and_on"], strict=True)) == [
        ("half", "other half"),
        ("+", "-"),
    ]
    assert agreement["overlap"].between(0, 1).all()
    assert agreement["by_chance"].to_list() == [0.25, 0.25]


REFUSED = [
    ("--top 17", "--top 17: expected at most 16, the heads of the model"),
    ("--top 1.5", "--top 1.5: expected numbers of units, or shares below 1"),
    ("--top 0", "--top 0: expected numbers of units, or shares below 1"),
    ("--held_out 1", "--held_out 1: expected a share between 0 and 1"),
    ("--num_prompts 3", "--num_prompts 3: expected a whole number of at least 4"),
    ("--num_draws 0", "--num_draws 0: expected a whole number of at least 1"),
    ("--margin .1", "--margin: expected with it --train_lm_eval_task and --eval_datasets"),
    ("--eval_batch_size 2", "--eval_batch_size: expected with it --train_lm_eval_task and"),
    ("--digits 0", "--digits 0: expected a whole number of at least 1"),
    ("--shots 17", "--shots 17: "),
    ("--digits 5", "--digits 5: "),
    ("--shots -1", "--shots -1: expected a whole number of at least 0"),
    ("--units neurons", "--units neurons: expected heads, mlps"),
    ("--operators ^", "--operators ^: expected +, -, *, /"),
    ("--prompts nowhere.csv", "--prompts nowhere.csv: "),
    ("--prompts nowhere.csv --digits 2", "--prompts nowhere.csv: cannot be had with --digits"),
    ("--device cuda:77", "--device cuda:77: expected a device of this machine"),
]


def prompt_file(folder: Path, rows: int, **columns: str) -> Path:
    """A file of sums; `columns` are added, or take the place of what there is."""
    made = {"prompt": "{0}+25=", "counterfactual": "{0}@25=", "answer": "{1}"} | columns
    table = [{k: v.format(n, n + 25) for k, v in made.items()} for n in range(11, 11 + rows)]
    path = folder / "prompts.csv"
    pd.DataFrame(table).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("columns", "more", "message"),
    [
        ({"counterfactual": "{0}="}, "", "with a counterfactual of another length in tokens"),
        ({"counterfactual": "{0}+25="}, "", "with a counterfactual of the same tokens"),
        ({}, "--metric logit_diff", "--metric logit_diff: expected a wrong_answer for every"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused_before_the_model_is_loaded(
    columns, more, message, tmp_path, monkeypatch, capsys
):
    def never(*_args, **_kwargs):
        raise AssertionError("the prompts are bad")

    monkeypatch.setattr(load, "load_model", never)
    path = prompt_file(tmp_path, 20, **columns)
    flags = ["--prompts", str(path), *more.split()]
    assert run(tmp_path / "results", *flags, made=()) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("flags", "message"), REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(flags, message, tmp_path, capsys):
    save_path = tmp_path / "results"
    try:
        made = () if "--prompts" in flags else MADE
        status = run(save_path, *flags.split(), made=made)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert not save_path.exists()


def test_a_model_needs_a_folder(capsys):
    assert PathPatching.main(["--model", DEMO.model]) == 2
    assert "expected with it --save_path" in capsys.readouterr().err


def test_no_right_answers_is_bad_input(tiny_model, tmp_path, capsys):
    """A model of random weights answers nothing."""
    flags = ["--model", str(tiny_model), "--operators", "+", "--templates", "equations"]
    assert run(tmp_path / "results", *flags) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "expected at least 4 right answers" in error
    assert not (tmp_path / "results").exists()


def test_a_file_with_every_row_twice_is_the_file(tmp_path, capsys):
    numbers = [(a, b) for a in range(11, 45, 3) for b in (12, 21, 33)]
    rows = [(f"{a}+{b}=", f"{a}@{b}=", f"{a + b}") for a, b in numbers]
    table = pd.DataFrame(rows, columns=["prompt", "counterfactual", "answer"])
    tables = {}
    for name, content in {"once": table, "twice": pd.concat([table, table])}.items():
        path = tmp_path / f"{name}.csv"
        content.to_csv(path, index=False)
        flags = ["--prompts", str(path), "--units", "heads"]
        assert run(tmp_path / name, *flags, made=()) == 0
        tables[name] = pd.read_csv(folder(tmp_path / name) / "effects.csv")
    assert f"dropped {len(table)} repeated rows" in capsys.readouterr().out
    pd.testing.assert_frame_equal(tables["once"], tables["twice"])
