"""fix-dims."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, feeds, lines, parse, run

import graphopt
from graphopt import proto
from graphopt.errors import UsageError

NAME = "fix-dims"
TEXT = """agraph (float[N,4] x, float[N,M] z, float[4] w) => (float[N,4] y, float[N,M] v) {
    s = Shape(x)
    e = Expand(w, s)
    y = Add(x, e)
    v = Relu(z)
}"""


def shapes(values: object) -> dict[str, list[int | str | None]]:
    return {
        str(value.name): [dim if isinstance(dim, int) else dim.value for dim in value.shape]
        for value in values  # type: ignore[attr-defined]
        if value.shape is not None
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("dims=N=2", {"x": [2, 4], "z": [2, "M"], "w": [4]}),
        ("dims=N=2+M=5", {"x": [2, 4], "z": [2, 5], "w": [4]}),
        ("shapes=z=2x5", {"x": [2, 4], "z": [2, 5], "w": [4]}),
        ("shapes=x=2x4:dims=M=5", {"x": [2, 4], "z": [2, 5], "w": [4]}),
        ("shapes=[xz]=2x4", {"x": [2, 4], "z": [2, 4], "w": [4]}),
    ],
)
def test_inputs_and_outputs_get_their_sizes(options: str, expected: dict[str, list[int | str]]) -> None:
    before = parse(TEXT)
    result, stats, _ = apply(before, f"{NAME}:{options}")
    assert stats.counts == {NAME: 2}
    assert shapes(result.graph.inputs) == expected
    assert shapes(result.graph.outputs) == {"y": expected["x"], "v": expected["z"]}
    assert lines(result) == lines(before)
    sizes = {"N": 2, "M": 4 if expected["z"] == [2, 4] else 5}
    for seed in range(3):
        given = feeds(before, seed, sizes)
        for one, other in zip(run(before, given), run(result, given), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_computed_from_shapes_folds_then() -> None:
    text = """agraph (float[N,4] x) => (float[M,4] y) {
        s = Shape(x)
        e = ConstantOfShape(s)
        y = Concat<axis=0>(x, e)
    }"""
    model = proto.to_proto(parse(text))
    assert "Shape" in {node.op_type for node in graphopt.optimize(model).graph.node}
    result, report = graphopt.optimize(model, passes=[f"{NAME}:dims=N=2", "default"], with_report=True)
    assert [node.op_type for node in result.graph.node] == ["Concat"]
    assert (report.status, report.dropped) == ("proven", [])
    assert report.notes[0].startswith(f"{NAME}: equal to the model that it stands for")
    for value, rows in ((result.graph.input[0], 2), (result.graph.output[0], 4)):
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [rows, 4]


def test_only_when_asked_for() -> None:
    result = graphopt.optimize(parse(TEXT), validate=False)
    assert shapes(result.graph.inputs)["x"] == ["N", 4]


def test_a_second_time_nothing_is_left_to_do() -> None:
    result, _, _ = apply(parse(TEXT), f"{NAME}:shapes=x=2x4")
    assert not apply(result, f"{NAME}:shapes=x=2x4")[1].counts
    with pytest.raises(UsageError, match=r"no input has an open dim 'N'\nThere are: M\."):
        apply(result, f"{NAME}:dims=N=2")


def test_names_that_no_spec_can_hold_fit_a_pattern() -> None:
    before = parse(TEXT)
    before.graph.inputs[0].name = "in:0,a+b"
    result, _, _ = apply(before, f"{NAME}:shapes=in?0?a+b=3x4+z=3x7")
    assert shapes(result.graph.inputs) == {"in:0,a+b": [3, 4], "z": [3, 7], "w": [4]}
    before.graph.inputs[1].name = "in*"  # a name comes before a pattern
    result, _, _ = apply(before, f"{NAME}:shapes=in*=3x5")
    assert shapes(result.graph.inputs) == {"in:0,a+b": [3, 4], "in*": [3, 5], "w": [4]}


def test_dims_without_a_name_and_inputs_without_a_rank() -> None:
    before = parse("agraph (float[?,?,4] x, float z) => (float[?,?,4] y, float v) { y = Relu(x)  v = Neg(z) }")
    before.graph.inputs[1].shape = before.graph.outputs[1].shape = None
    result, stats, _ = apply(before, f"{NAME}:dims=x@1=7:shapes=z=2x3")
    assert stats.counts == {NAME: 2}
    assert shapes(result.graph.inputs) == {"x": [None, 7, 4], "z": [2, 3]}
    assert shapes(result.graph.outputs) == {"y": [None, 7, 4]}


def test_arithmetic_on_names_follows() -> None:
    before = parse("agraph (float[P,4] x, float[T] mask) => (float[P,4] y, float[T] m) { y = Relu(x)  m = Neg(mask) }")
    for value in (before.graph.inputs[1], before.graph.outputs[1]):
        value.shape = ir.Shape(["P + 1"])
    result, stats, _ = apply(before, f"{NAME}:dims=P=6")
    assert stats.counts == {NAME: 2}
    assert shapes(result.graph.inputs) == {"x": [6, 4], "mask": [7]}
    assert shapes(result.graph.outputs) == {"y": [6, 4], "m": [7]}
    assert shapes(apply(before, f"{NAME}:dims=P + 1=7+P=6")[0].graph.inputs) == {"x": [6, 4], "mask": [7]}
    with pytest.raises(UsageError, match=re.escape("the dim 'P + 1' cannot be 8: by the others it is 7")):
        apply(before, f"{NAME}:shapes=x=6x4+mask=8")


def test_names_in_a_body_and_in_a_function_are_their_own() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x, int64 n, bool c) => (float[N,4] y, float[M,4] z) <float[N,4] t> {
        t = own.f(x)
        y = If (c) <
            then_branch = yes () => (float[K,4] a) { a = Neg(x) },
            else_branch = no () => (float[K,4] b) { b = Abs(x) }
        >
        z = Loop (n, , x) <body = step (int64 i, bool d, float[N,4] s) => (bool e, float[N,4] u) {
            e = Identity(d)
            u = Concat<axis=0>(s, s)
        }>
    }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (r) <float[N,4] q> { q = Abs(a)  r = Neg(q) }"""
    result, report = graphopt.optimize(parse(text), [f"{NAME}:dims=N=2"], with_report=True)
    assert report.status == "proven"
    assert not report.dropped
    nodes = {node.op_type: node for node in result.graph}
    assert shapes(nodes["f"].outputs) == {"t": [2, 4]}
    branch, body = nodes["If"].attributes["then_branch"].as_graph(), nodes["Loop"].attributes["body"].as_graph()
    assert shapes(branch.outputs) == {"a": [2, 4]}
    assert shapes([*body.inputs, *body.outputs])["s"] == ["N", 4]
    assert shapes(body.outputs)["u"] == ["N", 4]  # twice as much each round
    (function,) = result.functions.values()
    assert shapes(function[0].outputs) == {"q": ["N", 4]}
    assert shapes(result.graph.outputs)["z"] == ["M", 4]


def test_an_output_is_declared_as_it_is_computed_whatever_its_name() -> None:
    before = parse("agraph (float[N,4] x) => (float[N,4] y, float[A,B] z) { y = Concat<axis=0>(x, x)  z = Neg(x) }")
    before.graph.outputs[1].shape = ir.Shape(["A", -1])  # as Paddle writes it
    result, _, _ = apply(before, f"{NAME}:dims=N=3")
    assert shapes(result.graph.outputs) == {"y": [6, 4], "z": [3, 4]}


def test_what_is_said_of_values_survives() -> None:
    before = parse(TEXT)
    before.graph.inputs[0].shape = ir.Shape(["N", 4], ["DATA_BATCH", "DATA_CHANNEL"])
    before.graph.inputs[0].metadata_props["key"] = "x"
    result, _, _ = apply(before, f"{NAME}:dims=N=2")
    value = result.graph.inputs[0]
    assert value.shape is not None
    assert [value.shape.get_denotation(axis) for axis in range(2)] == ["DATA_BATCH", "DATA_CHANNEL"]
    assert value.metadata_props == {"key": "x"}


def test_a_size_that_the_model_does_not_run_at_is_left_out_and_explained() -> None:
    held = {"a": np.array([2, 2, 2]), "b": np.array([2, 4])}
    before = parse("agraph (float[N,4] x) => (float[N,4] y) { r = Reshape(x, a)  y = Reshape(r, b) }", held)
    result, report = graphopt.optimize(before, [f"{NAME}:dims=N=3"], with_report=True)
    (dropped,) = report.dropped
    assert "cannot be reshaped" in dropped.reason
    assert shapes(result.graph.inputs) == {"x": ["N", 4]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "needs to know which sizes\nWrite fix-dims:dims="),
        (":dims=K=2", "no input has an open dim 'K'\nThere are: N, M."),
        (":shapes=y=2x4", "the model has no input 'y'\nIts inputs are: x, z, w."),
        (":shapes=x=2x5", "input 'x' has a fixed dim of 4, which cannot be 5\nIt is [N, 4]."),
        (":shapes=?=4", "input 'x' is of rank 2, which cannot be 4"),
        (":shapes=x=2x4x1", "input 'x' is of rank 2, which cannot be 2x4x1"),
        (":shapes=x=2x4+z=3x4", "the dim 'N' cannot be both 2 and 3"),
        (":dims=N=2:shapes=x=3x4", "the dim 'N' cannot be both 2 and 3"),
        (":dims=N=0", "dims cannot be 'N=0': sizes are 1 or more"),
        (":shapes=x=-1x4", "shapes cannot be 'x=-1x4': sizes are 1 or more"),
        (":dims=N", "dims cannot be 'N'\nWrite dims="),
        (":dims=N=2x3", "the dim 'N' has one size"),
        (":dims=N=2+", "dims cannot be 'N=2+'"),
        (":shapes=x=2xN", "shapes cannot be 'x=2xN'"),
        (":shapes=w=4+w=5", "input 'w' has two shapes"),
    ],
)
def test_mistakes_are_named(options: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        apply(parse(TEXT), f"{NAME}{options}")
    assert message in str(caught.value)


def test_what_is_no_tensor_has_no_shape() -> None:
    before = parse("agraph (seq(float[N,4]) x, int64 i) => (float[N,4] y) { y = SequenceAt(x, i) }")
    with pytest.raises(UsageError, match="input 'x' is no tensor, but of the kind sequence"):
        apply(before, f"{NAME}:shapes=x=2x4")
