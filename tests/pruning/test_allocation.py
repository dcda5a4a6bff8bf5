"""How much goes from where."""

from __future__ import annotations

import numpy as np
import pytest
from channels.examples import attention
from pruning.examples import classifier

import graphopt
from graphopt.channels.groups import ChannelGraph
from graphopt.errors import UsageError
from graphopt.pruning import allocation
from graphopt.pruning.expense import Expense
from graphopt.pruning.importance.evidence import Ranking


def _rankings(graph: ChannelGraph, harms: list[float]) -> list[Ranking]:
    """Units in their order, each unit of a group as harmful as the next."""
    return [
        Ranking(
            group, np.array([unit.index for unit in group.units]), np.arange(len(group.units) + 1, dtype=float) * harm
        )
        for group, harm in zip(graph.groups, harms, strict=True)
    ]


def _setting(harms: list[float], **limits: object) -> tuple[ChannelGraph, list[allocation.Candidate], Expense]:
    graph = graphopt.channels.analyze(classifier())
    limits = {"multiple": 1} | limits
    chosen = allocation.candidates(graph, _rankings(graph, harms), **limits)  # type: ignore[arg-type]
    return graph, chosen, Expense(graph, {"x": (1, 8)})


@pytest.mark.parametrize("ranking", allocation.RANKINGS)
@pytest.mark.parametrize("goal", [0.8, 0.5, 0.25])
def test_every_ranking_meets_the_goal_and_does_not_overshoot(ranking: str, goal: float) -> None:
    graph, chosen, expense = _setting([1.0, 1.0])
    levels = allocation.allocate(graph, chosen, lambda gone: expense.left(gone, "macs") / goal, ranking)
    left = expense.left(allocation.gone(graph, chosen, levels), "macs")
    assert goal * 0.92 <= left <= goal


def test_uniform_takes_the_same_share_of_each_group() -> None:
    graph, chosen, expense = _setting([1.0, 1000.0])
    levels = allocation.allocate(graph, chosen, lambda gone: expense.left(gone, "params") / 0.5, "uniform")
    assert abs(levels[0] - levels[1]) <= 2


def test_global_spares_the_group_that_matters() -> None:
    graph, chosen, expense = _setting([1.0, 1000.0])
    levels = allocation.allocate(graph, chosen, lambda gone: expense.left(gone, "params") / 0.6, "global")
    assert levels[0] > 10
    assert levels[1] == 0


def test_isomorphic_takes_the_least_harmful_of_a_class_wherever_they_are() -> None:
    graph, chosen, expense = _setting([1.0, 1000.0])
    levels = allocation.allocate(graph, chosen, lambda gone: expense.left(gone, "params") / 0.6, "isomorphic")
    assert levels[0] > levels[1]


def test_some_of_each_group_stays_whatever_the_goal() -> None:
    graph, chosen, expense = _setting([1.0, 1.0], keep=0.25)
    levels = allocation.allocate(graph, chosen, lambda gone: expense.left(gone, "macs") / 1e-9, "global")
    assert levels == [24, 24]


def test_kept_sizes_are_multiples_where_a_group_is_large_enough() -> None:
    _, chosen, _ = _setting([1.0, 1.0], multiple=8)
    assert {32 - level for level in chosen[0].levels} <= set(range(0, 33, 2))  # 32 channels: 16 sizes to choose from
    graph = graphopt.channels.analyze(classifier(hidden=128))
    wide = allocation.candidates(graph, _rankings(graph, [1.0, 1.0]), multiple=8)
    assert all((128 - level) % 8 == 0 for level in wide[0].levels)


def test_heads_are_wide_enough_as_they_are() -> None:
    graph = graphopt.channels.analyze(attention())
    (heads,) = [group for group in graph.groups if group.heads]
    rankings = _rankings(graph, [1.0] * len(graph.groups))
    (chosen,) = allocation.candidates(graph, [rankings[heads.index]], multiple=4)
    assert chosen.levels == (0, 1, 2, 3)  # four lanes each


def test_patterns_choose_by_group_and_by_node() -> None:
    _, chosen, _ = _setting([1.0, 1.0], groups=["first"])
    assert [one.group.name for one in chosen] == ["first"]
    _, chosen, _ = _setting([1.0, 1.0], exclude=["head"])  # a node that reads the second group
    assert [one.group.name for one in chosen] == ["first"]
    with pytest.raises(UsageError, match="matches 'nothing'"):
        _setting([1.0, 1.0], groups=["nothing"])
    with pytest.raises(UsageError, match="nothing to prune"):
        _setting([1.0, 1.0], exclude=["*"])


def test_a_segment_keeps_one() -> None:
    graph = graphopt.channels.analyze(attention())
    for ranking in _rankings(graph, [1.0] * len(graph.groups)):
        allowed = allocation._legal(ranking, 0.0)
        removed = set(allowed.order.tolist())
        assert all(not segment <= removed for segment in ranking.group.segments)
        graph.gone(allowed.order.tolist())  # does not raise


def test_a_flat_stretch_behind_a_bump_is_seen() -> None:
    graph = graphopt.channels.analyze(classifier())
    bump = np.concatenate([[0.0], np.full(32, 3.0)])  # all at once costs 3
    steady = np.arange(33) * 0.5
    rankings = [
        Ranking(group, np.array([unit.index for unit in group.units]), harm)
        for group, harm in zip(graph.groups, (bump, steady), strict=True)
    ]
    chosen = allocation.candidates(graph, rankings, multiple=1)
    expense = Expense(graph, {"x": (1, 8)})
    levels = allocation.allocate(graph, chosen, lambda gone: expense.left(gone, "macs") / 0.5, "global")
    assert levels[0] > 14
    assert levels[1] == 0


def test_an_unknown_ranking_is_named() -> None:
    graph, chosen, _ = _setting([1.0, 1.0])
    with pytest.raises(UsageError, match="no ranking 'fair'"):
        allocation.allocate(graph, chosen, lambda gone: 1.0, "fair")
