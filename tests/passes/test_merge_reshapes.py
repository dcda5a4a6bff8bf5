"""merge-reshapes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, misses, parse, run, unchanged

NAME = "merge-reshapes"
NO_TARGET = ["no constant target gives the result's shape"]


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def graph(shape: str, inner: str, outer: str, out: str, opset: int = 21) -> str:
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph (float[{shape}] x) => (float[{out}] y) {{
        r = {inner}
        q = {outer}
        y = Relu(q)
    }}"""


def target(model: ir.Model) -> list[int]:
    """The constant target of the one Reshape left."""
    (node,) = [node for node in model.graph if node.op_type == "Reshape"]
    assert node.inputs[1] is not None
    assert node.inputs[1].const_value is not None
    return list(node.inputs[1].const_value.numpy())


def reshapes(shape: str, inner: list[int], outer: list[int], out: str) -> ir.Model:
    text = graph(shape, "Reshape(x, i)", "Reshape(r, o)", out)
    return parse(text, {"i": ints(*inner), "o": ints(*outer)})


@pytest.mark.parametrize(
    ("shape", "inner", "outer", "out"),
    [
        ("2,12", [2, 3, 4], [6, 4], "6,4"),
        ("N,12", [-1, 3, 4], [-1, 6], "K,6"),
        ("N,12", [0, 3, 4], [0, 2, 6], "N,2,6"),  # the copied extent is the same before and after
        ("N,M,12", [0, 0, 3, 4], [0, -1, 6], "N,K,6"),
        ("N,M", [-1], [3, -1], "3,K"),
    ],
)
def test_target_stays(shape: str, inner: list[int], outer: list[int], out: str) -> None:
    fires(NAME, reshapes(shape, inner, outer, out), ["q = Reshape(x, o)", "y = Relu(q)"])


@pytest.mark.parametrize(
    ("shape", "inner", "outer", "out", "expected"),
    [
        ("2,12", [3, 8], [0, 2, 4], "3,2,4", [3, 2, 4]),  # the 0 means 3, not 2
        ("N,12", [-1, 4], [0, 2, 2], "K,2,2", [-1, 2, 2]),
        ("4,N", [-1, 4], [0, 2, 2], "N,2,2", [-1, 2, 2]),
    ],
)
def test_zero_that_copies_what_the_inner_one_made(
    shape: str, inner: list[int], outer: list[int], out: str, expected: list[int]
) -> None:
    result = fires(NAME, reshapes(shape, inner, outer, out), count=1)
    assert target(result) == expected


def test_zero_that_copies_an_extent_no_constant_can_name() -> None:
    assert misses(NAME, reshapes("N,M,4", [0, -1, 2], [0, 0, 2, 1], "N,K,2,1")) == NO_TARGET
    assert misses(NAME, reshapes("N,M,K", [-1, 0, 1], [0, -1], "A,B")) == NO_TARGET


def test_back_to_the_start() -> None:
    fires(NAME, reshapes("N,12", [0, 3, 4], [-1, 12], "N,12"), ["y = Relu(x)"])
    fires(NAME, reshapes("N,M,12", [0, 0, 3, 4], [0, 0, 12], "N,M,12"), ["y = Relu(x)"])


def test_interface_keeps_a_node() -> None:
    text = """agraph (float[N,12] x) => (float[N,12] y) {
        r = Reshape(x, i)
        y = Reshape(r, o)
    }"""
    fires(NAME, parse(text, {"i": ints(-1, 3, 4), "o": ints(-1, 12)}), ["y = Identity(x)"])


def test_allowzero_copies_nothing() -> None:
    text = graph("0,12", "Reshape<allowzero = 1>(x, i)", "Reshape<allowzero = 1>(r, o)", "3,0")
    fires(NAME, parse(text, {"i": ints(4, 0, 3), "o": ints(3, 0)}), ["q = Reshape<allowzero=1>(x, o)", "y = Relu(q)"])


def test_inner_allowzero_is_forgotten() -> None:
    text = graph("0,12", "Reshape<allowzero = 1>(x, i)", "Reshape(r, o)", "0,3,4")
    fires(NAME, parse(text, {"i": ints(3, 0), "o": ints(-1, 3, 4)}), ["q = Reshape(x, o)", "y = Relu(q)"])


def test_target_known_only_at_run_time() -> None:
    text = """agraph (float[N,12] x, int64[2] o) => (float[A,B] y) {
        r = Reshape(x, i)
        q = Reshape(r, o)
        y = Relu(q)
    }"""
    assert misses(NAME, parse(text, {"i": ints(-1, 4)})) == NO_TARGET  # a 0 in it would mean something else
    literal = text.replace("Reshape(r", "Reshape<allowzero = 1>(r")
    result, _, _ = apply(parse(literal, {"i": ints(-1, 4)}), NAME)
    assert lines(result) == ["q = Reshape<allowzero=1>(x, o)", "y = Relu(q)"]


def test_target_computed_from_the_shape() -> None:
    text = """agraph (float[N,M,12] x) => (float[N,M,12] y, float[A,B] z) {
        s = Shape<end = 2>(x)
        heads = Concat<axis = 0>(s, i)
        r = Reshape(x, heads)
        flat = Concat<axis = 0>(s, o)
        q = Reshape(r, flat)
        y = Relu(q)
        n = Slice(s, zero, one)
        rows = Concat<axis = 0>(n, back)
        z = Reshape(r, rows)
    }"""
    weights = {"i": ints(3, 4), "o": ints(12), "zero": ints(0), "one": ints(1), "back": ints(-1)}
    result = fires(NAME, parse(text, weights), count=2)
    assert {"y = Relu(x)", "z = Reshape(x, rows)"} < set(lines(result))


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("Unsqueeze(x, one)", "Squeeze(r, one)"),
        ("Unsqueeze(x, one)", "Squeeze(r, least)"),
        ("Unsqueeze(x, both)", "Squeeze(r, swapped)"),
        ("Flatten(x)", "Reshape(r, two)"),
    ],
)
def test_inverse_pairs(inner: str, outer: str) -> None:
    weights = {"one": ints(1), "least": ints(-2), "both": ints(0, 2), "swapped": ints(2, 0), "two": ints(-1, 3)}
    fires(NAME, parse(graph("N,3", inner, outer, "N,3"), weights), ["y = Relu(x)"])


def test_inverse_pairs_of_unknown_rank() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    agraph (float[N] x) => (float[N] y) {
        a = other.Mystery(x)
        r = Squeeze(a, axes)
        q = Unsqueeze(r, axes)
        y = Relu(q)
    }"""
    for axes in ([1], [-1], [0, 2]):
        assert lines(apply(parse(text, {"axes": ints(*axes)}), NAME)[0])[-1] == "y = Relu(a)"
    weights = {"axes": ints(1), "other_axes": ints(-1)}
    assert misses(NAME, parse(text.replace("(r, axes)", "(r, other_axes)"), weights)) == NO_TARGET
    weights = {"axes": ints(-1, 0)}
    assert misses(NAME, parse(text, weights)) == NO_TARGET


def test_squeeze_without_axes_is_no_inverse_of_everything() -> None:
    text = graph("1,3,1", "Squeeze(x)", "Unsqueeze(r, one)", "3,1")
    result = fires(NAME, parse(text, {"one": ints(1)}), count=1)
    assert target(result) == [3, 1]


@pytest.mark.parametrize(
    ("shape", "inner", "outer", "out", "expected"),
    [
        ("N,3,1", "Squeeze(x, two)", "Unsqueeze(r, one)", "N,1,3", [-1, 1, 3]),
        ("N,3,2", "Flatten(x)", "Unsqueeze(r, one)", "N,1,6", [-1, 1, 6]),
        ("N,3,2", "Reshape(x, flat)", "Flatten<axis = 0>(r)", "1,K", [1, -1]),
        ("N,M,1", "Squeeze(x, two)", "Unsqueeze(r, both)", "N,M,1,1", [0, 0, 1, 1]),
        ("2,0,1", "Squeeze(x, two)", "Unsqueeze(r, zero)", "1,2,0", [1, 2, -1]),
    ],
)
def test_other_pairs(shape: str, inner: str, outer: str, out: str, expected: list[int]) -> None:
    numbers = {"zero": [0], "one": [1], "two": [2], "both": [2, 3], "flat": [-1]}
    weights = {name: ints(*listed) for name, listed in numbers.items()}
    assert target(fires(NAME, parse(graph(shape, inner, outer, out), weights), count=1)) == expected


@pytest.mark.parametrize(
    ("shape", "inner", "outer", "out"),
    [
        ("N,M,1", "Squeeze(x, last)", "Unsqueeze(r, front)", "1,N,M"),
        ("N,3,M", "Flatten(x)", "Unsqueeze(r, last)", "N,K,1"),  # [0, -1, 1] would fail on an empty batch
    ],
)
def test_two_open_extents(shape: str, inner: str, outer: str, out: str) -> None:
    text = graph(shape, inner, outer, out)
    assert misses(NAME, parse(text, {"last": ints(-1), "front": ints(0)})) == NO_TARGET


@pytest.mark.parametrize(
    "model",
    [
        reshapes("N,12", [0, 3, 4], [0, 2, 6], "N,2,6"),
        reshapes("N,12", [-1, 4], [0, 2, 2], "K,2,2"),
        reshapes("N,12", [-1, 3, 4], [-1, 12], "N,12"),
        parse(graph("N,M,1", "Squeeze(x, a)", "Unsqueeze(r, b)", "N,M,1,1"), {"a": ints(2), "b": ints(2, 3)}),
    ],
)
def test_empty_batch(model: ir.Model) -> None:
    result = fires(NAME, model, count=1, sizes={"N": 0, "M": 5})
    shape = [dim if isinstance(dim, int) else {"N": 0, "M": 5}[str(dim)] for dim in model.graph.inputs[0].shape or ()]
    assert run(result, {"x": np.zeros(shape, np.float32)})[0].shape[0] == 0


def test_inner_result_is_read_elsewhere() -> None:
    text = """agraph (float[N,12] x) => (float[A,B] y, float[C,D,E] z, float[F,G] w) {
        r = Reshape(x, i)
        y = Reshape(r, o)
        z = Unsqueeze(r, one)
        w = Exp(r)
    }"""
    model = parse(text, {"i": ints(-1, 4), "o": ints(-1, 6), "one": ints(1)})
    result = fires(NAME, model, count=1)  # only what needs no new constant
    assert "y = Reshape(x, o)" in lines(result)
    assert "z = Unsqueeze(r, one)" in lines(result)


def test_target_shared_with_another_reshape_is_not_changed() -> None:
    text = """agraph (float[2,12] x, float[3,8] v) => (float[3,2,4] y, float[3,2,4] z) {
        r = Reshape(x, i)
        y = Reshape(r, o)
        z = Reshape(v, o)
    }"""
    result = fires(NAME, parse(text, {"i": ints(3, 8), "o": ints(0, 2, 4)}), count=1)
    assert lines(result)[1] == "z = Reshape(v, o)"


@pytest.mark.parametrize(
    ("shape", "inner", "outer", "out", "expected"),
    [
        ("N,3", "Unsqueeze(x, one)", "Unsqueeze(r, two)", "N,1,1,3", [1, 2]),
        ("N,3", "Unsqueeze(x, one)", "Unsqueeze(r, one)", "N,1,1,3", [1, 2]),
        ("N,3", "Unsqueeze(x, zero)", "Unsqueeze(r, two)", "1,N,1,3", [0, 2]),
        ("N,3", "Unsqueeze(x, last)", "Unsqueeze(r, zero)", "1,N,3,1", [0, 3]),
        ("N,3", "Unsqueeze(x, both)", "Unsqueeze(r, one)", "N,1,3,1,1", [1, 3, 4]),
        ("1,N,1", "Squeeze(x, two)", "Squeeze(r, zero)", "N", [0, 2]),
        ("1,1,N,1", "Squeeze(x, zero)", "Squeeze(r, zero)", "N,1", [0, 1]),
        ("1,N,1,1", "Squeeze(x, both)", "Squeeze(r, zero)", "N", [0, 2, 3]),
        ("1,N,1,M", "Squeeze(x, two)", "Squeeze(r, front)", "N,M", [0, 2]),
    ],
)
def test_twice_the_same(shape: str, inner: str, outer: str, out: str, expected: list[int]) -> None:
    numbers = {"zero": [0], "one": [1], "two": [2], "both": [2, 3], "last": [-1], "front": [-3]}
    weights = {name: ints(*listed) for name, listed in numbers.items()}
    node = fires(NAME, parse(graph(shape, inner, outer, out), weights), count=1).graph[0]
    assert node.op_type == inner[: inner.index("(")]
    assert node.inputs[1] is not None
    assert node.inputs[1].const_value is not None
    assert node.inputs[1].const_value.numpy().tolist() == expected


def test_twice_the_same_by_attributes() -> None:
    text = graph("N,3", "Unsqueeze<axes = [1]>(x)", "Unsqueeze<axes = [0, 2]>(r)", "1,N,1,1,3", opset=11)
    assert lines(fires(NAME, parse(text)))[0] == "q = Unsqueeze<axes=(0, 2, 3)>(x)"


def test_twice_the_same_but_read_elsewhere_or_of_the_caller() -> None:
    text = graph("N,3", "Unsqueeze(x, one)", "Unsqueeze(r, one)", "N,1,1,3")
    read = text.replace("y)", "y, float[A,B,C] z)", 1).replace("q =", "z = Exp(r)  q =")
    assert misses(NAME, parse(read, {"one": ints(1)})) == ["the inner result is read elsewhere"]
    mine = text.replace("x)", "x, int64[1] b)", 1).replace("(r, one)", "(r, b)")
    assert misses(NAME, parse(mine, {"one": ints(1)})) == ["the axes are not known"]


@pytest.mark.parametrize(
    ("shape", "inner", "outer", "out", "expected"),
    [
        ("N,1,4", "Transpose<perm = [1,0,2]>(x)", "Squeeze(r, zero)", "N,4", [-1, 4]),
        ("1,6,4", "Reshape(x, i)", "Transpose<perm = [1,0,2]>(r)", "6,1,4", [6, 1, 4]),
        ("N,1,4", "Unsqueeze(x, zero)", "Transpose<perm = [1,2,0,3]>(r)", "N,1,1,4", [-1, 1, 1, 4]),
        ("N,1,4,1", "Transpose<perm = [0,3,2,1]>(x)", "Flatten(r)", "N,4", [-1, 4]),
    ],
)
def test_transpose_that_is_a_reshape(shape: str, inner: str, outer: str, out: str, expected: list[int]) -> None:
    weights = {"zero": ints(0), "i": ints(1, 6, 4)}
    result = fires(NAME, parse(graph(shape, inner, outer, out), weights), count=1)
    assert [node.op_type for node in result.graph] == ["Reshape", "Relu"]
    assert target(result) == expected


@pytest.mark.parametrize(
    ("shape", "inner", "outer", "out"),
    [
        ("N,1,4", "Transpose<perm = [2,1,0]>(x)", "Squeeze(r, one)", "4,N"),
        ("N,M,4", "Transpose<perm = [1,0,2]>(x)", "Flatten(r)", "M,K"),
        ("2,3,4", "Transpose<perm = [0,2,1]>(x)", "Reshape(r, flat)", "24"),
        ("N,1,4", "Transpose(x)", "Flatten(r)", "4,K"),
        ("N,1,4", "Transpose<perm = [1,0,2]>(x)", "Transpose<perm = [1,0,2]>(r)", "N,1,4"),
    ],
)
def test_transpose_that_moves_elements(shape: str, inner: str, outer: str, out: str) -> None:
    unchanged(NAME, parse(graph(shape, inner, outer, out), {"one": ints(1), "flat": ints(-1)}))


def test_mask_stays() -> None:
    text = graph("N,3", "Unsqueeze(x, one)", "Unsqueeze(r, two)", "N,1,1,3").replace(
        "y =", "c = Cast<to = 1>(q)  s = Sub(c, x)  y ="
    )
    reason = ["it makes a mask, and runtimes fuse attention by its two Unsqueeze"]
    assert misses(NAME, parse(text, {"one": ints(1), "two": ints(2)})) == reason


def test_something_between() -> None:
    text = graph("N,3", "Unsqueeze(x, one)", "Squeeze(e, one)", "N,3").replace("q =", "e = Exp(r)  q =")
    unchanged(NAME, parse(text, {"one": ints(1)}))


def test_axes_as_attributes() -> None:
    text = graph("N,3", "Unsqueeze<axes = [1]>(x)", "Squeeze<axes = [1]>(r)", "N,3", opset=11)
    fires(NAME, parse(text), ["y = Relu(x)"])
    text = graph("N,3", "Unsqueeze<axes = [1]>(x)", "Squeeze<axes = [0]>(r)", "1,3", opset=11)
    model = parse(text)
    result, stats, _ = apply(model, NAME)
    assert stats.counts == {NAME: 1}
    assert target(result) == [1, 3]
    one = {"x": np.ones((1, 3), np.float32)}  # only a batch of 1 can run
    np.testing.assert_array_equal(run(model, one)[0], run(result, one)[0])


def test_target_as_an_attribute_in_opset_1() -> None:
    text = graph("N,12", "Reshape<shape = [-1, 4]>(x)", "Reshape<shape = [-1, 6]>(r)", "K,6", opset=1)
    assert lines(apply(parse(text), NAME)[0]) == ["q = Reshape<shape=(-1, 6)>(x)", "y = Relu(q)"]
    text = text.replace("[-1, 6]", "[0, 2, 2]")
    assert lines(apply(parse(text), NAME)[0]) == ["q = Reshape<shape=(-1, 2, 2)>(x)", "y = Relu(q)"]


def test_name_and_metadata_survive() -> None:
    model = reshapes("N,12", [-1, 4], [0, 2, 2], "K,2,2")
    model.graph[1].name = "outer"
    model.graph[1].metadata_props["origin"] = "attention"
    result = fires(NAME, model, count=1)
    assert result.graph[0].name == "outer"
    assert result.graph[0].metadata_props == {"origin": "attention"}


def test_across_the_border_of_a_branch() -> None:
    text = """agraph (float[N,12] x, bool c) => (float[A,B] y) {
        r = Reshape(x, i)
        y = If (c) <
            then_branch = yes () => (float[N,12] a) { q = Reshape(r, j)  a = Relu(q) },
            else_branch = no () => (float[K,6] b) { b = Reshape(r, o) }
        >
    }"""
    weights = {"i": ints(-1, 3, 4), "j": ints(-1, 12), "o": ints(-1, 6)}
    result = fires(NAME, parse(text, weights), count=2)
    assert len(result.graph) == 1
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Relu(x)"]
    assert lines(result.graph[0].attributes["else_branch"].as_graph()) == ["b = Reshape(x, o)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,12] x) => (float[A,B] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) {
        i = Constant<value_ints = [-1, 4]>()
        o = Constant<value_ints = [-1, 6]>()
        z = Constant<value_ints = [0, 2, 3]>()
        r = Reshape(a, i)
        q = Reshape(r, o)
        p = Reshape(q, z)
        n = Constant<value_ints = [-1, 6]>()
        b = Reshape(p, n)
    }"""
    result, _, _ = apply(parse(text), NAME)
    (function,) = result.functions.values()
    assert lines(function)[-1] == "b = Reshape(a, o)"
    inputs = {"x": np.arange(36, dtype=np.float32).reshape(3, 12)}
    np.testing.assert_array_equal(run(parse(text), inputs)[0], run(result, inputs)[0])


def test_squeeze_of_every_axis_of_one_whatever_is_declared() -> None:
    text = """agraph (float[N,1,4] x) => (float[A,B] y) {
        u = Unsqueeze(x, one)
        s = Squeeze(u)
        r = Reshape(s, t)
        y = Relu(r)
    }"""
    model = parse(text, {"one": ints(1), "t": ints(-1, 4)})
    model.graph[1].outputs[0].shape = ir.Shape(["N", 4])
    result, _, _ = apply(model, "exact")
    for batch in (1, 3):
        inputs = {"x": np.ones((batch, 1, 4), np.float32)}
        assert run(model, inputs)[0].shape == run(result, inputs)[0].shape == (batch, 4)
    model = parse(text.replace("r = Reshape(s, t)", "r = Identity(s)"), {"one": ints(1)})
    model.graph[1].outputs[0].shape = ir.Shape(["N", 4])
    result, _, _ = apply(model, "exact")
    for batch, shape in ((1, (4,)), (3, (3, 4))):
        inputs = {"x": np.ones((batch, 1, 4), np.float32)}
        assert run(model, inputs)[0].shape == run(result, inputs)[0].shape == shape
