"""How much goes from which group, so that a goal is met at the least harm."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from graphopt.channels.atoms import Mask
from graphopt.channels.axes import Axis
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.units import Group
from graphopt.errors import UsageError
from graphopt.names import label
from graphopt.pruning.importance.evidence import Ranking

__all__ = ["FINEST", "RANKINGS", "Allocation", "Candidate", "allocate", "candidates", "gone", "matching"]

Indices = npt.NDArray[np.int64]
Cost = Callable[[Mask], float]
"""What is left by a removal, the goal being 1."""

RANKINGS = ("global", "uniform", "isomorphic", "sensitivity")
"""Who is compared with whom: all groups at once by harm and gain, nobody (the same share of each group), groups of the
same build with each other (arXiv 2407.04616), or all by what removal was measured to do."""

FINEST = 16
"""Sizes that a group has to choose from at least, whatever multiple the hardware likes, unless speed is what counts."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A group that may shrink, and by how much.

    Attributes:
        ranking: In which order its units go; no more of them than may go.
        levels: The numbers of units whose removal is to be considered, from 0 on.
    """

    ranking: Ranking
    levels: tuple[int, ...]

    @property
    def group(self) -> Group:
        """The group."""
        return self.ranking.group


def candidates(
    graph: ChannelGraph,
    rankings: Sequence[Ranking],
    *,
    groups: Iterable[str] = (),
    exclude: Iterable[str] = (),
    multiple: int = 8,
    choices: int = FINEST,
    keep: float = 0.1,
) -> list[Candidate]:
    """The groups that may shrink.

    Args:
        graph: The channel graph.
        rankings: One a group.
        groups: Shell patterns of the groups to prune, by name, else by that of a node with weights; all if empty.
        exclude: Shell patterns of those to leave alone.
        multiple: Channels that the hardware likes; kept sizes are multiples of it, or of a smaller power of two where
            a group would be left with few choices.
        choices: What is few.
        keep: Share of each group that stays whatever happens.

    Raises:
        UsageError: A pattern matches no group, or nothing is left to prune.
    """
    wanted = matching(graph, groups) if groups else {group.index for group in graph.groups}
    wanted -= matching(graph, exclude)
    found = []
    lanes = _lanes(graph)
    for ranking in rankings:
        if ranking.group.index not in wanted:
            continue
        allowed = _legal(ranking, keep)
        size = lanes.get(ranking.group.index, 1)
        levels = _levels(len(ranking.group.units), size, len(allowed.order), multiple, choices)
        if len(levels) > 1:
            found.append(Candidate(allowed, levels))
    if not found:
        raise UsageError(
            "there is nothing to prune: " + ("no group may shrink" if graph.groups else "every channel is frozen"),
            hint="'graphopt inspect MODEL --groups' says what can go, and what stands in the way.",
        )
    return found


def matching(graph: ChannelGraph, patterns: Iterable[str]) -> set[int]:
    """The groups that patterns name; a node's name counts only where no group has the name."""
    found: set[int] = set()
    for pattern in patterns:
        own = {group.index for group in graph.groups if fnmatch.fnmatchcase(group.name, pattern)}
        own = own or {
            group.index
            for group in graph.groups
            if any(fnmatch.fnmatchcase(label(node), pattern) for node in group.nodes)
        }
        if not own:
            raise UsageError(
                f"no group and no node with weights matches '{pattern}'",
                hint="'graphopt inspect MODEL --groups' lists them.",
            )
        found |= own
    return found


def _legal(ranking: Ranking, keep: float) -> Ranking:
    """The same ranking without the units that must stay: the last ones of each segment, and a share of all."""
    units = ranking.order.tolist()
    left = [(segment, len(segment)) for segment in map(set, ranking.group.segments)]
    counts = [count for _, count in left]
    most = len(units) - max(1, math.ceil(keep * len(units)))
    steps = np.diff(ranking.harm)
    order: list[int] = []
    harm = [0.0]
    for unit, step in zip(units, steps.tolist(), strict=True):
        own = [number for number, (segment, _) in enumerate(left) if unit in segment]
        if len(order) >= most or any(counts[number] <= 1 for number in own):
            continue
        for number in own:
            counts[number] -= 1
        order.append(unit)
        harm.append(harm[-1] + max(step, 0.0))
    return Ranking(ranking.group, np.array(order, np.int64), np.array(harm))


def _lanes(graph: ChannelGraph) -> dict[int, int]:
    """How many channels of an operator's input or output a unit is, at least; by group."""
    found: dict[int, int] = {}
    seen: set[Axis] = set()
    for axis in (axis for product in graph.linker.products for axis in product.axes):
        if axis in seen or not isinstance(axis.size, int) or axis.size < 2:
            continue
        seen.add(axis)
        units, counts = np.unique(graph.unit_at(graph.atoms(axis)), return_counts=True)
        for unit, count in zip(units.tolist(), counts.tolist(), strict=True):
            if unit >= 0:
                group = int(graph.group_of[unit])
                found[group] = min(found.get(group, count), count)
    return found


def _levels(units: int, lanes: int, most: int, multiple: int, choices: int) -> tuple[int, ...]:
    """The numbers of units to consider taking away, ``most`` at most, so that what is left suits the hardware."""
    while multiple > 1 and units * lanes < choices * multiple:
        multiple //= 2
    step = multiple // math.gcd(multiple, lanes)
    kept = range(units // step * step, 0, -step)
    return tuple(dict.fromkeys([0, *[units - size for size in kept if units - size <= most]]))


class Allocation:
    """How many units each group loses: what was chosen last.

    Args:
        graph: The channel graph.
        candidates: The groups.
        ranking: One of :data:`RANKINGS`.

    Attributes:
        candidates: The groups.
        levels: How many units of each go, one of its levels.
    """

    def __init__(self, graph: ChannelGraph, candidates: Sequence[Candidate], ranking: str) -> None:
        self._graph = graph
        self._ranking = ranking
        self.candidates = candidates
        self.levels = [0] * len(candidates)

    @property
    def units(self) -> list[int]:
        """The numbers of the units that go."""
        parts = [one.ranking.order[:level] for one, level in zip(self.candidates, self.levels, strict=True)]
        return [unit for part in parts for unit in part.tolist()]

    def choose(self, cost: Cost) -> Mask:
        """Chooses, and gives the atoms that go; see :func:`allocate`."""
        self.levels = allocate(self._graph, self.candidates, cost, self._ranking)
        return gone(self._graph, self.candidates, self.levels)


def gone(graph: ChannelGraph, chosen: Sequence[Candidate], levels: Sequence[int]) -> Mask:
    """The atoms that go when each group loses so many units."""
    parts = [one.ranking.order[:level] for one, level in zip(chosen, levels, strict=True) if level]
    return graph.gone_units(np.concatenate(parts) if parts else np.zeros(0, np.int64))


def allocate(graph: ChannelGraph, chosen: Sequence[Candidate], cost: Cost, ranking: str) -> list[int]:
    """How many units each group loses.

    Args:
        graph: The channel graph.
        chosen: The groups.
        cost: What a removal leaves, 1 being the goal.
        ranking: One of :data:`RANKINGS`.

    Returns:
        One of each candidate's levels, in order; all of them the top ones where the goal cannot be met.

    Raises:
        UsageError: There is no such ranking.
    """
    if ranking not in RANKINGS:
        from graphopt.pipeline.spec import close_match

        raise UsageError(f"there is no ranking '{ranking}'", hint=close_match(ranking, RANKINGS))

    def of(levels: Sequence[int]) -> float:
        return cost(gone(graph, chosen, levels))

    if of([one.levels[-1] for one in chosen]) > 1:
        return [one.levels[-1] for one in chosen]
    if ranking == "uniform":
        levels = _bisect(lambda share: [_nearest(one, share * len(one.group.units)) for one in chosen], of)
    elif ranking == "isomorphic":
        levels = _isomorphic(chosen, of)
    else:
        levels = _greedy(chosen, of)
    return _give_back(chosen, levels, of, by_share=ranking == "uniform")


def _nearest(one: Candidate, wanted: float) -> int:
    return min(one.levels, key=lambda level: (abs(level - wanted), level))


def _bisect(levels_at: Callable[[float], list[int]], cost: Callable[[Sequence[int]], float]) -> list[int]:
    """The levels at the least share that meets the goal."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(levels_at(middle)) <= 1 else (middle, high)
    return levels_at(high)


def _isomorphic(chosen: Sequence[Candidate], cost: Callable[[Sequence[int]], float]) -> list[int]:
    """The same share of each class of groups that are built alike, the least harmful units of the class first."""
    classes: dict[object, list[int]] = collections.defaultdict(list)
    for number, one in enumerate(chosen):
        kinds = collections.Counter((node.domain, node.op_type) for node in one.group.nodes)
        classes[one.group.heads, tuple(sorted(kinds.items()))].append(number)
    steps = {
        key: np.sort(np.concatenate([np.diff(chosen[number].ranking.harm) for number in own]))
        for key, own in classes.items()
    }

    def levels_at(share: float) -> list[int]:
        levels = [0] * len(chosen)
        for key, own in classes.items():
            sizes = sum(len(chosen[number].group.units) for number in own)
            place = min(round(share * sizes), len(steps[key]))
            bound = steps[key][place - 1] if place else -1.0
            for number in own:
                harm = np.diff(chosen[number].ranking.harm)
                levels[number] = _nearest(chosen[number], float((harm <= bound).sum()))
        return levels

    return _bisect(levels_at, cost)


def _greedy(chosen: Sequence[Candidate], cost: Callable[[Sequence[int]], float]) -> list[int]:
    """Step by step what does the least harm for what it saves.

    A step goes to the next corner of the lower convex hull of a group's harm, so that a flat stretch behind a bump is
    seen. Savings multiply, so each step changes those of the others; they are computed anew when their turn comes.
    """
    hulls = [_hull(one) for one in chosen]
    levels = [0] * len(chosen)
    at = [0] * len(chosen)
    left = cost(levels)

    def rate(number: int) -> float:
        """Harm for what the next step saves; infinite if there is none."""
        if at[number] + 1 >= len(hulls[number]):
            return math.inf
        after = hulls[number][at[number] + 1]
        trial = [*levels[:number], after, *levels[number + 1 :]]
        harm = chosen[number].ranking.harm
        saved = left - cost(trial)
        return (harm[after] - harm[levels[number]]) / saved if saved > 0 else math.inf

    rates = [rate(number) for number in range(len(chosen))]
    while left > 1:
        # Rates only grow as others shrink (less is saved), so the least one is certain once it is fresh.
        fresh: set[int] = set()
        while True:
            number = min(range(len(chosen)), key=rates.__getitem__)
            if number in fresh or math.isinf(rates[number]):
                break
            rates[number] = rate(number)
            fresh.add(number)
        if math.isinf(rates[number]):
            break
        at[number] += 1
        levels[number] = hulls[number][at[number]]
        left = cost(levels)
        rates[number] = rate(number)
    return levels if left <= 1 else [one.levels[-1] for one in chosen]


def _hull(one: Candidate) -> list[int]:
    """The levels on the lower convex hull of the harm."""
    hull: list[int] = []
    harm = one.ranking.harm
    for level in one.levels:
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (harm[b] - harm[a]) * (level - b) <= (harm[level] - harm[b]) * (b - a):
                break
            hull.pop()
        hull.append(level)
    return hull


def _give_back(
    chosen: Sequence[Candidate], levels: list[int], cost: Callable[[Sequence[int]], float], *, by_share: bool
) -> list[int]:
    """Undoes what the goal does not need: single levels, those of most harm (or of the largest share) first."""
    levels = list(levels)
    open_groups = set(range(len(chosen)))
    while open_groups:
        gains = []
        for number in open_groups:
            one, level = chosen[number], levels[number]
            place = one.levels.index(level)
            if place:
                harm, before = one.ranking.harm, one.levels[place - 1]
                worth = level / len(one.group.units) if by_share else harm[level] - harm[before]
                gains.append((worth, number, before))
        if not gains:
            break
        _, number, before = max(gains)
        trial = [*levels[:number], before, *levels[number + 1 :]]
        if cost(trial) <= 1:
            levels = trial
        else:
            open_groups.discard(number)
        open_groups = {one for one in open_groups if levels[one]}
    return levels
