"""What the search for a compressed model deals in: ways to compress, and what became of those that were built."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["Point", "Step", "Variant", "front"]

_OFF: Final = 1.01  # of a limit counts as met: what measuring may be off by


@dataclasses.dataclass(frozen=True, order=True)
class Variant:
    """A way to compress the model.

    Attributes:
        way: How far, as predicted.
        precision: A key of :data:`graphopt.compression.settings.PRECISIONS`.
        trained: Whether it is distilled.
        sizes: What single steps changed: numbers of groups, ascending, and how many of their units are kept.
        blocks: How many residual blocks go as a whole, those first that are missed least.
    """

    way: float
    precision: str
    trained: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    blocks: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing goes."""
        return not (self.way or self.blocks)

    def resized(self, steps: Sequence[Step]) -> Variant:
        """The same with other sizes of some groups."""
        sizes = dict(self.sizes) | {one.group: one.kept for one in steps}
        return dataclasses.replace(self, sizes=tuple(sorted(sizes.items())))

    @property
    def cut(self) -> str:
        """What goes, for people and files."""
        blocks = f"-{self.blocks}block{'s' * (self.blocks > 1)}" * bool(self.blocks)
        return f"{self.way:.3f}{blocks}{''.join(f',{group}@{kept}' for group, kept in self.sizes)}"

    @property
    def name(self) -> str:
        """For people and files."""
        return f"{self.cut}-{self.precision}{'-trained' if self.trained else ''}"


@dataclasses.dataclass(frozen=True)
class Step:
    """Another size of one group, and what that is expected to do.

    Attributes:
        group: Its number, as in :attr:`Variant.sizes`.
        kept: How many of its units are left then.
        harm: How much more harm is estimated; less than nothing where the group grows.
        gain: How much farther towards the goal that is predicted to lead.
    """

    group: int
    kept: int
    harm: float
    gain: float


@dataclasses.dataclass(frozen=True)
class Point:
    """A variant that was built.

    Attributes:
        variant: Which.
        left: What is left of the original, as shares by measure; latency is measured.
        score: On the samples to choose by; more is better.
        lost: Of the original's score, as a share of it.
        drop: The same, in percentage points, or in the metric's own unit.
        complaint: The gate that it failed on these samples; empty if it passed them all.
        is_last: Whether nothing more could be removed.
        grain: What one sample counts for in the score; 0 where that depends.
        twin: The first variant from which the same goes, if there was one before: its models are this one's, too.
    """

    variant: Variant
    left: Mapping[str, float]
    score: float
    lost: float = 0.0
    drop: float = 0.0
    complaint: str = ""
    is_last: bool = False
    grain: float = 0.0
    twin: Variant | None = None

    @property
    def built(self) -> Variant:
        """The variant whose models were built."""
        return self.twin or self.variant

    @property
    def is_broken(self) -> bool:
        """Whether it could not be built, so that nothing was measured."""
        return any(map(math.isinf, self.left.values()))

    def way(self, limits: Mapping[str, float]) -> float:
        """How far towards limits it has got, in logarithms: 1 meets the one that is farthest, just."""
        return min((_logarithm(self.left[name], limit) for name, limit in limits.items()), default=math.inf)

    def meets(self, limits: Mapping[str, float]) -> bool:
        """Whether it is within all limits."""
        return all(self.left[name] <= limit * (_OFF if name == "latency" else 1) for name, limit in limits.items())


def _logarithm(left: float, limit: float) -> float:
    if limit >= 1:
        return math.inf if left <= limit else 0.0
    return math.log(max(left, 1e-9)) / math.log(limit)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in latency and score both, fastest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.left["latency"], -one.score)):
        if not found or point.score > found[-1].score:
            found.append(point)
    return found
