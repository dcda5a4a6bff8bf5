"""Which samples a step sees, and what is random about them: functions of seeds and numbers, never of a history.

So a run that was killed goes on with the very batches that it would have seen, and nothing random need be kept.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from graphopt.errors import UsageError

__all__ = [
    "Arrays",
    "Augment",
    "Augmentation",
    "Ids",
    "Purpose",
    "order",
    "share",
    "split",
    "whole_batches",
    "whole_number",
]

Ids: TypeAlias = npt.NDArray[np.int64]
Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
"""Input name -> array of one batch."""
Augment: TypeAlias = Callable[[Arrays, np.random.Generator], Arrays]
"""Changes the feeds of one sample, whose arrays have a leading axis of 1."""


class Purpose(enum.IntEnum):
    """What a random number is for, so that equal seeds do not give equal numbers everywhere."""

    START = 0
    ORDER = 1
    STEP = 2
    AUGMENTATION = 3


def whole_number(purpose: Purpose, *key: int) -> int:
    """A number of 62 bits that depends on the whole key."""
    state = np.random.SeedSequence([int(purpose), *key]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(2))


def order(count: int, seed: int, epoch: int) -> Ids:
    """The numbers 0 to ``count`` - 1 in the order of an epoch."""
    return np.random.default_rng([int(Purpose.ORDER), seed, epoch]).permutation(count)


def split(ids: Ids, batch: int) -> list[Ids]:
    """The batches of an epoch.

    A last batch of a single sample is left out (another one each epoch): normalizations over a batch, and losses that
    compare samples, make nothing of it.
    """
    batches = [ids[start : start + batch] for start in range(0, len(ids), batch)]
    if len(batches) > 1 and len(batches[-1]) == 1 < batch:
        batches.pop()
    return batches


def whole_batches(count: int, batch: int) -> list[Ids]:
    """The numbers 0 to ``count`` - 1, in order and all of them, ``batch`` at a time."""
    return [np.arange(start, min(start + batch, count)) for start in range(0, count, batch)]


def share(ids: Ids, rank: int, ranks: int) -> Ids:
    """What one of several processes takes of a batch: consecutive parts that differ by one sample at most.

    A process for which there is none takes the first sample; see :func:`graphopt.distillation.parallel.World.sizes`.
    """
    part = np.array_split(ids, ranks)[rank]
    return part if len(part) else ids[:1]


@dataclasses.dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes to inputs, the same ones for the same sample in the same view.

    The teachers see the changed inputs too. What they say of them can be kept, since there are only so many views:
    epoch ``e`` sees view ``e % views``.

    Attributes:
        function: Called with the feeds of one sample and a generator.
        seed: Of the generators.
        views: How many variants of each sample there are.

    Raises:
        UsageError: Less than one view.
    """

    function: Augment
    seed: int = 0
    views: int = 1

    def __post_init__(self) -> None:
        if self.views < 1:
            raise UsageError(f"{self.views} views of each sample are none", hint="Give 1 or more.")

    def __call__(self, feeds: Arrays, ids: Ids, view: int, shared: frozenset[str] = frozenset()) -> Arrays:
        """The changed feeds.

        Args:
            feeds: Of a batch.
            ids: The numbers of its samples.
            view: Which variant.
            shared: Inputs without an axis of samples.

        Raises:
            UsageError: The function gives other names or shapes.
        """
        changed = [
            self._one({name: a if name in shared else a[n : n + 1] for name, a in feeds.items()}, int(number), view)
            for n, number in enumerate(ids)
        ]
        made: Arrays = {name: np.concatenate([one[name] for one in changed]) for name in feeds if name not in shared}
        return {name: made.get(name, array) for name, array in feeds.items()}

    def _one(self, feeds: Arrays, number: int, view: int) -> Arrays:
        random = np.random.default_rng([int(Purpose.AUGMENTATION), self.seed, view, number])
        changed = self.function(dict(feeds), random)
        for name, before in feeds.items():
            after: Any = changed.get(name)
            if np.shape(after) != before.shape:
                raise UsageError(
                    f"the augmentation gives '{name}' the shape {list(np.shape(after))} instead of "
                    f"{list(before.shape)}",
                    hint="It is called with one sample, whose arrays have a leading axis of 1, and keeps the shapes.",
                )
        return {name: np.asarray(changed[name], before.dtype) for name, before in feeds.items()}
