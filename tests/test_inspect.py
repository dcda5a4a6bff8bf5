"""What inspection finds, and how it reads."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import parse
from rich.cells import cell_len
from rich.console import Console

import graphopt
from graphopt.errors import ModelError, UsageError
from graphopt.inspect import Inspection, inspect
from graphopt.inspect.inspection import StoredTensor

NET = """net (float[batch,8] x) => (float[batch,4] y) {
  a = MatMul(x, w1) b = Add(a, b1) c = Relu(b) d = Gemm(c, w2) e = MatMul(d, w3) y = Softmax(e)
}"""
NAMES = ("/body/fc1/MatMul", "/body/fc1/Add", "/body/act/Relu", "/neck/fc/Gemm", "/head/fc/MatMul", "/head/Softmax")
WEIGHTS: dict[str, npt.NDArray[Any]] = {
    "w1": np.ones((8, 16), np.float32), "b1": np.ones(16, np.float32), "w2": np.ones((16, 8), np.float32),
    "w3": np.ones((8, 4), np.float32), "unused": np.ones(3, np.float16),
}  # fmt: skip


def net(*names: str) -> ir.Model:
    """A net of three layers; ``names`` name its first nodes."""
    model = parse(NET, WEIGHTS)
    for node, name in zip(model.graph, (*names, *NAMES[len(names) :]), strict=True):
        node.name = name
    return model


def terminal(inspection: Inspection, width: int, encoding: str = "utf-8") -> list[str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(width=width, file=out, legacy_windows=False).print(inspection)
    out.seek(0)
    return [line.rstrip() for line in out.read().splitlines()]


def test_summary_of_a_small_net(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    graphopt.save(net(), path)
    found = inspect(path, shapes={"x": (3, 8)})
    assert (found.path, found.file_bytes) == (path, path.stat().st_size)
    assert (found.ir_version, dict(found.opsets)) == (10, {"": 21})
    assert [(port.name, port.dtype, port.shape) for port in found.inputs] == [("x", "FLOAT", ("batch", 8))]
    assert [(port.name, port.shape) for port in found.outputs] == [("y", ("batch", 4))]
    assert (found.nodes, found.constants, found.subgraphs) == (6, 0, 0)
    assert found.parameters == 8 * 16 + 16 + 16 * 8 + 8 * 4 + 3
    assert [(one.dtype, one.tensors, one.bytes) for one in found.stored] == [("FLOAT", 4, 1216), ("FLOAT16", 1, 6)]
    assert found.unused_initializers == 1
    assert found.costs.macs == 3 * (8 * 16 + 16 * 8 + 8 * 4)
    assert found.memory == 1216 + 6 + 3 * 4 * (8 + 16 + 8)  # at the second layer: x, c and d
    assert found.to_dict()["memory"] == found.memory
    assert found.largest[0] == StoredTensor("w1", "FLOAT", (8, 16), 512)
    assert (dict(found.extents), found.guessed) == ({"batch": 3}, ())


def test_layers_are_nodes_with_weights_and_blocks_are_scopes() -> None:
    found = inspect(net())
    assert [(layer.name, layer.operator, layer.macs, layer.parameters) for layer in found.layers] == [
        ("/body/fc1/MatMul", "MatMul", 128, 128),
        ("/body/fc1/Add", "Add", 0, 16),
        ("/neck/fc/Gemm", "Gemm", 128, 128),
        ("/head/fc/MatMul", "MatMul", 32, 32),
    ]
    assert [(group.name, group.nodes, group.macs, group.parameters) for group in found.groups] == [
        ("body", 3, 128, 144), ("neck", 1, 128, 128), ("head", 2, 32, 32),
    ]  # fmt: skip
    assert found.operators[0].operator == "MatMul"
    assert [(one.operator, one.nodes) for one in found.operators if one.operator != "MatMul"] == [
        ("Gemm", 1), ("Add", 1), ("Relu", 1), ("Softmax", 1),
    ]  # fmt: skip


def test_folding_is_foretold() -> None:
    found = inspect(
        parse(
            """g (float[N,8] x, float[4,8] s) => (float[N,6] y, int64[2] z, float[6,8] q) {
              t = Transpose(w)
              u = Mul(t, t)
              y = MatMul(x, u)
              z = Shape(s)
              r = RandomUniform<shape=[6,8]>()
              q = Add(r, w)
              n = Shape(x)
            }""",
            {"w": np.ones((6, 8), np.float32)},
        )
    ).folding
    assert dict(found.operators) == {"Transpose": 1, "Mul": 1, "Shape": 1}
    assert found.nodes == 3
    assert found.bytes_before == 0  # w stays: q needs it
    assert found.bytes_after == 6 * 8 * 4 + 2 * 8
    assert found.unsized == 0


def test_folding_counts_what_dies() -> None:
    text = "g (float[N,8] x) => (float[N,6] y) { t = Transpose(w) y = MatMul(x, t) }"
    found = inspect(parse(text, {"w": np.ones((6, 8), np.float32)})).folding
    assert (found.bytes_before, found.bytes_after) == (192, 192)


def test_quantized_weights_and_overridable_initializers_do_not_fold() -> None:
    model = parse(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N,8] x, float[6,8] w = {0}) => (float[N,6] y, float[N,6] z) {
          t = Transpose(w) y = MatMul(x, t)
          d = DequantizeLinear(q, s) z = MatMul(x, d)
        }""".replace(" = {0}", ""),
        {"q": np.ones((8, 6), np.int8), "s": np.array(1, np.float32), "w": np.ones((6, 8), np.float32)},
    )
    found = inspect(model)
    assert found.folding.nodes == 0
    assert [port.optional for port in found.inputs] == [False, True]


def test_initializers_listed_as_inputs_by_old_models_are_no_inputs(models: Path) -> None:
    found = inspect(models / "light_squeezenet.onnx")
    assert [port.name for port in found.inputs] == ["data_0"]
    assert dict(found.folding.operators) == {"ConstantOfShape": 39}
    assert found.folding.bytes_after == 4 * (
        1_235_496 - sum(one.elements for one in found.stored if one.dtype == "FLOAT")
    )


def test_map_outputs_are_shown(models: Path) -> None:
    found = inspect(models / "logreg_iris.onnx")
    assert [(port.name, port.dtype) for port in found.outputs] == [("label", "INT64"), ("probabilities", "MAP")]
    assert found.parameters == 15


def test_open_extents_are_guessed_so_that_nothing_is_empty() -> None:
    model = parse("g (float[N,3,H,W] x) => (float[N,4,P,Q] y) {y = Conv<dilations=[9,9]>(x, w)}",
                  {"w": np.ones((4, 3, 5, 5), np.float32)})  # fmt: skip
    found = inspect(model)
    assert found.costs.macs > 0
    assert found.costs.empty == 0
    assert found.guessed == ("N", "H", "W")
    assert "guess" in " ".join(terminal(found, 80))
    given = inspect(model, shapes={"x": (2, 3, 40, 50)})
    assert given.costs.macs == 2 * 4 * 75 * 4 * 14
    assert given.guessed == ()


def test_nameless_dims_get_the_name_of_their_place() -> None:
    found = inspect(parse("g (float[?,4] x) => (float[?,4] y) {y = Relu(x)}"))
    assert dict(found.extents) == {"x[0]": 1}


def test_wrong_shapes_are_usage_errors() -> None:
    model = parse("g (float[N,4] x) => (float[N,4] y) {y = Relu(x)}")
    with pytest.raises(UsageError):
        inspect(model, shapes={"z": (1, 4)})
    with pytest.raises(UsageError):
        inspect(model, shapes={"x": (1, 5)})


def test_missing_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        inspect(tmp_path / "nowhere.onnx")


def test_external_data_is_named(tmp_path: Path) -> None:
    graphopt.save(net(), tmp_path / "net.onnx", external_data=True, size_threshold=0)
    found = inspect(tmp_path / "net.onnx")
    ((path, size),) = found.external.items()
    assert Path(path).parent == tmp_path
    assert Path(path).stat().st_size == size
    assert any("1 data file" in line for line in terminal(found, 80))


def test_functions_and_subgraphs_are_counted() -> None:
    found = inspect(
        parse(
            """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
            g (bool c, float[2] x) => (float[2] y) {
              h = own.f(x)
              y = If(c) <then_branch = t () => (float[2] p) { p = Neg(h) },
                         else_branch = e () => (float[2] q) { q = Abs(h) }>
            }
            <domain: "own", opset_import: ["" : 21]> f (a) => (b) { b = Relu(a) }"""
        )
    )
    assert (found.nodes, found.subgraphs, dict(found.functions)) == (5, 2, {"own::f": 1})
    assert [one.operator for one in found.operators] == ["Abs", "If", "Neg", "Relu"]  # as if inlined


def test_json_is_complete_and_plain(models: Path) -> None:
    found = inspect(models / "silero_vad.onnx")
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["schema"] == "graphopt.inspect/1"
    assert len(plain["costs"]) == plain["nodes"] + plain["constants"]
    assert sum(one["nodes"] for one in plain["operators"]) == plain["nodes"]
    assert plain["subgraphs"] == 50
    assert {one["operator"] for one in plain["costs"] if one["within"]} >= {"Conv", "LSTM"}


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", ["light_squeezenet", "caustic_painn", "silero_vad", "magika", "logreg_iris"])
def test_tables_fit_their_terminal(models: Path, name: str, width: int) -> None:
    lines = terminal(inspect(models / f"{name}.onnx"), width)
    assert all(cell_len(line) <= width for line in lines)
    heads = ("operator ", "block ", "layer ", "largest tensors")
    assert sum(line.startswith(heads) for line in lines) >= 2
    for start in (index for index, line in enumerate(lines) if line.startswith(heads)):
        rows = lines[start + 1 : lines.index("", start) if "" in lines[start:] else None]
        assert len(rows) <= 11  # ten and "and 14 more": no row is wrapped
        assert width < 80 or not any(line.startswith(" ") for line in rows)


def test_terminal_says_what_matters(models: Path) -> None:
    lines = terminal(inspect(models / "light_squeezenet.onnx"), 80)
    assert lines[0] == "light_squeezenet.onnx  opset 9  IR 3  onnx-caffe2"
    text = "\n".join(lines)
    assert "1.24 M" in text
    assert "349 M MACs" in text
    assert "39 ConstantOfShape" in text
    assert "and 16 more layers" in text


def test_names_are_shown_without_what_they_repeat() -> None:
    lines = terminal(inspect(net("/body/body.0/fc1/MatMul")), 80)
    assert any(line.startswith("body.0/fc1 ") for line in lines)


def test_plain_ascii_where_the_terminal_has_nothing_else(models: Path) -> None:
    assert "".join(terminal(inspect(models / "silero_vad.onnx"), 120, encoding="ascii")).isascii()


def test_hostile_names_do_nothing() -> None:
    found = inspect(net("<b>\x1b[2J[red]\nx"))
    assert "\x1b" not in "".join(terminal(found, 120))
    assert any("[red]" in line for line in terminal(found, 120))
    assert "<b>" not in found._repr_html_().replace("<p><b>", "")


def test_html_has_every_table(models: Path) -> None:
    html = inspect(models / "caustic_painn.onnx")._repr_html_()
    for head in ("operator", "block", "layer", "largest tensors"):
        assert f"<th>{head}</th>" in html
