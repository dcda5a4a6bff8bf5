"""eliminate-sequences."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, misses, parse, run, unchanged

import graphopt

NAME = "eliminate-sequences"
UNKNOWN = ["the elements of the sequence are not known"]
NUMBERS = {"zero": 0, "one": 1, "two": 2, "three": 3, "last": -1, "before": -2}


def graph(body: str, *, inputs: str = "float[N,4] x, float[N,4] z", outputs: str = "float[A,B] y") -> ir.Model:
    """``zero``, ``one`` ... are numbers, ``sizes`` is a vector."""
    weights = {name: np.array(number, np.int64) for name, number in NUMBERS.items() if name in body}
    weights |= {"sizes": np.array([1, 3], np.int64)} if "sizes" in body else {}
    return parse(f"agraph ({inputs}) => ({outputs}) {{ {body} }}", weights)


@pytest.mark.parametrize(("place", "taken"), [("one", "z"), ("zero", "x"), ("last", "z"), ("before", "x")])
def test_an_element(place: str, taken: str) -> None:
    body = f"s = SequenceConstruct (x, z) a = SequenceAt (s, {place}) y = Relu (a)"
    fires(NAME, graph(body), [f"y = Relu({taken})"])


def test_an_element_that_is_a_graph_output() -> None:
    fires(NAME, graph("s = SequenceConstruct (x, z) y = SequenceAt (s, one)"), ["y = Identity(z)"])


def test_a_sequence_that_grows_and_shrinks() -> None:
    body = """e = SequenceEmpty <dtype = 1> ()
    a = SequenceInsert (e, x)
    b = SequenceInsert (a, z)
    c = SequenceInsert (b, w, zero)
    d = SequenceInsert (c, v, last)
    f = SequenceErase (d, one)
    y = ConcatFromSequence <axis = 1> (f)"""
    model = graph(f"w = Neg (x) v = Exp (z) {body}")
    fires(NAME, model, ["w = Neg(x)", "v = Exp(z)", "y = Concat<axis=1>(w, v, z)"])


def test_erase_takes_the_last() -> None:
    body = "s = SequenceConstruct (x, z) e = SequenceErase (s) a = SequenceAt (e, last) y = Relu (a)"
    fires(NAME, graph(body), ["y = Relu(x)"])


def test_concat_along_a_new_axis() -> None:
    body = "s = SequenceConstruct (x, z) y = ConcatFromSequence <axis = -1, new_axis = 1> (s)"
    result = fires(NAME, graph(body, outputs="float[A,B,C] y"))
    assert [node.op_type for node in result.graph] == ["Unsqueeze", "Unsqueeze", "Concat"]


def test_length() -> None:
    body = "s = SequenceConstruct (x, z, x) n = SequenceLength (s) f = CastLike (n, x) y = Mul (x, f)"
    assert lines(fires(NAME, graph(body)))[-1] == "y = Mul(x, f)"


@pytest.mark.parametrize("split", ["sizes", "three"])
def test_a_piece_of_what_is_split(split: str) -> None:
    body = f"s = SplitToSequence <axis = -1> (x, {split}) a = SequenceAt (s, last) y = Relu (a)"
    result = fires(NAME, graph(body))
    assert [node.op_type for node in result.graph] == ["Slice", "Relu"]


def test_a_piece_of_an_axis_of_any_length() -> None:
    body = "s = SplitToSequence <axis = 0> (x, two) a = SequenceAt (s, one) y = Relu (a)"
    fires(NAME, graph(body), sizes={"N": 3})
    fires(NAME, graph(body), sizes={"N": 7})


@pytest.mark.parametrize("keeps", [0, 1])
def test_pieces_of_length_1(keeps: int) -> None:
    body = f"s = SplitToSequence <axis = 1, keepdims = {keeps}> (x) a = SequenceAt (s, two) y = Relu (a)"
    result = fires(NAME, graph(body, outputs="float[A,B] y" if keeps else "float[A] y"))
    assert [node.op_type for node in result.graph] == ["Slice" if keeps else "Gather", "Relu"]


def test_several_pieces_come_from_one_split() -> None:
    body = "s = SplitToSequence <axis = 1> (x, sizes) a = SequenceAt (s, zero) b = SequenceAt (s, one) y = Add (a, b)"
    result, _, _ = apply(graph(body), NAME, "deduplicate-initializers", "eliminate-common-subexpressions")
    assert [node.op_type for node in result.graph] == ["Split", "Add"]
    inputs = {"x": np.arange(8, dtype=np.float32).reshape(2, 4), "z": np.zeros((2, 4), np.float32)}
    assert np.array_equal(run(graph(body), inputs)[0], run(result, inputs)[0])
    fires(NAME, graph(body))


def test_what_is_known_afterwards_is_used() -> None:
    text = "s = SequenceConstruct (x, z) a = SequenceAt (s, one) b = Reshape (a, k) y = Relu (b)"
    model = parse(
        f"agraph (float[2,4] x, float[2,4] z) => (float[2,4] y) {{ {text} }}", {"k": np.array([2, 4])} | one()
    )
    result, _, _ = apply(model, NAME, "eliminate-reshape")
    assert lines(result) == ["y = Relu(z)"]


def one() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return {"one": np.array(1, np.int64)}


def test_opset_11() -> None:
    text = """<ir_version: 6, opset_import: ["" : 11]>
    agraph (float[N,4] x, float[N,4] z) => (float[A,B,C] y) {
        s = SequenceConstruct (x, z)
        y = ConcatFromSequence <axis = 0, new_axis = 1> (s)
    }"""
    assert "Unsqueeze<axes=(0,)>(x)" in lines(fires(NAME, parse(text)))[0]


def test_inside_a_branch() -> None:
    text = """agraph (float[N,4] x, float[N,4] z, bool c) => (float[A,B] y) {
        s = SequenceConstruct (x, z)
        y = If (c) <
            then_branch = g1 () => (float[P,Q] a) { e = SequenceAt (s, one) a = Relu (e) },
            else_branch = g2 () => (float[P,Q] b) { b = ConcatFromSequence <axis = 0> (s) }
        >
    }"""
    result = fires(NAME, parse(text, one()), ["y = If(c)"], count=2)
    (node,) = result.graph
    assert lines(node.attributes["then_branch"].as_graph()) == ["a = Relu(z)"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = SequenceConstruct (x, z) a = SequenceAt (s, i) y = Relu (a)", "the position is not known"),
        ("s = SequenceConstruct (x, z) a = SequenceAt (s, two) y = Relu (a)", "the position is not in the sequence"),
        ("s = SplitToSequence (x, two) a = SequenceAt (s, last) y = Relu (a)", "the position is not known"),
        ("s = SplitToSequence (x, i) a = SequenceAt (s, zero) y = Relu (a)", UNKNOWN[0]),
        ("t = SequenceConstruct (x) s = SequenceInsert (t, z, i) a = SequenceAt (s, zero) y = Relu (a)", UNKNOWN[0]),
        ("s = Identity (q) a = SequenceAt (s, zero) y = Relu (a)", UNKNOWN[0]),
        (
            "s = SplitToSequence (x, two) y = ConcatFromSequence <axis = 0> (s)",
            "nothing, or all pieces of a tensor, is put together",
        ),
    ],
)
def test_what_is_not_known(body: str, reason: str) -> None:
    inputs = "float[N,4] x, float[N,4] z, int64 i, seq(float[N,4]) q"
    assert misses(NAME, graph(body, inputs=inputs)) == [reason]


def test_branches_may_give_other_sequences() -> None:
    text = """agraph (float[N,4] x, float[N,4] z, bool c) => (float[A,B] y) {
        s = If (c) <
            then_branch = g1 () => (seq(float[N,4]) a) { a = SequenceConstruct (x, z) },
            else_branch = g2 () => (seq(float[N,4]) b) { b = SequenceConstruct (z, x) }
        >
        e = SequenceAt (s, one)
        y = Relu (e)
    }"""
    unchanged(NAME, parse(text, one()))


def test_what_the_rank_of_an_input_decides_is_decided_in_the_same_run() -> None:
    """The sequence hides the rank of ``x``, which is known as soon as ``x`` itself is read."""
    before = parse(
        """agraph (float[N,S,8] x) => (float[A,B,C] y) {
            s = SequenceConstruct (x, x) first = Constant <value_int = 0> () a = SequenceAt (s, first)
            r = Relu (a) sizes = Shape (r) rank = Size (sizes) three = Constant <value_int = 3> ()
            c = Equal (rank, three)
            y = If (c) <
                then_branch = then () => (float[A,B,C] t) { t = Exp (r) },
                else_branch = else () => (float[A,B,C] e) { e = Neg (r) }
            > }"""
    )
    before.graph.outputs[0].shape = None
    assert lines(graphopt.optimize(before, validate=False)) == ["r = Relu(x)", "y = Exp(r)"]
