"""Better choices by swaps: a unit that went comes back, and one that stayed goes instead.

Elimination never takes anything back. Here each group's choice is improved by local search on the same error, that of
the layers that read it once they are refitted, with all that went from other groups gone as well: OSSCAR (Meng et al.,
arXiv 2403.12983). The error of every swap is read off one matrix, in which a unit stays or goes by a sweep
(Goodnight, *A Tutorial on the SWEEP Operator*, 1979).
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.channels.units import Group
from graphopt.pruning.importance.covariances import Piece, by_group, covered, pieces
from graphopt.pruning.importance.evidence import Evidence
from graphopt.pruning.inverse import inverse

__all__ = ["swapped"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

_TRIES = 4
"""Units that may come back, the most useful first, of which none makes a better choice: then the search is over."""
_WORTH = 1e-3
"""Share of a group's error that a swap must save."""


def swapped(evidence: Evidence, gone: Sequence[int]) -> list[int]:
    """A choice of as many units of each group that does less harm.

    Args:
        evidence: The model and inputs.
        gone: The numbers of the units that go.

    Returns:
        The numbers of the units that go instead.
    """
    chosen = np.zeros(len(evidence.graph.group_of), bool)
    chosen[np.asarray(gone, np.int64)] = True
    counts = collections.Counter(evidence.graph.group_of[chosen].tolist())
    consumers = {
        number: own
        for number, own in by_group(evidence).items()
        if 0 < counts[number] < len(evidence.graph.groups[number].units)
    }
    for done, (number, covariances) in enumerate(covered(evidence, consumers)):
        evidence.progress("swap", done / len(consumers))
        group = evidence.graph.groups[number]
        units = np.array([unit.index for unit in group.units], np.int64)
        own = [_Sweep(piece, chosen) for piece in pieces(consumers[number], covariances, units)]
        _Search(group, units, own, chosen).run()
    return np.flatnonzero(chosen).tolist()


class _Sweep:
    """Layers that read the same rows, and the error of adding units to what they read, or taking some away.

    The matrix holds, of columns that are read, ``-(H_KK)^-1`` and the refitted weights; of the others their covariance
    and what is wanted of them beyond what the former give.

    Attributes:
        units: The numbers of the units.
    """

    def __init__(self, piece: Piece, gone: npt.NDArray[np.bool_]) -> None:
        self.units = piece.units
        self._columns = piece.columns
        covariance, wanted = piece.covariance, piece.covariance @ piece.weight.T
        size, outputs = wanted.shape
        self._matrix: Array = np.zeros((size + outputs, size))  # what the outputs have with each other is not needed
        read = np.flatnonzero(~np.where(piece.owners >= 0, gone[piece.owners], False))
        rest = np.setdiff1d(np.arange(size), read)
        inverted = inverse(covariance[np.ix_(read, read)])
        weight = inverted @ wanted[read]
        through = inverted @ covariance[np.ix_(read, rest)]
        across = covariance[np.ix_(rest, read)]
        self._matrix[np.ix_(read, read)] = -inverted
        self._matrix[np.ix_(read, rest)] = through
        self._matrix[np.ix_(rest, read)] = through.T
        self._matrix[np.ix_(rest, rest)] = covariance[np.ix_(rest, rest)] - across @ through
        self._matrix[size:, read] = weight.T
        self._matrix[size:, rest] = (wanted[rest] - across @ weight).T
        self._size = size

    def worth(self) -> Array:
        """What each unit takes off the error, or would: ``(units,)``."""
        blocks = self._matrix[self._columns[:, :, None], self._columns[:, None, :]]
        wanted = self._matrix[self._size :, self._columns].transpose(1, 2, 0)  # (units, width, outputs)
        worth: Array = np.einsum("uwo,uwo->u", wanted, np.linalg.solve(blocks, wanted))
        return np.abs(worth)

    def flip(self, place: int) -> None:
        """Lets a unit (by place in ``units``) be read that was not, or the other way round."""
        own = self._columns[place]
        pivot = self._matrix[own[:, None], own]
        back = np.sign(pivot[0, 0])  # -1 for what is read
        inverted = np.linalg.inv(pivot)
        columns = self._matrix[:, own].copy()
        rows = inverted @ self._matrix[own]
        self._matrix -= columns @ rows
        self._matrix[own] = back * rows
        self._matrix[:, own] = back * (columns @ inverted)
        self._matrix[own[:, None], own] = -inverted


class _Search:
    """The choice of one group, improved swap by swap."""

    def __init__(self, group: Group, units: Indices, own: Iterable[_Sweep], chosen: npt.NDArray[np.bool_]) -> None:
        self._units = units
        self._chosen = chosen
        self._sweeps = list(own)
        place = {unit: number for number, unit in enumerate(units.tolist())}
        self._places = [np.array([place[unit] for unit in sweep.units.tolist()]) for sweep in self._sweeps]
        self._segments = [np.array([place[unit] for unit in segment if unit in place]) for segment in group.segments]
        readers = np.zeros((len(units), len(self._sweeps)), bool)
        for number, places in enumerate(self._places):
            readers[places, number] = True
        _, self._kind = np.unique(readers, axis=0, return_inverse=True)  # swaps are between units of one kind

    def run(self) -> None:
        """Swaps until no swap is worth it."""
        for _ in range(len(self._units)):
            if not self._sweeps or not self._swap():
                return

    def _swap(self) -> bool:
        worth = self._worth()
        back = np.flatnonzero(self._chosen[self._units])
        for place in back[np.argsort(-worth[back], kind="stable")[:_TRIES]].tolist():
            self._flip(place)
            after = np.where(self._may_go() & (self._kind == self._kind[place]), self._worth(), np.inf)
            after[place] = np.inf
            instead = int(after.argmin())
            if after[instead] < worth[place] * (1 - _WORTH):
                self._flip(instead)
                return True
            self._flip(place)
        return False

    def _worth(self) -> Array:
        worth = np.zeros(len(self._units))
        for sweep, places in zip(self._sweeps, self._places, strict=True):
            worth[places] += sweep.worth()
        return worth

    def _flip(self, place: int) -> None:
        self._chosen[self._units[place]] ^= True
        for sweep, places in zip(self._sweeps, self._places, strict=True):
            for own in np.flatnonzero(places == place).tolist():
                sweep.flip(own)

    def _may_go(self) -> npt.NDArray[np.bool_]:
        """What is there, and not the last of a segment."""
        there = ~self._chosen[self._units]
        allowed = there.copy()
        for segment in self._segments:
            if there[segment].sum() <= 1:
                allowed[segment] = False
        return allowed
