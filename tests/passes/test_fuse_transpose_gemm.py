"""fuse-transpose-gemm."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "fuse-transpose-gemm"
WEIGHT = np.random.default_rng(7).standard_normal((4, 6)).astype(np.float32)


def model(body: str, *, x: str = "[4,N]", kind: str = "float", opset: int = 21, outputs: str = "") -> ir.Model:
    text = f"""<ir_version: 7, opset_import: ["" : {opset}]>
    agraph ({kind}{x} x) => ({kind}[A,B] y{outputs}) {{ {body} }}"""
    return parse(text, {"w": WEIGHT.astype({"float": "float32", "double": "float64"}[kind])} if "w" in body else {})


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize("perm", ["", "<perm = [1,0]>"])
def test_left(perm: str, opset: int) -> None:
    fires(NAME, model(f"t = Transpose {perm} (x) y = Gemm (t, w)", opset=opset), ["y = Gemm<transA=1>(x, w)"], count=1)


def test_right_and_both() -> None:
    body = "t = Transpose (x) y = Gemm (w, t)"
    fires(NAME, model(body, x="[N,6]"), ["y = Gemm<transB=1>(w, x)"], count=1)
    body = "t = Transpose (x) r = Relu (x) s = Transpose (r) y = Gemm <transB = 1> (t, s)"
    fires(NAME, model(body), ["r = Relu(x)", "y = Gemm<transA=1>(x, r)"], count=1)


def test_twice_turned_is_straight() -> None:
    body = "t = Transpose (x) y = Gemm <transA = 1, alpha = 0.5> (t, w)"
    fires(NAME, model(body, x="[N,4]"), ["y = Gemm<alpha=0.5>(x, w)"], count=1)


def test_doubles_and_metadata() -> None:
    before = model("t = Transpose (x) y = Gemm (t, w)", kind="double")
    before.graph[1].name, before.graph[1].doc_string = "layer", "kept"
    node = fires(NAME, before).graph[0]
    assert (node.name, node.doc_string) == ("layer", "kept")


def test_other_readers_keep_theirs() -> None:
    body = "t = Transpose (x) g = Gemm (t, w) y = Relu (g) z = Relu (t)"
    result = fires(NAME, model(body, outputs=", float[N,4] z"), count=1)
    assert lines(result)[0] == "t = Transpose(x)"


def test_a_permutation_that_keeps_the_order() -> None:
    unchanged(NAME, model("t = Transpose <perm = [0,1]> (x) y = Gemm (t, w)", x="[N,4]"))


def test_graph_output_and_outer_graph() -> None:
    reason = ["what is transposed is a graph output, or comes from another graph"]
    assert misses(NAME, model("t = Transpose (x) y = Gemm (t, w)", outputs=", float[N,4] t")) == reason
    text = """agraph (float[4,N] x, bool b) => (float[N,6] y) {
        t = Transpose (x)
        y = If (b) <then_branch = g1 () => (float[N,6] l) { l = Gemm (t, w) },
                    else_branch = g2 () => (float[N,6] r) { s = Transpose (x)  r = Gemm (s, w) }>
    }"""
    result = fires(NAME, parse(text, {"w": WEIGHT}), count=1)
    assert lines(result.graph[-1].attributes["else_branch"].as_graph()) == ["r = Gemm<transA=1>(x, w)"]
    assert lines(result.graph[-1].attributes["then_branch"].as_graph()) == ["l = Gemm(t, w)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[4,N] x, float[4,6] w) => (float[N,6] y) { y = local.block (x, w) }
    <domain: "local", opset_import: ["" : 21]>
    block (x, w) => (y) { t = Transpose (x)  y = Gemm (t, w) }"""
    assert lines(next(iter(fires(NAME, parse(text)).functions.values()))) == ["y = Gemm<transA=1>(x, w)"]
