"""The steps a random model is made of: each adds an operator, or a pattern that some pass looks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto
from property.maker import Maker, Value

__all__ = ["STEPS"]

Step = Callable[[Maker], object]


def _unary(m: Maker) -> object:
    x = m.some()
    ops = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Identity", "LeakyRelu", "Elu", "Erf", "Softplus", "HardSigmoid"]
    return x and m.add(m.one_of(ops), [x], x.shape)


def _neutral(m: Maker) -> object:
    x = m.some()
    if x is None:
        return None
    op, number = m.one_of([("Add", 0.0), ("Sub", 0.0), ("Mul", 1.0), ("Div", 1.0), ("Pow", 1.0)])
    shape = m.one_of([(), (1,), (1,) * x.rank, x.shape])
    return m.add(op, [x, m.weight(np.full(shape, number, np.float32))], x.shape)


def _arithmetic(m: Maker) -> object:
    x = m.some()
    if x is None:
        return None
    op = m.one_of(["Add", "Sub", "Mul", "Div", "Max", "Min"])
    other = m.some(lambda one: one.shape == x.shape)
    if other is not None and op != "Div" and m.coin():
        made = m.add(op, [x, other] if m.coin() else [other, x], x.shape, keep=op != "Mul")
        return m.add("Tanh", [made], x.shape) if op == "Mul" else made
    shape = m.one_of([(), (1,), x.shape[-1:], (*(dim if axis == 1 else 1 for axis, dim in enumerate(x.shape)),)])
    contents = np.random.default_rng(m.choose(3)).random(shape) + 0.5
    return m.add(op, [x, m.weight(contents.astype(np.float32))], x.shape)


def _power(m: Maker) -> object:
    x = m.some()
    if x is None:
        return None
    made = m.add("Pow", [m.add("Tanh", [x], x.shape), m.weight(np.asarray(2, np.float32))], x.shape)
    return m.add("Sqrt", [m.add("Add", [made, m.weight(np.asarray(1, np.float32))], x.shape)], x.shape)


def _conv(m: Maker) -> object:
    x = m.some(lambda one: one.rank == 4 and min(one.shape[2:]) >= 3)
    if x is None:
        return None
    out, kernel, stride = m.one_of([2, 4, x.shape[1]]), m.one_of([1, 3]), m.one_of([1, 1, 2])
    transposed = m.coin(4)
    group = x.shape[1] if m.coin(3) and out == x.shape[1] else 1
    if m.coin(3):
        x = _padded(m, x)
    size = [(dim - 1) * stride + kernel if transposed else (dim - kernel) // stride + 1 for dim in x.shape[2:]]
    weight = m.normal(*((x.shape[1], out // group) if transposed else (out, x.shape[1] // group)), kernel, kernel)
    inputs: list[Value | None] = [x, weight, *([m.normal(out)] if m.coin() else [])]
    shape = (x.shape[0], out, *size)
    y = m.add("ConvTranspose" if transposed else "Conv", inputs, shape, strides=[stride] * 2, group=group)
    if m.coin():
        return _normalize(m, y)
    if m.coin():
        channelwise = m.weight((m.random.random((out, 1, 1)) + 0.5).astype(np.float32))
        return m.add(m.one_of(["Mul", "Add", "Sub", "Div"]), [y, channelwise], shape)
    return y


def _padded(m: Maker, x: Value) -> Value:
    amounts = m.one_of([(0, 0), (1, 1), (0, 1)])
    pads = m.ints(0, 0, amounts[0], amounts[0], 0, 0, amounts[1], amounts[1])
    number = [m.weight(np.asarray(m.one_of([0.0, 0.0, 1.0]), np.float32))] if m.coin() else []
    return m.add("Pad", [x, pads, *number], (*x.shape[:2], *(dim + sum(amounts) for dim in x.shape[2:])))


def _normalize(m: Maker, x: Value | None = None) -> object:
    x = x or m.some(lambda one: one.rank >= 2)
    if x is None:
        return None
    count = x.shape[1]
    statistics = [
        m.weight((m.random.random(count) + 0.5).astype(np.float32)),
        m.normal(count),
        m.normal(count),
        m.weight((m.random.random(count) + 0.5).astype(np.float32)),
    ]
    return m.add("BatchNormalization", [x, *statistics], x.shape, epsilon=m.one_of([1e-5, 1e-3]))


def _pool(m: Maker) -> object:
    x = m.some(lambda one: one.rank == 4 and min(one.shape[2:]) >= 3)
    if x is None:
        return None
    if m.coin(3):
        return m.add("GlobalAveragePool", [x], (*x.shape[:2], 1, 1))
    shape = (*x.shape[:2], *(dim - 1 for dim in x.shape[2:]))
    return m.add(m.one_of(["MaxPool", "AveragePool"]), [x], shape, kernel_shape=[2, 2])


def _matmul(m: Maker) -> object:
    x = m.some(lambda one: one.rank >= 2)
    if x is None:
        return None
    out = m.one_of([3, 4, x.shape[-1]])
    shape = (*x.shape[:-1], out)
    if x.rank == 2 and m.coin():
        turned = m.coin()
        weight = m.normal(*((out, x.shape[1]) if turned else (x.shape[1], out)))
        bias = [m.normal(*m.one_of([(out,), (1, out), (1,)]))] if m.coin() else []
        y = m.add("Gemm", [x, weight, *bias], shape, transB=int(turned), alpha=m.one_of([1.0, 0.5]))
        return _normalize(m, y) if m.coin() else y
    y = m.add("MatMul", [x, m.normal(x.shape[-1], out)], shape)
    return m.add("Add", [y, m.normal(out)] if m.coin() else [m.normal(out), y], shape) if m.coin() else y


def _reshape(m: Maker) -> object:
    x = m.some()
    if x is None:
        return None
    total = int(np.prod(x.shape))
    if x.rank >= 2 and m.coin():
        return m.add("Reshape", [x, m.ints(0, -1)], (x.shape[0], total // x.shape[0]))
    if m.coin():
        return m.add("Reshape", [x, m.ints(*([0] * x.rank))], x.shape)
    if m.coin() and x.rank >= 1:
        return m.add("Flatten", [x], (x.shape[0], total // x.shape[0]), axis=1)
    return m.add("Reshape", [m.add("Reshape", [x, m.ints(-1)], (total,)), m.ints(1, -1)], (1, total))


def _squeeze(m: Maker) -> object:
    x = m.some()
    if x is None or x.rank > 4:
        return None
    axis = m.choose(x.rank + 1)
    wide = _with_axes(m, "Unsqueeze", x, axis, (*x.shape[:axis], 1, *x.shape[axis:]))
    return _with_axes(m, "Squeeze", wide, axis, x.shape) if m.coin() else wide


def _with_axes(m: Maker, op: str, x: Value, axis: int, shape: tuple[int, ...], since: int = 13, **more: Any) -> Value:
    if m.opset < since:
        return m.add(op, [x], shape, axes=[axis], **more)
    return m.add(op, [x, m.ints(axis)], shape, **more)


def _transpose(m: Maker) -> object:
    x = m.some(lambda one: one.rank >= 2)
    if x is None:
        return None
    order = [int(axis) for axis in np.random.default_rng(m.choose(8)).permutation(x.rank)]
    turned = m.add("Transpose", [x], [x.shape[axis] for axis in order], perm=order)
    if m.coin():
        turned = m.add("Relu", [turned], turned.shape)
    back = [order.index(axis) for axis in range(x.rank)]
    return m.add("Transpose", [turned], x.shape, perm=back) if m.coin() else turned


def _slice(m: Maker) -> object:
    x = m.some(lambda one: one.rank >= 1 and max(one.shape) >= 2)
    if x is None:
        return None
    axis = m.one_of([axis for axis, dim in enumerate(x.shape) if dim >= 2])
    start, end, step = m.one_of([(0, 1 << 62, 1), (1, 1 << 62, 1), (0, -1, 1), (0, x.shape[axis], 1), (0, 1 << 62, 2)])
    size = len(range(x.shape[axis])[start:end:step])
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    return m.add("Slice", [x, m.ints(start), m.ints(end), m.ints(axis), m.ints(step)], shape)


def _concat(m: Maker) -> object:
    x = m.some(lambda one: one.rank >= 1)
    if x is None:
        return None
    axis = m.choose(x.rank)
    parts = [x, *(m.some(lambda one: one.shape == x.shape) or x for _ in range(m.choose(3)))]
    shape = (*x.shape[:axis], x.shape[axis] * len(parts), *x.shape[axis + 1 :])
    return m.add("Concat", parts, shape, axis=axis)


def _split(m: Maker) -> object:
    x = m.some(lambda one: any(dim % 2 == 0 and dim for dim in one.shape))
    if x is None:
        return None
    axis = m.one_of([axis for axis, dim in enumerate(x.shape) if dim % 2 == 0 and dim])
    half = x.shape[axis] // 2
    shape = (*x.shape[:axis], half, *x.shape[axis + 1 :])
    if m.opset < 13:
        one = m.add("Split", [x], shape, axis=axis, split=[half, half])
    else:
        one = m.add("Split", [x, m.ints(half, half)], shape, axis=axis)
    two = Value(m.fresh("split"), shape)
    m.nodes[-1].output.append(two.name)
    m.values.append(two)
    return m.add("Concat", [one, two], x.shape, axis=axis) if m.coin() else two


def _reduce(m: Maker) -> object:
    x = m.some(lambda one: one.rank >= 1)
    if x is None:
        return None
    op, axis, keep = m.one_of(["ReduceMean", "ReduceSum", "ReduceMax"]), m.choose(x.rank), m.choose(2)
    shape = (*x.shape[:axis], *([1] * keep), *x.shape[axis + 1 :])
    return _with_axes(m, op, x, axis, shape, 13 if op == "ReduceSum" else 18, keepdims=keep)


def _shape_chain(m: Maker) -> object:
    x = m.some(lambda one: one.rank >= 2)
    if x is None:
        return None
    shape = m.add("Shape", [x], [x.rank], kind=TensorProto.INT64)
    if m.coin(3):
        return m.add("Expand", [x, shape], x.shape)
    first = m.add("Gather", [shape, m.weight(np.asarray(0, np.int64), "i")], (), axis=0)
    lead = _with_axes(m, "Unsqueeze", first, 0, (1,))
    if m.coin():
        lead = m.add("Mul", [lead, m.ints(1)], (1,))
    target = m.add("Concat", [lead, m.ints(-1)], (2,), axis=0)
    return m.add("Reshape", [x, target], (x.shape[0], int(np.prod(x.shape[1:]))))


def _same_again(m: Maker) -> object:
    plain = [node for node in m.nodes if len(node.output) == 1 and not any(one.HasField("g") for one in node.attribute)]
    if not plain:
        return None
    node = m.one_of(plain)
    known = next((one for one in m.values if one.name == node.output[0]), None)
    if known is None:
        return None
    copy = type(node)()
    copy.CopyFrom(node)
    value = Value(m.fresh("again"), known.shape, known.kind)
    copy.output[0], copy.name = value.name, ""
    m.nodes.append(copy)
    m.values.append(value)
    return value


def _nothing(m: Maker) -> object:
    x = m.some()
    if x is None:
        return None
    op = m.choose(5)
    if op == 0:
        wide = m.add("Cast", [x], x.shape, kind=TensorProto.DOUBLE, to=TensorProto.DOUBLE)
        return m.add("Cast", [wide], x.shape, kind=TensorProto.FLOAT, to=TensorProto.FLOAT)
    if op == 1:
        return m.add("Cast", [x], x.shape, to=TensorProto.FLOAT)
    if op == 2:
        return m.add("Dropout", [x], x.shape)
    if op == 3 and x.rank:
        return m.add("Tile", [x, m.ints(*([1] * x.rank))], x.shape)
    return m.add("Identity", [m.add("Identity", [x], x.shape)], x.shape)


def _pick(m: Maker) -> object:
    x = m.some(lambda one: one.rank >= 1)
    if x is None:
        return None
    if m.coin():
        condition = m.weight(np.random.default_rng(m.choose(3)).random(x.shape) < m.one_of([0.5, 2.0]), "c")
        return m.add("Where", [condition, x, m.weight(np.asarray(0.25, np.float32))], x.shape, kind=TensorProto.FLOAT)
    if m.coin():
        return m.add("Softmax", [x], x.shape, axis=x.rank - 1)
    low, high = m.weight(np.asarray(-1, np.float32)), m.weight(np.asarray(2, np.float32))
    return m.add("Clip", [x, low, high], x.shape)


def _between_views(m: Maker) -> object:
    """Something that the shape matters to, or not, between two nodes that change the shape and perhaps restore it."""
    x = m.some(lambda one: one.rank >= 2)
    if x is None:
        return None
    rows, last = int(np.prod(x.shape[:-1])), x.shape[-1]
    merged = m.one_of([(rows, last), (rows * last,), (last, rows), (1, *x.shape)])
    y = m.add("Reshape", [x, m.ints(*merged)], merged)
    if m.coin() and len(merged) == 2:
        out = m.one_of([merged[1], 2])
        y = m.add("MatMul", [y, m.normal(merged[1], out)], (merged[0], out))
        back = (*x.shape[:-1], out) if merged == (rows, last) else (out, merged[0])
    else:
        shape = m.one_of([(), (1,), y.shape[-1:], (1,) * y.rank])
        y = m.add("Mul", [y, m.normal(*shape)] if m.coin() else [m.normal(*shape), y], y.shape)
        back = x.shape
    y = m.add("Sigmoid", [y], y.shape) if m.coin() else y
    return m.add("Reshape", [y, m.ints(*back)], back)


def _sequence(m: Maker) -> object:
    x = m.some(lambda one: one.rank >= 1 and one.shape[-1] >= 2)
    if x is None:
        return None
    axis, last = x.rank - 1, x.shape[-1]
    if m.coin():
        size, place = m.one_of([(1, 1), (last - 1, 1), (last - 1, -1)])
        node = _taken(m, m.add("SplitToSequence", [x, _number(m, size)], (), keep=False, axis=axis), place)
        extent = len(range(last)[size * place : size * (place + 1)]) if place > 0 else (last % size or size)
        return m.add("Identity", [node], (*x.shape[:-1], extent), kind=x.kind)
    other = m.some(lambda one: one.shape == x.shape) or x
    made = m.add("SequenceConstruct", [x, other], (), keep=False)
    if m.coin():
        made = m.add("SequenceInsert", [made, x, _number(m, m.one_of([0, 1, -1]))], (), keep=False)
        return m.add("ConcatFromSequence", [made], (*x.shape[:-1], 3 * last), kind=x.kind, axis=axis)
    return m.add("Identity", [_taken(m, made, m.one_of([0, 1, -1, -2]))], x.shape, kind=x.kind)


def _taken(m: Maker, sequence: Value, place: int) -> Value:
    return m.add("SequenceAt", [sequence, _number(m, place)], (), kind=TensorProto.FLOAT, keep=False)


def _number(m: Maker, number: int) -> Value:
    return m.weight(np.asarray(number, np.int64), "i")


def _element(m: Maker) -> object:
    x = m.some(lambda one: one.rank >= 1 and one.shape[0] >= 1)
    if x is None:
        return None
    rows = x.shape[0]
    if m.coin(3):
        order = m.one_of([range(rows), range(rows)[::-1]])
        indices = m.weight(np.array(order, np.int64).reshape(-1, 1), "i")
        return m.add("ScatterND", [m.some(lambda one: one.shape == x.shape) or x, indices, x], x.shape)
    if m.coin():
        wide = _with_axes(m, "Unsqueeze", x, 0, (1, *x.shape))
        return m.add("Gather", [wide, _number(m, m.one_of([0, -1]))], x.shape)
    both = m.add("Concat", [x, m.some(lambda one: one.shape == x.shape) or x], (2 * rows, *x.shape[1:]), axis=0)
    place = m.one_of([0, rows, 2 * rows - 1, -1, -rows, -rows - 1])
    return m.add("Gather", [both, _number(m, place)], x.shape[1:])


STEPS: list[Step] = [
    _unary, _neutral, _arithmetic, _power, _conv, _conv, _normalize, _pool, _matmul, _matmul, _reshape, _squeeze,
    _transpose, _slice, _concat, _split, _reduce, _shape_chain, _shape_chain, _same_again, _nothing, _nothing, _pick,
    _between_views, _sequence, _element,
]  # fmt: skip
"""What may happen next; twice what matters more."""
