"""The Trainer on selected weights: its result, its losses, its checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import transformers
from conftest import VOCABULARY, build_model
from transformers import Trainer, TrainingArguments
from weights import random_mask, weights_of

from neurosurgery.common.environment import is_setting
from neurosurgery.common.errors import RunError
from neurosurgery.edit import fine_tune
from neurosurgery.edit.delta import Delta
from neurosurgery.edit.fine_tune import Fit, TrainedPart, fit, last_checkpoint
from neurosurgery.edit.training import trainable
from neurosurgery.settings.training import TrainingConfig

pytestmark = pytest.mark.whole

DRAW = torch.Generator().manual_seed(1)


def samples(count: int) -> list[dict[str, list[int]]]:
    found = []
    for length in torch.randint(3, 12, (count,), generator=DRAW).tolist():
        ids = torch.randint(1, VOCABULARY, (length,), generator=DRAW).tolist()
        found.append({"input_ids": ids, "labels": [-100, *ids[1:]]})
    return found


TRAIN, HELD_OUT = samples(20), samples(4)


def train(
    folder: Path, *, rate: float = 1e-3, family: str = "llama", dtype=torch.float32, **more
) -> tuple[Delta, list, torch.nn.Module]:
    settings = {"epochs": 2.0, "train_batch_size": 4, "save_steps": 3} | more
    config = TrainingConfig(Path("x.csv"), (rate,), **settings)
    model = build_model(family).to(dtype)
    with trainable(model, random_mask(model)) as entries:
        what = Fit("cell", TRAIN, HELD_OUT, rate, 7, folder)
        rows = fit(TrainedPart(model, entries.changes), what, config)
    return entries.delta(), rows, model


def same(one: Delta, other: Delta) -> bool:
    return all(torch.equal(one.values[name], other.values[name]) for name in one.mask)


def test_losses_fall_and_are_noted_by_step(tmp_path):
    delta, rows, model = train(tmp_path, rate=1e-2)
    assert [row["step"] for row in rows if "held_out_loss" in row] == [0, 3, 6, 9, 10]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 11))
    held_out = [row["held_out_loss"] for row in rows if "held_out_loss" in row]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]
    assert rows[-1]["epoch"] == 2
    assert not model.training
    # The last held-out loss is that of the trained weights.
    with torch.no_grad():
        values = [
            model(**{k: torch.tensor([v]) for k, v in sample.items()}).loss for sample in HELD_OUT
        ]
        counts = [len(sample["labels"]) - 1 for sample in HELD_OUT]
    mean = sum(v * n for v, n in zip(values, counts, strict=True)) / sum(counts)
    assert held_out[-1] == pytest.approx(float(mean), rel=1e-5)
    assert all(torch.isfinite(values).all() for values in delta.values.values())


def texts(*lengths: int) -> list[dict[str, list[int]]]:
    """Samples whose every token is labelled, the first too, as of a column `qa`."""
    draw = torch.Generator().manual_seed(5)
    rows = [torch.randint(1, VOCABULARY, (n,), generator=draw).tolist() for n in lengths]
    return [{"input_ids": row, "labels": row} for row in rows]


def loss_per_token(model, rows) -> float:
    """By hand: every sample alone, in float64, each predicted token counted once."""
    losses = []
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double()
        for place, token in enumerate(row["labels"][1:]):
            if token != -100:
                losses.append(float(logits[place].logsumexp(0) - logits[place, token]))
    return sum(losses) / len(losses)


UNEVEN = (3, 31, 2, 17, 5, 24, 2, 9)
STILL = 1e-30
"""A learning rate that changes no weight."""


def fitted(model, folder: Path, **settings) -> list:
    """The losses of a training that changes nothing, on samples of uneven lengths."""
    config = TrainingConfig(Path("x.csv"), (STILL,), epochs=2.0, save_steps=8, **settings)
    with trainable(model, random_mask(model)) as entries:
        what = Fit("cell", texts(*UNEVEN), texts(*UNEVEN[::-1], 40), STILL, 7, folder)
        return fit(TrainedPart(model, entries.changes), what, config)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_every_loss_is_a_mean_over_tokens(batch, accumulate, tmp_path, monkeypatch):
    """Not over batches: those of short samples would count as much as those of long ones."""
    monkeypatch.setattr(fine_tune, "_POINTS", 0.5)
    model = build_model("llama")
    settings = {"train_batch_size": batch, "gradient_accumulation_steps": accumulate}
    rows = fitted(model, tmp_path, **settings)
    # A note per epoch, so each has seen every sample once.
    losses = [row["loss"] for row in rows if "loss" in row]
    expected = loss_per_token(model, texts(*UNEVEN))
    assert losses == pytest.approx([expected] * 2, rel=1e-5)
    held_out = [row["held_out_loss"] for row in rows if "held_out_loss" in row]
    assert len(held_out) >= 2
    expected = loss_per_token(model, texts(*UNEVEN[::-1], 40))
    assert held_out == pytest.approx([expected] * len(held_out), rel=1e-5)


def test_terms_of_a_loss_that_are_of_no_token_are_not_noted(tmp_path):
    """Experts may be trained to share the work: that is minimised, and stands in no table."""
    config = transformers.MixtralConfig(
        **{name: getattr(build_model("llama").config, name) for name in SIZES},
        num_local_experts=4,
        router_aux_loss_coef=10.0,
        output_router_logits=True,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    rows = fitted(model, tmp_path, train_batch_size=8)
    expected = loss_per_token(model, texts(*UNEVEN))
    assert [row["loss"] for row in rows if "loss" in row] == pytest.approx([expected] * 2, rel=1e-5)
    expected = loss_per_token(model, texts(*UNEVEN[::-1], 40))
    assert rows[0]["held_out_loss"] == pytest.approx(expected, rel=1e-5)


SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"),
    *("num_attention_heads", "num_key_value_heads", "pad_token_id", "bos_token_id", "eos_token_id"),
)


class WithoutKeywords(transformers.LlamaForCausalLM):
    """A model of an older kind: its loss is the mean over its batch."""

    def forward(self, input_ids, attention_mask=None, labels=None, use_cache=None):
        return super().forward(
            input_ids, attention_mask=attention_mask, labels=labels, use_cache=use_cache
        )


def test_a_model_whose_loss_is_its_batchs_mean_is_trained_per_token_too(tmp_path):
    """A step of four samples at once, or one after the other."""
    changes = []
    for number, (batch, accumulate) in enumerate([(4, 1), (1, 4)]):
        model = WithoutKeywords(build_model("llama").config).eval()
        model.load_state_dict(build_model("llama").state_dict())
        config = TrainingConfig(
            Path("x.csv"),
            max_steps=1,
            train_batch_size=batch,
            gradient_accumulation_steps=accumulate,
        )
        with trainable(model, random_mask(model)) as entries:
            what = Fit("cell", texts(3, 31, 2, 17), texts(4), 1e-3, 7, tmp_path / str(number))
            rows = fit(TrainedPart(model, entries.changes), what, config)
        expected = loss_per_token(build_model("llama"), texts(3, 31, 2, 17))
        assert rows[-1]["loss"] == pytest.approx(expected, rel=1e-5)
        changes.append(entries.delta())
    for name in changes[0].mask:
        torch.testing.assert_close(
            changes[0].values[name], changes[1].values[name], rtol=1e-2, atol=1e-5
        )


def test_the_same_seed_gives_the_same_bits_and_another_one_others(tmp_path):
    first, second = (train(tmp_path / str(n))[0] for n in range(2))
    assert same(first, second)
    more = train(tmp_path / "rate", rate=2e-3)[0]
    assert not same(first, more)


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 4, 7])
@pytest.mark.parametrize(("family", "points"), [("llama", 0.01), ("gpt2", 0.01), ("llama", 0.2)])
def test_a_killed_training_goes_on_with_the_same_result(
    after, family, points, tmp_path, monkeypatch
):
    """GPT-2 has dropout, whose random numbers must go on as well.

    Where the loss is noted every second step, a checkpoint stands between two notes.
    """
    monkeypatch.setattr(fine_tune, "_POINTS", points)
    whole, rows, _ = train(tmp_path / "whole", family=family)
    steps = []
    step = fine_tune.Trainer.training_step

    def die(self, *arguments, **more):
        if len(steps) == after:
            raise Killed
        steps.append(1)
        return step(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(fine_tune.Trainer, "training_step", die)
        with pytest.raises(Killed):
            train(tmp_path / "killed", family=family)
    assert (last_checkpoint(tmp_path / "killed") is None) == (after < 3)
    again, rows_again, _ = train(tmp_path / "killed", family=family)
    assert same(whole, again)
    assert rows_again == rows


HOSTILE = [
    {"ACCELERATE_MIXED_PRECISION": "bf16"},
    {"ACCELERATE_MIXED_PRECISION": "fp8"},
    {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
    {"ACCELERATE_USE_CPU": "true", "ACCELERATE_TORCH_DEVICE": "meta"},
    {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
    {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"},
    {"ACCELERATE_USE_MEGATRON_LM": "true", "MEGATRON_LM_TP_DEGREE": "2"},
    {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"},
    {"ACCELERATE_DYNAMO_BACKEND": "nonsense", "ACCELERATE_DYNAMO_MODE": "nonsense"},
    {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"},
    {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
    {"PMI_SIZE": "2"},
    {"MV2_COMM_WORLD_SIZE": "2"},
    {"TRANSFORMERS_SDPA_FORCE_GQA": "1"},
    {"KUBEFLOW_TRAINER_SERVER_URL": "https://localhost:1"},
]


@pytest.fixture(scope="module")
def unbiased(tmp_path_factory) -> tuple[Delta, list]:
    """A short training without such variables."""
    return train(tmp_path_factory.mktemp("unbiased"), max_steps=3)[:2]


@pytest.mark.parametrize("variables", HOSTILE, ids="-".join)
def test_variables_of_the_environment_change_nothing(variables, unbiased, tmp_path, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    delta, rows, _ = train(tmp_path, max_steps=3)
    assert same(delta, unbiased[0])
    assert rows == unbiased[1]
    assert dict(os.environ) == before


HARMLESS = {
    # Whether a service is told of a training; its own variables are hidden.
    "DISABLE_KUBEFLOW_INTEGRATION",
    # How it is found out which devices there are; the model is on its device already.
    *("PYTORCH_NVML_BASED_CUDA_CHECK", "PYTORCH_CNDEV_BASED_MLU_CHECK", "PT_HPU_LAZY_MODE"),
    *("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE"),
    # torch's threads are recorded with every run.
    "OMP_NUM_THREADS",
}


def test_a_training_reads_no_other_setting_from_the_environment(tmp_path, monkeypatch):
    """A new version of transformers or accelerate may read another one: to be hidden, or judged.

    Variables that are not set are noted; whoever copies the whole environment reads those that are.
    """
    read = set()
    get = os._Environ.__getitem__

    def noted(self, name):
        try:
            return get(self, name)
        except KeyError:
            read.add(name)
            raise

    monkeypatch.setattr(os._Environ, "__getitem__", noted)
    train(tmp_path, max_steps=3)
    monkeypatch.undo()
    assert {"ACCELERATE_MIXED_PRECISION", "LOCAL_RANK"} <= read
    assert {name for name in read if not is_setting(name)} - HARMLESS == set()


def test_an_unfinished_checkpoint_is_not_used(tmp_path):
    for step, state in ((3, '{"global_step": 3}'), (6, '{"global'), (9, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_a_checkpoint_holds_the_trained_numbers_alone(tmp_path):
    delta, _, _ = train(tmp_path)
    (folder,) = tmp_path.glob("checkpoint-*")
    weights = folder / "model.safetensors"
    assert weights.stat().st_size < 4 * delta.count + 4096
    assert not (folder / "training_args.bin").exists()


@pytest.mark.parametrize("steps", [1, 4])
def test_a_diverging_loss_is_one_line(steps, tmp_path):
    """After a single step only the held-out loss can tell."""
    rate = 1e38
    model = build_model("llama")
    before = weights_of(model)
    config = TrainingConfig(Path("x.csv"), (rate,), max_steps=steps, train_batch_size=4)
    what = Fit("cell", TRAIN, HELD_OUT, rate, 7, tmp_path)

    def diverge():
        with trainable(model, random_mask(model)) as entries:
            fit(TrainedPart(model, entries.changes), what, config)

    with pytest.raises(RunError, match=r"cell: .*; try a smaller --learning_rate"):
        diverge()
    assert all(torch.equal(before[name], w) for name, w in weights_of(model).items())


def test_nothing_to_train_is_no_training(tmp_path):
    model = build_model("llama")
    nothing = random_mask(model, density=-1)
    config = TrainingConfig(Path("x.csv"))
    with trainable(model, nothing) as entries:
        part = TrainedPart(model, entries.changes)
        assert fit(part, Fit("cell", TRAIN, HELD_OUT, 1e-3, 7, tmp_path), config) == []


def test_accumulated_batches_are_one_step(tmp_path):
    """Four samples at once, or twice two: the loss is divided by all tokens of a step."""
    whole, _, _ = train(tmp_path / "a", train_batch_size=4, epochs=1.0)
    halves = {"train_batch_size": 2, "gradient_accumulation_steps": 2}
    parts, rows, _ = train(tmp_path / "b", epochs=1.0, **halves)
    assert rows[-1]["step"] == 5
    for name in whole.mask:
        torch.testing.assert_close(whole.values[name], parts.values[name], rtol=1e-2, atol=1e-5)


def test_weight_decay_pulls_to_the_weights_from_before(tmp_path):
    """With a huge decay next to nothing of the change is left; the weights are not near zero."""
    free, _, _ = train(tmp_path / "free")
    held, _, model = train(tmp_path / "held", weight_decay=900.0)
    for name in free.mask:
        assert held.values[name].abs().mean() < 0.5 * free.values[name].abs().mean()
    base = weights_of(build_model("llama"))
    for name, weight in model.named_parameters():
        assert (weight - base[name]).abs().max() < 5e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_number_formats(dtype, tmp_path):
    delta, _, model = train(tmp_path, dtype=dtype)
    assert all(values.dtype == torch.float32 for values in delta.values.values())
    assert {p.dtype for p in model.parameters()} == {dtype}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_stock_trainer_trains_the_selected_weights_alone(accumulate, tmp_path):
    """The model itself goes to `transformers.Trainer`, as a user's own script has it."""
    model = build_model("llama").bfloat16()
    mask, before = random_mask(model), weights_of(model)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        learning_rate=1e-2,
        weight_decay=0.1,
        num_train_epochs=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulate,
        save_strategy="steps",
        save_steps=2,
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    with trainable(model, mask) as entries:
        trainer = Trainer(
            model=model, args=arguments, train_dataset=TRAIN, data_collator=fine_tune._collate
        )
        loss = trainer.train().training_loss
        kept = [state["exp_avg"].numel() for state in trainer.optimizer.state.values()]
    assert loss > 0
    assert sum(kept) == mask.count()
    moved = 0
    for name, weight in model.named_parameters():
        inside = mask.tensor(name) if name in mask else torch.zeros(weight.shape, dtype=torch.bool)
        assert torch.equal(weight[~inside], before[name][~inside])
        moved += int((weight != before[name]).sum())
    assert moved > 0.8 * entries.delta().count
