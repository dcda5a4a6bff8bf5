"""Refines a pruned model end to end, so that it gives what the original gives; without labels."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from graphopt.errors import UsageError
from graphopt.pruning.stages import observe
from graphopt.torch.module import GraphModule, from_onnx
from graphopt.torch.outputs import Kind, kinds, log_probabilities
from graphopt.torch.writeback import to_onnx

__all__ = ["polish"]

Feeds: TypeAlias = Mapping[str, Any]
Progress: TypeAlias = Callable[[str, float | None], None]

_HELD_OUT: Final = 5  # one sample of so many
_TEMPERATURE: Final = 2.0
_WARM: Final = 0.15  # share of the run in which the learning rate rises
_SMALLEST: Final = 1e-12


def polish(
    pruned: ir.Model,
    original: ir.Model,
    batches: Sequence[Feeds],
    *,
    seconds: float | None = None,
    epochs: int = 20,
    seed: int = 0,
    learning_rate: float = 5e-3,
    batch: int = 64,
    provider: str = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
) -> ir.Model:
    """The pruned model, trained to give the outputs of the original on calibration inputs.

    AdamW with a learning rate that rises and falls once. The loss of an output of classes is the Kullback-Leibler
    divergence at a temperature of 2, of any other the squared error relative to the variance. Normalizations keep their
    statistics. A fifth of the samples is not trained on: it picks the best epoch, and where none beats the start, the
    pruned model comes back as it is.

    Args:
        pruned: With the inputs and outputs of ``original``.
        original: The teacher; ONNX Runtime computes its outputs, once.
        batches: Inputs by name.
        seconds: Stop after that time; the learning rate falls accordingly. Results then depend on the speed of the
            machine, where ``epochs`` are not reached. None for no limit.
        epochs: How often each sample is seen at most.
        seed: For the order of samples; with the same seed, threads and versions the result is the same.
        learning_rate: The highest.
        batch: Samples of a step, if inputs and outputs have samples along their first axis; else the batches are taken
            as they are.
        provider: Where the teacher runs.
        threads: Of torch and ONNX Runtime.
        progress: Called with the step and the share of it that is done.

    Returns:
        A model with other weights and the same graph.

    Raises:
        UsageError: There are fewer than two batches or samples, or the outputs of the two models differ in number.
        UnsupportedOperator: The graph has a node that torch cannot run here.
    """
    if len(pruned.graph.outputs) != len(original.graph.outputs):
        raise UsageError("the pruned model and the original differ in their outputs")
    with _threads(threads):
        targets = list(observe(original, list(original.graph.outputs), batches, provider=provider, threads=threads))
        samples = _samples(pruned, batches, targets, batch)
        run = _Run(from_onnx(pruned), kinds(original), samples, seed, learning_rate, epochs, seconds, progress)
        return to_onnx(run.module, pruned) if run.improve() else pruned


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclasses.dataclass(frozen=True)
class _Samples:
    """Calibration data, by sample where that is possible, else by batch.

    Attributes:
        inputs: By name; for each either one tensor of all samples or a list of batches.
        targets: The teacher's outputs, likewise.
        count: How many samples or batches.
        step: How many of them make a step.
    """

    inputs: dict[str, Any]
    targets: list[Any]
    count: int
    step: int

    def take(self, places: Tensor) -> tuple[dict[str, Any], list[Any]]:
        """Inputs and targets of some samples (or of one batch)."""
        if self.step > 1:
            return {name: one[places] for name, one in self.inputs.items()}, [one[places] for one in self.targets]
        place = int(places[0])
        return {name: one[place] for name, one in self.inputs.items()}, [one[place] for one in self.targets]


def _samples(pruned: ir.Model, batches: Sequence[Feeds], targets: Sequence[Sequence[Any]], step: int) -> _Samples:
    names = [value.name or "" for value in pruned.graph.inputs if value.name in batches[0]]
    if not _has_samples(pruned, batches, targets) or step < 2:
        if len(batches) < 2:
            raise UsageError("one batch is too little to polish on", hint="Give more calibration data.")
        inputs: dict[str, Any] = {name: [_tensor(feeds[name]) for feeds in batches] for name in names}
        return _Samples(
            inputs, [[_tensor(row[place]) for row in targets] for place in range(len(targets[0]))], len(batches), 1
        )
    inputs = {name: _tensor(np.concatenate([feeds[name] for feeds in batches])) for name in names}
    wanted = [_tensor(np.concatenate([row[place] for row in targets])) for place in range(len(targets[0]))]
    count = len(wanted[0])
    if count < 2:
        raise UsageError("one sample is too little to polish on", hint="Give more calibration data.")
    return _Samples(inputs, wanted, count, step)


def _has_samples(pruned: ir.Model, batches: Sequence[Feeds], targets: Sequence[Sequence[Any]]) -> bool:
    """Whether the first axis of all inputs and outputs counts samples, as many as one likes."""
    for value in pruned.graph.inputs:
        if value.name in batches[0] and (value.shape is None or not value.shape or isinstance(value.shape[0], int)):
            return False
    for feeds, row in zip(batches, targets, strict=True):
        arrays = [*feeds.values(), *row]
        if not all(isinstance(array, np.ndarray) and array.ndim for array in arrays):
            return False
        if len({len(array) for array in arrays}) != 1:
            return False
    shapes = {
        tuple(array.shape[1:] for array in (*feeds.values(), *row)) for feeds, row in zip(batches, targets, strict=True)
    }
    return len(shapes) == 1


def _tensor(array: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array


class _Run:
    """One run of training."""

    def __init__(
        self,
        module: GraphModule,
        found: Sequence[Kind],
        samples: _Samples,
        seed: int,
        rate: float,
        epochs: int,
        seconds: float | None,
        progress: Progress | None,
    ) -> None:
        # Not channels_last: with odd numbers of channels torch's backward pass on several threads writes out of bounds.
        self.module = module
        self._kinds = found
        self._samples = samples
        self._rate = rate
        self._epochs = epochs
        self._seconds = seconds
        self._progress: Progress = progress or (lambda step, share: None)
        self._generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(samples.count, generator=self._generator)
        held = max(1, samples.count // _HELD_OUT)
        self._held, self._trained = order[:held], order[held:]
        self._scales = [_variance(one) for one in samples.targets]
        self._parameters = [one for one in module.parameters() if one.requires_grad]
        self._best: list[Tensor] = []

    def improve(self) -> bool:
        """Trains; the module then holds the best weights. False if the first were the best."""
        if not self._parameters or not self._epochs:
            return False
        began = time.perf_counter()
        start = best = self._score()
        optimizer = torch.optim.AdamW(self._parameters, lr=self._rate, weight_decay=0.0)
        for epoch in range(self._epochs):
            share = self._epoch(optimizer, epoch, began)
            score = self._score()
            if score < best:
                best = score
                self._best = [one.detach().clone() for one in self._parameters]
            self._progress("polish", share)
            if share >= 1:
                break
        with torch.no_grad():
            for one, kept in zip(self._parameters, self._best, strict=False):
                one.copy_(kept)
        return best < start

    def _epoch(self, optimizer: torch.optim.Optimizer, epoch: int, began: float) -> float:
        """One pass over the samples; the share of the whole run that is done then."""
        order = self._trained[torch.randperm(len(self._trained), generator=self._generator)]
        steps = torch.split(order, self._samples.step)
        share = 0.0
        for number, places in enumerate(steps):
            share = (epoch + number / len(steps)) / self._epochs
            if self._seconds is not None:
                share = max(share, (time.perf_counter() - began) / self._seconds)
            if share >= 1:
                return 1.0
            for group in optimizer.param_groups:
                group["lr"] = self._rate * _cycle(share)
            optimizer.zero_grad()
            loss = self._loss(places)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return (epoch + 1) / self._epochs if self._seconds is None else max(share, (epoch + 1) / self._epochs)

    def _score(self) -> float:
        """The loss on what is not trained on."""
        total = 0.0
        with torch.no_grad():
            for places in torch.split(self._held, 4 * self._samples.step if self._samples.step > 1 else 1):
                total += float(self._loss(places)) * len(places)
        score = total / len(self._held)
        return score if math.isfinite(score) else math.inf

    def _loss(self, places: Tensor) -> Tensor:
        inputs, targets = self._samples.take(places)
        outputs = self.module(**inputs)
        losses = [
            _distance(output, target, kind, scale)
            for output, target, kind, scale in zip(outputs, targets, self._kinds, self._scales, strict=True)
            if isinstance(output, Tensor) and output.is_floating_point()
        ]
        if not losses:
            raise UsageError("the model has no output of floating-point numbers to train by")
        return torch.stack(losses).sum()


def _distance(output: Tensor, target: Tensor, kind: Kind, scale: float) -> Tensor:
    if kind == "values":
        return F.mse_loss(output, target) / scale
    own = log_probabilities(output, kind, _TEMPERATURE)
    wanted = log_probabilities(target, kind, _TEMPERATURE)
    return F.kl_div(own, wanted, reduction="none", log_target=True).sum(-1).mean() * _TEMPERATURE**2


def _variance(target: Any) -> float:
    parts = target if isinstance(target, list) else [target]
    parts = [one for one in parts if isinstance(one, Tensor) and one.is_floating_point()]
    if not parts:
        return 1.0
    return max(sum(float(one.double().var(correction=0)) for one in parts) / len(parts), _SMALLEST)


def _cycle(share: float) -> float:
    """Of the highest learning rate: up in a straight line, down along a cosine."""
    if share < _WARM:
        return 0.1 + 0.9 * share / _WARM
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM) / (1 - _WARM)))
