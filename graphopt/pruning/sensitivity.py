"""What removal does to the model's own outputs, measured group by group."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from graphopt.channels.slicing import cut
from graphopt.pruning import fidelity
from graphopt.pruning.importance.evidence import Evidence, Ranking

__all__ = ["measured"]

_SHARES = (0.25, 0.5, 0.75, 0.9)
_BATCHES = 2


def measured(evidence: Evidence, rankings: Sequence[Ranking]) -> list[Ranking]:
    """The same orders with measured harm: the squared change of the outputs as a share of their variance.

    Each group loses a quarter, half, three quarters and nine tenths of its units, everything else left whole; the harm
    in between follows the shape of what was estimated. Costs four forward passes on some batches for each group.
    """
    graph = evidence.graph
    batches = evidence.batches[:_BATCHES]
    found = []
    for number, ranking in enumerate(rankings):
        evidence.progress("sensitivity", number / len(rankings))
        known = {0: 0.0}
        for share in _SHARES:
            count = round(share * len(ranking.order))
            if not 0 < count < len(ranking.order) or not _leaves_some(ranking, count):
                continue
            model = cut(graph, graph.gone_units(ranking.order[:count]))
            errors = fidelity.compare(graph.model, model, batches, **evidence.running).error.values()
            known[count] = max(max(errors, default=0.0), known[max(known)])
        found.append(dataclasses.replace(ranking, harm=_between(ranking.harm, known)))
    return found


def _leaves_some(ranking: Ranking, count: int) -> bool:
    removed = set(ranking.order[:count].tolist())
    return all(not segment <= removed for segment in ranking.group.segments)


def _between(
    harm: np.ndarray[tuple[int], np.dtype[np.float64]], known: dict[int, float]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Harm that passes through what is known, and has the shape of the estimate in between and beyond."""
    counts = sorted(known)
    result = np.empty(len(harm))
    for low, high in zip(counts, [*counts[1:], len(harm) - 1], strict=True):
        own = harm[low : high + 1] - harm[low]
        top = known.get(high)
        if top is None:  # beyond the last: on the scale of what came before
            scale = known[low] / harm[low] if harm[low] > 0 else 1.0
        else:
            scale = (top - known[low]) / own[-1] if own[-1] > 0 else 0.0
        result[low : high + 1] = known[low] + own * scale
    return result
