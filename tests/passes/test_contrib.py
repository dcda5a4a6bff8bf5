"""ONNX Runtime's own operators: where they may appear, and that what is said of their kernels is so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from bench.contrib import cpu_kernels, fuses_at_load
from bench.contrib_cases import CASES, Case
from graphopt_passes._kernels import DOMAIN, KERNELS
from harness import parse

import graphopt
from graphopt import walk
from graphopt.pipeline import registry
from graphopt.pipeline.base import Target

PAGE = Path(__file__).parents[2] / "passes" / "CONTRIB.md"
CONTRIB = {"fuse-multi-head-attention", "fuse-packed-attention", "fuse-skip-norm"}
NAMES = {ir.DataType.FLOAT: "float", ir.DataType.FLOAT16: "float16"}
HEADER = '<ir_version: 10, opset_import: ["" : 20]>'


def attention(*, masked: bool = True) -> ir.Model:
    """One block with everything that has an operator: a residual sum, norms, an attention."""
    random = np.random.default_rng(0)
    weights = {f"w{one}": random.standard_normal((8, 8)).astype(np.float32) for one in "qkvo"}
    weights |= {f"b{one}": random.standard_normal(8).astype(np.float32) for one in "qkv"}
    weights |= {"g": np.ones(8, np.float32), "c": np.array(0.5, np.float32)}
    body = "".join(f"{one}1 = MatMul(x, w{one}) {one}2 = Add({one}1, b{one}) {one}3 = Reshape({one}2, apart) "
                   for one in "qkv")  # fmt: skip
    body += "q = Transpose<perm=[0,2,1,3]>(q3) k = Transpose<perm=[0,2,3,1]>(k3) v = Transpose<perm=[0,2,1,3]>(v3) "
    body += f"s = MatMul(q, k) d = Mul(s, c) a = {'Add(d, m)' if masked else 'Identity(d)'} p = Softmax<axis=-1>(a) "
    body += "o = MatMul(p, v) t = Transpose<perm=[0,2,1,3]>(o) j = Reshape(t, joined) z = MatMul(j, wo) "
    body += "r = Add(x, z) y = LayerNormalization<axis=-1>(r, g)"
    inputs = "float[B,S,8] x" + ", float[B,1,S,S] m" * masked
    shapes = {"apart": np.array([0, 0, 2, 4]), "joined": np.array([0, 0, 8])}
    return parse(f"{HEADER} agraph ({inputs}) => (float[B,S,8] y) {{ {body} }}", {**weights, **shapes})


def domains(model: ir.Model) -> set[str]:
    return {node.domain for node in walk.nodes(model)}


def test_the_kernels_are_those_of_the_cpu() -> None:
    registered = cpu_kernels()
    for op_type, targets in KERNELS.items():
        kinds = {NAMES[one] for one in targets[Target.ORT_CPU]}
        assert kinds <= set(registered[op_type]), op_type
        assert kinds == set(registered[op_type]) & set(NAMES.values()), op_type


def test_nothing_of_it_is_portable() -> None:
    assert all(Target.PORTABLE not in targets for targets in KERNELS.values())
    assert CONTRIB.isdisjoint(registry.names_of_preset("default"))
    model, report = graphopt.optimize(attention(), with_report=True)
    assert domains(model) == {""}
    assert report.status == "proven"
    asked = graphopt.optimize(attention(), passes=["default", *sorted(CONTRIB)])
    assert domains(asked) == {""}


@pytest.mark.parametrize("masked", [True, False])
def test_the_cpu(masked: bool) -> None:
    model, report = graphopt.optimize(attention(masked=masked), target="ort-cpu", strict=True, with_report=True)
    assert [node.op_type for node in model.graph] == ["Attention", "MatMul", "Sum", "LayerNormalization"]
    assert report.status == "proven"
    assert model.graph.opset_imports[DOMAIN] == 1


def test_cuda() -> None:
    model = graphopt.optimize(attention(), target="ort-cuda", strict=True)
    assert [node.op_type for node in model.graph] == ["Attention", "MatMul", "SkipLayerNormalization"]


def test_the_import_is_of_the_graph_that_needs_it() -> None:
    assert DOMAIN not in graphopt.optimize(attention(), passes=["fuse-rotary-embedding"]).graph.opset_imports


ROWS = {case.op_type: case for case in CASES if case.before and not case.remark}


@pytest.mark.parametrize("case", ROWS.values(), ids=ROWS)
def test_the_page_says_who_fuses(case: Case, tmp_path: Path) -> None:
    said = {"yes": True, "no": False}
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| {case.op_type} |"))
    assert said[row.split("|")[4].strip()] is fuses_at_load(case.pieces(16), case.op_type, tmp_path / "loaded.onnx")


def test_the_page_has_every_operator() -> None:
    page = PAGE.read_text()
    assert all(f"| {op_type} |" in page for op_type in (*KERNELS, *(case.op_type for case in CASES)))
    assert all(name in page for name in CONTRIB)
