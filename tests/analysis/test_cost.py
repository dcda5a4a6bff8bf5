"""Multiply-accumulates, parameters and bytes against hand counts and published figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from harness import parse

import graphopt
from graphopt.analysis.cost import Costs, costs
from graphopt.analysis.cost_rules import RULES
from graphopt.analysis.parameters import external_files, parameters
from graphopt.errors import UsageError

UNCOUNTED = {"LinearAttention", "SVMClassifier", "SVMRegressor", "TreeEnsemble"}


def of(text: str, **weights: tuple[int, ...]) -> Costs:
    """The costs of a model with float32 weights of the given shapes."""
    return costs(parse(text, {name: np.ones(shape, np.float32) for name, shape in weights.items()}))


@pytest.mark.parametrize(
    ("text", "weights", "macs", "flops"),
    [
        # 4 output channels, 3*3*3 taps each, 8*8 positions; the bias adds once an element
        ("g (float[1,3,8,8] x) => (float[1,4,8,8] y) {y = Conv<pads=[1,1,1,1]>(x, w, b)}",
         {"w": (4, 3, 3, 3), "b": (4,)}, 4 * 27 * 64, 2 * 4 * 27 * 64 + 4 * 64),
        ("g (float[2,8,8,8] x) => (float[2,8,4,4] y) {y = Conv<group=8, strides=[2,2], pads=[1,1,1,1]>(x, w)}",
         {"w": (8, 1, 3, 3)}, 2 * 8 * 9 * 16, 2 * 2 * 8 * 9 * 16),
        ("g (float[1,6,10] x) => (float[1,4,8] y) {y = Conv<group=2>(x, w)}",
         {"w": (4, 3, 3)}, 4 * 9 * 8, 2 * 4 * 9 * 8),
        ("g (float[1,2,4,4,4] x) => (float[1,3,3,3,3] y) {y = Conv(x, w)}",
         {"w": (3, 2, 2, 2, 2)}, 3 * 16 * 27, 2 * 3 * 16 * 27),
        # transposed: every input element meets 5 * 2 * 2 weights, whatever the stride
        ("g (float[1,3,8,8] x) => (float[1,5,16,16] y) {y = ConvTranspose<strides=[2,2]>(x, w)}",
         {"w": (3, 5, 2, 2)}, 3 * 64 * 20, 2 * 3 * 64 * 20),
        ("g (float[4,16] x) => (float[4,8] y) {y = Gemm(x, w, b)}",
         {"w": (16, 8), "b": (8,)}, 4 * 16 * 8, 2 * 4 * 16 * 8 + 32),
        ("g (float[16,4] x) => (float[4,8] y) {y = Gemm<transA=1, transB=1>(x, w)}",
         {"w": (8, 16)}, 4 * 16 * 8, 2 * 4 * 16 * 8),
        ("g (float[2,1,5,16] x, float[3,16,7] z) => (float[2,3,5,7] y) {y = MatMul(x, z)}",
         {}, 2 * 3 * 5 * 16 * 7, 2 * 2 * 3 * 5 * 16 * 7),
        ("g (float[16] x) => (float[8] y) {y = MatMul(x, w)}", {"w": (16, 8)}, 128, 256),
        ("g (float[2,3,4] x, float[2,4,5] z) => (float[2,3,5] y) {y = Einsum<equation=\"bij,bjk->bik\">(x, z)}",
         {}, 2 * 3 * 4 * 5, 2 * 2 * 3 * 4 * 5),
        ("g (float[6,2,3,4] x, float[4,5] z) => (float[6,2,3,5] y) {y = Einsum<equation=\"...ij, jk -> ...ik\">(x, z)}",
         {}, 12 * 3 * 4 * 5, 2 * 12 * 3 * 4 * 5),
        ("g (float[3,4] x) => (float[4,3] y) {y = Einsum<equation=\"ij->ji\">(x)}", {}, 0, 0),
        # 5 steps, 2 entries, 4 gates of 8 hidden units, 3 inputs and 8 states each; 9 operations a hidden unit
        ("g (float[5,2,3] x) => (float[5,1,2,8] y) {y = LSTM<hidden_size=8>(x, w, r)}",
         {"w": (1, 32, 3), "r": (1, 32, 8)}, 10 * 32 * 11, 2 * 10 * 32 * 11 + 10 * 8 * 9),
        ("g (float[5,2,3] x) => (float[5,2,2,8] y) {y = GRU<hidden_size=8, direction=\"bidirectional\">(x, w, r)}",
         {"w": (2, 24, 3), "r": (2, 24, 8)}, 10 * 2 * 24 * 11, 2 * 10 * 2 * 24 * 11 + 10 * 2 * 8 * 10),
        ("g (float[1,4,8,8] x) => (float[1,4,4,4] y) {y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)}",
         {}, 0, 4 * 16 * 4),
        ("g (float[1,4,8,8] x) => (float[1,4,1,1] y) {y = GlobalAveragePool(x)}", {}, 0, 256),
        ("g (float[2,8] x) => (float[2,8] y) {y = Softmax(x)}", {}, 0, 80),
        ("g (float[2,8] x, float[8] z) => (float[2,8] y) {y = Add(x, z)}", {}, 0, 16),
        ("g (float[2,8] x) => (float[16] y) {y = Flatten(x)}", {}, 0, 0),
    ],
)  # fmt: skip
def test_work_of_one_node(text: str, weights: dict[str, tuple[int, ...]], macs: int, flops: int) -> None:
    found = of(text, **weights)
    assert (found.macs, found.flops) == (macs, flops)
    assert not found.uncounted


def test_attention_counts_past_keys() -> None:
    found = costs(
        parse(
            """<ir_version: 10, opset_import: ["" : 23]>
            g (float[2,4,5,8] q, float[2,4,5,8] k, float[2,4,5,8] v, float[2,4,3,8] pk, float[2,4,3,8] pv)
              => (float[2,4,5,8] y) { y, k2, v2 = Attention(q, k, v, , pk, pv) }"""
        )
    )
    assert found.macs == 2 * (2 * 4 * 5 * 8) * (5 + 3)  # queries by keys, then weights by values


def test_contrib_attention_includes_its_projection() -> None:
    model = parse(
        """<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
        g (float[2,5,16] x) => (float[2,5,16] y) { y = com.microsoft.Attention<num_heads=4>(x, w, b) }""",
        {"w": np.ones((16, 48), np.float32), "b": np.ones(48, np.float32)},
    )
    assert costs(model).macs == 2 * 5 * 16 * 48 + 2 * (2 * 5 * 16) * 5


def test_quantized_weights_keep_their_bytes() -> None:
    model = parse(
        """g (float[4,16] x) => (float[4,8] y) { w = DequantizeLinear(q, s)  y = MatMul(x, w) }""",
        {"q": np.ones((16, 8), np.int8), "s": np.array(0.1, np.float32)},
    )
    found = costs(model)
    assert found.macs == 4 * 16 * 8
    assert found.weight_bytes == 16 * 8  # int8, not the float32 that DequantizeLinear would make of it
    assert parameters(model) == 16 * 8 + 1


def test_integer_matmul_and_quantized_conv() -> None:
    matmul = parse("g (int8[4,16] x) => (int32[4,8] y) { y = MatMulInteger(x, w) }", {"w": np.ones((16, 8), np.int8)})
    assert costs(matmul).macs == 512
    conv = parse(
        "g (uint8[1,3,8,8] x) => (uint8[1,4,6,6] y) { y = QLinearConv(x, s, z, w, s, z, s, z) }",
        {"w": np.ones((4, 3, 3, 3), np.uint8), "s": np.array(1, np.float32), "z": np.array(0, np.uint8)},
    )
    assert costs(conv).macs == 4 * 27 * 36


def test_bytes_of_weights_and_activations() -> None:
    found = of("g (float[4,16] x) => (float[4,8] y) {y = MatMul(x, w)}", w=(16, 8))
    (node,) = found.nodes
    assert (node.weight_bytes, node.read_bytes, node.write_bytes) == (16 * 8 * 4, 4 * 16 * 4, 4 * 8 * 4)
    assert node.parameters == 128
    assert node.moved_bytes == found.weight_bytes + found.activation_bytes


def test_gather_reads_rows_not_the_table() -> None:
    found = of("g (int64[3] i) => (float[3,8] y) {y = Gather(w, i)}", w=(1000, 8))
    (node,) = found.nodes
    assert (node.weight_bytes, node.read_bytes, node.write_bytes) == (3 * 8 * 4, 3 * 8, 3 * 8 * 4)
    assert node.parameters == 8000


def test_views_move_nothing() -> None:
    found = of("g (float[2,8] x) => (float[16] y) { a = Identity(x) y = Flatten(a) }")
    assert found.activation_bytes == 0


def test_what_folds_at_load_is_free() -> None:
    found = of("g (float[4,8] x) => (float[4,6] y) { t = Transpose(w) u = MatMul(v, t) y = MatMul(x, u) }",
               w=(6, 5), v=(8, 5))  # fmt: skip
    assert found.macs == 4 * 8 * 6
    assert [node.times for node in found.nodes] == [0, 0, 1]


def test_symbolic_dims_take_the_given_extents_or_one() -> None:
    model = parse("g (float[N,16] x) => (float[N,8] y) {y = MatMul(x, w)}", {"w": np.ones((16, 8), np.float32)})
    assumed = costs(model)
    assert (assumed.macs, assumed.assumed) == (128, ("N",))
    given = costs(model, input_shapes={"x": (5, 16)})
    assert (given.macs, given.assumed, dict(given.bindings)) == (640, (), {"N": 5})


def test_extents_follow_arithmetic_on_symbols() -> None:
    model = parse("g (float[1,3,H,8] x) => (float[1,4,P,4] y) {y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w)}",
                  {"w": np.ones((4, 3, 3, 3), np.float32)})  # fmt: skip
    assert costs(model, input_shapes={"x": (1, 3, 30, 8)}).macs == 4 * 27 * 15 * 4


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1,)}, "no input is named 'z'"),
        ({"x": (5,)}, "has 2 dimensions, not 1"),
        ({"x": (5, 17)}, "axis 1 of input 'x' is 16, not 17"),
    ],
)
def test_impossible_shapes_are_usage_errors(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    model = parse("g (float[N,16] x) => (float[N,16] y) {y = Relu(x)}")
    with pytest.raises(UsageError, match=message):
        costs(model, input_shapes=shapes)


def test_empty_values_are_reported() -> None:
    model = parse("g (float[1,3,H,8] x) => (float[1,4,P,6] y) {y = Conv(x, w)}",
                  {"w": np.ones((4, 3, 3, 3), np.float32)})  # fmt: skip
    assert costs(model).empty == 1
    assert costs(model, input_shapes={"x": (1, 3, 3, 8)}).empty == 0


def test_busiest_branch_of_an_if_counts() -> None:
    found = of(
        """g (bool c, float[4,16] x) => (float[4,8] y) {
          y = If(c) <then_branch = t () => (float[4,8] a) { a = MatMul(x, w) },
                     else_branch = e () => (float[4,8] b) { h = MatMul(x, v) b = MatMul(h, u) }>
        }""",
        w=(16, 8), v=(16, 16), u=(16, 8),
    )  # fmt: skip
    assert found.macs == 4 * 16 * 16 + 4 * 16 * 8
    assert [node.times for node in found.nodes if node.node.op_type == "MatMul"] == [0, 1, 1]


def loop(trips: str) -> str:
    return f"""g ({trips} float[4,8] x) => (float[4,8] y) {{
      y = Loop(n, , x) <body = b (int64 i, bool c, float[4,8] s) => (bool k, float[4,8] r) {{
        k = Identity(c) r = MatMul(s, w)
      }}>
    }}"""


def test_loop_counts_its_known_trips() -> None:
    weights: dict[str, npt.NDArray[Any]] = {"w": np.ones((8, 8), np.float32), "n": np.array(7, np.int64)}
    assert costs(parse(loop(""), weights)).macs == 7 * 4 * 8 * 8


def test_loop_of_unknown_trips_counts_once_and_says_so() -> None:
    found = costs(parse(loop("int64 n,"), {"w": np.ones((8, 8), np.float32)}))
    assert found.macs == 4 * 8 * 8
    assert found.assumed == ("trips of Loop",)


def test_functions_count_at_each_call() -> None:
    model = parse(
        """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
        g (float[4,8] x) => (float[4,8] y) { a = own.f(x, w) y = own.f(a, w) }
        <domain: "own", opset_import: ["" : 21]> f (p, q) => (r) { r = MatMul(p, q) }""",
        {"w": np.ones((8, 8), np.float32)},
    )
    assert costs(model).macs == 2 * 4 * 8 * 8
    assert [node.op_type for node in model.graph] == ["f", "f"]


def test_unknown_operators_are_uncounted_not_free() -> None:
    found = costs(
        parse(
            """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
            g (float[4,8] x) => (float[4,8] y) { a = own.Mystery(x) y = Relu(a) }"""
        )
    )
    assert found.uncounted["own::Mystery"] == 1
    assert found.nodes[0].macs is None


def test_parameters_count_shared_tensors_once_and_no_indices() -> None:
    text = "g (float[4,8] x, int64[2] t) => (float[4,8] y) { a = MatMul(x, w) b = MatMul(a, w) y = Reshape(b, s) }"
    model = parse(text, {"w": np.ones((8, 8), np.float32), "s": np.array([4, 8])})
    assert parameters(model) == 64


def test_parameters_in_constant_nodes_and_subgraphs() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) {
          k = Constant<value = float[2] {1.0, 2.0}>()
          a = Add(x, k)
          y = If(c) <then_branch = t () => (float[2] p) { m = Constant<value = float[2] {3.0, 4.0}>() p = Mul(a, m) },
                     else_branch = e () => (float[2] q) { q = Neg(a) }>
        }"""
    )
    assert parameters(model) == 4


def test_external_names_of_one_stretch_count_once(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(64))
    model = parse("g (float[16] x) => (float[16] y) { a = Add(x, v) y = Mul(a, w) }",
                  {"v": np.ones(16, np.float32), "w": np.ones(16, np.float32)})  # fmt: skip
    for name in ("v", "w"):
        model.graph.initializers[name].const_value = ir.ExternalTensor(
            "data", 0, 64, ir.DataType.FLOAT, shape=ir.Shape([16]), name=name, base_dir=tmp_path
        )
    assert parameters(model) == 16
    assert external_files(model) == {str(tmp_path / "data"): 64}


def test_loaded_external_data_counts_once_and_names_its_files(tmp_path: Path) -> None:
    model = parse("g (float[64] x) => (float[64] y) { a = Add(x, v) y = Mul(a, w) }",
                  {"v": np.ones(64, np.float32), "w": np.zeros(64, np.float32)})  # fmt: skip
    graphopt.save(model, tmp_path / "m.onnx", external_data=True, size_threshold=0)
    stored = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    first, second = stored.graph.initializer
    second.external_data.clear()
    second.external_data.extend(first.external_data)
    (tmp_path / "m.onnx").write_bytes(stored.SerializeToString())
    loaded = graphopt.load(tmp_path / "m.onnx")
    assert parameters(loaded) == 64
    ((path, size),) = external_files(loaded).items()
    assert Path(path).stat().st_size == size >= 512


def test_no_weight_is_read(tmp_path: Path) -> None:
    model = parse("g (float[4,16] x) => (float[4,8] y) {y = MatMul(x, w)}", {"w": np.ones((16, 8), np.float32)})
    missing = ir.ExternalTensor("gone", 0, 512, ir.DataType.FLOAT, shape=ir.Shape([16, 8]), name="w", base_dir=tmp_path)
    model.graph.initializers["w"].const_value = missing
    assert (costs(model).macs, parameters(model)) == (512, 128)


def test_squeezenet_matches_its_published_figures(models: Path) -> None:
    """SqueezeNet 1.1: 1,235,496 parameters and 0.35 G multiply-accumulates (torchvision's table of models)."""
    model = graphopt.load(models / "light_squeezenet.onnx")
    assert parameters(model) == 1_235_496
    assert costs(model).macs == 349_151_936


def test_shufflenet_matches_its_architecture(models: Path) -> None:
    """Stages of 4, 8 and 4 units with 4 groups; each unit a grouped 1x1, a depthwise 3x3 and a grouped 1x1 layer."""
    macs = 24 * 27 * 112**2
    channels = 24
    for width, units, size in ((136, 4, 28), (272, 8, 14), (544, 4, 7)):
        inner = width - channels  # the first unit halves the image and concatenates its input
        macs += channels * inner // 4 * (2 * size) ** 2 + 9 * inner * size**2 + inner * inner // 4 * size**2
        macs += (units - 1) * (2 * width * width // 4 + 9 * width) * size**2
        channels = width
    macs += 544 * 1000
    assert costs(graphopt.load(models / "light_shufflenet.onnx")).macs == macs == 124_664_528


@pytest.mark.parametrize("name", ["magika", "thai_deepcut", "caustic_painn", "ppocrv2_cls", "basic_pitch"])
def test_real_models_have_nothing_uncounted(models: Path, name: str) -> None:
    found = costs(graphopt.load(models / f"{name}.onnx"))
    assert not found.uncounted
    assert all(cost.flops is not None and cost.macs is not None for cost in found.nodes)
    assert found.flops >= 2 * found.macs


def test_every_operator_is_in_the_table_or_left_out_on_purpose() -> None:
    standard = {
        (schema.domain, schema.name)
        for schema in onnx.defs.get_all_schemas()
        if schema.domain in ("", "ai.onnx.ml") and not schema.deprecated
    }
    assert {name for domain, name in standard - RULES.keys()} == UNCOUNTED


def test_no_operator_is_listed_twice() -> None:
    from graphopt.analysis import cost_rules

    for rows in (cost_rules._ONNX, cost_rules._ML, cost_rules._MICROSOFT):
        names = [name for _, row in rows for name in row.split()]
        assert len(names) == len(set(names))


def test_long_chains_do_not_recurse() -> None:
    length = 3000
    body = " ".join(f"v{index + 1} = Relu(v{index})" for index in range(length))
    found = costs(parse(f"g (float[2] v0) => (float[2] v{length}) {{ {body} }}"))
    assert found.flops == math.prod((2, length))
