"""sink-transposes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, calls, feeds, fires, lines, parse, run, unchanged

NAME = "sink-transposes"
DOWN, UP = "<perm = [0,2,3,1]>", "<perm = [0,3,1,2]>"


def graph(body: str, outputs: str = "float[A,B,C,D] y", opset: int = 21, inputs: str = "") -> str:
    return f"""<ir_version: 8, opset_import: ["" : {opset}]>
    agraph (float[N,4,5,4] x, float[N,4,5,4] w{inputs}) => ({outputs}) {{ {body} }}"""


def sandwich(middle: str, opset: int = 21, inputs: str = "") -> str:
    """``middle`` reads ``t`` and gives ``m``, in NHWC; there is a node before and after, in NCHW."""
    body = f"s = Neg(x)  t = Transpose{DOWN}(s)  {middle}  u = Transpose{UP}(m)  y = Abs(u)"
    return graph(body, opset=opset, inputs=inputs)


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


WEIGHTS = {
    "c": array(4), "hc": array(5, 1, 4), "one": array(1, 1, 1, 1), "scalar": array(), "zero": np.zeros((), np.float32),
    "two": np.full((), 2, np.float32), "row": array(1, 1, 4, 1), "condition": array(4, 1) > 0,
    "p": np.array([0, 1, 2, 3, 0, 0, 1, 4], np.int64), "b": np.array([1, 0], np.int64), "e": np.array([4, 2], np.int64),
    "a": np.array([1, -1], np.int64), "hw": np.array([1, 2], np.int64), "last": np.array([-1], np.int64),
}  # fmt: skip


@pytest.mark.parametrize(
    "middle",
    [
        "m = Relu(t)",
        "r = Relu(t)  m = Sigmoid(r)",
        "m = Clip(t, zero, two)",
        "m = Add(t, c)",
        "m = Sub(c, t)",
        "m = Mul(t, hc)",
        "m = Div(t, one)",
        "m = Pow(t, two)",
        "m = Where(condition, t, row)",
        "m = PRelu(t, c)",
        "m = Add(t, t)",
        "g = Sigmoid(t)  m = Mul(t, g)",
        "m = Softmax<axis = -1>(t)",
        "m = Softmax<axis = 1>(t)",
        "m = Pad(t, p)",
        'm = Pad<mode = "reflect">(t, p)',
        "m = Slice(t, b, e, a)",
        "m = ReduceMean(t, hw)",
        "m = ReduceMax(t, last)",
        "d = Cast<to = 11>(t)  m = Cast<to = 1>(d)",
    ],
)
def test_between_two_that_cancel(middle: str) -> None:
    weights = {**WEIGHTS, "p": np.array([0, 1, 2, 3, 0, 0, 1, 2], np.int64)} if "reflect" in middle else WEIGHTS
    result = fires(NAME, parse(sandwich(middle), weights), sizes={"N": 2})
    assert "Transpose" not in operators(result)


@pytest.mark.parametrize("opset", [8, 11, 13, 17])
def test_attributes_of_older_opsets(opset: int) -> None:
    middle = "r = ReduceMean<axes = [1, -2]>(t)  m = Add(r, c)"
    if opset == 8:
        middle = "p = Pad<pads = [0,1,2,3,0,0,1,4]>(t)  m = Slice<starts = [1], ends = [3], axes = [1]>(p)"
    result = fires(NAME, parse(sandwich(middle, opset=opset), {"c": array(4)}), sizes={"N": 2})
    assert "Transpose" not in operators(result)


def test_before_and_after() -> None:
    text = sandwich("m = Add(t, c)")
    result = fires(NAME, parse(text, WEIGHTS), ["s = Neg(x)", "m_1 = Add(s, c_1)", "y = Abs(m_1)"], count=1)
    constant = result.graph.initializers["c_1"].const_value
    assert constant is not None
    assert constant.numpy().shape == (1, 4, 1, 1)


def test_two_branches_that_meet() -> None:
    body = f"""t = Transpose{DOWN}(x)  v = Transpose{DOWN}(w)
        r = Relu(t)  a = Add(r, v)  m = Concat<axis = 3>(a, v)  u = Transpose{UP}(m)  y = Abs(u)"""
    result = fires(NAME, parse(graph(body)))
    assert operators(result) == Counter(Relu=1, Add=1, Concat=1, Abs=1)
    (concat,) = (node for node in result.graph if node.op_type == "Concat")
    assert concat.attributes.get_int("axis", 0) == 1


def test_split_takes_its_axis_along() -> None:
    model = parse(sandwich("b, c = Split<axis = -1, num_outputs = 2>(t)  m = Concat<axis = 3>(c, b)"))
    result = fires(NAME, model, count=1)
    assert "Transpose" not in operators(result)
    assert [node.attributes.get_int("axis", 9) for node in result.graph if node.op_type == "Split"] == [1]


def test_part_of_a_split_that_is_read_as_it_is() -> None:
    body = f"s = Neg(x) t = Transpose{DOWN}(s) b, c = Split<axis = 3>(t, k) m = Relu(b) y = Transpose{UP}(m) z = Abs(c)"
    model = parse(graph(body, "float[A,B,C,D] y, float[E,F,G,H] z"), {"k": np.array([1, 3], np.int64)})
    assert operators(fires(NAME, model, count=1))["Transpose"] == 1


def test_operand_that_is_turned_back_elsewhere() -> None:
    body = f"""a = Transpose{UP}(x)  b = Conv(a, k)  c = Transpose{DOWN}(b)  d = Add(c, x)
    e = Transpose{UP}(d)  f = Conv(e, k)  y = Abs(f)"""
    model = parse(graph(body), {"k": array(4, 4, 1, 1)})
    result = fires(NAME, model, count=1)
    assert operators(result)["Transpose"] == 1
    add = next(node for node in result.graph if node.op_type == "Add")
    assert [value.name for value in add.inputs if value is not None] == ["b", "a"]


def test_operand_that_is_turned_back_later_or_otherwise() -> None:
    later = f"c = Transpose{DOWN}(w) d = Add(c, x) y = Transpose{UP}(d) a = Transpose{UP}(x) z = Exp(a)"
    otherwise = f"a = Transpose{DOWN}(x) c = Transpose{DOWN}(w) d = Add(c, x) y = Transpose{UP}(d) z = Exp(a)"
    for body in (later, otherwise):
        text = graph(body, "float[A,B,C,D] y, float[E,F,G,H] z").replace("N,4,5,4", "4,4,4,4")
        unchanged(NAME, parse(text))


def test_turned_back_for_this_operand_alone() -> None:
    """What turned it back may read a result that is turned itself, and go."""
    body = (
        f"s = Neg(x)  t = Transpose{DOWN}(s)  a = Transpose{UP}(w)  d = Add(t, w)  u = Transpose{UP}(d)  y = Sub(u, a)"
    )
    model = parse(graph(body).replace("N,4,5,4] w", "N,5,4,4] w"))
    result = fires(NAME, model, count=1)
    assert operators(result)["Transpose"] == 1


def test_residual_connection() -> None:
    body = f"""t = Transpose{DOWN}(x)  r = Relu(t)  u = Transpose{UP}(r)  k = Conv(u, f)  v = Transpose{DOWN}(k)
        a = Add(v, r)  n = Transpose{UP}(a)  y = Neg(n)"""
    result = fires(NAME, parse(graph(body), {"f": array(4, 4, 1, 1)}))
    assert operators(result) == Counter(Relu=1, Conv=1, Add=1, Neg=1)


def test_reduction_that_drops_the_moved_axes() -> None:
    body = f"t = Transpose{DOWN}(x)  r = Relu(t)  m = ReduceMean<keepdims = 0>(r, hw)  y = Neg(m)"
    result = fires(NAME, parse(graph(body, "float[A,B] y"), WEIGHTS))
    assert "Transpose" not in operators(result)


@pytest.mark.parametrize(
    ("permutation", "body", "outputs"),
    [
        ("[0,2,1,3]", "g = Gather<axis = 1>(t, at)  y = Neg(g)", "float[A,B,C] y"),
        ("[0,2,3,1]", "g = Gather<axis = -3>(t, at)  h = Gather<axis = 1>(g, at)  y = Neg(h)", "float[A,B] y"),
        ("[0,2,3,1]", "m = ArgMax<axis = -1, keepdims = 0>(t)  y = Neg(m)", "int64[A,B,C] y"),
        ("[0,2,3,1]", "m = ReduceMax(t, hw)  q = Squeeze(m, hw)  y = Neg(q)", "float[A,B] y"),
    ],
)
def test_moved_axes_are_dropped(permutation: str, body: str, outputs: str) -> None:
    text = graph(f"t = Transpose<perm = {permutation}>(x)  {body}", outputs)
    result = fires(NAME, parse(text, {**WEIGHTS, "at": np.array(-1, np.int64)}))
    assert "Transpose" not in operators(result)


def test_gather_by_a_list_keeps_the_axis() -> None:
    result = fires(NAME, parse(sandwich("m = Gather<axis = -1>(t, list)"), {"list": np.array([2, 0], np.int64)}))
    assert operators(result) == Counter(Neg=1, Gather=1, Abs=1)
    fires(NAME, parse(sandwich("m = ArgMin<axis = 1>(t)").replace("float[A", "int64[A")))


def test_composed_permutation_is_left() -> None:
    body = f"t = Transpose{DOWN}(x)  r = Relu(t)  y = Transpose<perm = [0,2,1,3]>(r)"
    fires(NAME, parse(graph(body)), ["r_1 = Relu(x)", "y = Transpose<perm=(0, 3, 2, 1)>(r_1)"])


def test_reader_on_the_way_gets_its_own() -> None:
    body = f"t = Transpose{DOWN}(x)  r = Relu(t)  u = Transpose{UP}(r)  y = Neg(u)  z = Softmax<axis = 1>(r)"
    result = fires(NAME, parse(graph(body, "float[A,B,C,D] y, float[E,F,G,H] z")))
    assert operators(result) == Counter(Transpose=1, Relu=1, Neg=1, Softmax=1)
    assert any(line.startswith("r = Transpose<perm=(0, 2, 3, 1)>") for line in lines(result))


def test_graph_outputs_in_the_middle_and_at_the_end() -> None:
    body = f"t = Transpose{DOWN}(x)  r = Relu(t)  u = Transpose{UP}(r)  s = Exp(u)  y = Identity(s)"
    result = fires(NAME, parse(graph(body, "float[A,B,C,D] y, float[E,F,G,H] r")))
    assert operators(result)["Transpose"] == 1
    body = f"t = Transpose{DOWN}(x)  y = Transpose{UP}(t)"
    fires(NAME, parse(graph(body)), ["y = Identity(x)"])


@pytest.mark.parametrize(
    "body",
    [
        f"t = Transpose{DOWN}(x)  y = Relu(t)",
        f"t = Transpose{DOWN}(x)  r = Relu(t)  y = MatMul(r, c44)",
        f"t = Transpose{DOWN}(x)  m = Add(t, w0)  y = Transpose{UP}(m)",
        f"t = Transpose{DOWN}(x)  v = Transpose<perm = [0,3,2,1]>(w)  m = Add(t, v)  y = Neg(m)",
        f"t = Transpose{DOWN}(x)  m = Add(t, five)  y = ReduceSum<keepdims = 0>(m, zeroth)",
        f"t = Transpose{DOWN}(x)  m = PRelu(slope, t)  y = Transpose{UP}(m)",
        f"t = Transpose{DOWN}(x)  m = LayerNormalization(t, c)  y = Transpose{UP}(m)",
        f"t = Transpose{DOWN}(x)  h = Shape(t)  m = Expand(t, h)  y = Transpose{UP}(m)",
        f"t = Transpose{DOWN}(x)  m = Concat<axis = 0>(t, known)  y = Transpose{UP}(m)",
        "t = Transpose(x)  m = Relu(t)  n = MatMul(m, m)  y = Transpose(n)",
    ],
)
def test_no_fewer_would_be_left(body: str) -> None:
    weights = {
        **WEIGHTS, "c44": array(4, 4), "five": array(2, 1, 1, 1, 4), "zeroth": np.array([0], np.int64),
        "slope": array(1, 5, 4, 4), "known": array(1, 5, 4, 4),
    }  # fmt: skip
    text = graph(body, inputs=", float[N,5,4,4] w0").replace(
        "float[A,B,C,D] y", "float y" if "five" in body else "float[A,B,C,D] y"
    )
    model = parse(text, weights)
    result, stats, _ = apply(model, NAME)
    assert not stats.counts
    assert lines(result) == lines(model)


def test_softmax_that_flattens() -> None:
    unchanged(NAME, parse(sandwich("m = Softmax<axis = 1>(t)", opset=11)))


def test_large_constant_stays() -> None:
    text = sandwich("m = Add(t, big)").replace("N,4,5,4", "N,4,300,60")
    unchanged(NAME, parse(text, {"big": np.zeros((1, 300, 60, 4), np.float32)}))


def test_constant_of_the_caller() -> None:
    text = sandwich("m = Add(t, k)", inputs=", float[4] k")
    unchanged(NAME, parse(text, {"k": array(4)}))


def test_width_equal_to_channels() -> None:
    """A constant of four may belong to the width or to the channels; both are of length four here."""
    text = sandwich("m = Mul(t, c)")
    fires(NAME, parse(text.replace("N,4,5,4", "N,4,4,4"), WEIGHTS))


def test_shared_constant_is_copied() -> None:
    text = sandwich("m = Add(t, c)").replace("y = Abs(u)", "y = Add(u, c)")
    result = fires(NAME, parse(text, WEIGHTS))
    assert {"c", "c_1"} <= set(result.graph.initializers)


def test_value_captured_by_a_branch() -> None:
    body = f"""t = Transpose{DOWN}(x)  r = Relu(t)  u = Transpose{UP}(r)
        y = If (q) <
            then_branch = yes () => (float[A,B,C,D] a) {{ a = Neg(u) }},
            else_branch = no () => (float[E,F,G,H] b) {{ b = Exp(r) }}
        >"""
    result = fires(NAME, parse(graph(body, inputs=", bool q")))
    assert operators(result) == Counter(Relu=1, Transpose=1, If=1)


def test_inside_a_branch_and_a_function() -> None:
    middle = f"t = Transpose{DOWN}(x)  r = Relu(t)  u = Transpose{UP}(r)"
    text = f"""<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4,5,4] x, bool q) => (float[A,B,C,D] y) {{
        z = If (q) <
            then_branch = yes () => (float[A,B,C,D] a) {{ {middle}  a = Neg(u) }},
            else_branch = no () => (float[E,F,G,H] b) {{ b = Exp(x) }}
        >
        y = own.f(z)
    }}
    <domain: "own", opset_import: ["" : 21]>
    f (x) => (b) {{ {middle}  b = Neg(u) }}"""
    result = fires(NAME, parse(text), count=2)
    (function,) = result.functions.values()
    assert [node.op_type for node in function] == ["Relu", "Neg"]
    assert [node.op_type for node in result.graph[0].attributes["then_branch"].as_graph()] == ["Relu", "Neg"]


def test_permutation_bound_to_a_function_attribute() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[2,3] x) => (float[A,B] y) { y = own.f<p = [1,0]>(x) }
    <domain: "own", opset_import: ["" : 21]>
    f <p> (a) => (b) { s = Transpose<perm: ints = @p>(a)  r = Relu(s)  b = Transpose<perm: ints = @p>(r) }"""
    unchanged(NAME, parse(text))


def test_names_and_metadata_survive() -> None:
    model = parse(sandwich("m = Relu(t)"))
    relu = model.graph[2]
    relu.name = "activation"
    relu.metadata_props["origin"] = "keras"
    (node,) = (node for node in fires(NAME, model).graph if node.op_type == "Relu")
    assert (node.name, node.metadata_props) == ("activation", {"origin": "keras"})


def test_work_is_linear() -> None:
    """Hundreds of sandwiches side by side, each a part of its own, must not be looked through hundreds of times."""

    def work(count: int) -> int:
        body = "".join(
            f"t{i} = Transpose{DOWN}(x)  r{i} = Relu(t{i})  u{i} = Transpose{UP}(r{i})  " for i in range(count)
        )
        model = parse(graph(f"{body} y = Sum({', '.join(f'u{i}' for i in range(count))})"))
        return calls(lambda: apply(model, NAME))

    assert work(400) < 6 * work(100)


def test_results_on_other_sizes() -> None:
    model = parse(sandwich("m = Pad(t, p)"), WEIGHTS)
    result, _, _ = apply(model, NAME)
    for size in (0, 1, 7):
        given = feeds(model, size, {"N": size})
        np.testing.assert_array_equal(run(model, given)[0], run(result, given)[0])
