"""fuse-space-depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "fuse-space-depth"
END = 2**63 - 1
HEADER = '<ir_version: 7, opset_import: ["" : {}]> '


def moved(
    middle: list[int],
    perm: list[int],
    after: list[int],
    *,
    x: str = "[N,8,4,6]",
    opset: int = 21,
    kind: str = "float",
) -> ir.Model:
    text = f"""agraph ({kind}{x} x) => ({kind}[A,B,C,D] y) {{
        r = Reshape (x, m)
        t = Transpose <perm = {perm}> (r)
        y = Reshape (t, a)
    }}"""
    return parse(HEADER.format(opset) + text, {"m": np.array(middle), "a": np.array(after)})


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_to_space(opset: int) -> None:
    columns = moved([0, 2, 2, 2, 4, 6], [0, 3, 4, 1, 5, 2], [0, 2, 8, 12], opset=opset)
    fires(NAME, columns, ["y = DepthToSpace<blocksize=2, mode='DCR'>(x)"])
    rows = moved([0, 2, 2, 2, 4, 6], [0, 1, 4, 2, 5, 3], [0, 2, 8, 12], opset=opset)
    fires(NAME, rows, ["y = DepthToSpace<blocksize=2, mode='CRD'>(x)"])


def test_to_space_of_any_size() -> None:
    text = """agraph (float[N,12,H,W] x) => (float[A,B,C,D] y) {
        s = Shape (x)
        n = Slice (s, zero, one)
        hw = Slice (s, two, four)
        m = Concat <axis = 0> (n, block, hw)
        r = Reshape (x, m)
        t = Transpose <perm = [0,1,4,2,5,3]> (r)
        d = Mul (hw, two)
        a = Concat <axis = 0> (n, three, d)
        y = Reshape (t, a)
    }"""
    numbers = {name: np.array([number]) for name, number in (("zero", 0), ("one", 1), ("two", 2), ("four", 4))}
    model = parse(text, {**numbers, "three": np.array([3]), "block": np.array([3, 2, 2])})
    fires(NAME, model, ["y = DepthToSpace<blocksize=2, mode='CRD'>(x)"])


def test_to_depth() -> None:
    model = moved([0, 8, 2, 2, 3, 2], [0, 3, 5, 1, 2, 4], [0, 32, 2, 3])
    fires(NAME, model, ["y = SpaceToDepth<blocksize=2>(x)"])
    model = moved([-1, 8, 2, 2, 2, 2], [0, 3, 5, 1, 2, 4], [-1, 32, 2, 2], x="[N,8,4,4]")
    fires(NAME, model, ["y = SpaceToDepth<blocksize=2>(x)"])


def focus(
    places: list[tuple[int, int]], tail: str, *, x: str = "[2,3,8,6]", opset: int = 21, end: int = END
) -> ir.Model:
    cuts = " ".join(f"s{i} = Slice (x, p{i}, ends, axes, steps)" for i in range(len(places)))
    operands = ", ".join(f"s{i}" for i in range(len(places)))
    tail = tail.replace("ALL", f"Concat <axis = 1> ({operands})")
    text = f"agraph (float{x} x) => (float[A,B,C,D] y) {{ {cuts} {tail} }}"
    starts = {f"p{i}": np.array(place) for i, place in enumerate(places)}
    fixed: dict[str, Any] = {"axes": np.array([2, 3]), "steps": np.array([2, 2]), "ends": np.array([end, end])}
    if "Conv" in tail:
        shape = (6, 6, 3, 3) if "group" in tail else (5, 12, 3, 3)
        fixed["w"] = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return parse(HEADER.format(opset) + text, {**starts, **fixed})


ROWS = [(0, 0), (0, 1), (1, 0), (1, 1)]
YOLO = [(0, 0), (1, 0), (0, 1), (1, 1)]
CONV = "t = ALL y = Conv <pads = [1,1,1,1]> (t, w)"


def test_slices_in_the_order_of_the_operator() -> None:
    fires(NAME, focus(ROWS, "y = ALL"), ["y = SpaceToDepth<blocksize=2>(x)"])
    fires(NAME, focus(ROWS, "y = ALL", x="[N,C,H,W]"), ["y = SpaceToDepth<blocksize=2>(x)"], sizes={"H": 4, "W": 6})


@pytest.mark.parametrize("opset", [11, 22])
def test_focus_of_yolo(opset: int) -> None:
    model = focus(YOLO, CONV, opset=opset)
    model.graph[-1].name, model.graph[-1].doc_string = "stem", "kept"
    result = fires(NAME, model, count=1)
    assert [node.op_type for node in result.graph] == ["SpaceToDepth", "Conv"]
    assert (result.graph[1].name, result.graph[1].doc_string) == ("stem", "kept")


def test_pixel_unshuffle_before_a_convolution() -> None:
    text = """agraph (float[N,3,8,6] x) => (float[N,5,H,W] y) {
        r = Reshape (x, m)
        t = Transpose <perm = [0,1,3,5,2,4]> (r)
        u = Reshape (t, a)
        y = Conv (u, w)
    }"""
    weights = {"m": np.array([0, 3, 4, 2, 3, 2]), "a": np.array([0, 12, 4, 3])}
    filters = np.random.default_rng(0).standard_normal((5, 12, 1, 1)).astype(np.float32)
    result = fires(NAME, parse(text, {**weights, "w": filters}), count=1)
    assert [node.op_type for node in result.graph] == ["SpaceToDepth", "Conv"]
    unchanged(NAME, parse(text.replace("y = Conv (u, w)", "y = Relu (u)"), weights))


def test_other_order_without_a_convolution() -> None:
    unchanged(NAME, focus(YOLO, "y = ALL"))
    unchanged(NAME, focus(YOLO, "t = ALL y = Conv <group = 2> (t, w)"))


def test_order_of_the_channels_read_elsewhere() -> None:
    model = focus(
        YOLO, "t = ALL u = Conv <pads = [1,1,1,1]> (t, w) v = Relu (u) k = Concat <axis = 1> (t, v) y = Neg (k)"
    )
    assert misses(NAME, model) == ["what has the channels in another order is read elsewhere"]


@pytest.mark.parametrize(
    "places", [[(0, 0), (0, 1), (1, 0), (0, 1)], [(0, 0), (0, 1), (1, 0), (1, 2)], [(0, 0), (0, 1), (1, 0), (-1, 1)]]
)
def test_other_places(places: list[tuple[int, int]]) -> None:
    unchanged(NAME, focus(places, "y = ALL", x="[2,3,8,8]") if (1, 2) not in places else focus(places[:1], "y = ALL"))


def test_slices_that_stop_short() -> None:
    unchanged(NAME, focus(ROWS, "y = ALL", end=4))


def test_slice_read_elsewhere() -> None:
    model = focus(ROWS, "t = ALL k = Concat <axis = 1> (t, s0) y = Neg (k)")
    assert misses(NAME, model) == ["an inner result is read elsewhere"]


@pytest.mark.parametrize(
    ("middle", "perm", "after"),
    [
        ([0, 2, 2, 2, 4, 6], [0, 3, 4, 1, 5, 2], [0, 2, 12, 8]),
        ([0, 2, 2, 2, 6, 4], [0, 3, 4, 1, 5, 2], [0, 2, 12, 8]),
        ([0, 4, 2, 1, 4, 6], [0, 3, 4, 1, 5, 2], [0, 1, 16, 12]),
        ([0, 8, 2, 2, 3, 2], [0, 3, 5, 1, 2, 4], [0, 16, 4, 3]),
        ([0, 8, 4, 2, 3, 1], [0, 3, 5, 1, 2, 4], [0, 16, 4, 3]),
    ],
)
def test_other_shapes(middle: list[int], perm: list[int], after: list[int]) -> None:
    assert misses(NAME, moved(middle, perm, after)) == ["the shapes between are not those of blocks"]


def test_other_orders_of_axes() -> None:
    unchanged(NAME, moved([0, 2, 2, 2, 4, 6], [0, 3, 4, 2, 5, 1], [0, 2, 8, 12]))


def test_types() -> None:
    fires(NAME, moved([0, 2, 2, 2, 4, 6], [0, 3, 4, 1, 5, 2], [0, 2, 8, 12], kind="double"), count=1)
    for kind in ("int32", "float16", "uint8"):
        model = moved([0, 2, 2, 2, 4, 6], [0, 3, 4, 1, 5, 2], [0, 2, 8, 12], kind=kind)
        assert misses(NAME, model) == ["the type is not known to be float32 or float64"]


def test_before_opset_11() -> None:
    model = moved([0, 2, 2, 2, 4, 6], [0, 3, 4, 1, 5, 2], [0, 2, 8, 12], opset=10)
    assert misses(NAME, model) == ["the orders of DepthToSpace came with opset 11"]


def test_inner_result_put_out() -> None:
    text = """agraph (float[N,8,4,6] x) => (float[A,B,C,D] y, float[A,B,C,D,E,F] t) {
        r = Reshape (x, m)  t = Transpose <perm = [0,3,4,1,5,2]> (r)  y = Reshape (t, a)
    }"""
    model = parse(text, {"m": np.array([0, 2, 2, 2, 4, 6]), "a": np.array([0, 2, 8, 12])})
    assert misses(NAME, model) == ["an inner result is read elsewhere"]


def test_inside_a_branch_and_a_function() -> None:
    text = """agraph (float[N,8,4,6] x, bool b) => (float[A,B,C,D] z) {
        z = If (b) <then_branch = g1 () => (float[A,B,C,D] y) {
                r = Reshape (x, m)  t = Transpose <perm = [0,3,4,1,5,2]> (r)  y = Reshape (t, a) },
            else_branch = g2 () => (float[A,B,C,D] k) { k = Relu (x) }>
    }"""
    weights = {"m": np.array([0, 2, 2, 2, 4, 6]), "a": np.array([0, 2, 8, 12])}
    branch = fires(NAME, parse(text, weights)).graph[0].attributes["then_branch"].as_graph()
    assert lines(branch) == ["y = DepthToSpace<blocksize=2, mode='DCR'>(x)"]
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,8,4,6] x) => (float[A,B,C,D] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        m = Constant <value_ints = [0,2,2,2,4,6]> ()
        a = Constant <value_ints = [0,2,8,12]> ()
        r = Reshape (x, m)
        t = Transpose <perm = [0,3,4,1,5,2]> (r)
        y = Reshape (t, a)
    }"""
    assert misses(NAME, parse(text)) == ["the shapes between are not known"]
