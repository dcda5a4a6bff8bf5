"""When two outputs are the same: bit for bit, or as close as their dtype allows.

A float output passes where ``|a - b| <= rtol * |a| + floor * max|a|``. Both factors follow from the coarsest float
type that the model computes in. The absolute part is relative to the output's own scale, so that an output of 1e-5
is held to the same standard as one of 1e5; a fill value far above the rest, such as a mask's -1e9, is no scale. Where
an output fails, its floor is raised to what ONNX Runtime's own optimizations do to the original (an OCR detector's
tiny outputs move by 2%), never beyond ``MAX_DRIFT`` of the scale.
NaN must meet NaN and infinity the same infinity. Integers, booleans and strings are equal or not; only 8-bit
integers, which are rounded floats as a rule, may move by what the calibration moved them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from graphopt.verify.result import Kind, OutputComparison, Tolerance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CLOSENESS", "MAX_DRIFT", "Difference", "Policy", "can_calibrate", "compare", "drift", "judge"]

Array = np.ndarray[Any, Any]

CLOSENESS: Final[Mapping[str, tuple[float, float]]] = {
    "float64": (1e-9, 1e-10),
    "float32": (1e-4, 1e-5),
    "float16": (5e-3, 2e-3),
    "bfloat16": (4e-2, 2e-2),
    "float8_e4m3fn": (0.25, 0.1),
    "float8_e4m3fnuz": (0.25, 0.1),
    "float8_e5m2": (0.5, 0.2),
    "float8_e5m2fnuz": (0.5, 0.2),
}
"""(rtol, floor) by the float type computed in, coarsest last: some 100 rounding errors of the type."""

MAX_DRIFT: Final = 0.05
"""What calibration may allow at most, relative to the output's scale: beyond it nothing is proven."""

_MARGIN: Final = 2.0  # a rewrite rounds as often as ONNX Runtime's own fusions do, not in the same places
_EIGHT_BIT: Final = frozenset({"int8", "uint8"})
_CHUNK: Final = 1 << 20
_BIAS, _EXPONENTS = 1100, 2200  # room for every exponent of a float64


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user asked for; ``rtol`` or ``atol`` alone leaves the other to the dtype.

    ``precision`` is the coarsest float type that the original computes in.
    """

    precision: str = "float32"
    exact: bool = False
    rtol: float | None = None
    atol: float | None = None

    def factors(self, dtype: str) -> tuple[float, float]:
        """(rtol, floor) for an output of a dtype."""
        order = list(CLOSENESS)
        known = [name for name in (dtype, self.precision) if name in CLOSENESS]
        rtol, floor = CLOSENESS[max(known, key=order.index)] if known else (0.0, 0.0)
        return (rtol if self.rtol is None else self.rtol), floor


@dataclass(slots=True)
class Difference:
    """How one output differs on one sample; ``excess`` is the absolute tolerance it takes beside ``rtol``."""

    dtype: str
    shape: tuple[int, ...] | None
    broken: str = ""
    identical: bool = True
    integral: bool = False
    max_abs: float = 0.0
    max_rel: float = 0.0
    excess: float = 0.0
    scale: float = 0.0
    cosine: float | None = None
    agreement: float | None = None


def compare(expected: Any, actual: Any, rtol: float) -> Difference:
    """Compare one output value (tensor, sequence, map or none) of both models."""
    kind, shape = describe(expected)
    other_kind, other_shape = describe(actual)
    result = Difference(kind, shape)
    if kind != other_kind:
        result.broken = f"dtype {kind} became {other_kind}"
    elif shape != other_shape:
        result.broken = f"shape {_text(shape)} became {_text(other_shape)}"
    if result.broken:
        result.identical = False
        return result
    theirs = dict(_leaves(actual))
    ours = dict(_leaves(expected))
    if theirs.keys() != ours.keys():
        result.broken, result.identical = "its elements or keys changed", False
        return result
    for path, array in ours.items():
        _merge(result, path, array, theirs[path], rtol)
        if result.broken:
            break
    return result


def _merge(result: Difference, path: str, a: Array, b: Array, rtol: float) -> None:
    at = f"{path}: " if path else ""
    if a.dtype != b.dtype or a.shape != b.shape:
        result.broken = f"{at}{a.dtype}{_text(a.shape)} became {b.dtype}{_text(b.shape)}"
        result.identical = False
        return
    if a.dtype.kind in "biuOUS" or a.dtype.name in ("int4", "uint4", "int2", "uint2"):
        _compare_exactly(result, a, b)
    else:
        _compare_floats(result, a, b, rtol, at)


def _compare_exactly(result: Difference, a: Array, b: Array) -> None:
    same = a == b
    result.identical &= bool(same.all())
    result.integral = True
    agreement = float(same.mean()) if same.size else 1.0
    result.agreement = agreement if result.agreement is None else min(result.agreement, agreement)
    if a.dtype.kind not in "iu" or not a.size:
        result.excess = max(result.excess, 1.0 - agreement)
        return
    distance = np.where(a > b, a, b).astype(np.float64) - np.where(a > b, b, a).astype(np.float64)
    result.max_abs = max(result.max_abs, float(distance.max()))
    result.excess = max(result.excess, float(distance.max()), 1.0 - agreement)


def _compare_floats(result: Difference, a: Array, b: Array, rtol: float, at: str) -> None:
    identical = same_bits(a, b)
    finite_scale = 0.0
    dot = square_a = square_b = 0.0
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    for start in range(0, flat_a.size, _CHUNK):
        x = flat_a[start : start + _CHUNK].astype(np.float64)
        y = x if identical else flat_b[start : start + _CHUNK].astype(np.float64)
        finite = np.isfinite(x)
        if not identical:
            odd = ~finite | ~np.isfinite(y)
            if not np.array_equal(x[odd], y[odd], equal_nan=True):
                result.broken, result.identical = f"{at}NaN or infinity in different places", False
                return
        x, y = x[finite], y[finite]
        if not x.size:
            continue
        size = np.abs(x)
        finite_scale = max(finite_scale, float(size.max()))
        dot, square_a, square_b = dot + float(x @ y), square_a + float(x @ x), square_b + float(y @ y)
        if identical:
            continue
        distance = np.abs(x - y)
        result.max_abs = max(result.max_abs, float(distance.max()))
        result.excess = max(result.excess, float((distance - rtol * size).max()))
        relevant = size > 1e-3 * finite_scale
        if relevant.any():
            result.max_rel = max(result.max_rel, float((distance[relevant] / size[relevant]).max()))
    result.scale = max(result.scale, finite_scale if identical else _typical(flat_a, finite_scale))
    result.identical &= identical
    norm = float(np.sqrt(square_a) * np.sqrt(square_b))
    if norm > 0 and np.isfinite(norm):
        cosine = 1.0 if identical else min(1.0, dot / norm)
        result.cosine = cosine if result.cosine is None else min(result.cosine, cosine)
    if a.ndim in (2, 3) and a.shape[-1] > 1 and a.size:
        agreement = 1.0 if identical else float((a.argmax(-1) == b.argmax(-1)).mean())
        result.agreement = agreement if result.agreement is None else min(result.agreement, agreement)


def _typical(flat: Array, largest: float) -> float:
    """The largest magnitude in ``flat`` that is no fill value.

    Masks write -1e9, or the lowest number there is, where a result does not count; relative to that, anything would
    be close. A fill value shows as equal numbers a thousand times above the rest; a lone one, a million times.
    """
    counts = np.zeros(_EXPONENTS, np.int64)
    for size in _magnitudes(flat):
        counts += np.bincount(np.frexp(size)[1] + _BIAS, minlength=_EXPONENTS)
    levels = np.flatnonzero(counts)
    below = levels[levels < levels[-1] - 1] if levels.size else levels
    if not below.size or levels[-1] - below[-1] <= (11 if counts[levels[-1] - 1 :].sum() > 1 else 21):
        return largest
    bound = 2.0 ** float(below[-1] - _BIAS)
    least, typical = largest, 0.0
    for size in _magnitudes(flat):
        least = min(least, float(size[size >= bound].min(initial=largest)))
        typical = max(typical, float(size[size < bound].max(initial=0.0)))
    return typical if least > largest * (1 - 2**-8) else largest


def _magnitudes(flat: Array) -> Iterator[Array]:
    """The absolute values of what is finite and not zero, in pieces."""
    for start in range(0, flat.size, _CHUNK):
        size = np.abs(flat[start : start + _CHUNK].astype(np.float64))
        yield size[np.isfinite(size) & (size > 0)]


def same_bits(a: Array, b: Array) -> bool:
    """Whether two float arrays of one shape hold the same bits, any NaN being the same as any other."""
    raw = f"u{a.dtype.itemsize}"
    flat_a, flat_b = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1)
    other = flat_a.view(raw) != flat_b.view(raw)
    return not any(bool((~np.isnan(flat[other].astype(np.float64))).any()) for flat in (flat_a, flat_b))


def drift(reference: Any, optimized: Any) -> float:
    """How far ONNX Runtime's own optimizations move an output: an absolute distance, infinite when incomparable."""
    moved = compare(reference, optimized, 0.0)
    return float("inf") if moved.broken else moved.max_abs


def judge(
    name: str, samples: list[Difference], policy: Policy, *, drifts: list[float] | None = None, random: bool = False
) -> OutputComparison:
    """The verdict on one output over all samples; ``drifts`` is the calibration of each, when there has been one."""
    first = samples[0]
    rtol, floor = policy.factors(first.dtype.rpartition("(")[2].rstrip(")"))
    kind = _kind(first, policy, random=random, calibrated=drifts is not None)
    atol = [0.0] * len(samples)
    if kind == "user" and policy.atol is not None:
        atol = [policy.atol] * len(samples)
    elif kind in ("user", "close", "calibrated"):
        atol = [floor * sample.scale for sample in samples]
    if kind == "calibrated" and drifts is not None:
        atol = [
            max(limit, _widened(*pair)) for limit, pair in zip(atol, zip(samples, drifts, strict=True), strict=True)
        ]
    identical = all(sample.identical for sample in samples)
    broken = next((sample.broken for sample in samples if sample.broken), "")
    within = all(sample.excess <= limit for sample, limit in zip(samples, atol, strict=True))
    measured = not broken and not random
    return OutputComparison(
        name=name,
        dtype=first.dtype,
        shape=first.shape,
        max_abs=max(sample.max_abs for sample in samples) if measured else None,
        max_rel=max(sample.max_rel for sample in samples) if measured and not first.integral else None,
        cosine=_least([sample.cosine for sample in samples]) if measured else None,
        argmax_agreement=_least([sample.agreement for sample in samples]) if measured else None,
        tolerance=Tolerance(0.0 if kind in ("exact", "random") else rtol, max(atol), kind),
        ok=not broken and (random or (identical if kind == "exact" else within)),
        identical=identical,
        note=broken,
    )


def can_calibrate(verdict: OutputComparison) -> bool:
    """Whether a look at ONNX Runtime's own drift may still turn this verdict."""
    if verdict.ok or verdict.note or verdict.tolerance.kind in ("user", "random", "calibrated"):
        return False
    return verdict.tolerance.kind == "close" or verdict.dtype in _EIGHT_BIT


def _kind(first: Difference, policy: Policy, *, random: bool, calibrated: bool) -> Kind:
    if random:
        return "random"
    if policy.exact:
        return "exact"
    if first.integral:
        return "calibrated" if calibrated and first.dtype in _EIGHT_BIT else "exact"
    if policy.rtol is not None or policy.atol is not None:
        return "user"
    return "calibrated" if calibrated else "close"


def _widened(sample: Difference, moved: float) -> float:
    if sample.integral:
        return moved if moved <= MAX_DRIFT * 255 else 0.0
    return min(_MARGIN * moved, MAX_DRIFT * sample.scale)


def _least(values: list[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def describe(value: Any) -> tuple[str, tuple[int, ...] | None]:
    """(type name, shape) of an output value."""
    if value is None:
        return "none", None
    if isinstance(value, np.ndarray):
        name = "string" if value.dtype.kind in "OUS" else value.dtype.name
        return name, value.shape
    if isinstance(value, dict):
        return "map", (len(value),)
    if isinstance(value, list):
        inner = sorted({describe(item)[0] for item in value})
        return f"sequence({', '.join(inner)})", (len(value),)
    return type(value).__name__, ()


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Array]]:
    if value is None:
        return
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _leaves(value[key], f"{path}[{key!r}]")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, np.asarray(value)


def _text(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"[{','.join(map(str, shape))}]"
