"""Train the selected weights with transformers' Trainer; go on from its last checkpoint."""

from __future__ import annotations

import inspect
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from neurosurgery.common.environment import settings_hidden
from neurosurgery.common.errors import RunError
from neurosurgery.common.files import write_atomically
from neurosurgery.common.json_files import read_object
from neurosurgery.data.training_data import IGNORED
from neurosurgery.edit.training_bar import TrainingBar
from neurosurgery.models.offload import input_device
from neurosurgery.settings.training import TrainingConfig

Encoded = Sequence[dict[str, list[int]]]
"""Token ids and labels of every sample."""

Row = dict[str, float]
"""A step of a training: `step`, `epoch`, and `loss`, `learning_rate` or `held_out_loss`."""

_STATE = "trainer_state.json"
_POINTS = 0.01
"""The share of all steps after which the loss is noted."""


@dataclass(frozen=True)
class Fit:
    """What one training is called, what it is trained on, and where it keeps its checkpoints."""

    name: str
    train: Encoded
    held_out: Encoded
    learning_rate: float
    seed: int
    folder: Path


class TrainedPart(nn.Module):
    """A model to the Trainer, of which only the trained numbers are parameters and state.

    The model itself is called, but neither moved, saved nor seen by the optimiser.

    Args:
        model: the model that computes the loss.
        parameters: the numbers to train; they are the model's own.
    """

    _model: PreTrainedModel

    accepts_loss_kwargs = True
    """The Trainer gives the number of labelled tokens of a step, however many batches it has."""

    def __init__(self, model: PreTrainedModel, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.part = nn.ParameterList(parameters)
        # Past `nn.Module`: a submodule would be part of the state.
        object.__setattr__(self, "_model", model)
        self._takes_keywords = _takes_keywords(model)
        self._seen = TokenLoss()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """The model's output, with its loss: per labelled token of the whole step.

        Args:
            input_ids: (samples, tokens).
            attention_mask: 1 at tokens, 0 at padding, (samples, tokens).
            labels: the tokens that count, `IGNORED` elsewhere, (samples, tokens).
            num_items_in_batch: the labelled tokens of all batches of the step; None for this one's.

        Raises:
            RunError: the loss is not finite.
        """
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        device = input_device(self._model)
        batch = {name: values.to(device) for name, values in batch.items()}
        divisor = {"num_items_in_batch": num_items_in_batch} if self._takes_keywords else {}
        output = self._model(**batch, **divisor, use_cache=False)
        if not self._takes_keywords and num_items_in_batch is not None:
            # This model's loss is the mean over its batch.
            own = (labels[:, 1:] != IGNORED).sum()
            output.loss = output.loss * (own / num_items_in_batch).to(output.loss)
        if self.training:
            if not torch.isfinite(loss := output.loss):
                raise RunError(f"the loss became {loss.item()}; try a smaller --learning_rate")
            self._seen.add(output.logits.detach(), labels)
        return output

    def take_loss(self) -> float:
        """The mean loss per labelled token of all batches trained on since the last call."""
        seen, self._seen = self._seen, TokenLoss()
        return seen.mean()

    def train(self, mode: bool = True) -> TrainedPart:
        """Set the model's mode, too: the Trainer switches it for its evaluations."""
        self._model.train(mode)
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> TrainedPart:
        # The numbers stay on the devices of the weights that they belong to.
        return self


class TokenLoss:
    """The mean cross-entropy per labelled token of batches, each token counted once.

    This is the loss of every table: a mean of batches' means would count the tokens of short
    batches more, and the loss of a model of experts may have terms that are of no token.
    """

    def __init__(self) -> None:
        self._sum, self._tokens = 0.0, 0

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch.

        Args:
            logits: (samples, tokens, vocabulary); the logits of a position predict the next token.
            labels: (samples, tokens), `IGNORED` where a token does not count.
        """
        labels = labels.to(logits.device)
        # Sample by sample, because float32 logits of a whole batch may be the largest tensor.
        sums = [
            cross_entropy(row[:-1].float(), wanted[1:], ignore_index=IGNORED, reduction="sum")
            for row, wanted in zip(logits, labels, strict=True)
        ]
        self._sum += sum(torch.stack(sums).tolist())
        self._tokens += int((labels[:, 1:] != IGNORED).sum())

    def mean(self) -> float:
        """The mean, in nats; NaN if no token was counted."""
        return self._sum / self._tokens if self._tokens else math.nan


def _takes_keywords(model: nn.Module) -> bool:
    """Whether the model's loss can be divided by the tokens of all accumulated batches."""
    kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


class _Trainer(Trainer):
    model: TrainedPart

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trained numbers alone."""
        state = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        write_atomically(Path(str(output_dir)) / SAFE_WEIGHTS_NAME, save(state))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Note the loss per token since the last note, in place of the mean of the steps' means."""
        if "loss" in logs:
            logs["loss"] = self.model.take_loss()
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Compute the loss per token, in place of the mean of the batches' means."""
        self.model.eval()
        loss = TokenLoss()
        for batch in dataloader:
            loss.add(self.model(**batch).logits, batch["labels"])
        metrics = {f"{metric_key_prefix}_loss": loss.mean()}
        return EvalLoopOutput(None, None, metrics, len(self.eval_dataset))


class _NoteAtCheckpoints(TrainerCallback):
    """Has the loss noted at every checkpoint: a training that goes on there notes the same ones."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Note what was seen since the last note."""
        control.should_log = control.should_log or control.should_save


def fit(part: TrainedPart, what: Fit, config: TrainingConfig) -> list[Row]:
    """Train; a training that was killed goes on from its last checkpoint with the same result.

    Args:
        part: what is trained, in place.
        what: samples, rate, seed, folder.
        config: the other settings.

    Returns:
        The losses, by step, each a mean per labelled token: over the steps since the last entry,
        and over the held-out samples.

    Raises:
        RunError: the loss is not finite.
    """
    if not len(part.part):
        return []
    # The Trainer and accelerate would take number format, batches and processes from there.
    with settings_hidden():
        rows = _rows(_trained(part, what, config).log_history)
    if not math.isfinite(loss := rows[-1]["held_out_loss"]):
        raise RunError(f"{what.name}: the held-out loss is {loss}; try a smaller --learning_rate")
    return rows


def _trained(part: TrainedPart, what: Fit, config: TrainingConfig) -> TrainerState:
    """Run the Trainer; return its state at the end."""
    arguments = _arguments(part, what, config)
    bar = TrainingBar(what.name)
    verbosity = logging.get_verbosity()
    trainer = _Trainer(
        model=part,
        args=arguments,
        train_dataset=list(what.train),
        eval_dataset=list(what.held_out),
        data_collator=_collate,
        callbacks=[bar, _NoteAtCheckpoints()],
    )
    trainer.remove_callback(PrinterCallback)
    last = last_checkpoint(what.folder)
    try:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except RunError as error:
        step = trainer.state.global_step
        raise RunError(f"{what.name}: {error} (step {step})") from error
    finally:
        bar.close()
        # The Trainer has set that of all of transformers.
        logging.set_verbosity(verbosity)
    if trainer.state.global_step % arguments.eval_steps:
        trainer.evaluate()
    part.train(False)
    return trainer.state


def _arguments(part: TrainedPart, what: Fit, config: TrainingConfig) -> TrainingArguments:
    steps = config.max_steps
    batch = config.train_batch_size * config.gradient_accumulation_steps
    if steps < 0:
        steps = math.ceil(config.epochs * math.ceil(len(what.train) / batch))
    save_steps = config.save_steps if config.save_steps >= 1 else config.save_steps * steps
    every = max(1, math.ceil(save_steps))
    on_cpu = part.part[0].device.type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(what.folder),
        learning_rate=what.learning_rate,
        num_train_epochs=config.epochs,
        max_steps=steps,
        per_device_train_batch_size=config.train_batch_size,
        per_device_eval_batch_size=config.train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        warmup_steps=math.ceil(config.warmup_ratio * steps),
        weight_decay=config.weight_decay,
        seed=what.seed,
        save_steps=every,
        save_total_limit=1,
        eval_strategy="steps",
        eval_steps=every,
        eval_on_start=True,
        logging_steps=max(1, math.ceil(_POINTS * steps)),
        prediction_loss_only=True,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
    )
    if arguments.n_gpu > 1:
        # One process trains on the devices that the model is on; DataParallel would copy it.
        arguments._n_gpu = 1
    return arguments


def _collate(samples: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad a batch on the right; padding is neither attended to nor counted."""
    ids = [torch.tensor(sample["input_ids"]) for sample in samples]
    # Nothing predicts the first token; the Trainer would count it among those of a step.
    labels = [torch.tensor([IGNORED, *sample["labels"][1:]]) for sample in samples]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is complete; its state is written last."""
    found = []
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:
            found.append((read_object(path / _STATE)["global_step"], path))
        except (OSError, ValueError, KeyError):
            # A kill has left it unfinished.
            shutil.rmtree(path)
    return max(found)[1] if found else None


def _rows(history: Sequence[dict[str, float]]) -> list[Row]:
    """The log of a training, an entry per step; a resumed one has measured a step twice."""
    names = {"loss": "loss", "learning_rate": "learning_rate", "eval_loss": "held_out_loss"}
    rows: dict[float, Row] = {}
    for entry in history:
        row = rows.setdefault(entry["step"], {"step": entry["step"], "epoch": entry["epoch"]})
        for theirs, ours in names.items():
            if theirs in entry:
                row.setdefault(ours, entry[theirs])
    return [rows[step] for step in sorted(rows)]
