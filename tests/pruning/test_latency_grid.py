"""What a curve makes of points: interpolation, padding, penalties, noise, grids that are not complete."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from graphopt.pruning.latency.grid import DEEPEST, Curve, levels, off_points, points
from graphopt.pruning.latency.products import Counts, Factor, Site


class Product:
    """Stands in for a site: its factors are all that a curve looks at."""

    def __init__(self, *factors: Factor) -> None:
        self.factors = factors


def product(*sizes: int, step: int = 16) -> Site:
    return Product(*(Factor(number, size, 0, step) for number, size in enumerate(sizes)))  # type: ignore[return-value]


def bilinear(counts: Counts) -> float:
    return 1.0 + 0.5 * counts[0] + 0.25 * counts[1] + 0.01 * counts[0] * counts[1]


def padded(counts: Counts) -> float:
    """A kernel of blocks of 16."""
    return bilinear({number: math.ceil(count / 16) * 16 for number, count in counts.items()})


def test_levels_are_on_the_multiple_and_include_all() -> None:
    factor = Factor(0, 200, 0, 16)
    for depth in range(DEEPEST + 1):
        found = levels(factor, depth)
        assert found[-1] == 200
        assert all(count % 16 == 0 for count in found[:-1])
        assert set(found) <= set(levels(factor, min(depth + 1, DEEPEST)))
    assert levels(factor, 1) == [32, 112, 200]


def test_points_start_with_the_full_size() -> None:
    site = product(64, 128)
    assert list(points(site, 0)) == [{0: 64, 1: 128}]
    assert next(iter(points(site, 2))) == {0: 64, 1: 128}
    assert len(list(points(product(64, 64, 64), 2))) == 3**3  # three factors: a coarser grid
    assert list(points(product(), 2)) == [{}]


def test_between_points_a_bilinear_time_is_exact() -> None:
    curve = Curve(product(256, 512, step=1), bilinear)
    for counts in ((256, 512), (100, 300), (16, 64), (1, 1), (255, 3)):
        assert curve.at(counts) == pytest.approx(bilinear(dict(enumerate(counts))))


def test_blocks_are_padded() -> None:
    curve = Curve(product(256, 256), padded)
    for counts in ((79, 256), (80, 256), (65, 129), (255, 255)):
        assert curve.at(counts) == pytest.approx(padded(dict(enumerate(counts))))
    assert curve.at((79, 256)) > curve.at((64, 256))


def slower_off(counts: Counts) -> float:
    """Multiples of 8 go the fast way, others take 1.5 times as long as their share."""
    return bilinear(counts) * (1 if all(count % 8 == 0 for count in counts.values()) else 1.5)


def test_what_goes_a_slower_way_is_penalised() -> None:
    curve = Curve(product(256, 256, step=8), slower_off)
    assert curve.at((128, 128)) == pytest.approx(bilinear({0: 128, 1: 128}))
    assert curve.at((127, 128)) == pytest.approx(slower_off({0: 127, 1: 128}), rel=1e-6)
    assert curve.at((127, 128)) > curve.at((128, 128))


def test_a_disturbed_point_counts_for_no_more_than_what_is_larger() -> None:
    def disturbed(counts: Counts) -> float:
        return bilinear(counts) * (10 if counts == {0: 128, 1: 128} else 1)

    curve = Curve(product(256, 256), disturbed)
    assert curve.at((128, 128)) <= min(curve.at((160, 128)), curve.at((128, 160)))


@pytest.mark.parametrize("depth", range(DEEPEST + 1))
def test_an_incomplete_grid_gives_way_to_a_coarser_one(depth: int) -> None:
    site = product(256, 256)
    known = {tuple(counts.values()) for counts in points(site, depth)}

    def time(counts: Counts) -> float | None:
        return bilinear(counts) if tuple(counts.values()) in known else None

    curve = Curve(site, time)
    assert curve.measured
    assert curve.at((256, 256)) == pytest.approx(bilinear({0: 256, 1: 256}))
    if depth:
        assert curve.at((128, 128)) == pytest.approx(bilinear({0: 128, 1: 128}))


def test_without_any_point_nothing_is_measured() -> None:
    nothing: Callable[[Counts], float | None] = lambda counts: None  # noqa: E731
    assert not Curve(product(64), nothing).measured


def test_off_points_differ_by_their_power_of_two() -> None:
    found = dict(off_points(product(128, 8)))
    assert sorted(found) == [0, 1, 2, 4, 8]
    assert found[0] == {0: 80, 1: 8}
    assert found[4] == {0: 76, 1: 8}
    assert not list(off_points(product(64, step=1)))
