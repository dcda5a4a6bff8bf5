"""Students: graphs, modules and shrunken teachers, their inner tensors, and the way back to ONNX."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from distillation.lessons import INTERFACE, Network, Objective, graph, network, perceptron, reader
from harness import parse, run
from torch import Tensor, nn

import graphopt
from graphopt.analysis.cost import costs
from graphopt.datasets import bind
from graphopt.distillation import exporting
from graphopt.distillation.exporting import Interface
from graphopt.distillation.settings import Settings
from graphopt.distillation.shrinking import initialized
from graphopt.distillation.student import GraphStudent, ModuleStudent, open_student
from graphopt.distillation.trainer import fit
from graphopt.errors import ModelError, NotEquivalent, UsageError

X = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
FEEDS = {"x": torch.from_numpy(X)}
FAST = Settings(epochs=2, batch=16, learning_rate=0.02)


# -- graphs --------------------------------------------------------------------------------------------------------


def test_a_graph_with_inner_values() -> None:
    model = graph()
    student = GraphStudent(model, ["r", "h", "y", "x"])
    found = student.outputs(FEEDS)
    assert set(found) == {"y", "r", "h", "x"}
    assert torch.equal(found["r"], found["h"].relu())
    np.testing.assert_allclose(found["y"].detach().numpy(), run(model, {"x": X})[0], rtol=0, atol=1e-5)
    found["r"].sum().backward()  # type: ignore[no-untyped-call]
    assert student.module.get_parameter("w").grad is not None
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_a_trained_graph_goes_back_without_its_inner_values() -> None:
    model = graph()
    student = GraphStudent(model, ["r"])
    fit(student, Objective(), reader(), FAST)
    back = student.to_onnx()
    assert [value.name for value in back.graph.outputs] == ["y"]
    assert [node.op_type for node in back.graph] == [node.op_type for node in model.graph]
    expected = student.outputs(FEEDS)["y"].detach().numpy()
    np.testing.assert_allclose(run(back, {"x": X})[0], expected, rtol=0, atol=1e-5)
    assert not np.allclose(run(model, {"x": X})[0], expected, rtol=0, atol=1e-2)


def test_a_path_is_a_graph(tmp_path: Path) -> None:
    graphopt.save(graph(), tmp_path / "s.onnx")
    student = open_student(str(tmp_path / "s.onnx"), graph(), ["r"])
    assert isinstance(student, GraphStudent)
    assert set(student.outputs({"another": FEEDS["x"]})) == {"y", "r"}  # the only input takes any name


def test_inner_values_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="no value 'rr'"):
        GraphStudent(graph(), ["rr"])
    with pytest.raises(UsageError, match="no submodule 'frist'") as caught:
        ModuleStudent(Network(), INTERFACE, ["frist"])
    assert "first" in caught.value.hint


def test_nothing_to_train() -> None:
    with pytest.raises(ModelError, match="no weights"):
        GraphStudent(parse("agraph (float[N,6] x) => (float[N,6] y) { y = Relu(x) }"))
    with pytest.raises(ModelError, match="no parameters"):
        ModuleStudent(nn.ReLU(), INTERFACE)


def test_missing_inputs() -> None:
    two = parse("agraph (float[N,6] a, float[N,6] b) => (float[N,6] y) { c = Mul(a, w)  y = Add(c, b) }", {"w": X[0]})
    with pytest.raises(UsageError, match="needs b, and the data feed a"):
        GraphStudent(two).outputs({"a": FEEDS["x"]})


# -- modules -------------------------------------------------------------------------------------------------------


def test_a_module_with_inner_tensors_is_exported_without_them() -> None:
    student = network()
    student = ModuleStudent(student.module, INTERFACE, ["norm", "first"])
    assert set(student.outputs(FEEDS)) == {"y", "norm", "first"}
    fit(student, Objective(), reader(), FAST)
    model = student.to_onnx()
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert isinstance(model.graph.inputs[0].shape and model.graph.inputs[0].shape[0], ir.SymbolicDim)
    for count in (1, 4):
        expected = student.outputs({"x": FEEDS["x"][:count]})
        assert set(expected) == {"y", "norm", "first"}  # the hooks are back
        np.testing.assert_allclose(run(model, {"x": X[:count]})[0], expected["y"].detach().numpy(), rtol=0, atol=1e-5)
    assert all(not node.metadata_props for node in model.graph)


@pytest.mark.parametrize("name", ["dynamo", "torchscript"])
def test_each_exporter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_EXPORTERS", {name: exporting._EXPORTERS[name]})
    model = exporting.exported(Network(), INTERFACE, FEEDS)
    expected = Network()  # another one
    assert run(model, {"x": X})[0].shape == expected(FEEDS["x"]).shape
    text = graphopt.proto.to_proto(model).SerializeToString()
    assert str(Path(__file__).parent).encode() not in text


class _Moody(nn.Module):
    """Gives something else each time, which an export freezes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.linear(x) * random.random()
        return hidden


def test_an_export_that_computes_something_else() -> None:
    student = ModuleStudent(_Moody(), INTERFACE)
    with pytest.raises(UsageError, match="never been run"):
        student.to_onnx()
    student.outputs(FEEDS)
    with pytest.raises(NotEquivalent, match="another 'y' in ONNX Runtime than in torch"):
        student.to_onnx()


class _Pair(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        y = self.linear(x)
        return {"tuple": (y, 2 * y), "dict": {"a": y, "b": 2 * y}, "text": "y", "one": y}[self.kind]


def test_several_outputs() -> None:
    interface = Interface(INTERFACE.inputs, ("y", "z"))
    for kind in ("tuple", "dict"):
        found = ModuleStudent(_Pair(kind), interface).outputs(FEEDS)
        assert torch.equal(found["z"], 2 * found["y"])
    with pytest.raises(ModelError, match="1 outputs, and the teacher 2: y, z"):
        ModuleStudent(_Pair("one"), interface).outputs(FEEDS)
    with pytest.raises(ModelError, match="gives a str"):
        ModuleStudent(_Pair("text"), interface).outputs(FEEDS)


def test_a_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "factories_for_tests.py").write_text(
        "from torch import nn\n\ndef small():\n    return nn.Linear(6, 3)\n\ndef wrong():\n    return 3\n\nnumber = 4\n"
    )
    monkeypatch.chdir(tmp_path)
    teacher = graph()
    one, two, three = (
        open_student("factories_for_tests:small", teacher, seed=seed).module.state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(one["weight"], two["weight"])
    assert not torch.equal(one["weight"], three["weight"])
    with pytest.raises(ModelError, match="gives a int"):
        open_student("factories_for_tests:wrong", teacher)
    with pytest.raises(UsageError, match="is no function"):
        open_student("factories_for_tests:number", teacher)
    with pytest.raises(UsageError, match="cannot be imported"):
        open_student("factories_for_tests:none", teacher)
    assert isinstance(open_student(Network(), teacher), ModuleStudent)


# -- shrunken teachers ---------------------------------------------------------------------------------------------


def convolutional() -> ir.Model:
    drawn = np.random.default_rng(0)
    shapes = {"k": (32, 1, 3, 3), "l": (32, 32, 3, 3), "v": (32, 10)}
    weights = {name: (drawn.standard_normal(shape) / 5).astype(np.float32) for name, shape in shapes.items()}
    weights |= {
        name: np.full(32, value, np.float32) for name, value in {"g": 1.1, "o": 0.1, "m": 0.2, "s": 0.9}.items()
    }
    return parse(
        "agraph (float[N,1,8,8] x) => (float[N,10] y) { a = Conv<pads=[1,1,1,1]>(x, k)"
        " n = BatchNormalization(a, g, o, m, s)  b = Relu(n)  c = Conv<pads=[1,1,1,1]>(b, l)  d = Relu(c)"
        " p = GlobalAveragePool(d)  f = Flatten(p)  y = MatMul(f, v) }",
        weights,
    )


@pytest.mark.parametrize("init", ["kept", "random"])
def test_a_shrunken_teacher(init: str) -> None:
    teacher = convolutional()
    data = bind("digits", teacher, samples=64)
    student = open_student(f"shrink:macs=0.25:init={init}", teacher, data=data)
    assert isinstance(student, GraphStudent)
    assert student.learns_statistics == (init == "random")
    model = student.to_onnx()
    share = costs(model).macs / costs(teacher).macs
    assert 0.1 < share <= 0.25
    feeds = next(data.batches(32))
    before, after = run(teacher, feeds)[0], run(model, feeds)[0]
    relative = float(np.square(before - after).mean() / before.var())
    assert relative < 0.5 if init == "kept" else relative > 0.5
    assert ("BatchNormalization" in {node.op_type for node in model.graph}) == (init == "random")


def test_shrink_without_sense() -> None:
    for spec, message in {
        "shrink": "has no goal",
        "shrink:init=random": "has no goal",
        "shrink:macs=0.25:init=zero": "cannot start as 'zero'",
        "shrink:size=0.25": "size",
    }.items():
        with pytest.raises(UsageError, match=message):
            open_student(spec, convolutional())


def test_random_weights() -> None:
    model = initialized(convolutional(), seed=1)
    found = {
        name: np.asarray(value.const_value and value.const_value.numpy())
        for name, value in model.graph.initializers.items()
    }
    assert abs(found["l"].std() - np.sqrt(2 / (32 * 9))) < 0.004
    assert abs(found["v"].std() - np.sqrt(2 / 32)) < 0.03
    assert (found["g"] == 1).all()
    assert (found["o"] == 0).all()
    assert (found["m"] == 0).all()
    assert (found["s"] == 1).all()
    again = initialized(convolutional(), seed=1).graph.initializers["l"].const_value
    assert again is not None
    assert (again.numpy() == found["l"]).all()
    other = initialized(convolutional(), seed=2).graph.initializers["l"].const_value
    assert other is not None
    assert (other.numpy() != found["l"]).any()


def test_a_perceptron_learns_no_statistics() -> None:
    assert not perceptron().learns_statistics
    assert network().learns_statistics
