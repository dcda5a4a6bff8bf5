"""Steps with bodies: If, Loop, and calls of model-local functions, all capturing or called more than once."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from property.maker import Maker, Value
from property.steps import STEPS

__all__ = ["CONTROL"]


def _grow(m: Maker, x: Value, steps: int) -> Value:
    """Some steps, then a value of the shape of ``x``."""
    for _ in range(steps):
        m.one_of(STEPS)(m)
    last = [one for one in m.values if one.shape == x.shape and one.kind == TensorProto.FLOAT]
    return m.add("Relu" if m.coin() else "Identity", [m.one_of(last) if last else x], x.shape)


def _condition(m: Maker, x: Value) -> Value:
    if m.coin(3):
        return m.weight(np.asarray(m.coin()), "c")
    if m.coin() and x.rank:
        rank = m.add("Size", [m.add("Shape", [x], [x.rank], kind=TensorProto.INT64)], (), kind=TensorProto.INT64)
        three = m.weight(np.asarray(3, np.int64), "i")
        return m.add("Equal", [rank, three], (), kind=TensorProto.BOOL)
    return Value("condition", (), TensorProto.BOOL)


def _if(m: Maker) -> object:
    x = m.some()
    if x is None:
        return None
    branches = []
    for name in ("then_", "else_"):
        inner = m.inner()
        result = _grow(inner, x, m.choose(4))
        branches.append(inner.graph(m.fresh(name), [], [result]))
    condition = _condition(m, x)
    return m.add("If", [condition], x.shape, kind=TensorProto.FLOAT, then_branch=branches[0], else_branch=branches[1])


def _loop(m: Maker) -> object:
    x = m.some()
    if x is None:
        return None
    body = m.inner()
    step, go_on, carried = m.fresh("step"), m.fresh("go"), Value(m.fresh("carried"), x.shape)
    body.values.append(carried)
    result = _grow(body, x, m.choose(4))
    still = body.add("Identity", [Value(go_on, (), TensorProto.BOOL)], (), keep=False)
    inputs = [
        helper.make_tensor_value_info(step, TensorProto.INT64, []),
        helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
        helper.make_tensor_value_info(carried.name, TensorProto.FLOAT, [None] * x.rank),
    ]
    trips = m.weight(np.asarray(m.choose(3), np.int64), "i")
    true = m.weight(np.asarray(True), "c") if m.coin() else None
    graph = body.graph(m.fresh("body"), inputs, [still, result])
    return m.add("Loop", [trips, true, x], x.shape, kind=TensorProto.FLOAT, body=graph)


def _function(m: Maker) -> object:
    x = m.some()
    if x is None:
        return None
    if not m.functions or m.coin():
        m.functions.append(_new_function(m))
    function = m.one_of(m.functions)
    made = m.add(function.name, [x, m.weight(np.asarray(0.5, np.float32))], x.shape, domain="local")
    if m.coin():
        m.nodes[-1].attribute.append(helper.make_attribute("alpha", 0.25))
    return made


def _new_function(m: Maker) -> onnx.FunctionProto:
    """Elementwise of any shape; an attribute with a default, a Constant, an unused node, an Identity."""
    leaky = helper.make_node("LeakyRelu", ["a"], ["t"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT))
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [m.one_of([0.0, 1.0, 2.0])])
    nodes = [
        helper.make_node("Constant", [], ["k"], value=one),
        leaky,
        helper.make_node("Identity", ["t"], ["u"]),
        helper.make_node("Exp", ["b"], ["unused"]),
        helper.make_node(m.one_of(["Add", "Mul"]), ["u", "k"], ["v"]),
        helper.make_node(m.one_of(["Add", "Mul"]), ["v", "b"], ["c"]),
    ]
    return helper.make_function(
        "local",
        m.fresh("Function"),
        ["a", "b"],
        ["c"],
        nodes,
        [helper.make_opsetid("", m.opset)],
        attribute_protos=[helper.make_attribute("alpha", 0.1)],
    )


CONTROL = [_if, _loop, _function]
