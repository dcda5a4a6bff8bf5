"""Layered layout of a small directed graph: boxes in rows, edges that run downwards.

After Sugiyama et al. 1981: rows by longest path, helper points where an edge crosses a row, rows ordered by the
barycentre of their neighbours, places by weighted least squares with a minimum distance. Edges of the longest paths
weigh most, so that a trunk stands upright and branches hang off it.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Sequence

__all__ = ["Layout", "Point", "arrange"]

Point = tuple[float, float]
_Near = dict[int, dict[int, float]]
"""The neighbours of each item above or below it, and how much it wants to be near them."""

_GAP = 28.0
"""Between boxes of a row."""
_ROW_GAP = 44.0
_POINT = 10.0
"""The width that an edge takes in a row it crosses."""
_ORDERINGS = 12
_SWEEPS = 60
"""How often the order of rows, and the places in them, are improved."""

_TRUNK = 30.0
_CROSSING = 8.0
"""Weights of an edge of a longest path, and of one that crosses rows; others weigh 1."""


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is.

    Attributes:
        width: Of the whole.
        height: Of the whole.
        centers: Of each box.
        routes: For each edge the points it goes through, from the lower border of a box to the upper one of another.
    """

    width: float
    height: float
    centers: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]


def arrange(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """Places boxes of the given widths and heights; edges that would close a cycle are drawn but do not count."""
    rows_of = _rows(len(sizes), edges)
    widths = [width for width, _ in sizes]
    chains: list[list[int]] = []
    rows: list[list[int]] = [[] for _ in range(max(rows_of, default=0) + 1)]
    for box, row in enumerate(rows_of):
        rows[row].append(box)
    for source, target in edges:
        chain = [source]
        for row in range(rows_of[source] + 1, rows_of[target]):
            chain.append(len(widths))
            rows[row].append(len(widths))
            widths.append(_POINT)
        chains.append([*chain, target])
    trunk = _trunk(rows_of, edges)
    up: _Near = collections.defaultdict(dict)
    down: _Near = collections.defaultdict(dict)
    for edge, chain in zip(edges, chains, strict=True):
        if rows_of[edge[1]] > rows_of[edge[0]]:
            for one, other in itertools.pairwise(chain):
                weight = _TRUNK if edge in trunk else _CROSSING if max(one, other) >= len(sizes) else 1.0
                down[one][other] = up[other][one] = weight
    rows = _ordered(rows, up, down)
    x = _places(rows, widths, up, down)
    heights = [max((sizes[box][1] for box in row if box < len(sizes)), default=0.0) for row in rows]
    tops = [sum(heights[:row]) + _ROW_GAP * row for row in range(len(rows))]
    row_of = {item: number for number, row in enumerate(rows) for item in row}
    middle = [tops[row_of[item]] + heights[row_of[item]] / 2 for item in range(len(widths))]
    left = min((x[item] - widths[item] / 2 for item in range(len(widths))), default=0.0)
    right = max((x[item] + widths[item] / 2 for item in range(len(widths))), default=0.0)
    centers = tuple([(x[box] - left, middle[box]) for box in range(len(sizes))])
    routes = []
    for chain in chains:
        source, target = chain[0], chain[-1]
        points = [(centers[source][0], centers[source][1] + sizes[source][1] / 2)]
        for item in chain[1:-1]:  # straight through the row, so that the edge stays clear of the boxes beside it
            row = row_of[item]
            points += [(x[item] - left, tops[row]), (x[item] - left, tops[row] + heights[row])]
        points.append((centers[target][0], centers[target][1] - sizes[target][1] / 2))
        routes.append(tuple(points))
    return Layout(right - left, (tops[-1] + heights[-1]) if rows else 0.0, centers, tuple(routes))


def _rows(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    after: dict[int, list[int]] = collections.defaultdict(list)
    before: collections.Counter[int] = collections.Counter()
    for source, target in edges:
        after[source].append(target)
        before[target] += 1
    row = [0] * count
    ready = collections.deque(box for box in range(count) if not before[box])
    order: list[int] = []
    while ready:
        box = ready.popleft()
        order.append(box)
        for target in after[box]:
            row[target] = max(row[target], row[box] + 1)
            before[target] -= 1
            if not before[target]:
                ready.append(target)
    sources: dict[int, list[int]] = collections.defaultdict(list)
    for source, target in edges:
        sources[target].append(source)
    loose: dict[int, bool] = {}
    for box in order:  # nothing leads to it but what leads nowhere else
        loose[box] = all(loose[source] and len(after[source]) == 1 for source in sources[box])
    for box in reversed(order):  # such a branch moves down to where it joins
        if loose[box] and after[box]:
            row[box] = max(row[box], min(row[target] for target in after[box]) - 1)
    return row


def _trunk(rows_of: Sequence[int], edges: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """The edges by which the longest ways go on, from both of their ends."""
    depth, height = [0] * len(rows_of), [0] * len(rows_of)
    ordered = sorted(edges, key=lambda edge: (rows_of[edge[0]], rows_of[edge[1]]))
    for source, target in ordered:
        if rows_of[target] > rows_of[source]:
            depth[target] = max(depth[target], depth[source] + 1)
    for source, target in sorted(edges, key=lambda edge: (-rows_of[edge[0]], edge)):
        if rows_of[target] > rows_of[source]:
            height[source] = max(height[source], height[target] + 1)
    below: dict[int, tuple[int, int]] = {}
    above: dict[int, tuple[int, int]] = {}
    for edge in ordered:
        source, target = edge
        if source not in below or height[target] > height[below[source][1]]:
            below[source] = edge
        if target not in above or depth[source] > depth[above[target][0]]:
            above[target] = edge
    return set(below.values()) & set(above.values())


def _ordered(rows: list[list[int]], up: _Near, down: _Near) -> list[list[int]]:
    """The order of each row with the fewest crossings that sweeps up and down come by."""
    best, fewest = rows, _crossings(rows, down)
    current = [list(row) for row in rows]
    for sweep in range(_ORDERINGS):
        if not fewest:
            break
        near = down if sweep % 2 else up
        numbers = range(len(current) - 2, -1, -1) if sweep % 2 else range(1, len(current))
        for number in numbers:
            other = current[number + 1 if sweep % 2 else number - 1]
            place = {item: at for at, item in enumerate(other)}
            current[number] = _by_barycentre(current[number], near, place)
        crossings = _crossings(current, down)
        if crossings < fewest:
            best, fewest = [list(row) for row in current], crossings
    return best


def _by_barycentre(row: Sequence[int], near: _Near, place: dict[int, int]) -> list[int]:
    def wanted(at: int) -> float:
        return _mean([(place[one], 1.0) for one in near[row[at]]], at)

    return [row[at] for at in sorted(range(len(row)), key=wanted)]


def _mean(weighted: Sequence[tuple[float, float]], default: float) -> float:
    return (
        sum(one * weight for one, weight in weighted) / sum(weight for _, weight in weighted) if weighted else default
    )


def _crossings(rows: Sequence[Sequence[int]], down: _Near) -> int:
    total = 0
    for row, below in itertools.pairwise(rows):
        place = {item: at for at, item in enumerate(below)}
        ends: list[int] = []
        for item in row:
            own = sorted(place[other] for other in down[item])
            total += sum(before > at for at in own for before in ends)
            ends += own
    return total


def _places(rows: Sequence[Sequence[int]], widths: Sequence[float], up: _Near, down: _Near) -> list[float]:
    x = [0.0] * len(widths)
    for row in rows:
        at = 0.0
        for item in row:
            x[item] = at + widths[item] / 2
            at += widths[item] + _GAP
    for sweep in range(_SWEEPS):
        for row in rows[::-1] if sweep % 2 else rows:
            near = [
                {**up[item], **down[item]} if sweep >= _SWEEPS // 2 else (down, up)[sweep % 2 == 0][item]
                for item in row
            ]
            wanted = [
                _mean([(x[one], weight) for one, weight in others.items()], x[item])
                for item, others in zip(row, near, strict=True)
            ]
            weights = [max(1.0, sum(others.values())) for others in near]
            for item, place in zip(row, _spread(row, wanted, weights, widths), strict=True):
                x[item] = place
    return x


def _spread(
    row: Sequence[int], wanted: Sequence[float], weights: Sequence[float], widths: Sequence[float]
) -> list[float]:
    """The places nearest to the wanted ones that keep the order and the gaps: isotonic regression."""
    offsets = [0.0]
    for one, other in itertools.pairwise(row):
        offsets.append(offsets[-1] + (widths[one] + widths[other]) / 2 + _GAP)
    blocks: list[tuple[float, float, int]] = []
    for want, weight, offset in zip(wanted, weights, offsets, strict=True):
        mean, total, count = want - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            before, heavy, many = blocks.pop()
            mean = (mean * total + before * heavy) / (total + heavy)
            total, count = total + heavy, count + many
        blocks.append((mean, total, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
