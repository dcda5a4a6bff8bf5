"""Contents of small integer tensors, followed through the arithmetic that exporters do on shapes.

A rule gets the node (``call.output`` says which output) and the output's length, 1 for a scalar, and returns the
contents, flat, or None. An element nothing is known about is None until the engine names it with a symbol. Booleans
are 0 and 1.

Integers are exact here while the runtime's wrap around; the engine drops literal results that do not fit their type,
and symbols stand for extents, whose products do fit in any model that runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim, floordiv, lower_bound, maximum, minimum, product, upper_bound
from graphopt.analysis.shape_rules.call import Call
from graphopt.analysis.shape_rules.movement import slice_params, split_extents

__all__ = ["MATRIX_RULES", "MAX_ELEMENTS", "RULES", "TRACKED"]

MAX_ELEMENTS = 64
TRACKED = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})

Elements: TypeAlias = Sequence[Dim | None]
DataRule: TypeAlias = Callable[[Call, int], "Elements | None"]


def _through(call: Call, length: int) -> Elements | None:
    return call.flat(0)


def _transposed(call: Call, length: int) -> Elements | None:
    data, shape = call.flat(0), call.shape(0)
    if data is None or len(shape) != 2 or call.integers("perm") not in (None, (1, 0)):
        return None
    columns = shape[1]
    return None if not isinstance(columns, int) else [item for start in range(columns) for item in data[start::columns]]


def _rows(call: Call, length: int) -> Elements | None:
    """A Slice of a matrix."""
    data, shape = call.flat(0), call.shape(0)
    if data is None or len(shape) != 2 or not all(isinstance(size, int) for size in shape):
        return None
    places = np.arange(len(data)).reshape([int(size) for size in shape if isinstance(size, int)])
    for axis, start, end, step in slice_params(call, 2):
        if not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int)) or step == 0:
            return None
        if step < 0 and -places.shape[axis] > end:
            cut = slice(start, None, step)
        elif step < 0 and end >= 2**31 - 1:
            return None  # runtimes disagree on what the far end means
        else:
            cut = slice(start, end, step)
        places = places[cut] if axis == 0 else places[:, cut]
    return [data[place] for place in places.reshape(-1).tolist()]


def _spread(call: Call, index: int, length: int) -> Elements | None:
    """An operand's elements, repeated to the broadcast length."""
    data = call.data(index)
    if data is None or len(data) == length:
        return data
    return data * length if len(data) == 1 else None


def _pairwise(function: Callable[[Dim, Dim], Dim | None]) -> DataRule:
    def rule(call: Call, length: int) -> Elements | None:
        a, b = _spread(call, 0, length), _spread(call, 1, length)
        if a is None or b is None:
            return None
        return [None if x is None or y is None else function(x, y) for x, y in zip(a, b, strict=True)]

    return rule


def _folded(function: Callable[[Dim, Dim], Dim]) -> DataRule:
    def rule(call: Call, length: int) -> Elements | None:
        parts = [_spread(call, index, length) for index in range(len(call.node.inputs))]
        result = parts[0]
        for part in parts[1:]:
            if result is None or part is None:
                return None
            result = [None if x is None or y is None else function(x, y) for x, y in zip(result, part, strict=True)]
        return result

    return rule


def _add(a: Dim, b: Dim) -> Dim:
    return a + b


def _sub(a: Dim, b: Dim) -> Dim:
    return a - b


def _mul(a: Dim, b: Dim) -> Dim:
    return a * b


def _divide(a: Dim, b: Dim) -> Dim | None:
    """Integer division truncates towards zero in ONNX."""
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            return None
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return floordiv(a, b) if _at_least(a, 0) and _at_least(b, 0) and b != 0 else None


def _modulo(call: Call, length: int) -> Elements | None:
    truncating = call.integer("fmod", 0) == 1

    def one(a: Dim, b: Dim) -> Dim | None:
        if isinstance(a, int) and isinstance(b, int):
            if b == 0:
                return None
            return int(math.fmod(a, b)) if truncating else a % b
        return a % b if _at_least(a, 0) and isinstance(b, int) and b > 0 else None

    return _pairwise(one)(call, length)


def _at_least(dim: Dim, bound: int) -> bool:
    low = lower_bound(dim)
    return low is not None and low >= bound


def _equal(a: Dim, b: Dim) -> Dim | None:
    if a == b:
        return 1
    low, high = lower_bound(a - b), upper_bound(a - b)
    return 0 if (low is not None and low > 0) or (high is not None and high < 0) else None


def _less(a: Dim, b: Dim) -> Dim | None:
    low, high = lower_bound(b - a), upper_bound(b - a)
    if low is not None and low > 0:
        return 1
    return 0 if high is not None and high <= 0 else None


def _less_or_equal(a: Dim, b: Dim) -> Dim | None:
    stricter = _less(b, a)
    return None if stricter is None else 1 - stricter


def _and(a: Dim, b: Dim) -> Dim | None:
    return a * b if isinstance(a, int) and isinstance(b, int) else (0 if a == 0 or b == 0 else None)


def _or(a: Dim, b: Dim) -> Dim | None:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else (1 if a == 1 or b == 1 else None)


def _not(call: Call, length: int) -> Elements | None:
    data = call.data(0)
    return None if data is None else [1 - item for item in data]


def _where(call: Call, length: int) -> Elements | None:
    condition, yes, no = (_spread(call, index, length) for index in range(3))
    if condition is None or yes is None or no is None:
        return None
    return [
        y if y == n else (y if c == 1 else n) if isinstance(c, int) else None
        for c, y, n in zip(condition, yes, no, strict=True)
    ]


def _shape(call: Call, length: int) -> Elements | None:
    return call.shape(0)[call.integer("start", 0) : call.attr("end")]


def _size(call: Call, length: int) -> Elements | None:
    return [product(call.shape(0))]


def _constant_of_shape(call: Call, length: int) -> Elements | None:
    value = call.attr("value")
    return [0 if value is None else int(value.numpy().reshape(()))] * length


def _cast(call: Call, length: int) -> Elements | None:
    data = call.data(0)
    if data is None or call.attr("to") not in (ir.DataType.BOOL, "BOOL"):
        return data
    return [None if equal is None else 1 - equal for equal in [_equal(item, 0) for item in data]]


def _neg(call: Call, length: int) -> Elements | None:
    data = call.data(0)
    return None if data is None else [-item for item in data]


def _abs(call: Call, length: int) -> Elements | None:
    data = call.data(0)
    if data is None:
        return None
    return [abs(item) if isinstance(item, int) else item if _at_least(item, 0) else None for item in data]


def _known_or_blank(call: Call, index: int) -> Elements | None:
    """The contents of an input; blanks when only its length is known."""
    data = call.data(index)
    if data is not None:
        return data
    shape = call.shape(index)
    count = product(shape)
    return [None] * count if isinstance(count, int) and count <= MAX_ELEMENTS else None


def _concat(call: Call, length: int) -> Elements | None:
    parts = [_known_or_blank(call, index) for index in range(len(call.node.inputs))]
    if any(part is None for part in parts):
        return None
    return [item for part in parts if part is not None for item in part]


def _gather(call: Call, length: int) -> Elements | None:
    data, picks = call.data(0), call.data(1)
    if data is None or picks is None:
        return None
    count = len(data)
    return [data[pick] if isinstance(pick, int) and -count <= pick < count else None for pick in picks]


def _slice(call: Call, length: int) -> Elements | None:
    data = call.data(0)
    if data is None:
        return None
    ((_, start, end, step),) = slice_params(call, 1)
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int)) or step == 0:
        return None
    count = len(data)
    if step > 0:
        return data[slice(start, end, step)]
    if end >= 2**31 - 1 or not count:
        return None if count else ()  # backwards, runtimes disagree on what the far end means
    # a start before the front moves to the first element, an end there to just before it
    first = max(0, min(start + count if start < 0 else start, count - 1))
    last = max(-1, min(end + count if end < 0 else end, count - 1))
    return [data[place] for place in range(first, last, step)]


def _split(call: Call, length: int) -> Elements | None:
    data = call.data(0)
    if data is None:
        return None
    start = 0
    for extent in split_extents(call, len(data))[: call.output]:
        if not isinstance(extent, int):
            return None
        start += extent
    return data[start : start + length]


def _reduce(function: Callable[[Sequence[Dim]], Dim]) -> DataRule:
    def rule(call: Call, length: int) -> Elements | None:
        data = call.data(0)
        if data is None or not call.shape(0):
            return data
        reduced = length == 1 and not (call.integer("noop_with_empty_axes", 0) and not _has_axes(call))
        return [function(data)] if reduced and data else None

    return rule


def _has_axes(call: Call) -> bool:
    return bool(call.integers("axes")) or (call.has(1) and call.maybe_shape(1) != (0,))


def _highest(items: Sequence[Dim]) -> Dim:
    result = items[0]
    for item in items[1:]:
        result = maximum(result, item)
    return result


def _lowest(items: Sequence[Dim]) -> Dim:
    result = items[0]
    for item in items[1:]:
        result = minimum(result, item)
    return result


def _clip(call: Call, length: int) -> Elements | None:
    data = call.data(0)
    for index, function in ((1, maximum), (2, minimum)):
        bound = call.data(index)
        if data is None or (bound is None and call.has(index)):
            return None
        if bound is not None:
            data = tuple([function(item, bound[0]) for item in data])
    return data


def _total(items: Sequence[Dim]) -> Dim:
    result: Dim = 0
    for item in items:
        result = result + item
    return result


def _range(call: Call, length: int) -> Elements | None:
    start, delta = call.data(0), call.data(2)
    if start is None or delta is None:
        return None
    return [start[0] + delta[0] * step for step in range(length)]


def _repeat(call: Call, length: int) -> Elements | None:
    data = call.data(0)
    return None if not data or length % len(data) else data * (length // len(data))


def _expand(call: Call, length: int) -> Elements | None:
    return _spread(call, 0, length)


def _cumulative_sum(call: Call, length: int) -> Elements | None:
    data = call.data(0)
    if data is None or call.integer("exclusive", 0) or call.integer("reverse", 0):
        return None
    return [_total(data[: place + 1]) for place in range(len(data))]


RULES: dict[str, DataRule] = {
    **dict.fromkeys(("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"), _through),
    "Abs": _abs,
    "Add": _pairwise(_add),
    "And": _pairwise(_and),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": _cumulative_sum,
    "Div": _pairwise(_divide),
    "Equal": _pairwise(_equal),
    "Expand": _expand,
    "Gather": _gather,
    "Greater": _pairwise(lambda a, b: _less(b, a)),
    "GreaterOrEqual": _pairwise(lambda a, b: _less_or_equal(b, a)),
    "Less": _pairwise(_less),
    "LessOrEqual": _pairwise(_less_or_equal),
    "Max": _folded(maximum),
    "Min": _folded(minimum),
    "Mod": _modulo,
    "Mul": _pairwise(_mul),
    "Neg": _neg,
    "Not": _not,
    "Or": _pairwise(_or),
    "Range": _range,
    "ReduceMax": _reduce(_highest),
    "ReduceMin": _reduce(_lowest),
    "ReduceProd": _reduce(product),
    "ReduceSum": _reduce(_total),
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Sub": _pairwise(_sub),
    "Sum": _folded(_add),
    "Tile": _repeat,
    "Where": _where,
}

MATRIX_RULES: dict[str, DataRule] = {
    **dict.fromkeys(("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"), _through),
    "Slice": _rows,
    "Transpose": _transposed,
}
"""For results of rank 2; the arguments are those of the rules above, with the number of elements for the length."""
