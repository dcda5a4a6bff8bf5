"""fuse-skip-norm: the CPU has these kernels, too, so results can be compared."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

from graphopt.pipeline.base import Target

NAME = "fuse-skip-norm"
CUDA = Target.ORT_CUDA
RANDOM = np.random.default_rng(0)
LAYER = "n = LayerNormalization<axis=-1, epsilon=0.01>(s, w, b)"
PLAIN = "n = LayerNormalization(s, w)"
RMS = "n = RMSNormalization<axis=2, epsilon=0.01>(s, w)"
NORMS = {"layer": LAYER, "without bias": PLAIN, "rms": RMS}


def model(body: str, *, x: str = "[B,5,8]", y: str = "[B,5,8]", kind: str = "float", outputs: str = "") -> ir.Model:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[kind]
    shapes = {"w": (8,), "b": (8,), "c": (8,), "large": (1, 5, 8)}
    values = {name: RANDOM.standard_normal(one).astype(dtype) for name, one in shapes.items() if name in words}
    header = '<ir_version: 10, opset_import: ["" : 23]>'
    text = f"{header} agraph ({kind}{x} x, {kind}{y} y) => ({kind}[B,5,8] n{outputs}) {{ {body} }}"
    return parse(text, values)


@pytest.mark.parametrize("kind", ["float", "float16"])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_norms(norm: str, kind: str) -> None:
    found = fires(NAME, model(f"s = Add(x, y) {norm}", kind=kind), count=1, target=CUDA)
    (node,) = found.graph
    kinds = {"RMSNormalization": "SkipSimplifiedLayerNormalization"}
    assert node.op_type == kinds.get(norm.split()[2].partition("<")[0], "SkipLayerNormalization")
    assert found.graph.opset_imports["com.microsoft"] == 1


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_the_sum_is_read_elsewhere_or_put_out(norm: str) -> None:
    before = model(f"s = Add(x, y) {norm} z = Mul(s, n)", outputs=", float[B,5,8] z")
    found = fires(NAME, before, count=1, target=CUDA)
    assert [node.op_type for node in found.graph][1:] == ["Mul"]
    found = fires(NAME, model(f"s = Add(x, y) {norm}", outputs=", float[B,5,8] s"), count=1, target=CUDA)
    assert lines(found)[0].startswith("n, ")
    assert found.graph[0].outputs[3].name == "s"


def test_the_sum_is_read_before_the_norm() -> None:
    before = model(f"s = Add(x, y) z = Neg(s) {LAYER}", outputs=", float[B,5,8] z")
    fires(NAME, before, count=1, target=CUDA)


def test_two_norms_of_one_sum() -> None:
    body = f"s = Add(x, y) {RMS} {RMS.replace('n =', 'z =').replace('w)', 'b)')}"
    found = fires(NAME, model(body, outputs=", float[B,5,8] z"), count=1, target=CUDA)
    assert [node.op_type for node in found.graph] == ["SkipSimplifiedLayerNormalization", "RMSNormalization"]


def test_inside_a_branch() -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 23]>
    agraph (float[B,5,8] x, float[B,5,8] y, bool u) => (float[B,5,8] z) {{
        z = If (u) <then_branch = g1 () => (float[B,5,8] n) {{ s = Add(x, y) {PLAIN} }},
                    else_branch = g2 () => (float[B,5,8] f) {{ f = Neg(x) }}>
    }}"""
    found = fires(NAME, parse(text, {"w": np.ones(8, np.float32)}), count=1, target=CUDA)
    assert len(found.graph[0].attributes["then_branch"].as_graph()) == 1


@pytest.mark.parametrize("target", [Target.PORTABLE, Target.ORT_CPU])
def test_other_targets(target: Target) -> None:
    unchanged(NAME, model(f"s = Add(x, y) {LAYER}"), target)


def test_doubles() -> None:
    assert misses(NAME, model(f"s = Add(x, y) {LAYER}", kind="double"), CUDA) == ["the target has no kernel for it"]


@pytest.mark.parametrize(
    ("body", "options", "reason"),
    [
        (f"s = Add(x, y) {LAYER}", {"y": "[5,8]"}, "the summands are not known to have the same three axes"),
        (f"s = Add(x, y) {LAYER}", {"y": "[1,5,8]"}, "the summands are not known to have the same three axes"),
        (f"s = Add(x, c) {LAYER}", {}, "the summands are not known to have the same three axes"),
        (
            f"s = Add(x, y) {RMS}".replace("<axis=2", "<axis=1").replace("w)", "large)"),
            {},
            "the normalization is not over the last axis alone, or gives statistics",
        ),
        (f"s = Add(x, y) {RMS}".replace("w)", "large)"), {}, "scale or bias is no initializer of one axis"),
        ("s = Add(x, y) v = Relu(w) n = RMSNormalization(s, v)", {}, "scale or bias is no initializer of one axis"),
        (
            "s = Add(x, y) n = LayerNormalization<stash_type=11>(s, w)",
            {},
            "statistics are wanted in another type than float32",
        ),
    ],
)
def test_other_norms_and_sums(body: str, options: dict[str, str], reason: str) -> None:
    assert misses(NAME, model(body, **options), CUDA) == [reason]


def test_metadata_survives() -> None:
    before = model(f"s = Add(x, y) {LAYER}")
    before.graph[-1].name, before.graph[-1].doc_string = "norm", "kept"
    (node,) = fires(NAME, before, count=1, target=CUDA).graph
    assert (node.doc_string, node.name is not None and node.name.startswith("norm")) == ("kept", True)
