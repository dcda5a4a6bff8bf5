"""graphopt.extraction: the right part, whole and alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from harness import parse

from graphopt import io, proto
from graphopt.errors import UsageError
from graphopt.extraction import extract

CHAIN = """agraph (float[N,4] x, float[N,4] z) => (float[N,4] y) {
    a = Add (x, w)
    b = Relu (a)
    c = Mul (b, v)
    y = Add (c, z)
}"""
WEIGHTS = {"w": np.arange(4, dtype=np.float32) - 2, "v": np.full(4, 3, np.float32)}


def evaluate(model: object, **feeds: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(proto.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])  # type: ignore[arg-type]
    return list(session.run(None, feeds))


def names(values: object) -> list[str]:
    return [value.name for value in values]  # type: ignore[attr-defined]


def test_takes_only_what_it_needs() -> None:
    part = extract(parse(CHAIN, WEIGHTS), ["a"], ["c"])
    assert [node.op_type for node in part.graph] == ["Relu", "Mul"]
    assert list(part.graph.initializers) == ["v"]
    assert names(part.graph.inputs) == ["a"]
    assert names(part.graph.outputs) == ["c"]
    (c,) = evaluate(part, a=np.array([[-1, 2, -3, 4]], np.float32))
    assert c.tolist() == [[0, 6, 0, 12]]


def test_new_input_has_its_type_and_symbolic_shape() -> None:
    part = extract(parse(CHAIN, WEIGHTS), ["a"], ["c"])
    proto_input = proto.to_proto(part).graph.input[0]
    assert proto_input.type.tensor_type.elem_type == 1
    assert len(proto_input.type.tensor_type.shape.dim) == 2
    assert proto_input.type.tensor_type.shape.dim[1].dim_value == 4


def test_inputs_default_to_what_the_outputs_need() -> None:
    part = extract(parse(CHAIN, WEIGHTS), [], ["b"])
    assert names(part.graph.inputs) == ["x"]


def test_outputs_default_to_the_models_own() -> None:
    part = extract(parse(CHAIN, WEIGHTS), ["b", "z"], [])
    assert names(part.graph.inputs) == ["b", "z"]
    assert names(part.graph.outputs) == ["y"]


def test_order_is_the_callers() -> None:
    part = extract(parse(CHAIN, WEIGHTS), ["z", "x"], ["y", "b"])
    assert names(part.graph.inputs) == ["z", "x"]
    assert names(part.graph.outputs) == ["y", "b"]


def test_initializer_can_become_an_input() -> None:
    part = extract(parse(CHAIN, WEIGHTS), ["w", "x"], ["a"])
    assert names(part.graph.inputs) == ["w", "x"]
    assert not part.graph.initializers
    (a,) = evaluate(part, w=np.ones(4, np.float32), x=np.zeros((1, 4), np.float32))
    assert a.tolist() == [[1, 1, 1, 1]]


def test_cut_at_one_output_of_a_node_that_stays() -> None:
    model = parse("""agraph (float[4] x) => (float[2] y) {
        a, b = Split <axis = 0, num_outputs = 2> (x)
        y = Add (a, b)
    }""")
    part = extract(model, ["a", "x"], ["y"])
    (y,) = evaluate(part, a=np.array([10, 20], np.float32), x=np.arange(4, dtype=np.float32))
    assert y.tolist() == [12, 23]


def test_captures_of_subgraphs_come_along() -> None:
    model = parse(
        """agraph (bool c, float[2] x, float[2] z) => (float[2] y) {
        a = Neg (x)
        b = Neg (z)
        y = If (c) <
            then_branch = then () => (float[2] t) { t = Add (a, w) },
            else_branch = other () => (float[2] e) { e = Identity (a) }
        >
    }""",
        {"w": np.ones(2, np.float32)},
    )
    part = extract(model, [], ["y"])
    assert sorted(names(part.graph.inputs)) == ["c", "x"]
    part = extract(model, ["c", "a"], ["y"])
    assert [node.op_type for node in part.graph] == ["If"]
    (y,) = evaluate(part, c=np.array(True), a=np.array([1, 2], np.float32))
    assert y.tolist() == [2, 3]


def test_callers_model_is_untouched() -> None:
    model = parse(CHAIN, WEIGHTS)
    before = proto.to_proto(model).SerializeToString(deterministic=True)
    extract(model, ["a"], ["c"])
    assert proto.to_proto(model).SerializeToString(deterministic=True) == before


def test_unused_functions_and_opsets_go() -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[2] x) => (float[2] y) {
        a = Neg (x)
        y = local.twice (a)
    }
    <domain: "local", opset_import: ["" : 21]>
    twice (p) => (q) { q = Add (p, p) }""")
    assert extract(model, ["x"], ["y"]).functions
    part = extract(model, ["x"], ["a"])
    assert not part.functions
    assert list(part.opset_imports) == [""]


@pytest.mark.parametrize(
    ("inputs", "outputs", "message", "hint"),
    [
        (["x"], ["nope"], "no value 'nope'", ""),
        (["aa"], ["c"], "no value 'aa'", "'a'"),
        (["x"], ["y"], "depend on the model's input 'z'", "cut further down"),
        (["z", "x"], ["c"], "do not depend on 'z'", "Leave it out"),
        (["a", "a"], ["c"], "'a' is named twice", ""),
        (["a"], ["a"], "as input and as output", ""),
    ],
)
def test_says_what_is_wrong(inputs: list[str], outputs: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        extract(parse(CHAIN, WEIGHTS), inputs, outputs)
    assert hint in caught.value.hint


def test_names_inside_subgraphs_are_recognised() -> None:
    model = parse("""agraph (bool c, float[2] x) => (float[2] y) {
        y = If (c) <
            then_branch = then () => (float[2] t) { t = Neg (x) },
            else_branch = other () => (float[2] e) { e = Identity (x) }
        >
    }""")
    with pytest.raises(UsageError, match="'t' lies inside If"):
        extract(model, [], ["t"])


def test_map_outputs_stay_only_where_no_output_is_named(models: Path) -> None:
    model = io.load(models / "logreg_iris.onnx")
    whole = proto.to_proto(extract(model, [], []))
    assert [output.name for output in whole.graph.output] == [
        output.name for output in proto.to_proto(model).graph.output
    ]
    part = proto.to_proto(extract(model, [], ["probability_tensor_normalized"]))
    assert [output.name for output in part.graph.output] == ["probability_tensor_normalized"]
    assert "ZipMap" not in [node.op_type for node in part.graph.node]
    with pytest.raises(UsageError, match="is a map") as caught:
        extract(model, [], ["probabilities"])
    assert "probability_tensor_normalized" in caught.value.hint
