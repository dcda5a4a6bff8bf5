"""How the losses of several tasks add up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from graphopt.distillation.losses.options import Configured, option
from graphopt.errors import UsageError

__all__ = ["Balance", "GradNorm", "Static", "Uncertainty"]

_SMALL: Final = 1e-12
_LEAST: Final = 1e-3  # of a weight


@dataclasses.dataclass(eq=False, kw_only=True)
class Balance(Configured):
    """Base of the ways to add up tasks; :meth:`start` comes first."""

    noun: ClassVar[str] = "balance"

    def start(self, tasks: Sequence[str], regressions: Sequence[bool]) -> None:
        """Makes what is kept for each task.

        Args:
            tasks: Their names.
            regressions: Whether all losses of the task are those of quantities.
        """

    def share(self, parameters: Iterable[nn.Parameter]) -> None:
        """Tells the parameters of the student, in the order of its layers; for those that look at gradients."""

    def forward(self, losses: Sequence[Tensor]) -> Tensor:
        """The sum, a scalar, of the tasks' losses, scalars that have their static weights already."""
        raise NotImplementedError


@dataclasses.dataclass(eq=False, kw_only=True)
class Static(Balance):
    """sum_m L_m: the weights are those of the losses."""

    name: ClassVar[str] = "static"

    def forward(self, losses: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(losses)).sum()


@dataclasses.dataclass(eq=False, kw_only=True)
class Uncertainty(Balance):
    """sum_m c_m e^(-s_m) L_m + s_m / 2, where s_m = log sigma_m^2 is trained, from 0; c is 1/2 for quantities, else 1.

    Weight decay must leave s alone.

    Source: Kendall, Gal, Cipolla, "Multi-task learning using uncertainty to weigh losses", arXiv 1705.07115.
    """

    name: ClassVar[str] = "uncertainty"

    def start(self, tasks: Sequence[str], regressions: Sequence[bool]) -> None:
        self.log_variance = nn.Parameter(torch.zeros(len(tasks)))
        self.factor: Tensor
        self.register_buffer("factor", torch.tensor([0.5 if one else 1.0 for one in regressions]))

    def forward(self, losses: Sequence[Tensor]) -> Tensor:
        return (self.factor * torch.exp(-self.log_variance) * torch.stack(list(losses)) + self.log_variance / 2).sum()


@dataclasses.dataclass(eq=False, kw_only=True)
class GradNorm(Balance):
    """sum_m w_m L_m, with weights under which all tasks pull at the shared layer as their progress asks.

    G_m = ||grad_W w_m L_m||, r_m = (L_m / L_m(0)) / its mean over tasks; w descends on sum_m |G_m - mean(G) r_m^alpha|
    (the second term held constant) at its own rate, and is scaled to add up to the number of tasks. W is the last
    parameter of the student that all tasks have a gradient for. Each step costs one short backward pass a task more.

    Differs from the paper: the slope is divided by the mean of ||grad_W L_m||, so that ``rate`` does not depend on the
    scale of the losses.

    Source: Chen et al., "GradNorm", arXiv 1711.02257.

    Attributes:
        alpha: How strongly tasks that lag behind are favoured.
        rate: Learning rate of the weights.
    """

    name: ClassVar[str] = "gradnorm"

    alpha: float = option(1.5, least=0)
    rate: float = option(0.025, above=0)

    def start(self, tasks: Sequence[str], regressions: Sequence[bool]) -> None:
        self.weights: Tensor
        self.initial: Tensor
        self.register_buffer("weights", torch.ones(len(tasks)))
        self.register_buffer("initial", torch.zeros(len(tasks)))
        self._parameters_of_student: list[nn.Parameter] = []
        self._layer: list[nn.Parameter] = []  # a list, lest it become a parameter of this module

    def share(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters_of_student = [one for one in parameters if one.requires_grad]
        self._layer = []

    def forward(self, losses: Sequence[Tensor]) -> Tensor:
        total = (self.weights.clone() * torch.stack(list(losses))).sum()
        if self.training and torch.is_grad_enabled():
            self._follow(losses)
        return total

    def _follow(self, losses: Sequence[Tensor]) -> None:
        self._layer = self._layer or [self._shared_layer(losses)]
        norms = torch.stack([_norm(torch.autograd.grad(one, self._layer, retain_graph=True)[0]) for one in losses])
        with torch.no_grad():
            values = torch.stack([one.detach() for one in losses])
            if not bool(self.initial.any()):
                self.initial.copy_(values)
            progress = values / self.initial.clamp(min=_SMALL)
            pull = self.weights * norms
            wanted = pull.mean() * (progress / progress.mean().clamp(min=_SMALL)).pow(self.alpha)
            slope = torch.sign(pull - wanted) * norms / norms.mean().clamp(min=_SMALL)
            weights = (self.weights - self.rate * slope).clamp(min=_LEAST)
            self.weights.copy_(weights * len(weights) / weights.sum())

    def _shared_layer(self, losses: Sequence[Tensor]) -> nn.Parameter:
        parameters = self._parameters_of_student
        shared = [True] * len(parameters)
        for one in losses if parameters else ():
            found = torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True)
            shared = [before and gradient is not None for before, gradient in zip(shared, found, strict=True)]
        layers = [one for one, is_shared in zip(parameters, shared, strict=True) if is_shared]
        if not layers:
            raise UsageError(
                "the balance 'gradnorm' compares gradients of a layer that all tasks share; there is none",
                hint="Use balance=uncertainty or balance=static.",
            )
        return max(reversed(layers), key=lambda one: one.ndim > 1)  # a weight rather than a bias


def _norm(gradient: Tensor) -> Tensor:
    """Of a gradient of which every process has the part of its own samples."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(gradient)
    return gradient.square().sum().sqrt()
