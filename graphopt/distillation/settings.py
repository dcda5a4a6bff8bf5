"""How a run trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import torch

from graphopt.distillation.schedule import Schedule
from graphopt.errors import UsageError

__all__ = ["OPTIMIZERS", "PRECISIONS", "Groups", "Settings"]

Groups: TypeAlias = list[dict[str, Any]]
"""Parameters, and the options of each group of them."""

OPTIMIZERS: Final[Mapping[str, Callable[[Groups, Settings], torch.optim.Optimizer]]] = {
    # The fused kernels do in one pass over the weights what the default does in a dozen.
    "adamw": lambda groups, chosen: torch.optim.AdamW(
        groups, lr=chosen.learning_rate, betas=(chosen.momentum, chosen.second_momentum), fused=True
    ),
    "sgd": lambda groups, chosen: torch.optim.SGD(
        groups, lr=chosen.learning_rate, momentum=chosen.momentum, nesterov=chosen.momentum > 0, fused=True
    ),
}
"""AdamW (arXiv 1711.05101), and stochastic gradient descent with Nesterov's momentum."""

PRECISIONS: Final = ("float32", "bfloat16", "float16")
_AT_LEAST: Final = {"epochs": 1, "batch": 1, "accumulate": 1, "patience": 0, "seed": 0, "weight_decay": 0, "clip": 0}
_LAST_SEED: Final = (1 << 63) - 1  # of those that torch takes
_BELOW_ONE: Final = ("momentum", "second_momentum", "average")


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run; with the same ones, data and models a run gives the same weights on the same machine.

    Attributes:
        epochs: How often each sample is seen.
        batch: Samples a step, over all processes.
        optimizer: ``adamw`` or ``sgd``.
        learning_rate: The highest.
        momentum: Of ``sgd``, and the first one of ``adamw``.
        second_momentum: That of the squares, in ``adamw``.
        weight_decay: On weights, not on biases and normalizations.
        schedule: How the learning rate changes.
        accumulate: Batches whose gradients are averaged for one change of the weights.
        clip: The longest that the gradient of all weights may be; 0 for any length.
        average: Decay of an exponential moving average of the weights, which is what is evaluated and kept; 0 for none.
        precision: Of the student's computations: ``float32``, or mixed with ``bfloat16`` or (CUDA only) ``float16``.
        patience: Stop after so many epochs without a better score; 0 for never.
        seed: Of all that is random.

    Raises:
        UsageError: A number outside its range, or an unknown name.
    """

    epochs: int = 10
    batch: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    second_momentum: float = 0.999
    weight_decay: float = 0.01
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    accumulate: int = 1
    clip: float = 0.0
    average: float = 0.0
    precision: str = "float32"
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise UsageError(
                    f"{name.replace('_', '-')} cannot be {getattr(self, name)}", hint=f"Give {least} or more."
                )
        if self.seed > _LAST_SEED:
            raise UsageError(f"seed cannot be {self.seed}", hint=f"Give {_LAST_SEED} or less.")
        for name in _BELOW_ONE:
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} cannot be {getattr(self, name)}", hint="Give 0 or more, and less than 1.")
        if not 0 < self.learning_rate < float("inf"):
            raise UsageError(f"a learning rate of {self.learning_rate} teaches nothing", hint="Give 0.001, say.")
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise UsageError(f"there is no {name} '{getattr(self, name)}'", hint=f"There are: {', '.join(known)}.")
