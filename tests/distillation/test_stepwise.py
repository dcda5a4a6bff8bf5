"""Quantized students, compared rounding by rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from harness import parse
from quantization.examples import convolutional, images

from graphopt.distillation.rounding import rounded
from graphopt.distillation.stepwise import stepwise
from graphopt.distillation.student import GraphStudent
from graphopt.distillation.teacher import Teacher
from graphopt.errors import NotEquivalent


def quantized() -> GraphStudent:
    found = rounded(convolutional(), "static", {"x": images()}, threads=1)
    return GraphStudent(found.model, floats=found.floats)


FEEDS = {"x": torch.from_numpy(images(16, seed=4))}


def moved(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Lets ONNX Runtime give other integers."""
    tensors = Teacher.tensors

    def wrong(self: Teacher, feeds: Any) -> dict[str, torch.Tensor]:
        found = tensors(self, feeds)
        name = next(name for name in self.names if found[name].dtype == torch.uint8)
        changed = found[name].clone()
        changed.view(-1)[0] += steps if changed.view(-1)[0] < 128 else -steps
        return {**found, name: changed}

    monkeypatch.setattr(Teacher, "tensors", wrong)


def test_gives_what_onnx_runtime_gives() -> None:
    student = quantized()
    found = stepwise(student, FEEDS, threads=1)
    assert found.off_by_one < 1e-3
    assert found.ours.keys() == found.theirs.keys() == {"scores"}
    torch.testing.assert_close(found.ours["scores"], found.theirs["scores"], rtol=1e-5, atol=1e-5)
    assert torch.equal(found.ours["scores"], student.outputs(FEEDS)["scores"])


def test_a_neighbour_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = stepwise(quantized(), FEEDS, threads=1).off_by_one
    moved(monkeypatch, 1)
    assert stepwise(quantized(), FEEDS, threads=1).off_by_one > exact


def test_more_than_a_step_is_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    moved(monkeypatch, 2)
    with pytest.raises(NotEquivalent, match="off by 2 steps") as caught:
        stepwise(quantized(), FEEDS, threads=1)
    assert "reduce-range=yes" in caught.value.hint


def test_ties_that_fall_apart_do_not_add_up() -> None:
    """Each of eight roundings has a tie in it, which any noise of the first would decide anew in all that follow."""
    count = 8
    lines = ["x0 = Identity (x)"]
    arrays: dict[str, Any] = {"scale": np.array(0.1, np.float32), "zero": np.array(128, np.uint8)}
    random = np.random.default_rng(0)
    for number in range(count):
        arrays[f"w{number}"] = (random.integers(-3, 4, (16, 16)) / 2).astype(np.float32)
        lines += [
            f"q{number} = QuantizeLinear (x{number}, scale, zero)",
            f"d{number} = DequantizeLinear (q{number}, scale, zero)",
            f"x{number + 1} = MatMul (d{number}, w{number})",
        ]
    lines.append(f"y = Identity (x{count})")
    model: ir.Model = parse(f"agraph (float[N,16] x) => (float[N,16] y) {{ {' '.join(lines)} }}", arrays)
    feeds = {"x": torch.from_numpy(random.standard_normal((64, 16)).astype(np.float32))}
    found = stepwise(GraphStudent(model), feeds, threads=1)
    torch.testing.assert_close(found.ours["y"], found.theirs["y"], rtol=1e-5, atol=1e-4)


def test_integers_that_are_outputs_are_compared_as_such() -> None:
    text = """agraph (float[N,4] x) => (uint8[N,4] q, float[N,2] y) {
        q = QuantizeLinear (x, scale, zero)
        d = DequantizeLinear (q, scale, zero)
        y = MatMul (d, w)
    }"""
    arrays = {
        "scale": np.array(0.1, np.float32),
        "zero": np.array(128, np.uint8),
        "w": np.ones((4, 2), np.float32),
    }
    found = stepwise(GraphStudent(parse(text, arrays)), {"x": torch.randn(8, 4)}, threads=1)
    assert found.off_by_one == 0
    assert torch.equal(found.ours["q"], found.theirs["q"])
