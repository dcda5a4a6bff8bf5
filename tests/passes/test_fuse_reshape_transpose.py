"""fuse-reshape-transpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, misses, parse, unchanged

NAME = "fuse-reshape-transpose"
BODY = "a = Reshape(x, to) b = Transpose<perm=[0,2,1]>(a) y = Reshape(b, back)"


def model(
    body: str = BODY, *, x: str = "[2,6,5,4]", to: Any = (12, 5, 4), back: Any = (2, 6, 4, 5), kind: str = "float",
    outputs: str = "", opset: int = 20,
) -> ir.Model:  # fmt: skip
    values = {"to": np.array(to), "back": np.array(back)}
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    return parse(f"{header} agraph ({kind}{x} x) => ({kind}[A,B,C,D] y{outputs}) {{ {body} }}", values)


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("kind", ["float", "double", "int64", "bool"])
def test_static(kind: str, opset: int) -> None:
    fires(NAME, model(kind=kind, opset=opset), ["y = Transpose<perm=(0, 1, 3, 2)>(x)"], count=1)


def test_numbers_that_are_found_out() -> None:
    fires(NAME, model(to=(-1, 5, 4), back=(2, -1, 4, 5)), ["y = Transpose<perm=(0, 1, 3, 2)>(x)"], count=1)


def test_symbolic_extents() -> None:
    body = "n = Shape<start=0, end=2>(x) s = Shape<start=2, end=3>(x) to = Concat<axis=0>(minus, s, four) "
    body += "back = Concat<axis=0>(n, four, s) "
    values = {"minus": np.array([-1]), "four": np.array([4])}
    text = f"agraph (float[N,6,S,4] x) => (float[A,B,C,D] y) {{ {body} {BODY} }}"
    found = fires(NAME, parse(text, values), ["y = Transpose<perm=(0, 1, 3, 2)>(x)"], count=1, sizes={"N": 2, "S": 5})
    assert len(found.graph) == 1


def test_more_axes() -> None:
    text = """agraph (float[2,3,4,5,6] x) => (float[A,B,C,D,E] y) {
        a = Reshape(x, to) b = Transpose<perm=[0,3,1,2]>(a) y = Reshape(b, back) }"""
    before = parse(text, {"to": np.array([6, 4, 5, 6]), "back": np.array([2, 3, 6, 4, 5])})
    fires(NAME, before, ["y = Transpose<perm=(0, 1, 4, 2, 3)>(x)"], count=1)
    before = parse(
        text.replace("[0,3,1,2]", "[0,2,1]"), {"to": np.array([24, 5, 6]), "back": np.array([2, 3, 4, 6, 5])}
    )
    fires(NAME, before, ["y = Transpose<perm=(0, 1, 2, 4, 3)>(x)"], count=1)


@pytest.mark.parametrize(
    ("turn", "back", "perm"),
    [("[1,0,2]", (-1, 3, 5, 4), (1, 2, 0, 3)), ("[1,2,0]", (-1, 3, 4, 5), (1, 2, 3, 0))],
)
def test_heads_that_are_merged_with_the_batch(turn: str, back: tuple[int, ...], perm: tuple[int, ...]) -> None:
    """As both exporters have it for torch's MultiheadAttention."""
    text = f"agraph (float[5,N,12] x) => (float[A,B,C,D] y) {{ {BODY.replace('[0,2,1]', turn)} }}"
    before = parse(text, {"to": np.array([5, -1, 4]), "back": np.array(back)})
    found = fires(NAME, before, count=1, sizes={"N": 2})
    reshape, transpose = found.graph
    assert (reshape.op_type, transpose.attributes["perm"].as_ints()) == ("Reshape", perm)
    target = reshape.inputs[1]
    assert target is not None
    assert target.const_value is not None
    assert target.const_value.numpy().tolist() == [5, 0, 3, 4]


def test_a_symbolic_extent_that_would_move() -> None:
    text = f"agraph (float[N,5,12] x) => (float[A,B,C,D] y) {{ {BODY.replace('[0,2,1]', '[1,0,2]')} }}"
    unchanged(NAME, parse(text, {"to": np.array([5, -1, 4]), "back": np.array([-1, 3, 5, 4])}))


@pytest.mark.parametrize(
    ("to", "back"), [((12, 5, 4), (6, 2, 4, 5)), ((10, 6, 4), (2, 5, 4, 6)), ((12, 4, 5), (2, 6, 5, 4))]
)
def test_axes_that_are_parted_otherwise(to: tuple[int, ...], back: tuple[int, ...]) -> None:
    found = fires(NAME, model(to=to, back=back), count=1)
    assert [node.op_type for node in found.graph] == ["Reshape", "Transpose"]


@pytest.mark.parametrize(
    ("to", "back"), [((12, 5, 4), (2, 6, 5, 4)), ((12, 5, 4), (2, 6, 2, 10)), ((12, 4, 5), (2, 6, 4, 5))]
)
def test_other_shapes(to: tuple[int, ...], back: tuple[int, ...]) -> None:
    unchanged(NAME, model(to=to, back=back))


def test_equal_extents_that_could_be_taken_for_each_other() -> None:
    fires(NAME, model(x="[2,2,2,2]", to=(4, 2, 2), back=(2, 2, 2, 2)), ["y = Transpose<perm=(0, 1, 3, 2)>(x)"], count=1)


def test_the_front_axis_moves() -> None:
    unchanged(NAME, model(BODY.replace("[0,2,1]", "[1,0,2]"), back=(5, 2, 6, 4)))


@pytest.mark.parametrize("inner", ["a", "b"])
def test_an_inner_result_is_read_elsewhere_or_put_out(inner: str) -> None:
    reason = ["an inner result is read elsewhere"]
    assert misses(NAME, model(outputs=f", float[A,B,C] {inner}")) == reason
    assert misses(NAME, model(f"{BODY} z = Neg({inner})", outputs=", float[A,B,C] z")) == reason


def test_declared_shapes_prove_nothing() -> None:
    text = "agraph (float[2,6,5,4] x, int64[4] back) => (float[2,6,4,5] y) {" + BODY + "}"
    unchanged(NAME, parse(text, {"to": np.array([12, 5, 4])}))


def test_metadata_survives() -> None:
    before = model()
    before.graph[-1].name, before.graph[-1].doc_string = "turn", "kept"
    (node,) = fires(NAME, before, count=1).graph
    assert (node.name, node.doc_string) == ("turn", "kept")
