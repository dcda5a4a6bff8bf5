"""deduplicate-initializers."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, parse, unchanged

import graphopt
from graphopt.pipeline import registry, runner
from graphopt.pipeline.base import Context

NAME = "deduplicate-initializers"


def values(*shape: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


TWO = "agraph (float[N,4] x) => (float[N,4] y) { a = Add (x, u)  y = Mul (a, v) }"


def test_readers_of_the_second_read_the_first() -> None:
    result = fires(NAME, parse(TWO, {"u": values(4), "v": values(4)}), ["a = Add(x, u)", "y = Mul(a, u)"], count=1)
    assert list(result.graph.initializers) == ["u"]


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 66_560, 66_561, 200_000])
def test_any_size_and_a_difference_anywhere(size: int) -> None:
    text = f"agraph (float[{size}] x) => (float[{size}] y) {{ a = Add (x, u)  b = Add (a, v)  y = Add (b, w) }}"
    first = values(size)
    for position in {0, size // 2, size - 1}:
        other = first.copy()
        other[position] += 1
        fires(NAME, parse(text, {"u": first, "v": other, "w": first}), [
            "a = Add(x, u)", "b = Add(a, v)", "y = Add(b, u)",
        ])  # fmt: skip


def test_several_classes_at_once() -> None:
    text = """agraph (float[2000] x) => (float[2000] y) {
        y = Sum (x, a1, b1, a2, c1, b2, c2, d1, a3)
    }"""
    contents = {letter: np.full(2000, ord(letter), np.float32) for letter in "abcd"}
    for letter in "cd":
        contents[letter][:1500] = 0  # alike in the first chunk
    weights = {name: contents[name[0]] for name in ("a1", "b1", "a2", "c1", "b2", "c2", "d1", "a3")}
    fires(NAME, parse(text, weights), ["y = Sum(x, a1, b1, a1, c1, b1, c1, d1, a1)"], count=4)


def test_strings() -> None:
    text = """agraph (string[2] x) => (string[6] y) { y = Concat <axis = 0> (x, u, v, w) }"""
    tensors = {
        name: ir.StringTensor(contents, shape=ir.Shape([len(contents)]), name=name)
        for name, contents in {"u": [b"a"], "v": [b"b"], "w": [b"a"]}.items()
    }
    result, stats, _ = apply(parse(text.replace("6", "5"), tensors), NAME)
    assert stats.counts[NAME] == 1
    assert lines(result) == ["y = Concat<axis=0>(x, u, v, u)"]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.int4, np.bool_, np.complex64, np.float16])
def test_other_types(dtype: type) -> None:
    """Whatever reads them: the pass looks at bytes."""
    text = '<ir_version: 10, opset_import: ["" : 21, "other" : 1]> agraph () => (float y) { y = other.F (u, v, w) }'
    same: np.ndarray = np.array([1, 0, 1]).astype(dtype)
    odd: np.ndarray = np.array([1, 1, 1]).astype(dtype)
    weights = {name: ir.tensor(one, name=name) for name, one in {"u": same, "v": odd, "w": same}.items()}
    result, stats, _ = apply(parse(text, weights), NAME)
    assert stats.counts[NAME] == 1
    assert lines(result) == ["y = other::F(u, v, u)"]


def test_bytes_count_not_numbers() -> None:
    unchanged(NAME, parse(TWO, {"u": np.zeros(4, np.float32), "v": -np.zeros(4, np.float32)}))
    nan = np.full(4, np.nan, np.float32)
    other = (nan.view(np.uint32) + 1).view(np.float32)
    unchanged(NAME, parse(TWO, {"u": nan, "v": other}))
    fires(NAME, parse(TWO, {"u": nan, "v": nan}), count=1)


def test_shape_and_type_count() -> None:
    unchanged(NAME, parse(TWO, {"u": np.zeros((1, 4), np.float32), "v": np.zeros(4, np.float32)}))
    text = "agraph () => (float[4] y, int32[4] z) { y = Neg (u)  z = Neg (v) }"
    unchanged(NAME, parse(text, {"u": np.zeros(4, np.float32), "v": np.zeros(4, np.int32)}))


def test_interface_stays() -> None:
    text = """agraph (float[4] x, float[4] u) => (float[4] y, float[4] w) {
        a = Add (x, u)
        b = Add (a, w)
        y = Mul (b, v)
    }"""
    unchanged(NAME, parse(text, {"u": values(4), "v": values(4), "w": values(4)}))


NESTED = """agraph (float[SIZE] x, bool b) => (float[SIZE] y) {
    y = If (b) <
        then_branch = left () => (float[SIZE] l) { l = Add (x, u) },
        else_branch = right () => (float[SIZE] r) { r = Sub (x, v) }
    >
}"""


def nested(size: int, outer: bool) -> ir.Model:
    """Equal initializers in both branches of an If, and outside if asked for."""
    model = parse(NESTED.replace("SIZE", str(size)), {"u": values(size), "v": values(size), "o": values(size)})
    for branch, name in (("then_branch", "u"), ("else_branch", "v")):
        graph = model.graph[0].attributes[branch].as_graph()
        moved = model.graph.initializers.pop(name)
        graph.initializers.add(moved)
    if not outer:
        del model.graph.initializers["o"]
    return model


def test_branches_read_the_enclosing_graph() -> None:
    result = fires(NAME, nested(256, outer=True), count=2)
    for branch in ("then_branch", "else_branch"):
        graph = result.graph[0].attributes[branch].as_graph()
        assert not graph.initializers
        assert graph[0].inputs[1] is result.graph.initializers["o"]


def test_small_ones_are_not_captured() -> None:
    unchanged(NAME, nested(255, outer=True))


def test_one_branch_does_not_read_the_other() -> None:
    unchanged(NAME, nested(256, outer=False))


def test_two_in_one_branch() -> None:
    text = """agraph (float[2] x, bool b) => (float[2] y) {
        y = If (b) <
            then_branch = left () => (float[2] l) <float[2] u = {1, 2}, float[2] v = {1, 2}> {
                a = Add (x, u)
                l = Mul (a, v)
            },
            else_branch = right () => (float[2] r) { r = Neg (x) }
        >
    }"""
    result = fires(NAME, parse(text), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Add(x, u)", "l = Mul(a, u)"]


def test_name_in_a_quantization_annotation() -> None:
    model = parse(TWO, {"u": values(4), "v": values(4)})
    model.graph[0].outputs[0].meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "v"}
    unchanged(NAME, model)


def test_external_data(tmp_path: Path) -> None:
    """The pass looks at what the file holds."""
    size = 1 << 20
    text = f"agraph (float[{size}] x) => (float[{size}] y) {{ y = Sum (x, a, b, c) }}"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values(size, seed=seed), name))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    loaded = graphopt.load(tmp_path / "m.onnx")
    counts = runner.run(loaded, [registry.create(NAME)], Context(loaded)).counts
    assert counts[NAME] == 1
    assert lines(loaded) == ["y = Sum(x, a, b, a)"]
