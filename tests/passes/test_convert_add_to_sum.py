"""convert-add-to-sum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from harness import fires, parse, unchanged

from graphopt import proto
from graphopt.pipeline.base import Target

NAME = "convert-add-to-sum"
CPU = Target.ORT_CPU
NORM = "z = LayerNormalization<axis=-1, epsilon=0.001>(s, w, b)"
PIECES = (
    "m = ReduceMean<axes=[-1]>(s) d = Sub(s, m) e = Mul(d, d) v = ReduceMean<axes=[-1]>(e) r = Sqrt(v) z = Div(d, r)"
)


def model(
    body: str, *, opset: int = 17, kind: str = "float", shape: str = "[B,5,8]", y: str | None = None, outputs: str = ""
) -> ir.Model:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    values = {name: np.full(8, number) for name, number in (("w", 1.5), ("b", 0.5), ("c", 2.0)) if name in words}
    dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[kind]
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    text = f"{header} agraph ({kind}{shape} x, {kind}{y or shape} y) => ({kind}{shape} z{outputs}) {{ {body} }}"
    return parse(text, {name: one.astype(dtype) for name, one in values.items()})


@pytest.mark.parametrize("opset", [17, 21])
def test_before_a_norm(opset: int) -> None:
    found = fires(NAME, model(f"s = Add(x, y) {NORM}", opset=opset), count=1, target=CPU)
    assert [node.op_type for node in found.graph] == ["Sum", "LayerNormalization"]


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_before_the_pieces_of_a_norm(opset: int) -> None:
    found = fires(NAME, model(f"s = Add(x, y) {PIECES}", opset=opset), count=1, target=CPU)
    assert found.graph[0].op_type == "Sum"


def test_onnx_runtime_leaves_it_alone(tmp_path: Path) -> None:
    """And does not leave the Add alone, which would make the pass pointless."""
    before = model(f"s = Add(x, y) {NORM}")
    after = fires(NAME, before, count=1, target=CPU)

    def loaded(one: ir.Model) -> list[str]:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
        options.log_severity_level = 4
        ort.InferenceSession(proto.to_proto(one).SerializeToString(), options, ["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node]

    assert loaded(before) == ["SkipLayerNormalization"]
    assert loaded(after) == ["Sum", "LayerNormalization"]


def test_portable_where_only_rewriting_reveals_the_shapes() -> None:
    """As legacy exports are: nothing is declared, and a shape that is worked out hides the others."""
    reshape = "k = Shape<start=0, end=2>(x) g = Concat<axis=0>(k, h) t = Reshape(y, g) s = Add(x, t)"
    opaque = parse(
        f"""<ir_version: 10, opset_import: ["" : 17]>
        agraph (float[B,5,8] x, float[B,40] y, float[8] w, float[8] b) => (float[B,5,8] z)
        {{ {reshape} {NORM} }}""",
        {"h": np.array([8])},
    )
    assert "Sum" in [node.op_type for node in fires(NAME, opaque, count=1).graph]
    declared = opaque.graph[3].outputs[0]
    declared.type, declared.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["B", 5, 8])
    unchanged(NAME, opaque)


@pytest.mark.parametrize("target", [Target.PORTABLE, Target.ORT_CUDA])
def test_other_targets(target: Target) -> None:
    unchanged(NAME, model(f"s = Add(x, y) {NORM}"), target)


def test_a_sum_that_is_read_elsewhere_or_put_out() -> None:
    body = f"s = Add(x, y) {NORM}"
    unchanged(NAME, model(body, outputs=", float[B,5,8] s"), CPU)
    unchanged(NAME, model(f"{body} n = Neg(s)", outputs=", float[B,5,8] n"), CPU)
    again = "n = LayerNormalization<axis=-1, epsilon=0.001>(s, b, w)"
    unchanged(NAME, model(f"{body} {again}", outputs=", float[B,5,8] n"), CPU)


def test_a_branch_reads_the_sum() -> None:
    text = f"""agraph (float[B,5,8] x, float[B,5,8] y, bool u, float[8] w, float[8] b)
    => (float[B,5,8] z, float[B,5,8] o) {{
        s = Add(x, y) {NORM}
        o = If (u) <then_branch = g1 () => (float[B,5,8] e) {{ e = Neg(s) }},
                    else_branch = g2 () => (float[B,5,8] f) {{ f = Neg(x) }}>
    }}"""
    unchanged(NAME, parse(text), CPU)


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_other_types(kind: str) -> None:
    unchanged(NAME, model(f"s = Add(x, y) {NORM}", kind=kind), CPU)


def test_other_sums() -> None:
    unchanged(NAME, model(f"s = Add(x, c) {NORM}"), CPU)
    unchanged(NAME, model(f"s = Add(x, y) {NORM}", shape="[B,8]"), CPU)
    unchanged(NAME, model("s = Add(x, y) z = Softmax<axis=-1>(s)"), CPU)
    unchanged(NAME, model(f"s = Sum(x, y) {NORM}"), CPU)


def test_before_opset_8() -> None:
    unchanged(NAME, model(f"s = Add(x, y) {PIECES}", opset=7), CPU)


def test_metadata_survives() -> None:
    before = model(f"s = Add(x, y) {NORM}")
    before.graph[0].name, before.graph[0].doc_string = "residual", "kept"
    node = fires(NAME, before, count=1, target=CPU).graph[0]
    assert (node.name, node.doc_string) == ("residual", "kept")
