"""Shapes of products, reductions, normalisations, attention, recurrences and quantization."""

from __future__ import annotations

import onnx_ir as ir

from graphopt.analysis.dims import Dim, floordiv
from graphopt.analysis.shape_rules.call import Call, Shape, ShapeRule, TypeRule, Undetermined, normalized
from graphopt.analysis.shape_rules.elementwise import broadcast_shapes, fixed, same, same_shape

__all__ = ["RULES", "matmul_shape"]

_INT32, _INT64, _UINT8, _FLOAT = ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.FLOAT


def matmul_shape(a: Shape, b: Shape) -> Shape:
    """NumPy's matmul of two shapes that are compatible; raises Undetermined for a scalar."""
    if not a or not b:
        raise Undetermined
    if len(a) == 2 and len(b) == 2:
        return a[0], b[1]
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    return broadcast_shapes(a[:-2], b[:-2]) + rows + columns


def _matmul_of(left: int, right: int) -> ShapeRule:
    def rule(call: Call) -> Shape:
        return matmul_shape(call.shape(left), call.shape(right))

    return rule


def _gemm(call: Call) -> Shape:
    a, b = call.shape(0), call.shape(1)
    if len(a) != 2 or len(b) != 2:
        raise Undetermined
    rows = a[1] if call.integer("transA", 0) else a[0]
    return rows, b[0] if call.integer("transB", 0) else b[1]


def _einsum(call: Call) -> Shape:
    left, arrow, right = call.text("equation", "").replace(" ", "").partition("->")
    extents: dict[str, Dim] = {}
    ellipsis: Shape = ()
    count: dict[str, int] = {}
    for index, term in enumerate(left.split(",")):
        shape = call.shape(index)
        before, dots, after = term.partition("...")
        spread = len(shape) - len(before) - len(after)
        if spread < 0 or (spread and not dots):
            raise Undetermined
        if dots:
            ellipsis = broadcast_shapes(ellipsis, shape[len(before) : len(before) + spread])
        labelled = shape[: len(before)] + shape[len(before) + spread :]
        for label, dim in zip(before + after, labelled, strict=True):
            count[label] = count.get(label, 0) + 1
            extents[label] = broadcast_shapes((extents.get(label, 1),), (dim,))[0]
    if not arrow:
        right = ("..." if "..." in left else "") + "".join(sorted(label for label in count if count[label] == 1))
    before, dots, after = right.partition("...")
    middle = ellipsis if dots else ()
    return (*[extents[label] for label in before], *middle, *[extents[label] for label in after])


def _reduce(call: Call) -> Shape:
    shape = call.shape(0)
    keep = call.integer("keepdims", 1) == 1
    axes = call.integers("axes")
    if axes is None and call.has(1) and call.maybe_shape(1) != (0,):
        data = call.data(1)
        if data is None or not all(isinstance(axis, int) for axis in data):
            return _reduced_somewhere(call, shape, keep)
        axes = call.static(1)
    if not axes:
        if call.integer("noop_with_empty_axes", 0):
            return shape
        axes = tuple(range(len(shape)))
    return _without(shape, {normalized(axis, len(shape)) for axis in axes}, keep)


def _reduced_somewhere(call: Call, shape: Shape, keep: bool) -> Shape:
    """The axes are not known: only the rank may be."""
    if keep:
        return tuple([call.fresh() for _ in shape])
    count = call.shape(1)[0]
    if not isinstance(count, int) or count > len(shape):
        raise Undetermined
    return tuple([call.fresh() for _ in range(len(shape) - count)])


def _without(shape: Shape, axes: set[int], keep: bool) -> Shape:
    if keep:
        return tuple([1 if axis in axes else dim for axis, dim in enumerate(shape)])
    return tuple([dim for axis, dim in enumerate(shape) if axis not in axes])


def _arg_extremum(call: Call) -> Shape:
    shape = call.shape(0)
    axis = normalized(call.integer("axis", 0), len(shape))
    return _without(shape, {axis}, call.integer("keepdims", 1) == 1)


def _top_k(call: Call) -> list[Shape | None]:
    shape = call.shape(0)
    axis = normalized(call.integer("axis", -1), len(shape))
    k: Dim | None = call.attr("k")
    if k is None:
        data = call.data(1)
        k = call.fresh() if data is None else data[0]
    shape = (*shape[:axis], k, *shape[axis + 1 :])
    return [shape, shape]


def _top_k_type(call: Call) -> list[ir.DataType | None]:
    return [call.dtype(0), _INT64]


def _batch_normalization(call: Call) -> list[Shape | None]:
    channels = call.maybe_shape(1)
    return [call.shape(0), *[channels] * (len(call.node.outputs) - 1)]


def _batch_normalization_type(call: Call) -> list[ir.DataType | None]:
    return [call.dtype(0), *[call.dtype(3)] * (len(call.node.outputs) - 1)]


def _layer_normalization(call: Call) -> list[Shape | None]:
    shape = call.shape(0)
    axis = normalized(call.integer("axis", -1), len(shape))
    statistics = (*shape[:axis], *[1] * (len(shape) - axis))
    return [shape, statistics, statistics]


def _layer_normalization_type(call: Call) -> list[ir.DataType | None]:
    statistics = ir.DataType(call.integer("stash_type", int(_FLOAT)))
    return [call.dtype(0), statistics, statistics]


def _recurrent(call: Call) -> list[Shape | None]:
    x = call.shape(0)
    if len(x) != 3:
        raise Undetermined
    directions = 2 if call.text("direction", "forward") == "bidirectional" else 1
    hidden: Dim | None = call.attr("hidden_size")
    if hidden is None:
        hidden = call.shape(2)[-1]
    if call.integer("layout", 0):
        state: Shape = (x[0], directions, hidden)
        return [(x[0], x[1], directions, hidden), state, state]
    state = (directions, x[1], hidden)
    return [(x[0], directions, x[1], hidden), state, state]


def _attention(call: Call) -> list[Shape | None]:
    query, key, value = call.shape(0), call.shape(1), call.shape(2)
    if len(query) == 4 and len(key) == 4 and len(value) == 4:
        batch, heads, length, _ = query
        shared, size, value_size = key[1], key[3], value[3]
        new = key[2]
        output: Shape = (batch, heads, length, value_size)
    elif len(query) == 3 and len(key) == 3 and len(value) == 3:
        heads, shared = call.integer("q_num_heads", 0), call.integer("kv_num_heads", 0)
        if not heads or not shared:
            raise Undetermined
        batch, length, new = query[0], query[1], key[1]
        size, value_size = floordiv(key[2], shared), floordiv(value[2], shared)
        output = (batch, length, heads * value_size)
    else:
        raise Undetermined
    total = new + call.shape(4)[2] if call.has(4) else new
    return [
        output,
        (batch, shared, total, size),
        (batch, shared, total, value_size),
        (batch, heads, length, total),
    ]


def _quantized_type(call: Call) -> ir.DataType | None:
    if call.has(2):
        return call.dtype(2)
    wanted = call.integer("output_dtype", 0)
    return ir.DataType(wanted) if wanted else _UINT8


def _dequantized_type(call: Call) -> ir.DataType | None:
    wanted = call.integer("output_dtype", 0)
    return ir.DataType(wanted) if wanted else call.dtype(1)


def _dynamic_quantize(call: Call) -> list[Shape | None]:
    return [call.maybe_shape(0), (), ()]


def _dynamic_quantize_type(call: Call) -> list[ir.DataType | None]:
    return [_UINT8, _FLOAT, _UINT8]


def _determinant(call: Call) -> Shape:
    return call.shape(0)[:-2]


_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

RULES: dict[str, tuple[TypeRule, ShapeRule]] = {
    **{f"Reduce{name}": (same(0), _reduce) for name in _REDUCTIONS.split()},
    **{name: (fixed(_INT64), _arg_extremum) for name in ("ArgMax", "ArgMin")},
    **{name: (same(0), _recurrent) for name in ("GRU", "LSTM", "RNN")},
    "Attention": (same(0), _attention),
    "BatchNormalization": (_batch_normalization_type, _batch_normalization),
    "DequantizeLinear": (_dequantized_type, same_shape),
    "Det": (same(0), _determinant),
    "DynamicQuantizeLinear": (_dynamic_quantize_type, _dynamic_quantize),
    "Einsum": (same(0), _einsum),
    "Gemm": (same(0), _gemm),
    "LayerNormalization": (_layer_normalization_type, _layer_normalization),
    "MatMul": (same(0), _matmul_of(0, 1)),
    "MatMulInteger": (fixed(_INT32), _matmul_of(0, 1)),
    "QLinearMatMul": (same(7), _matmul_of(0, 3)),
    "QuantizeLinear": (_quantized_type, same_shape),
    "TopK": (_top_k_type, _top_k),
}
