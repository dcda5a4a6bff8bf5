"""The search, against models of what compression does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest

from graphopt.compression.points import Point, Step, Variant, front
from graphopt.compression.search import Choice, Search

HALF = {"latency": 0.5}
FASTER = {"float32": 1.0, "int8": 0.4}


class World:
    """What becomes of a variant: latency falls by half for each 1.25 of way, accuracy by what the harm says.

    Args:
        harm: Share of the score that is lost at way 1, before training; a tenth of it after.
        end: Way at which nothing more can go.
        allowed: Share of the score that gates let go.
    """

    def __init__(self, harm: float = 0.1, end: float = 9.0, allowed: float = math.inf) -> None:
        self.harm, self.end, self.allowed = harm, end, allowed
        self.built: list[Variant] = []

    def __call__(self, variants: Sequence[Variant]) -> list[Point]:
        self.built += variants
        return [self._point(one) for one in variants]

    def _point(self, variant: Variant) -> Point:
        way = min(variant.way, self.end)
        latency = FASTER[variant.precision] * 0.5 ** (way / 1.25)
        lost = self.harm * way**2 * (0.1 if variant.trained else 1) + (0.001 if variant.precision == "int8" else 0)
        complaint = "" if lost <= self.allowed else "accuracy"
        return Point(variant, {"latency": latency}, 1 - lost, lost, 100 * lost, complaint, variant.way >= self.end)


def search(world: World, limits: dict[str, float], precisions: Sequence[str] = ("float32",), **options: Any) -> Choice:
    return Search(world, limits, precisions, **options).run()


@pytest.mark.parametrize("limit", [0.8, 0.5, 0.25, 0.1])
def test_comes_within_five_percent_of_the_goal(limit: float) -> None:
    found = search(World(), {"latency": limit})
    assert found.point is not None
    assert 0.95 * limit <= found.point.left["latency"] <= 1.01 * limit


def test_goes_beyond_the_goal_where_that_costs_nothing() -> None:
    def build(variants: Sequence[Variant]) -> list[Point]:
        return [Point(one, {"latency": 0.5**one.way}, 0.9 if one.way < 1.5 else 0.8) for one in variants]

    found = Search(build, HALF, ("float32",), train=False).run()
    assert found.point is not None
    assert found.point.left["latency"] < 0.48
    assert found.point.score == 0.9


def test_trains_what_meets_the_goal() -> None:
    found = search(World(), HALF)
    assert found.point is not None
    assert found.point.variant.trained


def test_does_not_train_when_told_not_to() -> None:
    world = World()
    found = search(world, HALF, train=False)
    assert found.point is not None
    assert not any(one.trained for one in world.built)


def test_takes_the_precision_that_needs_no_pruning() -> None:
    found = search(World(), HALF, ("float32", "int8"))
    assert found.point is not None
    assert found.point.variant == Variant(0.0, "int8")
    assert found.point.score == pytest.approx(0.999)


def test_a_goal_that_nothing_comes_down_to_is_said_so_with_the_nearest() -> None:
    found = search(World(end=1.0), {"latency": 0.1})
    assert found.point is None
    assert found.best is not None
    assert found.best.variant.way >= 1.0
    assert "goal" in found.reason


def test_the_nearest_to_an_infeasible_goal_does_no_harm() -> None:
    found = search(World(harm=1.0, end=1.0, allowed=0.02), {"latency": 0.1})
    assert found.point is None
    assert found.best is not None
    assert not found.best.complaint
    assert found.best.variant.way > 0


def test_the_nearest_to_an_infeasible_goal_is_trained_and_is_not_a_ruin() -> None:
    """What goes farthest is of no use to anybody: half of the score is gone."""
    world = World(harm=0.03, end=6.0)
    found = search(world, {"latency": 0.01})
    assert found.point is None
    assert found.best is not None
    assert found.best.variant.trained
    assert found.best.lost < 0.05
    without = search(World(harm=0.03, end=6.0), {"latency": 0.01}, train=False)
    assert without.best is not None
    assert without.best.lost < 0.5


def test_stops_trying_when_nothing_more_can_go() -> None:
    world = World(end=1.0)
    search(world, {"latency": 0.1})
    assert len(world.built) <= 3


def test_harm_beyond_the_gates_is_refused_with_the_fastest_that_does_none() -> None:
    world = World(harm=1.0, allowed=0.02)
    found = search(world, HALF)
    assert found.point is None
    assert found.best is not None
    assert not found.best.complaint
    assert 0.5 < found.best.left["latency"] < 1
    assert "harm" in found.reason


def test_without_a_goal_goes_as_far_as_the_gates_let_it() -> None:
    world = World(harm=0.1, allowed=0.05)
    found = search(world, {})
    assert found.point is not None
    # trained, 0.01 way² may be 0.05: way 2.24
    assert 1.7 <= found.point.variant.way <= 2.24
    assert not found.point.complaint


def test_without_a_goal_and_any_harm_allowed_goes_to_the_end() -> None:
    found = search(World(end=3.0), {})
    assert found.point is not None
    assert found.point.is_last


def test_trains_only_where_nothing_passes_without() -> None:
    world = World(harm=0.01, allowed=0.05)
    search(world, {})
    assert not [one for one in world.built if one.trained and one.way**2 * 0.01 <= 0.05]


def test_without_channels_to_remove_only_precisions_are_tried() -> None:
    world = World()
    found = search(world, {"latency": 0.3}, ("float32", "int8"), prune=False)
    assert found.point is None
    assert {one.way for one in world.built} == {0.0}


def test_no_variant_is_built_twice() -> None:
    world = World(harm=1.0, allowed=0.02)
    search(world, HALF, ("float32", "int8"))
    assert len(world.built) == len(set(world.built))


def test_a_variant_that_could_not_be_built_is_no_end() -> None:
    def build(variants: Sequence[Variant]) -> list[Point]:
        broken = {"latency": math.inf}
        points = World()(variants)
        return [
            Point(one.variant, broken, -math.inf, math.inf, math.inf, "broken")
            if one.variant.precision == "int8"
            else one
            for one in points
        ]

    found = Search(build, HALF, ("float32", "int8")).run()
    assert found.point is not None
    assert found.point.variant.precision == "float32"


def test_front_holds_what_no_other_beats() -> None:
    def point(latency: float, score: float) -> Point:
        return Point(Variant(latency, "float32"), {"latency": latency}, score)

    points = [point(1.0, 0.9), point(0.5, 0.8), point(0.6, 0.7), point(0.4, 0.85), point(0.3, 0.1)]
    assert [one.left["latency"] for one in front(points)] == [0.3, 0.4, 1.0]


def test_several_limits_are_all_met() -> None:
    def build(variants: Sequence[Variant]) -> list[Point]:
        return [
            Point(one, {"latency": 0.5 ** (one.way / 2), "macs": 0.4**one.way}, 1 - one.way / 100) for one in variants
        ]

    found = Search(build, {"latency": 0.5, "macs": 0.4}, ("float32",), train=False).run()
    assert found.point is not None
    assert found.point.left["latency"] <= 0.5 * 1.01
    assert found.point.left["macs"] <= 0.4


def test_nothing_follows_from_a_variant_that_could_not_be_built() -> None:
    built: list[Variant] = []

    def evaluate(variants: Sequence[Variant]) -> list[Point]:
        built.extend(variants)
        return [Point(one, {"latency": math.inf}, -math.inf, math.inf, math.inf, "no") for one in variants]

    found = Search(evaluate, HALF, ["int8"]).run()
    assert found.point is None
    assert all(math.isfinite(one.way) for one in built)


class Groups:
    """Three groups of four units each: the share of units kept is the latency, and a unit's loss its group's harm."""

    harms = (0.001, 0.02, 0.1)

    def kept(self, variant: Variant) -> list[int]:
        uniform = max(1, round(4 * 0.5**variant.way))
        return [dict(variant.sizes).get(group, uniform) for group in range(3)]

    def __call__(self, variants: Sequence[Variant]) -> list[Point]:
        found = []
        for one in variants:
            kept = self.kept(one)
            lost = sum(harm * (4 - left) for harm, left in zip(self.harms, kept, strict=True))
            found.append(Point(one, {"latency": sum(kept) / 12}, 1 - lost, lost))
        return found

    def look(self, variant: Variant) -> list[Step]:
        return [
            Step(group, left + sign, -sign * harm, -sign / 12)
            for group, (harm, left) in enumerate(zip(self.harms, self.kept(variant), strict=True))
            for sign in (-1, 1)
            if 1 <= left + sign <= 4
        ]


def test_single_steps_find_what_no_way_leads_to() -> None:
    """Of six units that may stay, most belong to the groups whose loss does most harm."""
    groups = Groups()
    found = Search(groups, HALF, ("float32",), train=False, look=groups.look).run()
    assert found.point is not None
    assert groups.kept(found.point.variant) == [1, 1, 4]
    without = Search(Groups(), HALF, ("float32",), train=False).run()
    assert without.point is not None
    assert without.point.score < found.point.score


def test_single_steps_have_an_end() -> None:
    built: list[Variant] = []

    def look(variant: Variant) -> list[Step]:
        """Always one more to take."""
        return [Step(len(variant.sizes), 1, 0.0, 0.5)]

    def build(variants: Sequence[Variant]) -> list[Point]:
        """Each step makes it faster and costs nothing."""
        built.extend(variants)
        return [
            Point(one, {"latency": 0.5 ** min(one.way, 2) * 0.9 ** len(one.sizes)}, 1.0, is_last=one.way >= 2)
            for one in variants
        ]

    Search(build, HALF, ("float32",), train=False, look=look).run()
    assert 10 <= len([one for one in built if one.sizes]) <= 15


def test_a_step_brings_what_all_but_meets_the_goal_to_it() -> None:
    def build(variants: Sequence[Variant]) -> list[Point]:
        """The way leads to a good model just above the goal, and to a bad one below it."""
        found = []
        for one in variants:
            latency, score = (0.53, 0.99) if 0 < one.way < 1.2 else (1.0, 1.0) if one.way == 0 else (0.3, 0.5)
            if one.sizes:
                latency, score = latency - 0.04, score - 0.01
            found.append(Point(one, {"latency": latency}, score, is_last=one.way >= 1.2))
        return found

    found = Search(build, HALF, ("float32",), train=False, look=lambda variant: [Step(0, 1, 0.1, 0.1)]).run()
    assert found.point is not None
    assert found.point.left["latency"] == pytest.approx(0.49)
    assert found.point.score == pytest.approx(0.98)


def test_of_those_as_good_as_the_best_the_fastest_is_taken() -> None:
    def build(variants: Sequence[Variant]) -> list[Point]:
        return [Point(one, {"latency": 0.5**one.way}, 0.95 - 0.002 * one.way, grain=0.004) for one in variants]

    found = Search(build, HALF, ("float32",), train=False).run()
    assert found.point is not None
    best = max(one.score for one in found.points if one.meets(HALF))
    assert found.point.score >= best - 0.004
    assert found.point.left["latency"] < 0.3
    assert all(one.score < best - 0.004 for one in found.points if one.left["latency"] < found.point.left["latency"])


class Depths:
    """Four blocks: dropping them costs little, narrowing costs much; latency falls with both."""

    def __init__(self, harms: Sequence[float] = (0.0, 0.001, 0.002, 0.3), allowed: float = math.inf) -> None:
        self.harms, self.allowed = harms, allowed
        self.built: list[Variant] = []

    def __call__(self, variants: Sequence[Variant]) -> list[Point]:
        self.built += variants
        found = []
        for one in variants:
            latency = 0.5**one.way * (1 - 0.2 * one.blocks)
            lost = (sum(self.harms[: one.blocks]) + 0.2 * one.way) * (0.1 if one.trained else 1)
            complaint = "" if lost <= self.allowed else "accuracy"
            found.append(Point(one, {"latency": latency}, 1 - lost, lost, 100 * lost, complaint))
        return found


def test_blocks_go_where_that_costs_less_than_narrowing() -> None:
    found = Search(Depths(), HALF, ("float32",), train=False, blocks=4).run()
    assert found.point is not None
    assert (found.point.variant.blocks, found.point.variant.way) == (3, 0.0)
    without = Search(Depths(), HALF, ("float32",), train=False).run()
    assert without.point is not None
    assert without.point.score < found.point.score - 0.1


def test_what_is_left_without_blocks_is_narrowed_too() -> None:
    found = Search(Depths(), {"latency": 0.3}, ("float32",), train=False, blocks=4).run()
    assert found.point is not None
    assert found.point.variant.blocks == 3
    assert found.point.variant.way > 0
    assert 0.95 * 0.3 <= found.point.left["latency"] <= 1.01 * 0.3


def test_training_is_tried_where_it_may_bring_back_what_more_blocks_cost() -> None:
    """All four blocks cost 0.05 without training, and 0.005 with it: as good as the best, and twice as fast."""
    harms = (0.02, 0.01, 0.01, 0.01)

    def build(variants: Sequence[Variant]) -> list[Point]:
        return [dataclasses.replace(one, grain=0.03) for one in Depths(harms)(variants)]

    found = Search(build, HALF, ("float32",), blocks=4).run()
    assert found.point is not None
    assert (found.point.variant.blocks, found.point.variant.trained) == (4, True)


def test_without_a_goal_blocks_go_as_far_as_the_gates_let_them() -> None:
    found = Search(Depths(allowed=0.0035), {}, ("float32",), train=False, blocks=4).run()
    assert found.point is not None
    assert found.point.variant.blocks == 3
    assert not found.point.complaint


def test_no_blocks_are_asked_for_where_there_are_none() -> None:
    world = Depths()
    Search(world, HALF, ("float32",), train=False).run()
    assert not any(one.blocks for one in world.built)
