"""Memory at the peak of a run, against hand counts and against what ONNX Runtime takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from harness import parse

import graphopt
from graphopt.analysis.memory import peak_bytes
from graphopt.errors import UsageError

MIB = 2**20


def peak(text: str, x: tuple[int, ...] | None = None, **weights: tuple[int, ...]) -> int:
    """Of a model with float32 weights of the given shapes."""
    model = parse(text, {name: np.ones(shape, np.float32) for name, shape in weights.items()})
    return peak_bytes(model, input_shapes=None if x is None else {"x": x})


@pytest.mark.parametrize(
    ("text", "weights", "floats"),
    [
        # nothing to run: the input is the output
        ("g (float[10] x) => (x) {}", {}, 10),
        # x, a and y at the second node; b overwrites a
        ("g (float[10] x) => (float[4] y) {a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)}",
         {"w": (10, 6), "v": (6, 4)}, 10 + 6 + 4),
        # the caller keeps x: its Relu needs room
        ("g (float[10] x) => (float[4] y) {a = Relu(x) y = MatMul(a, w)}", {"w": (10, 4)}, 10 + 10 + 4),
        # a is read again after b: no overwriting, and it lives on
        ("g (float[10] x) => (float[10] y) {a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) y = Add(c, a)}",
         {"w": (10, 10), "v": (10, 10)}, 10 + 10 + 10 + 10),
        # an operand that is broadcast is too small to be overwritten, the other one is not
        ("g (float[10] x) => (float[3,10] y) {a = MatMul(x, w) b = Expand(a, s) c = MatMul(b, v) y = Add(a, c)}"
         .replace("{", "{s = Constant<value_ints=[3,10]>() "),
         {"w": (10, 10), "v": (10, 10)}, 10 + 10 + 30 + 30),
        # a view is what it views, for as long as either is read
        ("g (float[10] x) => (float[2,5] y) {a = MatMul(x, w) b = Reshape(a, s) c = Relu(a) d = Reshape(c, s)"
         " y = Add(b, d)}".replace("{", "{s = Constant<value_ints=[2,5]>() "), {"w": (10, 10)}, 10 + 10 + 10),
        # an output stays to the end, even where nothing comes after it
        ("g (float[10] x) => (float[10] y, float[10] z) {y = MatMul(x, w) z = Relu(y)}", {"w": (10, 10)}, 30),
        ("g (float[10] x) => (float[10] y, float[4] z) {y = MatMul(x, w) a = MatMul(x, v) z = MatMul(a, u)}",
         {"w": (10, 10), "v": (10, 6), "u": (6, 4)}, 10 + 10 + 6 + 4),
        # an unread output of a node exists while that node runs
        ("g (float[10] x) => (float[2] y) {y, rest = Split(x, s)}".replace("{", "{s = Constant<value_ints=[2,8]>() "),
         {}, 10 + 2 + 8),
        # weights made of weights are none of it
        ("g (float[10] x) => (float[4] y) {t = Transpose(w) y = MatMul(x, t)}", {"w": (4, 10)}, 10 + 4),
    ],
)  # fmt: skip
def test_against_hand_counts(text: str, weights: dict[str, tuple[int, ...]], floats: int) -> None:
    assert peak(text, **weights) == 4 * floats


def test_it_goes_with_the_batch() -> None:
    text = "g (float[N,10] x) => (float[N,4] y) {y = MatMul(x, w)}"
    assert peak(text, (8, 10), w=(10, 4)) == 4 * 8 * 14
    assert peak(text, w=(10, 4)) == 4 * 14
    with pytest.raises(UsageError, match="is 10, not 9"):
        peak(text, (8, 9), w=(10, 4))


QUANTIZED = """g (float[1,8,4,4] x) => (float[1,8,4,4] y) {
    a = QuantizeLinear (x, s, z)
    b = DequantizeLinear (a, s, z)
    w = DequantizeLinear (v, s, z)
    c = Conv <kernel_shape = [1, 1]> (b, w)
    d = Relu (c)
    e = QuantizeLinear (d, s, z)
    f = DequantizeLinear (e, s, z)
    h = Conv <kernel_shape = [1, 1]> (f, w)
    i = QuantizeLinear (h, s, z)
    y = DequantizeLinear (i, s, z)
}"""


def test_quantized_tensors_count_in_eight_bits() -> None:
    weights = {"s": np.float32(0.1), "z": np.uint8(0), "v": np.ones((8, 8, 1, 1), np.uint8)}
    model = parse(QUANTIZED, {name: np.asarray(one) for name, one in weights.items()})
    # the caller's x, and at the end an 8-bit tensor and y; two 8-bit ones at each convolution
    assert peak_bytes(model) == 4 * 128 + 128 + 4 * 128


def test_a_float_tensor_that_others_read_too_is_there_besides() -> None:
    text = QUANTIZED.replace("f = DequantizeLinear (e, s, z)", "f = Conv <kernel_shape = [1, 1]> (d, w)")
    weights = {"s": np.float32(0.1), "z": np.uint8(0), "v": np.ones((8, 8, 1, 1), np.uint8)}
    model = parse(text, {name: np.asarray(one) for name, one in weights.items()})
    assert peak_bytes(model) == 3 * 4 * 128  # x, d and f: neither convolution is computed in 8 bits


@pytest.mark.parametrize(
    ("middle", "expected"),
    [
        ("d = Resize (c, , r)", 32 + 4 * 32),  # x and y, as large
        ("d = Resize (c, , r) unread = Erf (c)", 32 + 4 * 32 + 4 * 32),  # c, too, in floats
        ("d = Erf (c)", 32 + 4 * 32 + 32),  # floats, one over the other, between x and y
    ],
)
def test_only_what_is_computed_in_eight_bits_saves_floats(middle: str, expected: int) -> None:
    text = f"""g (uint8[1,2,4,4] x) => (uint8[1,2,M,N] y) {{
        c = DequantizeLinear (x, s, z) {middle} y = QuantizeLinear (d, s, z)
    }}"""
    weights = {"s": np.float32(0.1), "z": np.uint8(0), "r": np.array([1, 1, 2, 2], np.float32)}
    model = parse(text, {name: np.asarray(one) for name, one in weights.items()})
    assert peak_bytes(model) == expected


BRANCHES = """g (bool c, float[100] x) => (float[100] y) {
    a = MatMul (x, w)
    y = If (c) <
        then_branch = t () => (float[100] p) { q = MatMul (a, w) p = MatMul (q, w) },
        else_branch = e () => (float[100] r) { r = Add (a, x) }
    >
}"""


def test_bodies_run_where_their_node_stands() -> None:
    model = parse(BRANCHES, {"w": np.ones((100, 100), np.float32)})
    assert peak_bytes(model) == 1 + 4 * (100 + 100 + 200)  # c; x, and a, which the branches read; q and p


def test_calls_count_as_if_inlined() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[10] x) => (float[10] y) { y = own.Twice (x) }
    <domain: "own", opset_import: ["" : 17]>
    Twice (a) => (d) { b = Exp (a) c = Exp (b) e = Neg (b) d = Add (c, e) }"""
    model = ir.from_onnx_text(text)
    assert peak_bytes(model) == 4 * 30
    assert model.functions


CHILD = """
import ctypes, json, re, sys
from pathlib import Path
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.enable_cpu_mem_arena = options.enable_mem_pattern = False
options.intra_op_num_threads = 1
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
x = np.ones(json.loads(sys.argv[2]), np.float32)
memory = lambda key: int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
session.run(None, {"x": x})
ctypes.CDLL("libc.so.6").malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
session.run(None, {"x": x})
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is reset through /proc")
@pytest.mark.parametrize("deep", [1, 4])
def test_it_is_what_a_runtime_without_an_arena_takes(deep: int, tmp_path: Path) -> None:
    """A chain of 1x1 convolutions of several megabytes each, with a shortcut around all of it."""
    lines = ["a0 = Conv <kernel_shape = [1, 1]> (x, w)"]
    for k in range(deep):
        lines += [f"b{k} = MaxPool <kernel_shape = [1, 1]> (a{k})", f"a{k + 1} = Transpose <perm=[0,1,3,2]> (b{k})"]
    body = "\n".join([*lines, f"c = Concat <axis = 1> (a0, a{deep})", "y = ReduceMax <keepdims = 0> (c)"])
    text = f"g (float[1,4,512,512] x) => (float y) {{ {body} }}"
    model = parse(text, {"w": np.ones((8, 4, 1, 1), np.float32)})
    graphopt.save(model, tmp_path / "model.onnx")
    expected = peak_bytes(model) - 4 * 4 * 512 * 512  # the child has x before
    command = [sys.executable, "-c", CHILD, str(tmp_path / "model.onnx"), json.dumps([1, 4, 512, 512])]
    settings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory goes back at once
    measured = int(subprocess.run(command, env=settings, capture_output=True, check=True, text=True).stdout)
    assert expected == 4 * 4 * 8 * 512 * 512  # a0, the last a, and both of them once more, joined
    assert measured == pytest.approx(expected, abs=3 * MIB)
