"""What counts as the same output: bits, NaN, scale, dtype, calibration."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphopt.verify import tolerance
from graphopt.verify.result import OutputComparison
from graphopt.verify.tolerance import Policy

RANDOM = np.random.default_rng(0)


def _judge(
    a: Any, b: Any, policy: Policy | None = None, *, drift: float | None = None, **options: bool
) -> OutputComparison:
    policy = policy or Policy()
    rtol, _ = policy.factors(tolerance.describe(a)[0])
    difference = tolerance.compare(a, b, rtol)
    return tolerance.judge("y", [difference], policy, drifts=None if drift is None else [drift], **options)


def test_same_bits() -> None:
    a = RANDOM.standard_normal((3, 5)).astype(np.float32)
    verdict = _judge(a, a.copy(), Policy(exact=True))
    assert verdict.ok
    assert verdict.identical
    assert (verdict.max_abs, verdict.max_rel, verdict.cosine, verdict.argmax_agreement) == (0, 0, 1, 1)


def test_one_bit_breaks_exactness_only() -> None:
    a = RANDOM.standard_normal((3, 5)).astype(np.float32)
    b = a.copy()
    b[1, 1] = np.nextafter(b[1, 1], np.float32(9))
    assert not _judge(a, b, Policy(exact=True)).ok
    close = _judge(a, b)
    assert close.ok
    assert not close.identical


def test_zero_has_a_sign_for_exactness() -> None:
    assert not _judge(np.zeros(2, np.float32), -np.zeros(2, np.float32), Policy(exact=True)).ok


def test_any_nan_is_the_same_nan() -> None:
    a = np.array([1, np.nan], np.float32)
    b = a.copy()
    b.view(np.uint32)[1] ^= 1
    assert np.isnan(b[1])
    assert _judge(a, b, Policy(exact=True)).ok


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, np.nan], [1, 2]),
        ([1, 2], [1, np.nan]),
        ([1, np.inf], [1, -np.inf]),
        ([1, np.inf], [1, 3e38]),
        ([np.nan, np.inf], [np.inf, np.nan]),
    ],
)
def test_nan_and_infinity_must_stay_in_place(a: list[float], b: list[float]) -> None:
    verdict = _judge(np.array(a, np.float32), np.array(b, np.float32), drift=1e30)
    assert not verdict.ok
    assert "NaN" in verdict.note


@pytest.mark.parametrize("fill", [-1e4, -1e9, -3.4028235e38, 1e20])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_a_fill_value_is_no_scale(fill: float, share: float) -> None:
    a = RANDOM.standard_normal(4096).astype(np.float32)
    masked = RANDOM.random(4096) < share
    masked[0] = True
    expected = np.where(masked, np.float32(fill), a)
    wrong, close = (np.where(masked, np.float32(fill), a * np.float32(factor)) for factor in (1.01, 1.00001))
    assert _judge(expected, close).ok
    assert not _judge(expected, wrong).ok
    assert not _judge(expected + a, wrong + a * masked).ok  # added to the numbers, as an attention mask is


def test_a_lone_large_number_is_a_scale() -> None:
    a = np.array([1000.0, 0.01, 0.02], np.float32)
    assert _judge(a, a + np.float32(1e-4)).ok
    assert _judge(np.stack([a, a * 1.5]), np.stack([a, a * 1.5]) + np.float32(1e-4)).ok


@pytest.mark.parametrize("scale", [1e-20, 1e-5, 1.0, 1e20])
def test_the_standard_does_not_depend_on_the_scale(scale: float) -> None:
    a = (RANDOM.standard_normal(1000) * scale).astype(np.float32)
    assert _judge(a, (a + scale * 1e-6).astype(np.float32)).ok
    assert not _judge(a, (a + scale * 1e-3).astype(np.float32)).ok


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_rounding_passes_and_tenfold_tolerance_fails(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    a = np.linspace(0.5, 1, 64).astype(kind)
    rtol, floor = Policy(precision=dtype).factors(dtype)
    rounded = (a.astype(np.float64) * (1 + rtol / 3)).astype(kind)
    wrong = (a.astype(np.float64) + 10 * (rtol + floor)).astype(kind)
    assert _judge(a, rounded, Policy(precision=dtype)).ok
    assert not _judge(a, wrong, Policy(precision=dtype)).ok


def test_the_coarsest_type_decides() -> None:
    a = np.linspace(0.5, 1, 64)
    b = a * (1 + 1e-6)
    assert not _judge(a, b, Policy(precision="float64")).ok
    assert _judge(a, b, Policy(precision="float32")).ok
    assert _judge(a.astype(np.float32), (a * 1.002).astype(np.float32), Policy(precision="float16")).ok


def test_calibration_widens_within_bounds() -> None:
    a = np.linspace(0.5, 1, 64).astype(np.float32)
    b = a + np.float32(0.01)
    verdict = _judge(a, b)
    assert tolerance.can_calibrate(verdict)
    calibrated = _judge(a, b, drift=0.008)
    assert calibrated.ok
    assert calibrated.tolerance.kind == "calibrated"
    assert not _judge(a, b, drift=0.001).ok
    assert not _judge(a, a + np.float32(0.2), drift=0.2).ok, "beyond MAX_DRIFT nothing is proven"


def test_users_tolerance_replaces_everything() -> None:
    a = np.linspace(0.5, 1, 64).astype(np.float32)
    assert _judge(a, a + np.float32(0.3), Policy(atol=0.5, rtol=0)).ok
    strict = _judge(a, a + np.float32(1e-6), Policy(atol=0, rtol=0), drift=1.0)
    assert not strict.ok
    assert not tolerance.can_calibrate(strict)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint16", "bool", "object"])
def test_what_is_not_float_is_equal_or_not(dtype: str) -> None:
    a = np.array([[0, 1], [1, 0]]).astype(bool if dtype == "bool" else dtype)
    b = a.copy()
    b[0, 0] = True if dtype == "bool" else 7
    assert _judge(a, a.copy()).ok
    verdict = _judge(a, b, drift=100.0)
    assert not verdict.ok
    assert verdict.argmax_agreement == 0.75


def test_large_integers_are_compared_as_integers() -> None:
    a = np.array([2**62], np.int64)
    assert not _judge(a, a + 1).ok


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_eight_bit_integers_may_move_as_calibrated(dtype: type) -> None:
    a: np.ndarray[Any, Any] = np.arange(100).astype(dtype)
    b: np.ndarray[Any, Any] = (a + 1).astype(dtype)
    assert not _judge(a, b).ok
    assert _judge(a, b, drift=1.0).ok
    assert not _judge(a, (a + 2).astype(dtype), drift=1.0).ok
    assert not _judge(a, (a + 20).astype(dtype), drift=20.0).ok
    assert not _judge(a, b, Policy(exact=True), drift=1.0).ok


@pytest.mark.parametrize(
    ("other", "note"),
    [
        (np.zeros((2, 2), np.float64), "dtype float32 became float64"),
        (np.zeros((2, 3), np.float32), r"shape \[2,2\] became \[2,3\]"),
        ([np.zeros((2, 2), np.float32)], "dtype float32 became sequence"),
        (None, "dtype float32 became none"),
    ],
)
def test_type_and_shape_count_even_for_random_outputs(other: Any, note: str) -> None:
    for random in (False, True):
        verdict = _judge(np.zeros((2, 2), np.float32), other, random=random)
        assert not verdict.ok
        assert verdict.max_abs is None
        assert re.search(note, verdict.note)


def test_random_outputs_are_not_compared() -> None:
    verdict = _judge(np.zeros(9, np.float32), np.ones(9, np.float32), random=True)
    assert verdict.ok
    assert verdict.tolerance.kind == "random"
    assert verdict.max_abs is None


def test_sequences_and_maps() -> None:
    a = [{"cat": 0.25, "dog": 0.75}, {"cat": 0.5, "dog": 0.5}]
    assert _judge(a, [dict(entry) for entry in a]).ok
    assert not _judge(a, [a[0], {"cat": 0.4, "dog": 0.6}]).ok
    assert not _judge(a, [a[0], {"cat": 0.5, "cow": 0.5}]).ok
    assert not _judge(a, a[:1]).ok
    b = [np.zeros(3, np.float32), np.ones(2, np.float32)]
    assert _judge(b, [array.copy() for array in b]).ok
    assert not _judge(b, b[::-1]).ok
    assert _judge(None, None).ok


def test_empty_outputs() -> None:
    a = np.zeros((0, 4), np.float32)
    assert _judge(a, a.copy()).ok
    assert _judge(a.astype(np.int64), a.astype(np.int64)).ok


def test_figures() -> None:
    a = np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)
    b = np.array([[1.0, 2.0], [4.0, 4.5]], np.float32)
    verdict = _judge(a, b)
    assert verdict.max_abs == 1.5
    assert verdict.max_rel == 0.5
    assert verdict.argmax_agreement == 0.5
    expected = float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b))
    assert verdict.cosine == pytest.approx(expected)


def test_drift() -> None:
    a = np.zeros(4, np.float32)
    assert tolerance.drift(a, a) == 0
    assert tolerance.drift(a, a + 2) == 2
    assert tolerance.drift(a, np.zeros(5, np.float32)) == np.inf
