"""From a loss to new weights: gradients, clipping, mixed precision, the optimizer, averages."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphopt.distillation.parallel import World
from graphopt.distillation.settings import OPTIMIZERS, Groups, Settings

__all__ = ["Optimization"]


class Optimization:
    """Steps the parameters of a student and of its loss.

    Attributes:
        averages: The exponential moving averages of the student's parameters and statistics; empty without any.
    """

    def __init__(self, student: nn.Module, objective: nn.Module, settings: Settings, world: World) -> None:
        self._student = [one for one in student.parameters() if one.requires_grad]
        self._objective = [one for one in objective.parameters() if one.requires_grad]
        self._all = [*self._student, *self._objective]
        self._settings = settings
        self._world = world
        self._optimizer = OPTIMIZERS[settings.optimizer](_groups(self._all, settings.weight_decay), settings)
        self._scaler = torch.amp.GradScaler("cuda", enabled=settings.precision == "float16")
        # A mask of infinities would become NaN.
        statistics = [one for one in student.buffers() if one.is_floating_point() and bool(one.isfinite().all())]
        self._averaged: list[Tensor] = [*self._student, *statistics] if settings.average else []
        self.averages = [one.detach().clone() for one in self._averaged]

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to those that are there."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, share: float, number: int) -> None:
        """Changes the weights by the gradients and forgets these.

        Args:
            share: Of the highest learning rate.
            number: Of the step, from 0: early averages look back less far.
        """
        if self._world.size > 1:
            self._world.add_gradients(self._student, self._objective)
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * share
        if self._settings.clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._all, self._settings.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        if self.averages:
            decay = min(self._settings.average, (1 + number) / (10 + number))
            with torch.no_grad():
                torch._foreach_lerp_(self.averages, [one.detach() for one in self._averaged], 1 - decay)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Lets the student have the averages for its weights, for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for one, average in zip(self._averaged, self.averages, strict=True):
            one.data, average.data = average.data, one.data

    def tensors(self) -> dict[str, Tensor]:
        """What a resumed run needs, by name."""
        kept = {
            f"{place}.{key}": value
            for place, one in enumerate(self._all)
            for key, value in self._optimizer.state.get(one, {}).items()
            if isinstance(value, Tensor)
        }
        return kept | {f"average.{place}": one for place, one in enumerate(self.averages)}

    def state(self) -> dict[str, Any]:
        """The same of plain values."""
        return dict(self._scaler.state_dict())

    def load(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Takes over what :meth:`tensors` and :meth:`state` gave."""
        for name, value in tensors.items():
            place, _, key = name.partition(".")
            if place == "average":
                self.averages[int(key)].copy_(value)
                continue
            one = self._all[int(place)]
            self._optimizer.state[one][key] = value.to(one.device, copy=True)
        if state:
            self._scaler.load_state_dict(dict(state))


def _groups(parameters: Sequence[nn.Parameter], decay: float) -> Groups:
    """Biases, scales of normalizations and single numbers, all of which are vectors, do not decay."""
    vectors = [one for one in parameters if max(one.shape, default=1) == math.prod(one.shape)]
    held = {id(one) for one in vectors}
    return [
        {"params": [one for one in parameters if id(one) not in held], "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
