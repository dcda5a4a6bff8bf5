"""Which places may hold zeros: a share of all, or a fixed number of each few neighbours."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from graphopt.errors import UsageError

__all__ = ["Pattern"]

Array = npt.NDArray[Any]

_GROUPED: Final = re.compile(r"(\d+)\s*(?::|of)\s*(\d+)")
_PERCENT: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*%")
_SHARE: Final = re.compile(r"\d*\.\d+")
_HINT: Final = "Write 2:4 (or 2of4) for two weights of each four, or the share that becomes zero: 50% or 0.5."


@dataclasses.dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of zeros.

    Attributes:
        sparsity: The share of weights that becomes zero, between 0 and 1.
        kept: N of N:M, the most weights of each ``of`` neighbours that are not zero; 0 where the zeros may lie
            anywhere.
        of: M of N:M; 1 where the zeros may lie anywhere.
    """

    sparsity: float
    kept: int = 0
    of: int = 1

    @classmethod
    def parse(cls, pattern: str | float | Pattern) -> Pattern:
        """Reads ``2:4`` or ``2of4`` (two of each four stay), ``50%`` or ``0.5`` (half of all go).

        Raises:
            UsageError: It is none of these, or leaves everything or nothing.
        """
        if isinstance(pattern, Pattern):
            return pattern
        text = str(pattern).strip().lower()
        if match := _GROUPED.fullmatch(text):
            kept, of = int(match[1]), int(match[2])
            if not 0 < kept < of:
                raise UsageError(f"the pattern '{text}' keeps {kept} of each {of} weights", hint=_HINT)
            return cls(1 - kept / of, kept, of)
        if match := _PERCENT.fullmatch(text):
            sparsity = float(match[1]) / 100
        elif _SHARE.fullmatch(text):
            sparsity = float(text)
        else:
            raise UsageError(f"'{pattern}' is no pattern of zeros", hint=_HINT)
        if not 0 < sparsity < 1:
            raise UsageError(f"the pattern '{text}' leaves {'nothing' if sparsity else 'everything'}", hint=_HINT)
        return cls(sparsity)

    @property
    def is_grouped(self) -> bool:
        """Whether it is N:M."""
        return self.kept > 0

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}" if self.is_grouped else f"{100 * self.sparsity:g}%"

    def keep(self, scores: Array) -> Array:
        """The places that stay, those of the highest scores; of equal ones the later.

        Args:
            scores: ``(rows, columns)``, no NaN; without N:M each row loses the same number, with it the columns are a
                multiple of M.

        Returns:
            Booleans of the same shape.
        """
        rows, columns = scores.shape
        if self.is_grouped:
            grouped = scores.reshape(-1, self.of)
            order = np.argsort(grouped, axis=1, kind="stable")[:, self.of - self.kept :]
            chosen = np.zeros(grouped.shape, bool)
            np.put_along_axis(chosen, order, True, axis=1)
            return chosen.reshape(rows, columns)
        return ~_lowest(scores, round(self.sparsity * columns))


def _lowest(scores: Array, count: int) -> Array:
    """Marks the ``count`` lowest of each row; of equal ones the first, so that nothing depends on how sorting works."""
    if not count:
        return np.zeros(scores.shape, bool)
    bound = np.partition(scores, count - 1, axis=1)[:, count - 1 : count]
    below, equal = scores < bound, scores == bound
    left = count - below.sum(axis=1, keepdims=True)
    marked: Array = below | (equal & (np.cumsum(equal, axis=1, dtype=np.int64) <= left))
    return marked
