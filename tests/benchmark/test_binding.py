"""Running a session plain and bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import parse

import graphopt
from graphopt import runtime
from graphopt.benchmark.binding import device_of, runner

TEXT = "g (float[N,4] x) => (float[N,4] y) {y = Relu(x)}"


class Watched:
    """A session that notes how it is run."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.calls: list[str] = []
        self.binding: Any = None

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._session, name)
        if not name.startswith("run"):
            return attribute

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name == "run_with_iobinding":
                (self.binding,) = arguments
            return attribute(*arguments)

        return call


def watched(text: str) -> Any:
    return Watched(runtime.open_session(parse(text)))


def outputs(result: object) -> list[Any]:
    """What a plain run returns."""
    assert isinstance(result, list)
    return result


def test_plain_run_hands_arrays_over() -> None:
    session = watched(TEXT)
    run = runner(session, {"x": -np.ones((2, 4), np.float32), "extra": np.ones(1)})
    (result,) = outputs(run())
    np.testing.assert_array_equal(result, np.zeros((2, 4)))
    assert session.calls == ["run"]


def test_bound_run_gives_the_same_and_copies_inputs_once() -> None:
    session = watched(TEXT)
    feeds = {"x": np.asfortranarray(np.arange(8, dtype=np.float32).reshape(2, 4) - 4)}
    run = runner(session, feeds, device="cpu")
    run()
    run()
    assert session.calls == ["run_with_iobinding", "run_with_iobinding"]
    (result,) = session.binding.copy_outputs_to_cpu()
    np.testing.assert_array_equal(result, np.maximum(feeds["x"], 0))


@pytest.mark.parametrize(
    "text",
    [
        "g (string[N] x) => (string[N] y) {y = Identity(x)}",
        "g (float[N] x) => (seq(float[N]) y) {y = SequenceConstruct(x)}",
    ],
)
def test_what_has_no_device_form_runs_unbound(text: str) -> None:
    session = watched(text)
    array = np.array(["a"], object) if "string" in text else np.ones(1, np.float32)
    runner(session, {"x": array}, device="cpu")()
    assert session.calls == ["run"]


def test_map_outputs_run_unbound(models: Path) -> None:
    session: Any = Watched(runtime.open_session(models / "logreg_iris.onnx"))
    runner(session, {"float_input": np.ones((3, 2), np.float32)}, device="cpu")()
    assert session.calls == ["run"]


def test_types_that_numpy_lacks() -> None:
    import ml_dtypes

    session = watched("g (bfloat16[N] x) => (bfloat16[N] y) {y = Identity(x)}")
    (value,) = outputs(runner(session, {"x": np.ones(3, ml_dtypes.bfloat16)}, device="cpu")())
    assert value.data_type() == "tensor(bfloat16)"


def test_devices() -> None:
    assert device_of("CPUExecutionProvider") == "cpu"
    assert device_of("CUDAExecutionProvider") == "cuda"
    assert device_of("OpenVINOExecutionProvider") == "cpu"


@pytest.mark.cuda
def test_cuda_keeps_outputs_on_the_device() -> None:
    session: Any = Watched(runtime.open_session(parse(TEXT), provider="cuda"))
    run = runner(session, {"x": -np.ones((2, 4), np.float32)}, device="cuda")
    run()
    (output,) = session.binding.get_outputs()
    assert output.device_name() == "cuda"
    np.testing.assert_array_equal(output.numpy(), np.zeros((2, 4)))


@pytest.mark.cuda
def test_bench_on_cuda(models: Path) -> None:
    table = graphopt.bench([models / "light_squeezenet.onnx"], provider="cuda", min_time=0.1)
    assert table.settings.io_binding
