"""eliminate-common-subexpressions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, parse, unchanged

from graphopt.pipeline.base import Context, GraphPass
from graphopt.pipeline.registry import create

NAME = "eliminate-common-subexpressions"


def body(text: str, /, outputs: str = "float[N,4] y", **weights: np.ndarray) -> ir.Model:
    return parse(f"agraph (float[N,4] x) => ({outputs}) {{ {text} }}", weights)


def test_same_operator_and_input() -> None:
    fires(NAME, body("a = Exp (x)  b = Exp (x)  y = Add (a, b)"), ["a = Exp(x)", "y = Add(a, a)"])


def test_whole_chains_in_one_run() -> None:
    text = """
        a = Exp (x)  b = Neg (a)  c = Add (b, w)
        d = Exp (x)  e = Neg (d)  f = Add (e, w)
        y = Mul (c, f)"""
    fires(NAME, body(text, w=np.ones(4, np.float32)), [
        "a = Exp(x)", "b = Neg(a)", "c = Add(b, w)", "y = Mul(c, c)",
    ], count=3)  # fmt: skip


def test_attributes_count() -> None:
    text = """
        a = LeakyRelu <alpha = 0.5> (x)  b = LeakyRelu <alpha = 0.25> (x)  c = LeakyRelu <alpha = 0.5> (x)
        d = LeakyRelu (x)  e = LeakyRelu <alpha = 0.25> (x)  f = LeakyRelu (x)
        y = Sum (a, b, c, d, e, f)"""
    fires(NAME, body(text), [
        "a = LeakyRelu<alpha=0.5>(x)", "b = LeakyRelu<alpha=0.25>(x)", "d = LeakyRelu(x)",
        "y = Sum(a, b, a, d, b, d)",
    ], count=3)  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Elu <alpha = 0.0> (x)", "Elu <alpha = -0.0> (x)"),
        ("Transpose <perm = [0,1]> (x)", "Transpose <perm = [1,0]> (x)"),
        ("ReduceSum <keepdims = 1> (x)", "ReduceSum <keepdims = 0> (x)"),
        ("Sub (x, w)", "Sub (w, x)"),
        ("Pow (x, w)", "Pow (w, x)"),
        ("Exp (x)", "Neg (x)"),
    ],
)
def test_different_after_all(first: str, second: str) -> None:
    model = body(f"a = {first}  b = {second}  y = Concat <axis = 0> (a, b)", "float[M,K] y", w=np.ones(4, np.float32))
    result, stats, _ = apply(model, NAME)
    assert not stats.counts
    assert lines(result) == lines(model)


def test_equal_strings_ints_and_tensors() -> None:
    text = """
        a = ConstantOfShape <value = float[1] {2}> (s)  b = ConstantOfShape <value = float[1] {2}> (s)
        c = ConstantOfShape <value = float[1] {3}> (s)  d = ConstantOfShape <value = int32[1] {2}> (s)
        e = Cast <to = 1> (d)
        f = Resize <mode = "nearest"> (x, , , t)  g = Resize <mode = "nearest"> (x, , , t)
        y = Sum (a, b, c, e, f, g)"""
    weights = {"s": np.array([1, 4]), "t": np.array([3, 4])}
    result = fires(NAME, parse(f"agraph (float[N,4] x) => (float[N,4] y) {{ {text} }}", weights), count=2)
    assert lines(result)[-1] == "y = Sum(a, a, c, e, f, f)"


def test_constants_in_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,2] x) => (float[N,2] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        a = Constant <value_floats = [1.0, 2.0]> ()
        b = Constant <value_floats = [1.0, 3.0]> ()
        c = Constant <value_floats = [1.0, 2.0]> ()
        d = Add (x, a)
        e = Add (d, b)
        y = Add (e, c)
    }"""
    result = fires(NAME, parse(text), count=1)
    assert lines(next(iter(result.functions.values())))[-1] == "y = Add(e, a)"


def test_attributes_bound_to_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,2] x) => (float[N,2] y) { y = local.block <p = 0.5, q = 0.25> (x) }
    <domain: "local", opset_import: ["" : 21]>
    block <p, q> (x) => (y) {
        a = Elu <alpha : float = @p> (x)
        b = Elu <alpha : float = @q> (x)
        c = Elu <alpha : float = @p> (x)
        y = Sum (a, b, c)
    }"""
    result = fires(NAME, parse(text), count=1)
    assert lines(next(iter(result.functions.values())))[-1] == "y = Sum(a, b, a)"


def test_graph_outputs() -> None:
    fires(NAME, body("a = Exp (x)  y = Exp (x)  z = Neg (a)", "float[N,4] y, float[N,4] z"), [
        "y = Exp(x)", "z = Neg(y)",
    ])  # fmt: skip
    fires(NAME, body("y = Exp (x)  a = Exp (x)  z = Neg (a)", "float[N,4] y, float[N,4] z"), [
        "y = Exp(x)", "z = Neg(y)",
    ])  # fmt: skip
    unchanged(NAME, body("y = Exp (x)  z = Exp (x)", "float[N,4] y, float[N,4] z"))


def test_several_outputs() -> None:
    text = """
        a, i = TopK (x, k)
        b, j = TopK (x, k)
        c = Cast <to = 1> (j)
        d = Cast <to = 1> (i)
        y = Sum (a, b, c, d)"""
    fires(NAME, body(text, "float[N,2] y", k=np.array([2])), [
        "a, i = TopK(x, k)", "c = Cast<to=1>(i)", "y = Sum(a, a, c, c)",
    ])  # fmt: skip


def test_outputs_left_out() -> None:
    text = """agraph (float[2,3,8,8] x) => (float[2,3,4,4] y) {
        a = MaxPool <kernel_shape = [2,2], strides = [2,2]> (x)
        b, i = MaxPool <kernel_shape = [2,2], strides = [2,2]> (x)
        c = Cast <to = 1> (i)
        y = Sum (a, b, c)
    }"""
    unchanged(NAME, parse(text))


SUBGRAPHS = """agraph (float[N,4] x, bool b) => (float[N,4] y, float[N,4] z) {
    BEFORE
    y = If (b) <
        then_branch = left () => (float[N,4] l) { a = Exp (x)  c = Exp (x)  l = Add (a, c) },
        else_branch = right () => (float[N,4] r) { d = Exp (x)  r = Neg (d) }
    >
    AFTER
}"""


def test_enclosing_graph_is_seen_from_a_branch() -> None:
    text = SUBGRAPHS.replace("BEFORE", "e = Exp (x)").replace("AFTER", "z = Neg (e)")
    result = fires(NAME, parse(text), count=3)
    attributes = result.graph[1].attributes
    assert lines(attributes["then_branch"].as_graph()) == ["l = Add(e, e)"]
    assert lines(attributes["else_branch"].as_graph()) == ["r = Neg(e)"]


def test_what_comes_later_or_lies_in_a_branch_is_not_seen() -> None:
    text = SUBGRAPHS.replace("BEFORE", "").replace("AFTER", "e = Exp (x)  z = Neg (e)")
    result = fires(NAME, parse(text), count=1)
    assert lines(result)[1:] == ["e = Exp(x)", "z = Neg(e)"]
    attributes = result.graph[0].attributes
    assert lines(attributes["then_branch"].as_graph()) == ["a = Exp(x)", "l = Add(a, a)"]
    assert lines(attributes["else_branch"].as_graph()) == ["d = Exp(x)", "r = Neg(d)"]


def test_second_collision_inside_a_branch_is_forgotten() -> None:
    """What a branch adds to a class that the enclosing graph began must go with the branch."""
    text = """agraph (float[N,4] x, bool b) => (float[N,4] y, float[N,4] z) {
        e = Elu <alpha = 0.5> (x)
        y = If (b) <
            then_branch = left () => (float[N,4] l) { a = Elu <alpha = 0.25> (x)  l = Add (a, e) },
            else_branch = right () => (float[N,4] r) { r = Neg (e) }
        >
        c = Elu <alpha = 0.25> (x)
        z = Add (c, e)
    }"""
    unchanged(NAME, parse(text))


def test_result_of_a_branch_stays_in_it() -> None:
    text = """agraph (float[N,4] x, bool b) => (float[N,4] y, float[N,4] z) {
        e = Exp (x)
        y = If (b) <
            then_branch = left () => (float[N,4] l) { l = Exp (x) },
            else_branch = right () => (float[N,4] r) { r = Neg (e) }
        >
        z = Neg (e)
    }"""
    unchanged(NAME, parse(text))


@pytest.mark.parametrize(
    "node",
    [
        "RandomNormalLike (x)",
        "RandomUniform <shape = [3,4]> ()",
        "RandomUniform <shape = [3,4], seed = 1.0> ()",
        "Bernoulli (x)",
        "Dropout (x, r, t)",
        "other.Custom (x)",
    ],
)
def test_random_and_unknown_operators(node: str) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    agraph (float[3,4] x) => (float[3,4] y) {{ a = {node}  b = {node}  y = Add (a, b) }}"""
    weights = {"r": np.array(0.5, np.float32), "t": np.array(True)}
    model = parse(text, weights if "Dropout" in node else {})
    unchanged(NAME, model)


def test_nodes_with_subgraphs() -> None:
    def branches(suffix: str) -> str:
        return f"""If (b) <
            then_branch = left{suffix} () => (float[N,4] l{suffix}) {{ l{suffix} = Exp (x) }},
            else_branch = right{suffix} () => (float[N,4] r{suffix}) {{ r{suffix} = Neg (x) }}
        >"""

    text = f"""agraph (float[N,4] x, bool b) => (float[N,4] y) {{
        c = {branches("1")}
        d = {branches("2")}
        y = Add (c, d)
    }}"""
    unchanged(NAME, parse(text))


def test_touched_nodes_see_their_only_reader() -> None:
    model = body("c = Exp (x)  a = Neg (c)  b = Neg (c)  y = Add (a, b)")
    search = create(NAME)
    assert isinstance(search, GraphPass)
    touched = {node.op_type for node in search.run(model, Context(model)).touched or ()}
    assert touched == {"Exp", "Neg", "Add"}


@pytest.mark.parametrize("op", ["Add", "Mul", "Max", "Min", "Sum", "Mean"])
def test_operands_change_places(op: str) -> None:
    text = f"agraph (float[N,4] x, float[4] w) => (float[A,B] y) {{ a = {op}(x, w)  b = {op}(w, x)  y = Sub(a, b) }}"
    fires(NAME, parse(text), [f"a = {op}(x, w)", "y = Sub(a, a)"])


@pytest.mark.parametrize("op", ["Sub", "Div", "Pow", "MatMul", "PRelu"])
def test_operands_that_keep_their_places(op: str) -> None:
    text = f"agraph (float[4,4] x, float[4,4] w) => (float[A,B] y) {{ a = {op}(x, w)  b = {op}(w, x)  y = Sub(a, b) }}"
    unchanged(NAME, parse(text))


def test_sum_of_three_keeps_its_order() -> None:
    text = "agraph (float[4] x, float[4] w) => (float[A] y) { a = Sum(x, w, x)  b = Sum(w, x, x)  y = Sub(a, b) }"
    unchanged(NAME, parse(text))


def test_a_default_that_one_spells_out() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) {{ a = {} (x) b = {} (x) y = Mul (a, b) }}"
    spelled = "LeakyRelu <alpha = 0.01>"
    for one, other in ((spelled, "LeakyRelu"), ("LeakyRelu", spelled), (spelled, spelled)):
        assert len(fires(NAME, parse(text.format(one, other)), count=1).graph) == 2
    unchanged(NAME, parse(text.format("LeakyRelu", "LeakyRelu <alpha = 0.02>")))
    unchanged(NAME, parse(text.format("Softmax", "Softmax <axis = 1>")))
    opset_12 = '<ir_version: 7, opset_import: ["" : 12]> ' + text  # where the default was another
    fires(NAME, parse(opset_12.format("Softmax", "Softmax <axis = 1>")), count=1)
    unchanged(NAME, parse(opset_12.format("Softmax", "Softmax <axis = -1>")))
