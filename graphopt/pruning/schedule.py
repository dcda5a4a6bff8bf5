"""Choosing in several steps: rankings of a model that has lost something already, seen from the whole one.

Zhu and Gupta, *To prune, or not to prune* (arXiv 1710.01878), prune on a schedule because importance changes as others
go. Here only the choice is made in steps: what is chosen is taken out of the original in one go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphopt.pruning.importance.evidence import Ranking

__all__ = ["carried_over"]


def carried_over(before: Sequence[Ranking], later: Iterable[Ranking], gone: Iterable[int]) -> list[Ranking]:
    """Rankings of the original's groups, of which what is gone comes first, at no harm.

    Args:
        before: Rankings of the original.
        later: Rankings of what is left; a group is known by its name.
        gone: The numbers of the original's units that went.
    """
    removed = set(gone)
    by_name = {ranking.group.name: ranking for ranking in later}
    found = []
    for ranking in before:
        first = [unit for unit in ranking.order.tolist() if unit in removed]
        left = [unit.index for unit in ranking.group.units if unit.index not in removed]
        new = by_name.get(ranking.group.name)
        if new is not None and len(new.group.units) == len(left):
            place = {unit.index: own for unit, own in zip(new.group.units, left, strict=True)}
            rest, harm = [place[unit] for unit in new.order.tolist()], new.harm
        else:  # frozen now, so that nothing more was found out
            rest = [unit for unit in ranking.order.tolist() if unit not in removed]
            harm = ranking.harm[len(first) :] - ranking.harm[len(first)]
        found.append(
            Ranking(ranking.group, np.array(first + rest, np.int64), np.concatenate([np.zeros(len(first)), harm]))
        )
    return found
