"""What is said about models on phones, against what ONNX Runtime's own tools and source say."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from harness import parse
from onnxruntime.tools.mobile_helpers import usability_checker
from onnxruntime.tools.reduced_build_config_parser import parse_config
from rich.console import Console

import graphopt
from graphopt import proto
from graphopt.cli.main import main
from graphopt.errors import EnvironmentProblem, ExitCode, ModelError, UsageError
from graphopt.mobile import Share, accelerators, survey
from graphopt.mobile.partition import parts
from graphopt.mobile.providers import PROVIDERS
from graphopt.names import operator

MODELS = Path(__file__).parents[2] / "models"
DIGITS = MODELS / "digits.onnx"
FIXED = {"image": (1, 1, 8, 8)}
SHIPPED = sorted(MODELS.glob("*.onnx"))
CHECKS: Mapping[str, Callable[[onnx.ModelProto], usability_checker.PartitioningInfo]] = {
    "nnapi": lambda model: usability_checker.check_nnapi_partitions(model, False),
    "coreml-mlprogram": lambda model: usability_checker.check_coreml_partitions(
        model, False, "coreml_supported_mlprogram_ops.md"
    ),
    "coreml-neuralnetwork": lambda model: usability_checker.check_coreml_partitions(
        model, False, "coreml_supported_neuralnetwork_ops.md"
    ),
}

Array = npt.NDArray[Any]


def weights(*shape: int, dtype: str = "float32") -> Array:
    return np.random.default_rng(0).normal(0, 1, shape).astype(dtype)


def shares(model: ir.Model | Path, **options: Any) -> dict[str, Share]:
    return {one.provider: one for one in survey(model, **options).providers}


def reasons(share: Share) -> dict[str, str]:
    """The reason by operator."""
    return {name: one.reason for one in share.refusals for name in one.operators}


def conv(
    header: str = "float[1,3,8,8] x", body: str = "y = Conv<pads=[1,1,1,1]>(x, w, b)", opset: int = 17
) -> ir.Model:
    text = f'<ir_version: 9, opset_import: ["" : {opset}]> net ({header}) => (float[a,b,c,d] y) {{ {body} }}'
    return parse(text, {"w": weights(4, 3, 3, 3), "b": weights(4)})


@pytest.mark.parametrize("path", [one for one in SHIPPED if "silero" not in one.stem], ids=lambda path: path.stem)
def test_operators_and_parts_are_those_of_onnxruntimes_checker(path: Path) -> None:
    """It goes by operators alone here, overlooks two that its lists misspell, and counts parts of branches too."""
    model = graphopt.load(path)
    message = proto.to_proto(model)
    for provider in PROVIDERS[1:]:
        rows = provider.operators()
        checked = CHECKS[provider.key](message)
        outputs = {name for group in checked.supported_groups for node in group for name in node.output if name}
        taken = {node for node in model.graph if not outputs.isdisjoint(value.name for value in node.outputs)}
        assert parts(model.graph, taken) == checked.num_partitions
        listed = {node for node in model.graph if operator(node) in rows}
        assert taken == {node for node in listed if node.op_type not in ("ArgMax", "ReduceSum") or node in taken}


def test_a_fixed_convolutional_net_is_taken_whole() -> None:
    found = shares(DIGITS, shapes=FIXED)
    assert {name: (one.nodes_taken, one.nodes, one.parts) for name, one in found.items()} == {
        "xnnpack": (10, 15, None),
        "nnapi": (15, 15, 1),
        "coreml-mlprogram": (14, 15, 2),
        "coreml-neuralnetwork": (15, 15, 1),
    }
    assert all(one.macs_taken == one.macs > 0 and one.fixed is None for one in found.values())
    assert reasons(found["coreml-mlprogram"]) == {"Flatten": "it has no such operator"}


@pytest.mark.parametrize("name", ["image", "serving_default_x:0[a,b]"])
def test_open_shapes_are_the_reason_and_what_fixing_them_gains_is_said(name: str, tmp_path: Path) -> None:
    path, fixed = tmp_path / "open.onnx", tmp_path / "fixed.onnx"
    model = graphopt.load(DIGITS)
    model.graph.inputs[0].name = name
    graphopt.save(model, path)
    found = shares(path)
    nnapi = found["nnapi"]
    assert (nnapi.nodes_taken, [one.kind for one in nnapi.refusals]) == (0, ["shape"])
    assert nnapi.fixed is not None
    assert (nnapi.fixed.nodes_taken, nnapi.fixed.refusals) == (15, ())
    assert found["xnnpack"].nodes_taken == 9, "an open batch is no obstacle to its convolutions"
    command = shlex.split(nnapi.advice[0].partition(": graphopt ")[2])
    assert main([command[0], str(path), str(fixed), *command[3:], "-q"]) == ExitCode.OK
    after = shares(fixed)["nnapi"]
    assert (after.nodes_taken, after.advice) == (15, ()), "what the advice says does what it promises"


def test_nested_nodes_are_left_but_for_xnnpack() -> None:
    body = (
        "y = If (c) <then_branch = t () => (float[1,4,6,6] u) { u = Conv(x, w, b) }, "
        "else_branch = e () => (float[1,4,6,6] v) { v = Conv(x, w, b) }>"
    )
    found = shares(conv("bool c, float[1,3,8,8] x", body))
    assert reasons(found["nnapi"]) == {
        "If": "it has no such operator",
        "Conv": "it takes nothing in branches and loop bodies",
    }
    assert found["xnnpack"].nodes_taken == 2


XNNPACK: dict[str, tuple[ir.Model, str | None]] = {
    "plain": (conv(), None),
    "open batch": (conv("float[n,3,8,8] x"), None),
    "open height": (conv("float[1,3,h,8] x"), "extents of its input are not fixed"),
    "older operator set": (conv(opset=10), "it is older than the kernels (operator set 11)"),
    "newer operator set": (conv(opset=22), "it is newer than the kernels (operator set 11)"),
    "weight that is an input": (
        conv("float[1,3,8,8] x, float[4,3,3,3] v", "y = Conv(x, v, b)"),
        "its weight is computed while the model runs",
    ),
    "bias that is an input": (
        conv("float[1,3,8,8] x, float[4] v", "y = Conv(x, w, v)"),
        "its bias is computed while the model runs",
    ),
    "same lower": (conv(body='y = Conv<auto_pad="SAME_LOWER">(x, w, b)'), "it is padded as auto_pad = SAME_LOWER"),
    "same upper": (conv(body='y = Conv<auto_pad="SAME_UPPER">(x, w, b)'), None),
}


@pytest.mark.parametrize("case", XNNPACK)
def test_what_xnnpack_asks_of_a_convolution(case: str) -> None:
    model, reason = XNNPACK[case]
    share = shares(model)["xnnpack"]
    assert reasons(share) == ({} if reason is None else {"Conv": reason})
    assert share.nodes_taken == (reason is None)


OTHERS: dict[str, tuple[str, str | None]] = {
    "MaxPool<kernel_shape=[2,2]>(x)": ("float[1,3,8,8] x", None),
    "MaxPool<kernel_shape=[2,2], ceil_mode=1>(x)": ("float[1,3,8,8] x", "it rounds its output up (ceil_mode)"),
    "MaxPool<kernel_shape=[1,1], strides=[2,2]>(x)": ("float[1,3,8,8] x", "its window is 1 x 1"),
    "MaxPool<kernel_shape=[2]>(x)": ("float[1,3,8] x", "it is not two-dimensional"),
    "AveragePool<kernel_shape=[2,2]>(x)": ("float[1,3,8,8] x", None),
    "AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>(x)": (
        "float[1,3,8,8] x",
        "it counts its padding otherwise (count_include_pad)",
    ),
    "Softmax(x)": ("float[n,8] x", None),
    "Softmax<axis=1>(x)": ("float[1,3,8] x", "it is not along the last axis"),
    "Softmax<axis=-1>(x)": ("float[3,n] x", "the extent that it runs along is not fixed"),
    "MatMul(x, m)": ("float[2,8] x", None),
    "MatMul(x, m) ": ("float[1,2,8] x", "an operand has more than two axes"),
    "MatMul(x, m)  ": ("float[n,8] x", "extents of its input are not fixed"),
    "MatMul(m, x)": ("float[4,8] x", "its weight is computed while the model runs"),
    "Gemm(x, m, c)": ("float[2,8] x", None),
    "Gemm<alpha=0.5>(x, m, c)": ("float[2,8] x", "it scales (alpha)"),
    "Resize<mode=\"linear\">(x, , s)": ("float[1,3,8,8] x", None),
    "Resize<mode=\"nearest\">(x, , s)": ("float[1,3,8,8] x", "it is not linear"),
    "Sqrt(x)": ("float[2,8] x", "it has no such operator"),
    "Relu(x)": ("float[2,8] x", "it does not follow a node that is taken"),
    "MaxPool<kernel_shape=[2,2]>(x) ": ("double[1,3,8,8] x", "it is not of one type: float32, float16, int8 or uint8"),
}  # fmt: skip


@pytest.mark.parametrize("call", OTHERS)
def test_what_xnnpack_asks_of_other_operators(call: str) -> None:
    header, reason = OTHERS[call]
    kind = header.partition("[")[0]
    constants = {"m": weights(8, 4), "c": weights(4), "s": np.array([1, 1, 2, 2], np.float32)}
    model = parse(
        f'<ir_version: 9, opset_import: ["" : 18]> net ({header}) => ({kind}[a,b] y) {{ y = {call} }}',
        {name: one for name, one in constants.items() if f" {name}" in call or f"({name}" in call},
    )
    model.graph.outputs[0].shape = None
    share = shares(model)["xnnpack"]
    assert list(reasons(share).values()) == ([] if reason is None else [reason])


def test_an_activation_joins_the_node_before_it_where_nobody_else_reads_that() -> None:
    alone = conv(body="z = Conv(x, w, b) y = Relu(z)")
    assert shares(alone)["xnnpack"].nodes_taken == 2
    shared = conv(body="z = Conv(x, w, b) r = Relu(z) y = Add(r, z)")
    assert reasons(shares(shared)["xnnpack"]) == {
        "Relu": "it does not follow a node that is taken",
        "Add": "it has no such operator",
    }


def quantized(activations: str) -> ir.Model:
    text = """<ir_version: 9, opset_import: ["" : 17]> net (float[1,3,8,8] x) => (float[1,4,6,6] y) {
      a = QuantizeLinear(x, s, z) d = DequantizeLinear(a, s, z) v = DequantizeLinear(w, s, zw)
      c = Conv(d, v) q = QuantizeLinear(c, s, z) y = DequantizeLinear(q, s, z) }"""
    constants = {
        "w": np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "zw": np.int8(0),
        "s": np.float32(0.05),
        "z": np.zeros((), activations),
    }
    return parse(text, {name: np.asarray(one) for name, one in constants.items()})


def test_quantized_groups_are_taken_whole_where_their_types_agree() -> None:
    taken = shares(quantized("int8"))
    assert taken["xnnpack"].nodes_taken == 4, "what comes in is quantized, and what goes out dequantized, elsewhere"
    assert taken["nnapi"].nodes_taken == taken["nnapi"].nodes == 6
    mixed = shares(quantized("uint8"))["xnnpack"]
    assert mixed.macs_taken == 0
    assert reasons(mixed)["Conv"] == "it is not of one type: float32, float16, int8 or uint8"
    assert any("float original" in one for one in mixed.advice)


def test_accelerators_ask_for_constants_and_planes() -> None:
    given = shares(conv("float[1,3,8,8] x, float[4,3,3,3] v", "y = Conv(x, v, b)"))
    why = "its weight is computed while the model runs"
    assert reasons(given["nnapi"]) == reasons(given["coreml-neuralnetwork"]) == {"Conv": why}
    assert not reasons(given["coreml-mlprogram"]), "its list asks for a constant bias only"
    text = "net (float[1,3,8] x) => (float[1,4,6] y) { y = Conv(x, w) }"
    lines = shares(parse(text, {"w": weights(4, 3, 3)}))
    assert reasons(lines["nnapi"]) == {"Conv": "it is not two-dimensional"}
    assert not reasons(lines["coreml-neuralnetwork"])


def test_half_precision_is_taken_by_some_and_goes_back_for_the_others(tmp_path: Path) -> None:
    half = {"w": weights(4, 3, 3, 3, dtype="float16"), "b": weights(4, dtype="float16")}
    text = "net (float16[1,3,8,8] x) => (float16[1,4,6,6] y) { z = Conv(x, w, b) y = Relu(z) }"
    model, path, back = parse(f'<ir_version: 9, opset_import: ["" : 17]> {text}', half), *map(tmp_path.joinpath, "ab")
    found = shares(model)
    assert found["coreml-mlprogram"].nodes_taken == found["xnnpack"].nodes_taken == 2
    assert reasons(found["nnapi"])["Conv"] == "it does not compute in float32"
    graphopt.save(model, path)
    command = found["nnapi"].advice[0].partition(": graphopt ")[2].partition(". ")[0].split()
    assert main([command[0], str(path), str(back), *command[3:], "--no-validate", "-q"]) == ExitCode.OK
    assert shares(back)["nnapi"].macs_taken == shares(back)["nnapi"].macs > 0


def test_weights_beside_the_model_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    graphopt.save(graphopt.load(DIGITS), path, external_data=True)
    found = shares(path, shapes=FIXED)
    hint = "--no-external-data"
    assert {name: any(hint in one for one in share.advice) for name, share in found.items()} == {
        "xnnpack": False,
        "nnapi": True,
        "coreml-mlprogram": True,
        "coreml-neuralnetwork": True,
    }


def test_raising_the_operator_set_as_advised_lets_xnnpack_in(tmp_path: Path) -> None:
    path, raised = MODELS / "light_squeezenet.onnx", tmp_path / "raised.onnx"
    before = shares(path)["xnnpack"]
    assert before.macs_taken == 0
    command = before.advice[0].partition(": graphopt ")[2].split()
    assert main([command[0], str(path), str(raised), *command[3:], "--no-validate", "-q"]) == ExitCode.OK
    after = shares(raised)["xnnpack"]
    assert after.macs_taken == after.macs
    assert not after.advice


def test_it_is_data_and_a_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "ops.config"
    arguments = ["inspect", str(DIGITS), "--mobile", "--required-operators", str(config)]
    assert main([*arguments, "--json"]) == ExitCode.OK
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "graphopt.mobile/1"
    assert [one["provider"] for one in data["providers"]] == [one.key for one in PROVIDERS]
    assert data["at"] == {"image": [1, 1, 8, 8]}
    assert data["required_operators"]["com.microsoft"] == {"1": ["FusedConv"]}
    assert main(arguments) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "XNNPACK leaves, because" in shown
    assert "--passes fix-dims:shapes=image=1x1x8x8,default" in " ".join(shown.split())
    assert f"wrote {config}" in shown
    narrow = io.StringIO()
    Console(width=60, file=narrow).print(survey(DIGITS))
    assert "NNAPI" in narrow.getvalue()


def test_a_reduced_build_is_told_what_it_needs_in_onnxruntimes_words(tmp_path: Path) -> None:
    config = tmp_path / "ops.config"
    for name, extended in (("small.ort", True), ("small.basic.ort", False)):
        made = tmp_path / name
        graphopt.save(graphopt.load(DIGITS), made)
        assert main(["inspect", str(made), "--mobile", "--required-operators", str(config), "-q"]) == ExitCode.OK
        operators, types = parse_config(str(config), enable_type_reduction=True)
        assert operators["ai.onnx"][11] == {"Conv", "AveragePool"}
        assert ("com.microsoft" in operators) is extended
        assert types is not None
        assert '"float"' in config.read_text("utf-8")
        assert str(tmp_path) not in config.read_text("utf-8")
        found = survey(made)
        assert found.required_operators is not None
        assert {domain: set(versions) for domain, versions in found.required_operators.items()} == {
            domain: set(versions) for domain, versions in operators.items()
        }
        assert (found.providers, found.opset) == ((), None)


def test_what_makes_no_sense_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {
        ("--mobile", "--groups"): ExitCode.USAGE,
        ("--required-operators", str(tmp_path / "x")): ExitCode.USAGE,
        ("--mobile", "--granularity", "heads"): ExitCode.USAGE,
        ("--mobile", "--required-operators", str(tmp_path / "none" / "x")): ExitCode.SAVE,
        ("--mobile", "--input-shape", "nothing:1"): ExitCode.USAGE,
    }
    for arguments, code in asked.items():
        assert main(["inspect", str(DIGITS), *arguments]) == code, arguments
    copy = tmp_path / "m.onnx"
    copy.write_bytes(DIGITS.read_bytes())
    assert main(["inspect", str(copy), "--mobile", "--required-operators", str(copy)]) == ExitCode.SAVE
    assert copy.read_bytes() == DIGITS.read_bytes()
    capsys.readouterr()
    with pytest.raises(ModelError, match="cannot read"):
        survey(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="nothing"):
        survey(DIGITS, shapes={"nothing": (1,)})
    with pytest.raises(EnvironmentProblem, match="no_such_ops"):
        accelerators.operators("no_such_ops.md", {}, accelerators.FLOAT32)


def test_names_in_advice_are_words_of_a_shell_and_move_no_cursor() -> None:
    name = "x\x1b[31m; y"
    model = conv("float[N,3,8,8] x")
    model.graph.inputs[0].name = name
    found = survey(model)
    (fix,) = (hint for hint in found.providers[1].advice if "fix-dims" in hint)
    assert f"--passes 'fix-dims:shapes={name}=1x3x8x8,default'" in fix
    shown = io.StringIO()
    Console(width=120, file=shown).print(found)
    assert "\x1b" not in shown.getvalue()
    assert "1 node in 1 part" in shown.getvalue()


def test_what_onnxruntime_refuses_is_told_without_temporary_files() -> None:
    text = '<ir_version: 9, opset_import: ["" : 17, "o" : 1]> g (float[1] x) => (float[1] y) { y = o.Zap(x) }'
    with pytest.raises(ModelError, match="o:Zap") as told:
        survey(parse(text))
    assert "model.onnx" not in told.value.message


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_model_can_be_surveyed(path: Path) -> None:
    before = path.read_bytes()
    for share in survey(path).providers:
        left = sum(one.nodes for one in share.refusals)
        assert share.nodes_taken + left == share.nodes
        assert share.macs_taken + sum(one.macs for one in share.refusals) == share.macs
        assert share.fixed is None or share.fixed.nodes_taken >= share.nodes_taken
    assert path.read_bytes() == before
