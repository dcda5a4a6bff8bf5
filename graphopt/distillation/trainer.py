"""The training loop: a student learns from teachers, labels or both.

All that is random is a function of the seed and of the epoch, the step or the sample. So what a run has done and what
its tensors are is all that a checkpoint need hold, and a run that was killed ends with the weights, bit for bit, of one
that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from graphopt.distillation import sampling
from graphopt.distillation.checkpoint import Checkpoint, Checkpoints
from graphopt.distillation.evaluation import Metric, Model, evaluate
from graphopt.distillation.history import History, Moment, Progress, Record
from graphopt.distillation.optimization import Optimization
from graphopt.distillation.parallel import World
from graphopt.distillation.reading import Reader, Reading
from graphopt.distillation.rehearsal import rehearse
from graphopt.distillation.settings import Settings
from graphopt.errors import ModelError, UsageError
from graphopt.torch.module import GraphModule

__all__ = ["fit"]

_INTERVAL: Final = 0.5  # seconds between two looks at the losses, which an accelerator must be waited for
_SHOWN: Final = 8  # samples in a message
_EVALUATED: Final = 4  # batches of training at once


def fit(
    student: Model,
    objective: nn.Module,
    train: Reader,
    settings: Settings | None = None,
    *,
    evaluation: Reader | None = None,
    metrics: Sequence[Metric] = (),
    checkpoints: Checkpoints | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    world: World | None = None,
) -> History:
    """Trains a student in place.

    With ``evaluation`` every epoch is evaluated, and the weights of the best one are those that stay: by the first
    metric, and by the loss where that is the same or there is none. Without, those of the last epoch stay.

    Args:
        student: To be trained; it moves to the device of ``train``.
        objective: Such as an :class:`~graphopt.distillation.losses.objective.Objective`: ``prepare`` makes its
            parameters from a first batch, and calling it gives the loss of a batch, and each part of it by its label.
        train: The samples to learn from.
        settings: See there.
        evaluation: Samples that are not learnt from.
        metrics: What to tell of them.
        checkpoints: Where the run is kept; it goes on from the newest one there.
        identity: What else makes a run this one, in plain values; student, samples and settings are known.
        progress: Called now and then, and after each epoch.
        world: The processes that train together.

    Raises:
        UsageError: The checkpoints are of another run, or options do not fit each other.
        ModelError: Student, teachers, samples and loss do not fit each other; or the loss is no longer finite.
        SaveError: A checkpoint cannot be written.
    """
    settings, world = settings or Settings(), world or World()
    cuda = [train.device] if train.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        world.synchronized(student.module),
    ):
        run = _Run(student, objective, train, settings, evaluation, metrics, checkpoints, progress, world)
        run.prepare(dict(identity or {}))
        return run.run()


class _Run:
    """One run."""

    def __init__(
        self,
        student: Model,
        objective: nn.Module,
        train: Reader,
        settings: Settings,
        evaluation: Reader | None,
        metrics: Sequence[Metric],
        checkpoints: Checkpoints | None,
        progress: Progress | None,
        world: World,
    ) -> None:
        self._student = student
        self._module = student.module.to(train.device)
        self._objective = objective.to(train.device)
        self._train = train
        self._settings = settings
        self._evaluation = evaluation
        self._metrics = metrics
        self._checkpoints = checkpoints
        self._progress: Progress = progress or (lambda moment: None)
        self._world = world
        self._device = train.device
        self._batch = train.group or settings.batch
        self._check_options()
        self._steps = len(sampling.split(sampling.order(train.count, settings.seed, 0), self._batch))
        self._records: list[Record] = []
        self._best: dict[str, Tensor] = {}
        self._epoch = self._step = 0
        self._looked = time.monotonic()

    # -- before ------------------------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        together = self._world.size > 1
        if together and self._train.group is not None:
            raise UsageError(
                f"the model takes {self._train.group} samples at once, so that {self._world.size} processes cannot "
                "share them",
                hint="Train in one process, or export the student with a free batch dimension.",
            )
        if together and self._student.learns_statistics and isinstance(self._module, GraphModule):
            raise UsageError(
                "batch normalizations of an ONNX graph learn their statistics in one process only",
                hint="Train in one process, or keep the statistics.",
            )
        if self._settings.precision == "float16" and self._device.type != "cuda":
            raise UsageError(
                f"float16 does not train on {self._device.type}: its gradients vanish",
                hint="Use bfloat16 or float32, or a CUDA device.",
            )

    def prepare(self, identity: dict[str, Any]) -> None:
        """Checks that all fits, makes what the first batch must be known for, and goes on from a checkpoint."""
        self._seed(sampling.whole_number(sampling.Purpose.START, self._settings.seed))
        self._labels = rehearse(
            self._student, self._objective, self._train, self._evaluation, self._metrics, self._batch
        )
        self._objective.to(self._device)
        self._optimization = Optimization(self._module, self._objective, self._settings, self._world)
        self._table = torch.zeros(self._steps, 1 + len(self._labels), dtype=torch.float64, device=self._device)
        if self._checkpoints is None:
            return
        self._identity = {
            **dataclasses.asdict(self._settings),
            "samples": self._train.digest,
            "evaluation": None if self._evaluation is None else self._evaluation.digest,
            "student": _digest(self._module),
            "objective": _digest(self._objective),
            **identity,
        }
        newest = self._checkpoints.newest(self._identity) if self._world.is_first else None
        contents = self._world.share_bytes(newest, self._device)
        if contents is not None:
            self._restore(Checkpoints.decoded(contents))

    def _seed(self, number: int) -> None:
        """Makes torch's own random numbers (dropout, first weights) a function of the place in the run."""
        torch.default_generator.manual_seed(number)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(number)

    # -- training ----------------------------------------------------------------------------------------------------

    def run(self) -> History:
        """Trains until the end."""
        done = self._epoch
        while self._epoch < self._settings.epochs and not self._is_stale:
            began = time.monotonic()
            self._train_epoch()
            self._finish_epoch(began)
            if self._checkpoints is not None and self._checkpoints.is_due:
                self._save()
        if self._checkpoints is not None and self._epoch > done:
            self._save()
        if self._best:
            self._module.load_state_dict(self._best)
        self._module.eval()
        notes = self._checkpoints.notes if self._checkpoints is not None else ()
        return History(self._records, self._best_epoch, tuple(notes))

    @property
    def _best_epoch(self) -> int:
        scores = [self._score(one) for one in self._records]
        return scores.index(max(scores)) if self._evaluation is not None else len(scores) - 1

    @property
    def _is_stale(self) -> bool:
        """Whether to stop early."""
        patience = self._settings.patience
        return bool(patience and self._records) and len(self._records) - 1 - self._best_epoch >= patience

    def _score(self, record: Record) -> tuple[float, ...]:
        """The more, the better: the first metric; the loss, where that is the same."""
        if self._evaluation is None:
            return ()
        scores = [record.evaluation[metric.name] for metric in self._metrics[:1]] + [-record.evaluation["loss"]]
        return tuple(score if math.isfinite(score) else -math.inf for score in scores)

    def _train_epoch(self) -> None:
        self._module.train(self._student.learns_statistics)
        self._objective.train()
        self._epoch_seed = sampling.whole_number(sampling.Purpose.STEP, self._settings.seed, self._epoch)
        batches = self._batches(self._epoch)[self._step :]
        share = functools.partial(sampling.share, rank=self._world.rank, ranks=self._world.size)
        local = batches if self._world.size == 1 else [share(ids) for ids in batches]
        readings = self._train.batches(local, self._epoch % self._train.views)
        with contextlib.closing(readings):
            for ids, reading in zip(batches, readings, strict=True):
                self._train_step(reading, len(ids))
                self._look()

    def _batches(self, epoch: int) -> list[sampling.Ids]:
        return sampling.split(sampling.order(self._train.count, self._settings.seed, epoch), self._batch)

    def _train_step(self, reading: Reading, count: int) -> None:
        """One batch of ``count`` samples, of which this process has read its share."""
        step, every = self._step, self._settings.accumulate
        self._seed(self._epoch_seed + step * self._world.size + self._world.rank)
        with self._autocast():
            outputs = self._student.outputs(reading.feeds)
        batch = dataclasses.replace(reading.batch, student=outputs)
        if self._world.size > 1:
            batch = self._world.whole(batch, count)
        loss, parts = self._objective(batch)
        self._table[step] = torch.stack([loss.detach(), *(parts[label].detach() for label in self._labels)])
        first = step - step % every
        self._optimization.backward(loss / min(every, self._steps - first) if every > 1 else loss)
        if (step + 1) % every == 0 or step + 1 == self._steps:
            updates = -(-self._steps // every)
            number = self._epoch * updates + step // every
            self._optimization.step(self._settings.schedule(number, self._settings.epochs * updates), number)
        self._step += 1

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._settings.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, getattr(torch, self._settings.precision))

    def _look(self) -> None:
        """Now and then: are the losses finite, who wants to know, is a checkpoint due?"""
        now = time.monotonic()
        saves = self._checkpoints is not None and self._checkpoints.is_due and self._step < self._steps
        if saves and self._step % self._settings.accumulate == 0:
            self._save()
        if now - self._looked >= _INTERVAL:
            self._looked = now
            self._check_losses()
            loss = float(self._table[: self._step, 0].mean())
            self._progress(Moment(self._epoch, self._step, self._steps, loss))

    def _check_losses(self) -> None:
        bad = (~torch.isfinite(self._table[: self._step, 0])).nonzero()
        if not len(bad):
            return
        step = int(bad[0, 0])
        ids = self._train.rows(self._batches(self._epoch)[step]).tolist()
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        raise ModelError(
            f"the loss is {float(self._table[step, 0])} in epoch {self._epoch}, step {step} (both from 0); "
            f"samples {', '.join(map(str, ids[:_SHOWN]))}{more}",
            hint="Lower the learning rate, warm up, clip gradients, or look at these samples.",
        )

    def _finish_epoch(self, began: float) -> None:
        self._check_losses()
        means = self._table.mean(0).tolist()
        with self._optimization.averaged():
            found = self._evaluate()
            record = Record(
                self._epoch, means[0], dict(zip(self._labels, means[1:], strict=True)), found, time.monotonic() - began
            )
            self._records.append(record)
            if self._best_epoch == self._epoch and (self._evaluation is not None or self._ends_averaged):
                self._best = {name: one.detach().clone() for name, one in self._module.state_dict().items()}
        self._epoch, self._step = self._epoch + 1, 0
        self._progress(Moment(record.epoch, self._steps, self._steps, record.loss, record))

    @property
    def _ends_averaged(self) -> bool:
        return self._settings.average > 0 and self._epoch == self._settings.epochs - 1

    def _evaluate(self) -> dict[str, float]:
        if self._evaluation is None:
            return {}
        return evaluate(
            self._student,
            self._objective,
            self._evaluation,
            self._metrics,
            batch=_EVALUATED * self._batch,
            world=self._world,
        )

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Writes down all that the rest of the run depends on."""
        assert self._checkpoints is not None
        self._check_losses()
        if not self._world.is_first:
            return
        tensors = {
            "table": self._table[: self._step],
            **_named("student", self._module.state_dict()),
            **_named("objective", self._objective.state_dict()),
            **_named("optimization", self._optimization.tensors()),
            **_named("best", self._best),
        }
        state = {
            "epoch": self._epoch,
            "step": self._step,
            "records": [dataclasses.asdict(one) for one in self._records],
            "optimization": self._optimization.state(),
        }
        self._checkpoints.save(Checkpoint(self._epoch * self._steps + self._step, state, tensors), self._identity)

    def _restore(self, checkpoint: Checkpoint) -> None:
        state, tensors = checkpoint.state, checkpoint.tensors
        self._epoch, self._step = state["epoch"], state["step"]
        self._records = [Record(**one) for one in state["records"]]
        self._table[: self._step] = tensors["table"].to(self._device)
        self._module.load_state_dict(_of("student", tensors))
        self._objective.load_state_dict(_of("objective", tensors))
        self._optimization.load(_of("optimization", tensors), state["optimization"])
        self._best = {name: one.to(self._device) for name, one in _of("best", tensors).items()}


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": one for name, one in tensors.items()}


def _of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}/"): one for name, one in tensors.items() if name.startswith(f"{prefix}/")}


def _digest(module: nn.Module) -> str:
    """SHA-256, in hex, of names, shapes and values of what the module holds."""
    total = hashlib.sha256()
    for name, one in module.state_dict().items():
        total.update(f"{name} {one.dtype} {list(one.shape)}".encode())
        total.update(one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
