"""Sessions: providers, what is refused and how it is said, weights that are not copied, types that NumPy lacks."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from harness import parse

from graphopt import proto, runtime
from graphopt.errors import EnvironmentProblem, ModelError, UsageError

RELU = "agraph (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"


def test_provider_names() -> None:
    assert runtime.resolve_provider("cpu") == "CPUExecutionProvider"
    assert runtime.resolve_provider(" CPUExecutionProvider ") == "CPUExecutionProvider"
    assert runtime.resolve_provider("auto") in ("CPUExecutionProvider", "CUDAExecutionProvider")


def test_unknown_provider_says_what_there_is() -> None:
    with pytest.raises(EnvironmentProblem, match=r"no execution provider 'abacus'.*it has: .*CPU") as caught:
        runtime.resolve_provider("abacus")
    assert caught.value.exit_code == 8
    assert caught.value.hint


def test_known_provider_of_another_package_says_what_to_install() -> None:
    if "OpenVINOExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has OpenVINO")
    with pytest.raises(EnvironmentProblem, match="OpenVINOExecutionProvider") as caught:
        runtime.resolve_provider("openvino")
    assert "onnxruntime-openvino" in caught.value.hint


def test_provider_that_cannot_start_is_missing(capfd: pytest.CaptureFixture[str]) -> None:
    if runtime.resolve_provider("auto") == "CUDAExecutionProvider":
        pytest.skip("CUDA works here")
    with pytest.raises(EnvironmentProblem, match="CUDA") as caught:
        runtime.resolve_provider("cuda")
    assert "onnxruntime-gpu" in caught.value.hint
    assert capfd.readouterr() == ("", "")


@pytest.mark.cuda
def test_cuda_runs() -> None:
    session = runtime.open_session(parse(RELU), provider="cuda")
    assert session.get_providers()[0] == "CUDAExecutionProvider"


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x08\x07"], ids=["empty", "text", "no graph"])
def test_refused_bytes(data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match="ONNX Runtime cannot load the model: "):
        runtime.open_session(data)
    assert capfd.readouterr() == ("", "")


def test_refused_paths_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(ModelError, match=path.name):
            runtime.open_session(path)


def test_unknown_operator_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="Nonsense") as caught:
        runtime.open_session(parse("agraph (float[2] x) => (float[2] y) { y = Nonsense(x) }"))
    assert "onnxruntime_src" not in caught.value.message


def test_custom_operator_libraries_must_exist_and_load(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        runtime.open_session(parse(RELU), custom_ops=[str(tmp_path / "lib.so")])
    (tmp_path / "text.so").write_text("not a library")
    with pytest.raises(UsageError, match="cannot be loaded"):
        runtime.open_session(parse(RELU), custom_ops=[str(tmp_path / "text.so")])


@pytest.mark.parametrize("optimization", ["off", "basic", "extended", "all"])
def test_sources_agree(tmp_path: Path, optimization: runtime.Optimization) -> None:
    weight = np.random.default_rng(0).standard_normal((600, 500)).astype(np.float32)  # above what is sent inline
    model = parse("agraph (float[N,600] x) => (float[N,500] y) { y = MatMul(x, w) }", {"w": weight})
    data = proto.to_proto(model).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    x = np.random.default_rng(1).standard_normal((3, 600)).astype(np.float32)
    results = []
    for source in (model, data, tmp_path / "m.onnx"):
        session = runtime.open_session(source, optimization=optimization, threads=1)
        results.append(session.run(None, {"x": x})[0])
    np.testing.assert_allclose(results[0], x @ weight, rtol=1e-3, atol=1e-3)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_big_initializers_are_not_copied() -> None:
    weight = np.ones((600, 500), np.float32)
    model = parse("agraph (float[N,600] x) => (float[N,500] y) { y = MatMul(x, w) }", {"w": weight})
    model.graph.initializers["w"].const_value = ir.tensor(weight)
    session = runtime.open_session(model, optimization="off", faithful=True)
    weight[:] = 0  # what no one should do shows whose memory it is
    assert not session.run(None, {"x": np.ones((1, 600), np.float32)})[0].any()


def test_placeholder_exists() -> None:
    assert (Path(runtime.__file__).parent / runtime.PLACEHOLDER).is_file()


@pytest.mark.parametrize(
    ("dtype", "onnx_type"),
    [("bfloat16", "bfloat16"), ("float8_e4m3fn", "float8e4m3fn"), ("int4", "int4"), ("uint4", "uint4")],
)
def test_types_that_numpy_lacks(dtype: str, onnx_type: str) -> None:
    model = parse(f"agraph ({onnx_type}[5] x) => (float[5] y) {{ y = Cast<to = 1>(x) }}")
    values = np.array([1, 3, 0, 2, 7]).astype(getattr(ml_dtypes, dtype))
    session = runtime.open_session(model)
    (result,) = session.run_with_ort_values(None, {"x": runtime.to_ort_value(values)})
    assert result.numpy().tolist() == values.astype(np.float32).tolist()


def test_trim() -> None:
    raw = (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Gather node. Name:'' Status "
        "Message: "
        "/onnxruntime_src/onnxruntime/core/providers/cpu/tensor/x.cc:150 void onnxruntime::core_impl(const Tensor*, T) "
        "[with Tin = long int] Gather op: Out of range"
    )
    assert runtime.trim(raw) == (
        "Non-zero status code returned while running Gather node. Name:'' Status Message: Gather op: Out of range"
    )
    assert runtime.trim(ValueError()) == "ValueError"
    assert len(runtime.trim("a" * 1000)) == 500


@pytest.mark.parametrize(
    ("provider", "device", "expected"),
    [
        ("CPUExecutionProvider", 1, ["CPUExecutionProvider"]),
        ("CUDAExecutionProvider", 0, ["CUDAExecutionProvider", "CPUExecutionProvider"]),
        ("CUDAExecutionProvider", 1, [("CUDAExecutionProvider", {"device_id": "1"}), "CPUExecutionProvider"]),
        ("DmlExecutionProvider", 1, ["DmlExecutionProvider", "CPUExecutionProvider"]),
    ],
)
def test_the_device_of_a_provider_is_named(provider: str, device: int, expected: list[object]) -> None:
    assert runtime._providers(provider, device) == expected
