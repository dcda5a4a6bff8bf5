"""Several processes that train as one: each takes a part of every batch, and the result is that of a single process.

Not by averaging what each makes of its part: losses that compare samples (similarities, relations, contrasts), memories
of past samples, and normalizations over the batch would all see less than the batch. So each process runs the student
on its part, what comes out is gathered, and every process computes the loss of the whole batch. Going back, a process
follows the gradient of that loss into its own part, and the sum over the processes is the gradient of the batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, distributed, nn

from graphopt.distillation.batch import Batch, TopK
from graphopt.errors import EnvironmentProblem, UsageError

__all__ = ["World"]


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """The processes of a run.

    Attributes:
        rank: The number of this one.
        size: How many there are.
        local_rank: The number of this one among those on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    @contextlib.contextmanager
    def joined(cls, *, cuda: bool = False) -> Iterator[World]:
        """The processes that ``torchrun`` started, or this one alone.

        A process group that is there already is used and left as it is.

        Args:
            cuda: Whether tensors are on CUDA devices (NCCL), not on the CPU (Gloo).

        Raises:
            EnvironmentProblem: The processes do not find each other.
        """
        if not distributed.is_available():
            yield cls()
            return
        ours = not distributed.is_initialized() and distributed.is_torchelastic_launched()
        if ours:
            try:
                distributed.init_process_group("nccl" if cuda else "gloo")
            except (RuntimeError, ValueError) as error:
                raise EnvironmentProblem(
                    f"the processes of torchrun do not find each other: {error}",
                    hint="Start them with torchrun, which tells each where the others are.",
                ) from error
        try:
            yield cls._here() if distributed.is_initialized() else cls()
        finally:
            if ours:
                distributed.destroy_process_group()

    @classmethod
    def _here(cls) -> World:
        rank = distributed.get_rank()
        return cls(rank, distributed.get_world_size(), distributed.get_node_local_rank(fallback_rank=rank))

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def sizes(self, count: int) -> list[int]:
        """How many samples of a batch of ``count`` each process has; 0 where it only keeps step with the others."""
        base, more = divmod(count, self.size)
        return [base + (rank < more) for rank in range(self.size)]

    def whole(self, batch: Batch, count: int) -> Batch:
        """The whole batch from the parts of all processes.

        Args:
            batch: This process's part.
            count: Samples of the whole.

        Raises:
            UsageError: An output of the student does not have the samples along its first axis.
        """
        sizes = self.sizes(count)
        here = len(batch.ids)
        gather = functools.partial(self._gather, sizes=sizes)
        for name, value in batch.student.items():
            if not value.ndim or value.shape[0] != here:
                raise UsageError(
                    f"output '{name}' of the student has the shape {list(value.shape)} for {here} samples",
                    hint="Several processes need the samples along the first axis; train it in one process.",
                )
        return Batch(
            student=_each(batch.student, gather),
            teachers=[_each(one, gather) for one in batch.teachers],
            weights=gather(batch.weights) if batch.weights.ndim == 2 else batch.weights,
            labels=None if batch.labels is None else gather(batch.labels),
            ids=gather(batch.ids),
            mask=None if batch.mask is None else gather(batch.mask),
        )

    def _gather(self, value: Any, sizes: Sequence[int]) -> Any:
        if isinstance(value, TopK):
            probabilities, indices, rest = (
                self._gather(one, sizes) for one in (value.probabilities, value.indices, value.rest)
            )
            return TopK(probabilities, indices, rest, value.temperature)
        return _Gather.apply(value, sizes, self.rank)  # type: ignore[no-untyped-call]

    def add_gradients(self, student: Iterable[nn.Parameter], shared: Iterable[nn.Parameter]) -> None:
        """Adds up gradients over the processes.

        Args:
            student: Parameters whose gradients come from each process's own part of the batch.
            shared: Parameters of the loss: every process has their whole gradient, and the mean is taken only so that
                rounding cannot drive the processes apart.
        """
        whole = [one.grad for one in shared if one.grad is not None]
        for gradient in whole:
            gradient.div_(self.size)
        gradients = [*(one.grad for one in student if one.grad is not None), *whole]
        for kind in sorted({one.dtype for one in gradients}, key=str):
            same = [one for one in gradients if one.dtype == kind]
            flat = torch.cat([one.reshape(-1) for one in same])
            distributed.all_reduce(flat)
            for one, added in zip(same, torch.split(flat, [one.numel() for one in same]), strict=True):
                one.copy_(added.view_as(one))

    def add(self, value: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def share_bytes(self, value: bytearray | None, device: torch.device) -> bytearray | None:
        """What the first process has, to all."""
        if self.size == 1:
            return value
        length = torch.tensor([-1 if value is None else len(value)], device=device)
        distributed.broadcast(length, 0)
        if int(length) < 0:
            return None
        sent = torch.empty(int(length), dtype=torch.uint8, device=device)
        if self.is_first and value is not None:
            sent.copy_(torch.frombuffer(value, dtype=torch.uint8))
        distributed.broadcast(sent, 0)
        return bytearray(sent.cpu().numpy())

    @contextlib.contextmanager
    def synchronized(self, module: nn.Module) -> Iterator[None]:
        """Lets batch normalizations take their statistics over all processes, on CPUs too."""
        found = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
        if self.size == 1 or not found:
            yield
            return
        for one in found:
            one.forward = functools.partial(_normalize, one)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for one in found:
                del one.forward


def _each(values: Mapping[str, Any], gather: Any) -> dict[str, Any]:
    # In the order of names: all processes have to gather the same thing at the same time.
    return {name: gather(values[name]) for name in sorted(values)}


class _Gather(torch.autograd.Function):
    """Joins the parts of all processes along the first axis; backwards, each takes the gradient of its own part."""

    @staticmethod
    def forward(context: Any, value: Tensor, sizes: Sequence[int], rank: int) -> Tensor:
        context.start, context.length, context.here = sum(sizes[:rank]), sizes[rank], len(value)
        longest = max(sizes)
        padded = value.new_zeros((longest, *value.shape[1:]))
        padded[: context.length] = value[: context.length]
        as_bytes = padded.dtype == torch.bool  # Gloo knows no truth values
        sent = padded.view(torch.uint8) if as_bytes else padded
        parts = [torch.empty_like(sent) for _ in sizes]
        distributed.all_gather(parts, sent)
        joined = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
        return joined.view(torch.bool) if as_bytes else joined

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        own = gradient[context.start : context.start + context.length]
        if context.length < context.here:  # a sample that only keeps step
            own = torch.cat([own, own.new_zeros((context.here - context.length, *own.shape[1:]))])
        return own, None, None


class _Sum(torch.autograd.Function):
    """The sum over the processes; so is its gradient."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


def _normalize(norm: nn.modules.batchnorm._BatchNorm, value: Tensor) -> Tensor:
    """A batch normalization over all processes (``nn.SyncBatchNorm`` does it on CUDA only)."""
    if not (norm.training or norm.running_mean is None):
        return F.batch_norm(
            value, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )
    axes = [axis for axis in range(value.ndim) if axis != 1]
    shape = [1, -1] + [1] * (value.ndim - 2)
    counted = torch.cat([value.sum(axes), value.new_tensor([value.numel() / value.shape[1]])])
    total: Tensor = _Sum.apply(counted)  # type: ignore[no-untyped-call]
    count = total[-1]
    mean = total[:-1] / count
    centred = value - mean.view(shape)
    variance: Tensor = _Sum.apply(centred.square().sum(axes)) / count  # type: ignore[no-untyped-call]
    _track(norm, mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
    result = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        result = result * norm.weight.view(shape) + norm.bias.view(shape)
    return result


@torch.no_grad()
def _track(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    weight = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), weight)
