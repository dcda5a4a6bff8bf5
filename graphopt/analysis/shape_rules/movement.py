"""Shapes of operators that move, select, repeat or reinterpret elements."""

from __future__ import annotations

from graphopt.analysis.dims import (
    Dim,
    ceildiv,
    exact_div,
    floordiv,
    lower_bound,
    maximum,
    minimum,
    product,
    upper_bound,
)
from graphopt.analysis.shape_rules.call import Call, RankVaries, Shape, ShapeRule, TypeRule, Undetermined, normalized
from graphopt.analysis.shape_rules.elementwise import broadcast_shapes, same

__all__ = ["RULES", "axes_of", "slice_extent", "slice_params", "split_extents"]

_FAR = 2**31 - 1  # exporters write this, or the 64-bit maximum, for "to the end"


def axes_of(call: Call, index: int, rank: int) -> tuple[int, ...] | None:
    """Axes from the ``axes`` attribute or the input ``index``, counted from the front; None when neither is given."""
    axes = call.integers("axes")
    if axes is None:
        if not call.has(index):
            return None
        axes = call.static(index)
    return tuple([normalized(axis, rank) for axis in axes])


def _reshape(call: Call) -> Shape:
    target: tuple[Dim, ...] | None = call.integers("shape")  # opset 1
    if target is None:
        target = call.data(1)
    source = call.maybe_shape(0)
    if target is None:
        rank = call.shape(1)[0]
        if not isinstance(rank, int):
            raise Undetermined
        return tuple([call.fresh() for _ in range(rank)])
    keep_zero = call.integer("allowzero", 0) == 1
    dims: list[Dim] = []
    inferred: int | None = None
    for axis, dim in enumerate(target):
        if isinstance(dim, int) and dim == -1:
            inferred = axis
            dims.append(1)
        elif isinstance(dim, int) and dim == 0 and not keep_zero:
            dims.append(call.fresh() if source is None else source[axis])
        else:
            dims.append(_trusted(call, dim, source))
    if inferred is not None:
        dims[inferred] = _inferred(call, source, dims)
    return tuple(dims)


def _trusted(call: Call, dim: Dim, source: Shape | None) -> Dim:
    """A target extent, unless it might be the -1 that stands for an inferred one."""
    low = lower_bound(dim)
    if (low is not None and low >= 0) or (source is not None and dim in source):
        return dim
    return call.fresh()


def _inferred(call: Call, source: Shape | None, others: list[Dim]) -> Dim:
    """The extent written -1: the number of elements over the product of the other extents."""
    if source is None:
        return call.fresh()
    # cancel equal extents first, so that opaque ones need no polynomial division
    over, under = list(source), []
    for dim in others:
        if dim in over:
            over.remove(dim)
        else:
            under.append(dim)
    total, divisor = product(over), product(under)
    if divisor == 0:
        return call.fresh()
    quotient = exact_div(total, divisor)
    return floordiv(total, divisor) if quotient is None else quotient


def _flatten(call: Call) -> Shape:
    shape = call.shape(0)
    axis = call.integer("axis", 1)
    axis += len(shape) if axis < 0 else 0
    return product(shape[:axis]), product(shape[axis:])


def _transpose(call: Call) -> Shape:
    shape = call.shape(0)
    perm = call.integers("perm")
    if perm is None:
        return shape[::-1]
    if sorted(perm) != list(range(len(shape))):
        raise Undetermined
    return tuple([shape[axis] for axis in perm])


def _squeeze(call: Call) -> Shape:
    shape = call.shape(0)
    axes = axes_of(call, 1, len(shape))
    if not axes:
        # an empty list means no axis to the specification, every axis of length 1 to ONNX Runtime
        if not all(isinstance(dim, int) for dim in shape) or (axes is not None and 1 in shape):
            raise RankVaries
        return tuple([dim for dim in shape if dim != 1])
    return tuple([dim for axis, dim in enumerate(shape) if axis not in axes])


def _unsqueeze(call: Call) -> Shape:
    shape = call.shape(0)
    given = call.integers("axes")
    axes = call.static(1) if given is None else given
    rank = len(shape) + len(axes)
    places = {normalized(axis, rank) for axis in axes}
    rest = iter(shape)
    return tuple([1 if axis in places else next(rest) for axis in range(rank)])


def _concat(call: Call) -> Shape:
    shapes = [call.maybe_shape(index) for index in range(len(call.node.inputs))]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        raise Undetermined
    rank = len(known[0])
    axis = normalized(call.integer("axis", 1), rank)
    # the other axes agree, so whichever is known best serves for all
    dims = list(known[0])
    for shape in known[1:]:
        for place, dim in enumerate(shape):
            if isinstance(dim, int):
                dims[place] = dim
    if len(known) < len(shapes):
        dims[axis] = call.fresh()
        return tuple(dims)
    total: Dim = 0
    for shape in known:
        total = total + shape[axis]
    dims[axis] = total
    return tuple(dims)


def _split(call: Call) -> list[Shape | None]:
    shape = call.shape(0)
    axis = normalized(call.integer("axis", 0), len(shape))
    extents = split_extents(call, shape[axis])
    return [(*shape[:axis], extent, *shape[axis + 1 :]) for extent in extents]


def split_extents(call: Call, extent: Dim) -> tuple[Dim, ...]:
    """How a Split node divides an axis of ``extent`` among its outputs."""
    count = len(call.node.outputs)
    sizes: tuple[Dim, ...] | None = call.integers("split")
    if sizes is None and call.has(1):
        sizes = call.data(1)
        if sizes is None:
            return tuple([call.fresh() for _ in range(count)])
    if sizes is not None:
        return sizes[:count]
    if call.attr("num_outputs") is None:
        return (floordiv(extent, count),) * count
    chunk = ceildiv(extent, count)
    return (*([chunk] * (count - 1)), extent - chunk * (count - 1))


def slice_params(call: Call, rank: int) -> list[tuple[int, Dim | None, Dim | None, Dim | None]]:
    """``(axis, start, end, step)`` for each sliced axis of a Slice node; None for what is unknown."""
    count: Dim
    if call.node.attributes.data.get("starts") is not None:
        starts: tuple[Dim | None, ...] = call.integers("starts") or ()
        ends: tuple[Dim | None, ...] = call.integers("ends") or ()
        axes = call.integers("axes")
        steps: tuple[Dim | None, ...] = (1,) * len(starts)
    else:
        given = call.data(1), call.data(2), call.data(4)
        count = len(given[0] or given[1] or ()) or call.shape(1)[0]
        if not isinstance(count, int):
            raise Undetermined
        unknown = (None,) * count
        starts, ends = given[0] or unknown, given[1] or unknown
        steps = (given[2] or unknown) if call.has(4) else (1,) * count
        axes = call.static(3) if call.has(3) else None
    if axes is None:
        axes = tuple(range(len(starts)))
    return [
        (normalized(axis, rank), start, end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    ]


def slice_extent(extent: Dim, start: Dim | None, end: Dim | None, step: Dim | None) -> Dim | None:
    """How many elements ``start:end:step`` takes of ``extent``, by the rules of ONNX Slice; None when unknown."""
    if start is None or end is None or not isinstance(step, int) or step == 0:
        return None
    if isinstance(start, int) and isinstance(end, int) and (start < 0) == (end < 0) and (end - start) * step <= 0:
        # clamping keeps their order, except that a backward start before the front moves to it
        forward_or_inside = step > 0 or 0 <= end < _FAR
        if forward_or_inside:
            return 0
    first, last = _first(extent, start, step), _last(extent, end, step)
    if first is None or last is None:
        return None
    if step > 0:
        return maximum(0, ceildiv(last - first, step))
    return maximum(0, ceildiv(first - last, -step))


def _first(extent: Dim, start: Dim, step: int) -> Dim | None:
    """The start counted from the front and clamped: to 0..extent forwards, to 0..extent-1 backwards."""
    ceiling = extent if step > 0 else extent - 1
    if _is_far(start):
        return ceiling
    place = _from_front(extent, start)
    if place is None or (step < 0 and start == -1):
        return None if place is None else ceiling
    return minimum(maximum(place, 0), ceiling)


def _last(extent: Dim, end: Dim, step: int) -> Dim | None:
    """The end counted from the front and clamped: to 0..extent forwards, to -1..extent-1 backwards."""
    if _is_far(end):
        return extent if step > 0 else None  # backwards, runtimes disagree on what the far end means
    place = _from_front(extent, end)
    if place is None:
        return None
    return minimum(maximum(place, 0), extent) if step > 0 else minimum(maximum(place, -1), extent - 1)


def _is_far(bound: Dim) -> bool:
    low = lower_bound(bound)
    return low is not None and low >= _FAR


def _from_front(extent: Dim, bound: Dim) -> Dim | None:
    """A bound that may count from the back; None when its sign is not known."""
    low, high = lower_bound(bound), upper_bound(bound)
    if low is not None and low >= 0:
        return bound
    if high is None or high >= 0:
        return None
    return -1 if high <= -_FAR else bound + extent


def _slice(call: Call) -> Shape:
    dims = list(call.shape(0))
    try:
        params = slice_params(call, len(dims))
    except Undetermined:
        return tuple([call.fresh() for _ in dims])
    for axis, start, end, step in params:
        taken = slice_extent(dims[axis], start, end, step)
        dims[axis] = call.fresh() if taken is None else taken
    return tuple(dims)


def _gather(call: Call) -> Shape:
    shape, picks = call.shape(0), call.shape(1)
    axis = normalized(call.integer("axis", 0), len(shape))
    return shape[:axis] + picks + shape[axis + 1 :]


def _gather_nd(call: Call) -> Shape:
    shape, picks = call.shape(0), call.shape(1)
    depth = picks[-1]
    if not isinstance(depth, int):
        raise Undetermined
    return picks[:-1] + shape[call.integer("batch_dims", 0) + depth :]


def _expand(call: Call) -> Shape:
    # the target alone says little: an axis of the input that is longer than 1, or further left, survives
    shape, target = call.shape(0), call.data(1)
    if target is None:
        rank = call.shape(1)[0]
        if not isinstance(rank, int):
            raise Undetermined
        target = tuple([call.fresh() for _ in range(rank)])
    return broadcast_shapes(shape, target)


def _tile(call: Call) -> Shape:
    shape, repeats = call.shape(0), call.data(1)
    if repeats is None or len(repeats) != len(shape):
        return tuple([call.fresh() for _ in shape])
    return tuple([dim * repeat for dim, repeat in zip(shape, repeats, strict=True)])


def _pad(call: Call) -> Shape:
    shape = call.shape(0)
    pads: tuple[Dim, ...] | None = call.integers("pads") or call.integers("paddings")
    if pads is None:
        pads = call.data(1) if call.has(1) else None
    if pads is None or len(pads) % 2:
        return tuple([call.fresh() for _ in shape])
    axes = tuple([normalized(axis, len(shape)) for axis in call.static(3)]) if call.has(3) else range(len(shape))
    dims, half = list(shape), len(pads) // 2
    for place, axis in enumerate(axes):
        dims[axis] = dims[axis] + pads[place] + pads[place + half]
    return tuple(dims)


def _depth_to_space(call: Call) -> Shape:
    batch, channels, height, width = call.shape(0)
    block = call.integer("blocksize", 1)
    return batch, floordiv(channels, block * block), height * block, width * block


def _space_to_depth(call: Call) -> Shape:
    batch, channels, height, width = call.shape(0)
    block = call.integer("blocksize", 1)
    return batch, channels * (block * block), floordiv(height, block), floordiv(width, block)


def _compress(call: Call) -> Shape:
    if call.attr("axis") is None:
        return (call.fresh(),)
    shape = call.shape(0)
    axis = normalized(call.integer("axis", 0), len(shape))
    return (*shape[:axis], call.fresh(), *shape[axis + 1 :])


def _gather_elements(call: Call) -> Shape:
    return call.shape(1)


_TABLE: dict[str, ShapeRule] = {
    "Compress": _compress,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
RULES: dict[str, tuple[TypeRule, ShapeRule]] = {name: (same(0), rule) for name, rule in _TABLE.items()}
