"""convert-einsum."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse

NAME = "convert-einsum"
OTHER = ["it is no matrix product, or would take a Transpose"]
KIND = ["the equation is no product of two operands"]


def graph(equation: str, a: str, b: str, rank: int, kind: str = "float", opset: int = 21) -> str:
    out = ",".join("ABCDEF"[:rank])
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph ({kind}[{a}] a, {kind}[{b}] b) => ({kind}[{out}] y) {{ y = Einsum<equation = "{equation}">(a, b) }}"""


@pytest.mark.parametrize(
    ("equation", "a", "b", "rank", "after"),
    [
        ("ij,jk->ik", "N,4", "4,5", 2, "y = MatMul(a, b)"),
        ("ij,jk", "N,4", "4,5", 2, "y = MatMul(a, b)"),
        ("bij,bjk->bik", "N,3,4", "N,4,5", 3, "y = MatMul(a, b)"),
        ("b i j , b j k -> b i k", "N,3,4", "N,4,5", 3, "y = MatMul(a, b)"),
        ("bhqd,bhdk->bhqk", "N,2,3,4", "N,2,4,5", 4, "y = MatMul(a, b)"),
        ("bij,jk->bik", "N,3,4", "4,5", 3, "y = MatMul(a, b)"),
        ("...ij,...jk->...ik", "N,2,3,4", "N,2,4,5", 4, "y = MatMul(a, b)"),
        ("...ij,jk->...ik", "N,2,3,4", "4,5", 4, "y = MatMul(a, b)"),
        ("bjk,bij->bik", "N,4,5", "N,3,4", 3, "y = MatMul(b, a)"),
        ("jk,...ij", "4,5", "N,3,4", 3, "y = MatMul(b, a)"),
        ("bij,bjk->bik", "N,M,4", "1,4,5", 3, "y = MatMul(a, b)"),
        ("ij,bjk->bik", "3,4", "N,4,5", 3, "y = MatMul(a, b)"),
    ],
)
def test_matrix_product(equation: str, a: str, b: str, rank: int, after: str) -> None:
    fires(NAME, parse(graph(equation, a, b, rank)), [after])


@pytest.mark.parametrize(("kind", "opset"), [("double", 12), ("float", 13), ("float16", 21)])
def test_types_and_opsets(kind: str, opset: int) -> None:
    model = parse(graph("ij,jk->ik", "N,4", "4,5", 2, kind, opset))
    if kind == "float16":  # ONNX Runtime has no Einsum of this type on the CPU
        assert lines(apply(model, NAME)[0]) == ["y = MatMul(a, b)"]
    else:
        fires(NAME, model, ["y = MatMul(a, b)"])


@pytest.mark.parametrize(
    ("equation", "shape", "perm"),
    [("bik,jk->bij", (5, 4), (1, 0)), ("bik,bjk->bij", (2, 5, 4), (0, 2, 1)), ("bik,kbj->bij", (4, 2, 5), (1, 0, 2))],
)
def test_constant_is_transposed(equation: str, shape: tuple[int, ...], perm: tuple[int, ...]) -> None:
    text = f'agraph (float[2,3,4] a) => (float[A,B,C] y) {{ y = Einsum<equation = "{equation}">(a, w) }}'
    weights = {"w": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    result = fires(NAME, parse(text, weights))
    assert lines(result)[0].endswith(f" = Transpose<perm={perm}>(w)")
    assert lines(result)[1].startswith("y = MatMul(a, ")
    folded, _, _ = apply(parse(text, weights), NAME, "fold-constants")
    assert [node.op_type for node in folded.graph] == ["MatMul"]


@pytest.mark.parametrize(
    ("equation", "a", "b", "rank"),
    [
        ("ij,jk->ki", "N,4", "4,5", 2),
        ("bik,bjk->bij", "N,3,4", "N,5,4", 3),
        ("nqhd,nkhd->nhqk", "N,3,2,4", "N,5,2,4", 4),
        ("nsc,chd->nshd", "N,3,4", "4,2,5", 4),
        ("ij,ij->ij", "3,4", "3,4", 2),
        ("i,j->ij", "3", "4", 2),
        ("bij,cjk->bik", "2,3,4", "2,4,5", 3),
        ("bcij,bjk->bcik", "2,3,3,4", "2,4,5", 4),
        ("bij,bcjk->bcik", "2,3,4", "2,3,4,5", 4),
        ("...bij,bjk->...bik", "2,3,3,4", "3,4,5", 4),
        ("b...ij,b...jk->b...ik", "2,3,3,4", "2,3,4,5", 4),
        ("bijl,bljk->bik", "2,3,4,6", "2,6,4,5", 3),
        ("ij,jk->k", "3,4", "4,5", 1),
        ("ij,jk->ijk", "3,4", "4,5", 3),
    ],
)
def test_no_matrix_product(equation: str, a: str, b: str, rank: int) -> None:
    assert misses(NAME, parse(graph(equation, a, b, rank))) == OTHER


def test_label_twice() -> None:
    assert misses(NAME, parse(graph("ii,ij->ij", "4,4", "4,5", 2))) == KIND


def test_other_numbers_of_operands() -> None:
    text = 'agraph (float[3,4] a) => (float[A,B] y) { y = Einsum<equation = "ij->ji">(a) }'
    assert misses(NAME, parse(text)) == ["there are not two operands"]


@pytest.mark.parametrize(("a", "b"), [("3,1", "4,5"), ("3,N", "4,5"), ("3,N", "M,5")])
def test_summed_axis_might_be_repeated(a: str, b: str) -> None:
    assert misses(NAME, parse(graph("ij,jk->ik", a, b, 2))) == OTHER


def test_integers() -> None:
    assert misses(NAME, parse(graph("ij,jk->ik", "3,4", "4,5", 2, "int64"))) == OTHER


def test_inside_a_branch_and_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[4,4] a, float[4,4] b, bool c) => (float[A,B] y) {
        w = If (c) <
            then_branch = yes () => (float[A,B] u) { u = Einsum<equation = "ij,jk->ik">(a, b) },
            else_branch = no () => (float[C,D] v) { v = Neg(a) }
        >
        y = own.f(w, b)
    }
    <domain: "own", opset_import: ["" : 21]>
    f (a, b) => (r) { r = Einsum<equation = "ij,jk->ik">(a, b) }"""
    result = fires(NAME, parse(text), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["u = MatMul(a, b)"]
    (function,) = result.functions.values()
    assert function[0].op_type == "Einsum"  # types and shapes are not known


def test_name_and_metadata_survive() -> None:
    model = parse(graph("ij,jk->ik", "N,4", "4,5", 2))
    model.graph[0].name = "scores"
    model.graph[0].metadata_props["origin"] = "attention"
    (node,) = fires(NAME, model).graph
    assert (node.name, node.metadata_props) == ("scores", {"origin": "attention"})
