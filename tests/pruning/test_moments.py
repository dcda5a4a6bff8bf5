"""Least squares from sums, from rows, and with bounds."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphopt.pruning.moments import Fit, Moments, Rows, Samples, best_fit

Array = npt.NDArray[Any]


def _data(rows: int, columns: int, outputs: int, groups: int = 1, seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((groups, rows, columns)) @ random.standard_normal((groups, columns, columns)) + 1
    y = x @ random.standard_normal((groups, columns, outputs)) + random.standard_normal((groups, rows, outputs)) + 3
    return x.astype(np.float32), y.astype(np.float32)


def _filled(kind: type[Moments] | type[Rows], x: Array, y: Array) -> Samples:
    groups, _, columns = x.shape
    samples = kind(groups, columns, y.shape[2])
    for part in np.array_split(np.arange(x.shape[1]), 3):
        samples.add(x[:, part], y[:, part])
    return samples


@pytest.mark.parametrize("kind", [Moments, Rows])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_weak_ridge_is_ordinary_least_squares(kind: type[Moments] | type[Rows], groups: int) -> None:
    x, y = _data(200, 6, 2, groups)
    samples = _filled(kind, x, y)
    weight = samples.regress(np.zeros((groups, 2, 6)), 1e-8, centred=True)
    bias = samples.bias(weight)
    for group in range(groups):
        design = np.column_stack([x[group], np.ones(200)]).astype(np.float64)
        expected = np.linalg.lstsq(design, y[group].astype(np.float64), rcond=None)[0]
        np.testing.assert_allclose(weight[group].T, expected[:-1], rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(bias[group], expected[-1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", [Moments, Rows])
def test_a_strong_ridge_keeps_the_old_weight(kind: type[Moments] | type[Rows]) -> None:
    x, y = _data(100, 5, 2)
    old = np.random.default_rng(1).standard_normal((1, 2, 5))
    np.testing.assert_allclose(_filled(kind, x, y).regress(old, 1e9, centred=True), old, atol=1e-5)


@pytest.mark.parametrize("rows", [8, 200])
@pytest.mark.parametrize("centred", [True, False])
def test_sums_and_rows_agree(rows: int, centred: bool) -> None:
    x, y = _data(rows, 20, 3)
    old = np.random.default_rng(1).standard_normal((1, 3, 20))
    sums, kept = _filled(Moments, x, y), _filled(Rows, x, y)
    np.testing.assert_allclose(
        sums.regress(old, 0.1, centred=centred), kept.regress(old, 0.1, centred=centred), rtol=2e-3, atol=2e-3
    )
    bias = np.full((1, 3), 0.5)
    assert sums.error(old, bias) == pytest.approx(kept.error(old, bias), rel=1e-3)
    assert sums.variance(centred=centred) == pytest.approx(kept.variance(centred=centred), rel=1e-4)


def test_covariance_is_that_of_numpy() -> None:
    x, _ = _data(50, 4, 1)
    moments = Moments(1, 4)
    moments.add(x)
    np.testing.assert_allclose(moments.covariance()[0] / 49, np.cov(x[0].T), rtol=1e-3)


def test_the_fit_recovers_what_a_lost_column_did() -> None:
    random = np.random.default_rng(0)
    kept = random.standard_normal((1, 400, 4)).astype(np.float32)
    lost = kept @ np.array([[1.0], [-2.0], [0.5], [0.0]], np.float32) + 0.7
    y = kept @ np.ones((4, 3), np.float32) + lost @ np.array([[1.0, 2.0, 3.0]], np.float32)
    fit = best_fit(
        _filled(Moments, kept[:, :300], y[:, :300]),
        _filled(Moments, kept[:, 300:], y[:, 300:]),
        np.ones((1, 3, 4)),
        intercept=True,
    )
    assert fit.before > 0.3
    assert fit.after < 1e-6
    assert fit.rows == 400
    assert fit.bias is not None
    np.testing.assert_allclose(fit.bias[0], [0.7, 1.4, 2.1], atol=1e-2)


def test_noise_leaves_the_weight_alone() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 60, 40)).astype(np.float32)
    old = random.standard_normal((1, 2, 40))
    y = (x @ old.transpose(0, 2, 1)).astype(np.float32)
    fit = best_fit(_filled(Moments, x[:, :48], y[:, :48]), _filled(Moments, x[:, 48:], y[:, 48:]), old, intercept=False)
    np.testing.assert_allclose(fit.weight, old, atol=1e-3)
    assert fit.bias is None


def _bounded(x: Array, y: Array, floor: float | None, ceiling: float | None) -> Rows:
    rows = Rows(1, x.shape[2], y.shape[2])
    ends = [None if end is None else np.full(y.shape, end, np.float32) for end in (floor, ceiling)]
    rows.add(x, y, *ends)
    return rows


def test_refinement_makes_use_of_what_a_relu_cuts_off() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 2000, 6)).astype(np.float32)
    y = x @ random.standard_normal((6, 2)).astype(np.float32)
    y = np.where(y < 0, 5 * y, y)  # what lies below zero cannot be met by a linear layer, and need not
    rows = _bounded(x, y, 0.0, None)
    weight = rows.regress(np.zeros((1, 2, 6)), 1e-6, centred=True)
    bias = rows.bias(weight)
    errors = [rows.error(weight, bias)]
    for _ in range(4):
        weight, bias = rows.refine(weight, bias, 1e-6, 1)
        errors.append(rows.error(weight, bias))
    assert all(after < before for before, after in itertools.pairwise(errors))
    assert rows.error(*rows.refine(weight, bias, 1e-6, 60)) < 0.02 * errors[0]


def test_bounds_that_nothing_reaches_change_nothing() -> None:
    x, y = _data(100, 5, 2)
    free, bounded = _filled(Rows, x, y), _bounded(x, y, -1e6, 1e6)
    assert isinstance(free, Rows)
    weight = free.regress(np.zeros((1, 2, 5)), 0.01, centred=True)
    again, bias = bounded.refine(weight, free.bias(weight), 0.01, 1)
    assert bounded.error(weight, bias) == pytest.approx(free.error(weight, bias), rel=1e-5)
    assert bounded.is_bounded
    assert not free.is_bounded
    assert again.shape == weight.shape


def test_a_fit_survives_a_file() -> None:
    fit = Fit(np.ones((1, 2, 3)), None, None, 0.5, 0.25, 7)
    again = Fit.from_arrays(fit.to_arrays())
    assert (again.bias, again.ridge, again.before, again.after, again.rows) == (None, None, 0.5, 0.25, 7)
    assert np.array_equal(again.weight, fit.weight)
