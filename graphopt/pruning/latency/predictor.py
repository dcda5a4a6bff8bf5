"""The latency of a model for any choice of channels, from a table."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphopt.errors import UsageError
from graphopt.pruning.latency.grid import Curve
from graphopt.pruning.latency.products import Counts, Factor, Kind, moved

if TYPE_CHECKING:
    from graphopt.channels.atoms import Mask
    from graphopt.channels.groups import ChannelGraph
    from graphopt.pruning.latency.table import LatencyTable
    from graphopt.pruning.latency.whole import Whole

__all__ = ["LatencyModel"]

Rest = dict[tuple[Kind, tuple[int, ...]], int]
Ints = npt.NDArray[np.int64]


class LatencyModel:
    """Predicts the latency of a model without some of its channels.

    The sum of its products at the sizes that are left, plus what the rest costs, which goes with the bytes of
    activations that are left, plus a constant for each run. All of it is scaled so that the full model takes what was
    measured.

    Args:
        graph: The model's channels.
        table: Measured of that model, on this machine.

    Raises:
        UsageError: The table is of another model or machine, nothing in it was measured, or nothing could be.
    """

    def __init__(self, graph: ChannelGraph, table: LatencyTable) -> None:
        sizes, self._sites = table.check(graph)
        self._curves = [Curve(site, functools.partial(table.time, site)) for site in self._sites]
        self._rate = self._milliseconds_per_mac()
        rest = moved(sizes)
        numbers = dict.fromkeys(number for _, own in rest for number in own)
        others = [factor for number in numbers for factor in sizes.factors(graph.leaf(number))]
        self._index_factors([*(factor for site in self._sites for factor in site.factors), *others])
        self._places = [[self._row[factor.number] for factor in site.factors] for site in self._sites]
        products = sum(self._products(self._sizes.tolist()))
        if not self._sites:
            raise UsageError("the model has no operator that multiplies, so there is nothing to predict")
        if products <= 0:
            raise UsageError("the latency table is empty", hint="Measure it with more seconds.")
        whole = table.whole
        self.full = whole.milliseconds
        self._overhead = min(whole.overhead, whole.milliseconds)
        self._index_rest(rest, self._others(whole, products))
        self._scale = (self.full - self._overhead) / (products + float(self._rest.sum()))

    def total(self, gone: Mask) -> float:
        """Milliseconds without the atoms ``gone``, a mask as :meth:`ChannelGraph.gone` gives it."""
        counts = self._kept(gone)
        products = sum(self._products(counts.tolist()))
        return self._scale * (products + self._remaining(counts)) + self._overhead

    def by_product(self, gone: Mask) -> dict[str, float]:
        """Milliseconds of each product by the name of its node (the first output's where it has none)."""
        times = self._products(self._kept(gone).tolist())
        names = [site.node.name or site.node.outputs[0].name or "" for site in self._sites]
        return {name: self._scale * taken for name, taken in zip(names, times, strict=True)}

    # -- in between --------------------------------------------------------------------------------------------------

    def _index_factors(self, factors: list[Factor]) -> None:
        unique = {factor.number: factor for factor in factors}
        self._row = {number: row for row, number in enumerate(unique)}
        self._sizes: Ints = np.array([factor.size for factor in unique.values()], np.int64)
        self._starts: Ints = np.array([factor.first for factor in unique.values()], np.int64)

    def _others(self, whole: Whole, products: float) -> dict[str, float]:
        """Milliseconds of each kind of nodes other than products, on the scale of these."""
        if not whole.shares:
            return {"other": max(0.0, whole.milliseconds - products)}
        own = max(1e-9, whole.shares.get("product", 0.0))
        return {kind: products * share / own for kind, share in whole.shares.items() if kind != "product"}

    def _index_rest(self, rest: Rest, others: dict[str, float]) -> None:
        """Milliseconds and rows of factors for each stretch of bytes, padded with a row whose share is always 1.

        A kind that took time and moves no bytes that the model tells of goes with the bytes of all.
        """
        width = max((len(numbers) for _, numbers in rest), default=0)
        nothing = len(self._sizes)
        rows = [
            [*(self._row[number] for number in numbers), *[nothing] * (width - len(numbers))] for _, numbers in rest
        ]
        rows.append([nothing] * width)
        self._rest_rows = np.array(rows, np.int64).reshape(len(rows), width)
        self._rest = np.zeros(len(rows))
        amounts, kinds = np.array(list(rest.values()), np.float64), [kind for kind, _ in rest]
        for kind, milliseconds in others.items():
            own = amounts * np.array([one == kind for one in kinds], bool) if kind in kinds else amounts
            if own.sum():
                self._rest[:-1] += milliseconds * own / own.sum()
            else:
                self._rest[-1] += milliseconds

    def _kept(self, gone: Mask) -> Ints:
        """How many places of each factor are kept."""
        before = np.concatenate([[0], np.cumsum(gone)])
        kept: Ints = self._sizes - (before[self._starts + self._sizes] - before[self._starts])
        return kept

    def _remaining(self, counts: Ints) -> float:
        """Milliseconds of what is no product."""
        shares = np.append(counts / self._sizes, 1.0)
        return float(self._rest @ shares[self._rest_rows].prod(axis=1))

    def _products(self, counts: list[int]) -> list[float]:
        """Milliseconds of each product, as measured alone, times how often it runs."""
        found = []
        for site, curve, places in zip(self._sites, self._curves, self._places, strict=True):
            own = [counts[row] for row in places]
            if curve.measured:
                found.append(site.times * curve.at(own))
            else:
                kept: Counts = {factor.number: count for factor, count in zip(site.factors, own, strict=True)}
                found.append(site.times * self._rate * site.macs_at(kept))
        return found

    def _milliseconds_per_mac(self) -> float:
        """Of all products that were measured: what the others are taken to need."""
        measured = [
            (curve.at([factor.size for factor in site.factors]), site.macs)
            for site, curve in zip(self._sites, self._curves, strict=True)
            if curve.measured
        ]
        macs = sum(one for _, one in measured)
        return math.fsum(taken for taken, _ in measured) / macs if macs else 0.0
