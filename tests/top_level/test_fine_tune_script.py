"""`FineTune.py` on a tiny model: cells, files, resume, refusals, the trained model as a folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from conftest import ROOT
from safetensors.torch import load_file
from scripts import DEMO_DATA, MODEL, without_timings
from transformers import AutoModelForCausalLM

import FineTune
import MathNeuro
from neurosurgery.__main__ import main
from neurosurgery.edit.delta import added_delta
from neurosurgery.edit.delta_files import load_delta
from neurosurgery.masks.files import read_mask_file, write_mask_file
from neurosurgery.masks.head_units import head_units, mlp_units
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.models.heads import find_blocks
from neurosurgery.results.effects import effects_file, read_effects, write_effects
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.demo import DEMO

TASKS = ["--train_lm_eval_task", "demo_gsm8k_cot", "--eval_datasets", "demo_race", "demo_stories"]
SMALL = "--num_repeats 1 --num_samples 6 --eval_limit 4".split()
TRAINING = "--max_steps 4 --train_batch_size 2 --learning_rate 0.01 --save_steps 2".split()


ALL = ("--selection", "all")


def flags(model: Path, save_path: Path, *more: str) -> list[str]:
    where = ["--model", str(model), "--save_path", str(save_path)]
    data = [*DEMO_DATA, "--train_data", DEMO.train_data]
    sizes = [] if more[:2] == ALL else ["--proportion", "0.2"]
    return [*where, *data, *TASKS, *SMALL, *TRAINING, *sizes, *more]


def table(save_path: Path, name: str = "results.csv") -> pd.DataFrame:
    return pd.read_csv(save_path / name, keep_default_na=False)


@pytest.fixture(scope="module")
def masks(tiny_model, tmp_path_factory) -> Path:
    """Masks of MathNeuro.py, and effects as PathPatching.py leaves them, in one folder."""
    save_path = tmp_path_factory.mktemp("found")
    where = ["--model", str(tiny_model), "--save_path", str(save_path)]
    argv = [*where, *DEMO_DATA, *TASKS, *SMALL, "--proportion", "0.1", "--save_masks"]
    assert MathNeuro.main(argv) == 0
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    blocks = find_blocks(model)
    units = [*head_units(blocks), *mlp_units(blocks)]
    effects = -torch.arange(len(units) * 4, dtype=torch.float64).reshape(len(units), 4)
    by_name = {unit.name: row for unit, row in zip(units, effects, strict=True)}
    write_effects(ResultStore(save_path, MODEL), by_name)
    return save_path


@pytest.fixture(scope="module")
def finished(tiny_model, masks, tmp_path_factory) -> Path:
    save_path = tmp_path_factory.mktemp("trained") / "results"
    file = masks / "masks" / MODEL / "Race_calculate0.1_run0.safetensors"
    what = ["mathneuro", "random", "wanda", "lape", "heads", "random_heads", "mlps", "all"]
    argv = flags(tiny_model, save_path, "--selection", *what, str(file))
    where = ["--path_patching", str(masks), "--ratio", "0.2", "--top", "2"]
    assert FineTune.main([*argv, *where, "--save_model"]) == 0
    return save_path


CELLS = [
    *(f"{name}_calculate0.2_run0" for name in ("Race", "MMLU", "random/Race", "random/MMLU")),
    "wanda/calculate0.2_run0",
    "lape/run0_ratio0.2",
    *(f"{name}/top2_run0" for name in ("heads", "random_heads", "mlps")),
    "all/run0",
    "mask_file/Race_calculate0.1_run0_run0",
]


def test_every_selection_is_a_cell_with_its_changes_and_losses(finished):
    stems = {f"{cell}_trained0.01" for cell in CELLS}
    for folder, suffix in (("deltas", ".safetensors"), ("training", ".csv"), ("cells", ".json")):
        there = finished / folder / MODEL
        paths = (path.relative_to(there).as_posix() for path in there.rglob(f"*{suffix}"))
        found = {path.removesuffix(suffix) for path in paths}
        assert found - {"pre_results"} == stems
    rows = table(finished)
    assert set(rows["edit"]) == {"", "train"}
    assert len(rows[["method", "against"]].drop_duplicates()) == 1 + len(CELLS)
    losses = pd.read_csv(finished / "training" / MODEL / "all" / "run0_trained0.01.csv")
    assert list(losses["step"]) == [0, 1, 2, 3, 4]
    assert losses["held_out_loss"].notna().sum() == 3
    # Checkpoints are gone, and so are unfinished files.
    assert not list(finished.rglob("checkpoint-*"))
    assert not list(finished.rglob("*.tmp"))


def test_only_the_selected_weights_are_trained(finished, tiny_model):
    base = load_file(tiny_model / "model.safetensors")
    for cell in CELLS:
        delta = load_delta(finished / "deltas" / MODEL / f"{cell}_trained0.01.safetensors")
        assert delta.count > 0
        trained = load_file(
            finished / "models" / MODEL / f"{cell}_trained0.01" / "model.safetensors"
        )
        for name, weight in trained.items():
            moved = weight != base[name]
            assert moved.any() == (name in delta.mask and delta.mask.counts()[name] > 0)
            if name in delta.mask:
                assert not moved[~delta.mask.tensor(name)].any()
    heads = load_delta(finished / "deltas" / MODEL / "heads" / "top2_run0_trained0.01.safetensors")
    assert {n for n, count in heads.mask.counts().items() if count} <= {
        f"model.layers.{layer}.self_attn.o_proj.weight" for layer in (0, 1)
    }
    # Two heads of eight columns each.
    assert heads.count == 2 * 8 * 24
    everything = load_delta(finished / "deltas" / MODEL / "all" / "run0_trained0.01.safetensors")
    assert everything.count == sum(weight.numel() for weight in base.values())


def test_random_trains_as_many_as_mathneuro(finished):
    counts = table(finished, "training.csv").set_index(["method", "against"])["trained"]
    for name in ("Race", "MMLU"):
        assert counts["random", name] == counts["mathneuro", name]
    rivals = table(finished, "training.csv").set_index("method")["control"].to_dict()
    assert rivals["heads"] == "random_heads"


def test_the_same_command_trains_nothing_twice(finished, tiny_model, capsys):
    before = {p: p.stat().st_mtime_ns for p in (finished / "deltas").rglob("*") if p.is_file()}
    results = without_timings(finished)
    record = finished / "cells" / MODEL / "all" / "run0_trained0.01.json"
    record.unlink()
    what = ["--selection", "mathneuro", "all"]
    assert FineTune.main(flags(tiny_model, finished, *what)) == 0
    after = {p: p.stat().st_mtime_ns for p in (finished / "deltas").rglob("*") if p.is_file()}
    assert after == before
    assert without_timings(finished) == results
    assert "Gain in math" in capsys.readouterr().out


def test_another_seed_or_setting_is_refused_and_another_rate_is_not(finished, tiny_model, capsys):
    for more in (["--train_seed", "1"], ["--epochs", "9"], ["--weight_decay", "0.1"]):
        assert FineTune.main(flags(tiny_model, finished, *ALL, *more)) == 2
        assert f"{more[0]} {more[1]}" in capsys.readouterr().err
    argv = flags(tiny_model, finished, *ALL, "--learning_rate", "0.01", "0.1")
    assert FineTune.main([*argv, "--dry_run"]) == 0
    assert "all 2 (1 done, 1 to do, 1 trained)" in capsys.readouterr().out


def test_a_killed_training_goes_on_with_the_same_changes(tiny_model, finished, tmp_path):
    """Killed by the system in the middle; the checkpoint is there, and the result is the same."""
    code = (
        "import os, sys; sys.path.insert(0, '.')\n"
        "from neurosurgery.edit.training_bar import TrainingBar as Bar\n"
        "end = Bar.on_step_end\n"
        "def die(self, args, state, control, **more):\n"
        "    if state.global_step == 4: os.kill(os.getpid(), 9)\n"
        "    end(self, args, state, control, **more)\n"
        "Bar.on_step_end = die\n"
        "import FineTune; FineTune.main(sys.argv[1:])\n"
    )
    argv = flags(tiny_model, tmp_path / "r", *ALL)
    run = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, check=False)
    assert run.returncode == -9
    assert list((tmp_path / "r" / "training").rglob("checkpoint-2"))
    assert FineTune.main(argv) == 0
    name = f"deltas/{MODEL}/all/run0_trained0.01.safetensors"
    one, other = load_delta(tmp_path / "r" / name), load_delta(finished / name)
    assert all(torch.equal(one.values[n], other.values[n]) for n in one.mask)


def test_apply_writes_the_trained_model(finished, tiny_model, tmp_path, capsys):
    file = finished / "deltas" / MODEL / "Race_calculate0.2_run0_trained0.01.safetensors"
    assert main(["apply", str(file), "--output", str(tmp_path / "trained")]) == 0
    assert "changed by the training, in float32" in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "trained")
    with added_delta(model, load_delta(file)):
        for one, other in zip(model.parameters(), trained.parameters(), strict=True):
            assert torch.equal(one, other)
    card = (tmp_path / "trained" / "README.md").read_text()
    assert "trained in" in card
    assert "| max_steps | 4 |" in card
    assert json.loads((tmp_path / "trained" / "neurosurgery.json").read_text())["action"] == "train"
    argv = ["apply", str(file), "--scalar", "0", "--output", str(tmp_path / "no")]
    assert main(argv) == 2
    assert "--scalar 0: cannot be had with the changes of a training" in capsys.readouterr().err


@pytest.mark.parametrize("rates", [("0.001", "1e38"), ("1e38", "0.001")])
def test_a_diverging_training_is_given_up_and_the_others_go_on(rates, tiny_model, tmp_path, capsys):
    argv = flags(tiny_model, tmp_path, *ALL, "--learning_rate", *rates)
    assert FineTune.main(argv) == 1
    told = capsys.readouterr()
    error = told.err.splitlines()[-1]
    assert "1 cell given up, first all/run0_trained1e+38: the loss became" in error
    assert "try a smaller --learning_rate" in error
    assert "all/run0_trained1e+38: given up: " in told.out
    (note,) = (tmp_path / "failed").rglob("*.json")
    assert json.loads(note.read_text())["attempts"] == 1
    assert len(list((tmp_path / "cells").rglob("*.json"))) == 2
    assert len(list((tmp_path / "deltas").rglob("*.safetensors"))) == 1
    # What was finished is judged and shown.
    assert set(pd.read_csv(tmp_path / "summary.csv")["edit_value"]) == {0.001}
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "1 cell was given up and is left out: all/run0_trained1e+38" in page
    # Without the rate that diverges there is nothing left to do, and nothing wrong.
    assert FineTune.main(flags(tiny_model, tmp_path, *ALL, "--learning_rate", "0.001")) == 0


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--selection", "nothing"], "--selection nothing: expected mathneuro, random"),
        ([*ALL, "--proportion", "0.1"], "--proportion 0.1: expected with it a"),
        (["--top", "3"], "--top 3: expected with it a --selection of heads, random_heads, mlps"),
        (["--top", "1.5", "--selection", "heads", "wanda"], "--top 1.5: expected numbers of units"),
        (["--learning_rate", "nan"], "--learning_rate nan: expected a finite number"),
        (["--learning_rate", "0"], "--learning_rate 0: expected a number above 0"),
        (["--learning_rate", "-1"], "--learning_rate -1: expected a number above 0"),
        (["--epochs", "0"], "--epochs 0: expected a number above 0"),
        (["--max_steps", "0"], "--max_steps 0: expected 1 or more, or -1"),
        (["--train_batch_size", "0"], "--train_batch_size 0: expected a whole number of at least"),
        (["--warmup_ratio", "1"], "--warmup_ratio 1: expected a share of the steps"),
        (["--weight_decay", "-1"], "--weight_decay -1: expected a number of 0 or more"),
        (["--held_out", "0"], "--held_out 0: expected a share of the samples"),
        (["--save_steps", "0"], "--save_steps 0: expected a number above 0"),
        (["--save_steps", "1.5"], "--save_steps 1.5: expected a number of steps, or a share"),
        (["--train_data", "gone.csv"], "--train_data gone.csv: No such file"),
        (["--selection", "heads", "wanda"], "--selection heads: expected what PathPatching.py"),
        (["--selection", "lora", "--save_model"], "--save_model: expected without lora and shira"),
        (["--max_length", "3"], "--max_length 3: expected more tokens than the prompts"),
        (["--train_seed", "4294967296"], "--train_seed 4294967296: expected a whole number of at"),
        (
            ["--max_steps", "99999999999999999999"],
            "expected a whole number of at most 2,147",
        ),
        (["--num_repeats", "99999999999999999999"], "expected a whole number of at most 10,000"),
        (["--epochs", "1e20"], "--epochs 1e+20: expected a number above 0 and up to 1,000,000"),
        (["--path_patching", "x"], "--path_patching x: expected with it heads, random_heads or"),
        (["--train_data", ""], "--train_data"),
        (["--pre_train_eval"], "unrecognized arguments: --pre_train_eval"),
    ],
)
def test_refused_in_one_line(more, reason, tiny_model, tmp_path, capsys):
    argv = flags(tiny_model, tmp_path / "r", *more)
    try:
        status = FineTune.main(argv)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "r" / "config.json").exists()


def test_settings_of_the_environment_are_named_and_change_nothing(
    finished, tiny_model, tmp_path, monkeypatch, capsys
):
    """A launcher of several processes would have the Trainer wait for the others."""
    for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert FineTune.main(flags(tiny_model, tmp_path, *ALL)) == 0
    error = capsys.readouterr().err
    for name in ("ACCELERATE_MIXED_PRECISION", "OMPI_COMM_WORLD_SIZE", "WORLD_SIZE"):
        assert name in error.splitlines()[0]
    name = f"deltas/{MODEL}/all/run0_trained0.01.safetensors"
    one, other = load_delta(tmp_path / name), load_delta(finished / name)
    assert all(torch.equal(one.values[n], other.values[n]) for n in one.mask)
    run = json.loads((tmp_path / "config.json").read_text())
    assert '"NVIDIA_TF32_OVERRIDE": "0"' in json.dumps(run)


def save_tiny(folder: Path, config: transformers.PretrainedConfig, tokenizer) -> Path:
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


COMMON = {"vocab_size": 1536, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("method", "class_name", "sizes", "reason"),
    [
        ("shira", "GPT2Config", {"n_embd": 24, "n_layer": 1, "n_head": 3}, "Conv1D"),
        ("lora", "MambaConfig", {"hidden_size": 24, "num_hidden_layers": 1}, "out_proj"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_an_adapter_that_does_not_fit_is_refused_before_anything_is_computed(
    method, class_name, sizes, reason, dry, tokenizer, tmp_path, capsys
):
    pytest.importorskip("peft", reason="PEFT is an extra")
    config = getattr(transformers, class_name)(**COMMON, **sizes)
    model = save_tiny(tmp_path / "model", config, tokenizer)
    argv = flags(model, tmp_path / "r", "--selection", "mathneuro", method)
    assert FineTune.main([*argv, "--dry_run"] if dry else argv) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"--selection {method}: " in error
    assert reason in error
    assert not (tmp_path / "r" / "config.json").exists()


FEW = 160
"""Positions of a model with few; the samples are longer."""


@pytest.fixture(scope="module", params=["GPT2Config", "LlamaConfig"])
def short_model(request, tokenizer, tmp_path_factory) -> Path:
    """Learned positions, where a longer sample is an IndexError, and rotary ones."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
    more = {} if request.param == "GPT2Config" else {"intermediate_size": 40}
    config = getattr(transformers, request.param)(
        **COMMON, **sizes, **more, max_position_embeddings=FEW
    )
    return save_tiny(tmp_path_factory.mktemp("short") / "model", config, tokenizer)


def long_samples(path: Path, words: int) -> Path:
    """Prompts that end within the context, and one that does not."""
    rows = [(f"Q: How many {n}? A:", " so" * words + f" {n}.") for n in range(9)]
    rows.append((f"Q: {'many ' * 200}A:", " 3"))
    pd.DataFrame(rows, columns=["prompt", "answer"]).to_csv(path, index=False)
    return path


def test_samples_are_cut_at_the_models_context(short_model, tmp_path, capsys):
    data = long_samples(tmp_path / "long.csv", words=200)
    argv = flags(short_model, tmp_path / "r", *ALL, "--train_data", str(data))
    for more in (["--dry_run"], []):
        assert FineTune.main([*argv, *more]) == 0
        out = capsys.readouterr().out
        assert f"9 samples are cut at {FEW} tokens, the model's context" in out
        assert f"1 samples are left out: their prompt alone has {FEW} tokens" in out
    assert FineTune.main([*argv, "--max_length", "100", "--overwrite", "--dry_run"]) == 0
    assert "9 samples are cut at --max_length, 100 tokens" in capsys.readouterr().out


def test_prompts_that_fill_the_context_are_refused(short_model, tmp_path, capsys):
    rows = [(f"Q: {n} {'many ' * 200}A:", f" {n}") for n in range(4)]
    pd.DataFrame(rows, columns=["prompt", "answer"]).to_csv(tmp_path / "x.csv", index=False)
    argv = flags(short_model, tmp_path / "r", *ALL, "--train_data", str(tmp_path / "x.csv"))
    assert FineTune.main([*argv, "--dry_run"]) == 2
    assert f"context of {FEW} tokens" in capsys.readouterr().err.splitlines()[-1]


def test_a_token_that_the_model_does_not_know_is_refused(tiny_model, tokenizer, tmp_path, capsys):
    more = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    more.add_tokens([f"<image{n}>" for n in range(40)])
    shutil.copytree(tiny_model, tmp_path / "model")
    more.save_pretrained(tmp_path / "model")
    rows = {"qa": [f"Q: what is {n}? A: <image39>" for n in range(4)]}
    pd.DataFrame(rows).to_csv(tmp_path / "x.csv", index=False)
    argv = flags(tmp_path / "model", tmp_path / "r", *ALL, "--train_data", str(tmp_path / "x.csv"))
    assert FineTune.main([*argv, "--dry_run"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "--train_data" in error
    assert "the model knows 1536 tokens" in error


def test_a_worker_trains_to_the_same_changes(finished, tiny_model, tmp_path):
    pytest.importorskip("ray", reason="Ray is an extra")
    argv = flags(tiny_model, tmp_path, "--selection", "mathneuro", "--workers", "1")
    assert FineTune.main(argv) == 0
    name = f"deltas/{MODEL}/Race_calculate0.2_run0_trained0.01.safetensors"
    one, other = load_delta(tmp_path / name), load_delta(finished / name)
    assert one.mask == other.mask
    assert all(torch.equal(one.values[n], other.values[n]) for n in one.mask)


def test_programs_as_samples_leave_their_split(tiny_model, tmp_path):
    programs = ROOT / "data" / "demo" / "sgsm.csv"
    argv = flags(tiny_model, tmp_path, *ALL, "--train_dataset", str(programs))
    assert FineTune.main(argv) == 0
    assert set(pd.read_csv(tmp_path / "split.csv")["part"]) == {"sample", "test"}


def test_overwrite_does_not_delete_the_effects_that_it_needs(tiny_model, masks, tmp_path, capsys):
    save_path = tmp_path / "r"
    shutil.copytree(masks / "statistics", save_path / "statistics")
    shutil.copy(masks / "config.json", save_path)
    argv = flags(tiny_model, save_path, "--selection", "heads", "wanda", "--overwrite")
    assert FineTune.main(argv) == 2
    assert "--overwrite: would delete what PathPatching.py has found" in capsys.readouterr().err
    assert FineTune.main([*argv, "--path_patching", str(masks), "--top", "2"]) == 0
    assert len(list((save_path / "deltas").rglob("*.safetensors"))) == 2


def test_effects_of_another_model_are_refused_or_told_of(tiny_model, masks, tmp_path, capsys):
    found = tmp_path / "found"
    shutil.copytree(masks / "statistics", found / "statistics")
    shutil.copy(masks / "config.json", found)
    argv = flags(tiny_model, tmp_path / "r", "--selection", "heads", "wanda", "--top", "2")
    argv += ["--path_patching", str(found), "--dry_run"]
    assert FineTune.main(argv) == 0
    assert "warning" not in capsys.readouterr().err
    # Other weights: as with a mask of the user's, they are used, and it is said.
    config = (found / "config.json").read_text()
    content = ResultStore(found, MODEL).identity.value("model", "files")["content"]
    (found / "config.json").write_text(config.replace(content, "0" * len(content)))
    assert FineTune.main(argv) == 0
    assert "effects were found with other weights than those of" in capsys.readouterr().err
    store = ResultStore(found, MODEL)
    kept = read_effects(store)
    write_effects(store, {name.replace("layers.1", "layers.9"): e for name, e in kept.items()})
    assert FineTune.main(argv) == 2
    assert f"--path_patching {found}: has effects of model.layers.9" in capsys.readouterr().err
    effects_file(store).write_bytes(b"cut off")
    assert FineTune.main(argv) == 2
    assert "has a damaged file of it: run it first" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_mask_of_another_model_is_refused(tiny_model, masks, tmp_path, capsys):
    file = masks / "masks" / MODEL / "Race_calculate0.1_run0.safetensors"
    argv = ["--selection", str(file), *TASKS, *SMALL, "--save_path", str(tmp_path / "r")]
    assert FineTune.main(argv) == 2
    assert "is a mask of another model than" in capsys.readouterr().err
    text = tmp_path / "mask.txt"
    text.write_text("no mask")
    argv = flags(tiny_model, tmp_path / "r", "--selection", "wanda", str(text))
    assert FineTune.main(argv) == 2
    assert "is no readable mask file" in capsys.readouterr().err


def test_another_mask_of_the_same_name_is_refused(tiny_model, masks, tmp_path, capsys):
    """The second run would report the first one's results and changes."""
    read = read_mask_file(masks / "masks" / MODEL / "Race_calculate0.1_run0.safetensors")
    file, save_path = tmp_path / "mine.safetensors", tmp_path / "r"
    write_mask_file(file, read.mask, read.provenance)
    argv = flags(tiny_model, save_path, "--selection", "wanda", str(file))
    assert FineTune.main(argv) == 0
    results = without_timings(save_path)
    # The same weights with another provenance are the same mask.
    write_mask_file(file, read.mask, {"found": "elsewhere"})
    assert FineTune.main(argv) == 0
    assert without_timings(save_path) == results
    capsys.readouterr()
    inverted = {name: ~read.mask.tensor(name) for name in read.mask}
    write_mask_file(file, ParameterMask.from_tensors(inverted), {})
    for more in ([], ["--dry_run"]):
        assert FineTune.main([*argv, *more]) == 2
        assert "--selection mine.safetensors (content " in capsys.readouterr().err
    assert without_timings(save_path) == results
    # A mask of another name only adds cells.
    file.rename(tmp_path / "yours.safetensors")
    argv[-1] = str(tmp_path / "yours.safetensors")
    assert FineTune.main(argv) == 0
    found = table(save_path).query("method == 'mask_file' and task == 'demo_race'")
    assert found["edited"].nunique() == 2


def test_two_masks_whose_names_differ_in_case_are_refused(tiny_model, masks, tmp_path, capsys):
    """Where the file system ignores case, one would be reported as the other."""
    source = masks / "masks" / MODEL / "Race_calculate0.1_run0.safetensors"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    files = [tmp_path / "a" / "mask.safetensors", tmp_path / "b" / "Mask.safetensors"]
    for file in files:
        shutil.copy(source, file)
    argv = flags(tiny_model, tmp_path / "r", "--selection", *map(str, files))
    argv = [word for word in argv if word not in ("--proportion", "0.2")]
    assert FineTune.main(argv) == 2
    assert "expected mask files of different names" in capsys.readouterr().err


def test_other_effects_in_the_same_folder_are_refused(tiny_model, masks, tmp_path, capsys):
    found = tmp_path / "found"
    shutil.copytree(masks / "statistics", found / "statistics")
    argv = flags(tiny_model, tmp_path / "r", "--selection", "heads", "wanda", "--top", "2")
    argv += ["--path_patching", str(found)]
    assert FineTune.main(argv) == 0
    store = ResultStore(found, MODEL)
    write_effects(store, {name: -each for name, each in read_effects(store).items()})
    capsys.readouterr()
    assert FineTune.main(argv) == 2
    assert "--path_patching prompts.safetensors (content " in capsys.readouterr().err


def test_two_rates_that_look_alike_are_two_cells(tiny_model, tmp_path):
    rates = ["0.00123456789", "0.00123456"]
    argv = flags(tiny_model, tmp_path, *ALL, "--learning_rate", *rates)
    assert FineTune.main(argv) == 0
    assert set(table(tmp_path)["edit_value"]) == {"", *rates}


def test_a_mask_of_other_weights_is_told_of_and_a_damaged_one_refused(
    tiny_model, masks, tmp_path, capsys
):
    file = read_mask_file(masks / "masks" / MODEL / "Race_calculate0.1_run0.safetensors")
    origin = file.provenance | {"model": "a/sibling", "model_content": "0" * 64}
    write_mask_file(tmp_path / "sibling.safetensors", file.mask, origin)
    argv = flags(tiny_model, tmp_path / "r", "--selection", "wanda")
    assert FineTune.main([*argv, str(tmp_path / "sibling.safetensors"), "--dry_run"]) == 0
    error = capsys.readouterr().err
    assert "the mask was found in a/sibling, with other weights than" in error
    name = next(name for name, count in file.mask.counts().items() if count)
    fewer = {n: file.mask.tensor(n) & torch.tensor(n != name) for n in file.mask}
    write_mask_file(
        tmp_path / "damaged.safetensors", ParameterMask.from_tensors(fewer), file.provenance
    )
    assert FineTune.main([*argv, str(tmp_path / "damaged.safetensors")]) == 2
    assert "it does not hold as many weights as it says" in capsys.readouterr().err


def test_a_damaged_file_of_changes_says_what_to_do(tiny_model, tmp_path, capsys):
    argv = flags(tiny_model, tmp_path, *ALL)
    assert FineTune.main(argv) == 0
    (file,) = (tmp_path / "deltas").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:3000])
    (record,) = (tmp_path / "cells").rglob("run0_trained0.01.json")
    record.unlink()
    assert FineTune.main(argv) == 1
    assert "without it the same command trains it again" in capsys.readouterr().err
    file.unlink()
    assert FineTune.main(argv) == 0
    assert record.exists()


def test_samples_that_tests_use_are_left_out(tiny_model, tmp_path, capsys):
    documents = ROOT / "lm-evaluation-harness" / "demo" / "demo_gsm8k_cot.jsonl"
    prompts = [json.loads(line)["prompt"] for line in documents.read_text().splitlines()[:3]]
    calibration = pd.read_csv(DEMO.train_dataset)["qa"][:2].to_list()
    data = tmp_path / "new.csv"
    samples = [*(f"{prompt}The answer is 1." for prompt in prompts), *calibration, "a b", "c d"]
    pd.DataFrame({"qa": samples}).to_csv(data, index=False)
    argv = flags(tiny_model, tmp_path / "r", "--selection", "wanda", "--train_data", str(data))
    assert FineTune.main([*argv, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "training     1 samples, 1 held out; 4 steps of 2 samples a step" in out
    assert "left out 2 that repeat a calibration sample, 3 that repeat a test" in out


@pytest.mark.parametrize("written", ["results.csv", "model.safetensors"])
def test_a_folder_that_vanishes_is_not_made_again(
    written, tiny_model, tmp_path, capsys, monkeypatch
):
    """Neither by the Trainer, which makes folders itself, nor by what it has trained."""
    save_path = tmp_path / "r"
    real = Path.replace

    def replace(path, target):
        found = real(path, target)
        if target.name.endswith(written) and save_path.exists():
            save_path.rename(tmp_path / "moved")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        assert FineTune.main(flags(tiny_model, save_path, "--selection", "random")) == 1
    assert "has vanished during the run" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not save_path.exists()


def test_samples_of_any_set_and_task_are_left_out_in_any_form(tiny_model, tmp_path, capsys):
    """Also those of documents that this run does not ask; a new number makes a new problem."""
    folder = ROOT / "lm-evaluation-harness" / "demo"
    lines = (folder / "demo_race.jsonl").read_text().splitlines()[:20]
    race = [json.loads(line) for line in lines]
    calibration = pd.read_csv(DEMO.train_dataset)["qa"]
    mmlu = pd.read_csv(DEMO.calibration_datasets[1])["qa"]
    rows = [
        *((f"{r['prompt']} ".upper(), r["options"][r["gold"]]) for r in race),
        *((qa.removeprefix("Q: ").partition("\nA:")[0], "1") for qa in calibration[:30]),
        *((qa.partition("\nAnswer:")[0], "who knows") for qa in mmlu[:10]),
        *((f"Otto hides {n} red balls and finds 3. How many are lost?", "1") for n in range(12)),
    ]
    data = tmp_path / "new.csv"
    pd.DataFrame(rows, columns=["prompt", "answer"]).to_csv(data, index=False)
    argv = flags(tiny_model, tmp_path / "r", "--selection", "wanda", "--train_data", str(data))
    assert FineTune.main([*argv, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "left out 40 that repeat a calibration sample, 20 that repeat a test" in out
    assert "(math 30, MMLU 10; demo_race 20)" in out
    assert FineTune.main(argv) == 0
    found = pd.read_csv(tmp_path / "r" / "overlap.csv").set_index(["samples", "against"])
    assert found.loc["train_data", "repeated"].drop("any task").to_dict() == {
        **{"math": 30, "Race": 0, "MMLU": 10, "demo_gsm8k_cot": 0, "demo_race": 20},
        **{"demo_stories": 0, "train_data": 0},
    }
    page = (tmp_path / "r" / "report" / "report.html").read_text(encoding="utf-8")
    assert "Samples of train_data that repeat others were left out (math 30, demo_race 20" in page


def test_an_instruction_that_tests_share_makes_no_sample_a_test(tiny_model, tmp_path, capsys):
    instruction = "Solve the problem step by step and finish with the number."
    prompts = [f"Q: Ivy has {n} nuts and eats 2. How many are left?\nA:" for n in range(10, 40)]
    documents = [
        {"instruction": instruction, "prompt": prompt, "answer": "5"} for prompt in prompts
    ]
    (tmp_path / "own.jsonl").write_text("".join(f"{json.dumps(d)}\n" for d in documents))
    (tmp_path / "own.yaml").write_text(
        "task: own_task\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {tmp_path}/own.jsonl\n"
        "test_split: test\noutput_type: generate_until\n"
        'doc_to_text: "{{instruction}}\\n{{prompt}}"\ndoc_to_target: answer\n'
        "generation_kwargs:\n  until: ['Q:']\n  max_gen_toks: 8\n"
        "metric_list:\n  - metric: exact_match\n    aggregation: mean\n    higher_is_better: true\n"
        "num_fewshot: 0\n"
    )
    new = [f"{instruction}\nQ: Otto hides {n} balls. How many?\nA:" for n in range(80)]
    data = tmp_path / "new.csv"
    rows = [(prompt, "5") for prompt in [*new, *prompts[:7]]]
    pd.DataFrame(rows, columns=["prompt", "answer"]).to_csv(data, index=False)
    more = ["--train_lm_eval_task", "own_task", "--include_path", str(tmp_path)]
    argv = flags(tiny_model, tmp_path / "r", "--selection", "wanda", "--train_data", str(data))
    assert FineTune.main([*argv, *more, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "training     72 samples, 8 held out" in out
    assert "left out 7 that repeat a test (own_task 7)" in out
