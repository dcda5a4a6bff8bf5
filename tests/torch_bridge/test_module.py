"""A graph as a module: how it is called, what trains, modes, copies, and what it says about what it cannot run."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import parse, run
from torch import Tensor

import graphopt
import graphopt.torch as bridge
from graphopt import proto
from graphopt.errors import GraphoptError, UsageError

RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray[Any, Any]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def norm_model() -> Any:
    text = "agraph (float[N,3,4,4] x) => (float[N,3,4,4] y) { y = BatchNormalization(x, scale, bias, mean, variance) }"
    values = {"scale": weights(3), "bias": weights(3), "mean": weights(3), "variance": np.abs(weights(3)) + 0.5}
    return parse(text, values)


def linear_model() -> Any:
    text = """agraph (float[N,4] x, float[N,3] z) => (float[N,3] y, float[N,3] twice) {
        h = MatMul(x, "layer.weight")
        y = Add(h, z)
        twice = Add(y, y)
    }"""
    return parse(text.replace('"layer.weight"', "weight"), {"weight": weights(4, 3)})


def test_inputs_come_in_order_or_by_name_and_outputs_in_a_tuple() -> None:
    model = linear_model()
    module: Any = bridge.from_onnx(model)
    x, z = weights(2, 4), weights(2, 3)
    expected = run(model, {"x": x, "z": z})
    ways = [
        module(torch.from_numpy(x), torch.from_numpy(z)),
        module(torch.from_numpy(x), z=torch.from_numpy(z)),
        tuple(module.named({"z": z, "x": x}).values()),
    ]
    for outputs in ways:
        assert isinstance(outputs, tuple)
        for one, other in zip(expected, outputs, strict=True):
            np.testing.assert_allclose(other.detach().numpy(), one, rtol=1e-6, atol=1e-6)
    assert module.input_names == ("x", "z")
    assert module.output_names == ("y", "twice")


@pytest.mark.parametrize(("inputs", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"other": 2})])
def test_wrong_inputs_are_told(inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"Its inputs are, in this order: x, z"):
        bridge.from_onnx(linear_model())(*inputs, **named)


@pytest.mark.parametrize("kind", ["path", "proto", "ir"])
def test_every_kind_of_model(kind: str, tmp_path: Path) -> None:
    model = linear_model()
    source: Any = model
    if kind == "path":
        source = tmp_path / "model.onnx"
        graphopt.save(model, source)
    if kind == "proto":
        source = proto.to_proto(model)
    module: Any = bridge.from_onnx(source)
    back = bridge.to_onnx(module, source)
    assert type(back).__name__ == ("ModelProto" if kind == "proto" else "Model")


def test_names_lead_back_to_the_graph() -> None:
    model = linear_model()
    model.graph.initializers["weight"].name = "layer.0/weight:0"
    module: Any = bridge.from_onnx(model)
    assert module.names == {"layer_0_weight_0": "layer.0/weight:0"}
    assert set(module.state_dict()) == {"layer_0_weight_0"}


def test_a_name_that_a_module_has_already_is_evaded() -> None:
    model = linear_model()
    model.graph.initializers["weight"].name = "forward"
    module: Any = bridge.from_onnx(model)
    assert module.names == {"forward_1": "forward"}
    assert module(torch.ones(1, 4), torch.ones(1, 3))[0].shape == (1, 3)


def test_a_shared_weight_is_one_parameter() -> None:
    text = """agraph (float[N,4] x) => (float[N,4] y) { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, w) }"""
    module: Any = bridge.from_onnx(parse(text, {"w": weights(4, 4)}))
    (parameter,) = module.parameters()
    module(torch.from_numpy(weights(2, 4)))[0].sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.abs().sum() > 0


MIXED = """agraph (float[N,3] x) => (float[N,3] y) {
    a = Mul(x, w)
    b = Clip(a, low, high)
    c = Mul(b, half)
    d = Gather(c, order)
    y = Where(mask, d, fill)
}"""
MIXED_WEIGHTS = {
    "w": weights(3),
    "low": np.float32(-2),
    "high": np.float32(2),
    "half": np.array(0.5, np.float32),
    "order": np.array([0]),
    "mask": np.array([True, False, True]),
    "fill": np.array([-1e38, -1e38, -1e38], np.float32),
}


@pytest.mark.parametrize(
    ("policy", "trained"),
    [
        ("weights", {"w"}),
        ("none", set()),
        ("all", {"w", "low", "high", "half", "fill"}),
        (lambda value: value.name == "half", {"half"}),
    ],
)
def test_policy_says_what_trains(policy: Any, trained: set[str]) -> None:
    arrays = {name: np.asarray(array) for name, array in MIXED_WEIGHTS.items()}
    module: Any = bridge.from_onnx(parse(MIXED, arrays), trainable=policy)
    assert {module.names[name] for name, one in module.named_parameters() if one.requires_grad} == trained
    assert "w" in dict(module.named_parameters()), "a weight that does not train is a parameter still"
    assert "order" not in dict(module.named_parameters())


def test_batch_normalization_learns_statistics_in_training_mode_only() -> None:
    model = norm_model()
    module: Any = bridge.from_onnx(model)
    x = torch.from_numpy(weights(5, 3, 4, 4))
    assert not module.training
    np.testing.assert_allclose(module(x)[0].detach(), run(model, {"x": x.numpy()})[0], rtol=1e-5, atol=1e-5)
    before = module.mean.clone()
    module.train()
    y = module(x)[0]
    reference = torch.nn.functional.batch_norm(x, None, None, module.scale, module.bias, training=True)
    torch.testing.assert_close(y, reference)
    torch.testing.assert_close(module.mean, 0.9 * before + 0.1 * x.mean((0, 2, 3)))
    assert {name for name, _ in module.named_buffers()} == {"mean", "variance"}


def test_a_constant_by_another_name_is_the_same_constant() -> None:
    text = """agraph (float[N,3,4,4] x) => (float[N,3,4,4] z) {
        again = Identity(mean)
        y = BatchNormalization(x, scale, bias, mean, variance)
        z = BatchNormalization(y, scale, bias, again, variance)
    }"""
    arrays = {"scale": weights(3), "bias": weights(3), "mean": weights(3), "variance": np.abs(weights(3)) + 0.5}
    model = parse(text, arrays)
    module: Any = bridge.from_onnx(model)
    x = torch.from_numpy(weights(5, 3, 4, 4))
    np.testing.assert_allclose(module(x)[0].detach(), run(model, {"x": x.numpy()})[0], rtol=1e-4, atol=1e-5)
    assert {name for name, _ in module.named_buffers()} == {"mean", "variance"}
    module.train()
    module(x)[0].sum().backward()
    assert module.scale.grad is not None


def test_learned_statistics_are_written_back() -> None:
    model = norm_model()
    module: Any = bridge.from_onnx(model).train()
    x = torch.from_numpy(weights(5, 3, 4, 4))
    module(x)
    module.eval()
    back = bridge.to_onnx(module, model)
    np.testing.assert_allclose(run(back, {"x": x.numpy()})[0], module(x)[0].detach(), rtol=1e-5, atol=1e-5)
    assert [node.op_type for node in back.graph] == ["BatchNormalization"]


def test_dropout_drops_in_training_mode_only() -> None:
    module: Any = bridge.from_onnx(parse("agraph (float[N,100] x) => (float[N,100] y) { y = Dropout(x) }"))
    x = torch.ones(10, 100)
    assert torch.equal(module(x)[0], x)
    module.train()
    dropped = module(x)[0]
    assert 300 < int((dropped == 0).sum()) < 700
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_copies_and_pickles_stand_alone() -> None:
    model = norm_model()
    module: Any = bridge.from_onnx(model)
    x = torch.from_numpy(weights(2, 3, 4, 4))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x)[0], module(x)[0])
        other.train()
        other(x)
        assert not torch.equal(other.mean, module.mean)
        assert not module.training


def test_functional_call_vmap_and_grad() -> None:
    module: Any = bridge.from_onnx(
        parse("agraph (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", {"w": weights(4, 3)})
    )
    parameters: dict[str, Tensor] = dict(module.named_parameters())

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        outputs: tuple[Tensor, ...] = torch.func.functional_call(module, weights, (x[None],))
        return outputs[0].square().sum()

    x = torch.from_numpy(weights(5, 4))
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)["w"]
    expected = 2 * torch.einsum("ni,nj->nij", x, x @ parameters["w"].detach())
    torch.testing.assert_close(each, expected)


RESHAPED = """agraph (float[N,T,6] x) => (float[N,T,2,3] y) {
    s = Shape(x)
    n = Gather(s, zero)
    t = Gather(s, one)
    n1 = Unsqueeze(n, axes)
    t1 = Unsqueeze(t, axes)
    target = Concat<axis=0>(n1, t1, two, three)
    y = Reshape(x, target)
}"""
SIZES = {
    "zero": np.array(0),
    "one": np.array(1),
    "axes": np.array([0]),
    "two": np.array([2]),
    "three": np.array([3]),
}


def test_shape_arithmetic_is_traced_into_one_graph_for_every_size() -> None:
    module: Any = bridge.from_onnx(parse(RESHAPED, SIZES))
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        forward: Callable[..., Any] = graph.forward
        return forward

    compiled: Any = torch.compile(module, backend=backend, dynamic=True, fullgraph=True)
    for batch, length in ((2, 5), (3, 7)):
        x = torch.from_numpy(weights(batch, length, 6))
        assert torch.equal(compiled(x)[0], x.reshape(batch, length, 2, 3))
    assert len(graphs) == 1


def test_sizes_come_out_as_tensors() -> None:
    module: Any = bridge.from_onnx(parse("agraph (float[N,T] x) => (int64[2] s) { s = Shape(x) }"))
    assert module(torch.zeros(3, 4))[0].tolist() == [3, 4]
    assert module(torch.zeros(3, 4))[0].dtype == torch.int64


def test_what_constants_give_is_computed_once() -> None:
    text = "agraph (float[N,3] x) => (float[N,3] y) { c = Cast<to=1>(order)  d = Neg(c)  y = Mul(x, d) }"
    module: Any = bridge.from_onnx(parse(text, {"order": np.array([1, 2, 3])}))
    assert len(module._program.steps) == 1
    assert module(torch.ones(1, 3))[0].tolist() == [[-1, -2, -3]]


def test_nothing_is_computed_from_weights_beforehand() -> None:
    text = "agraph (float[N,3] x) => (float[N,4] y) { t = Transpose<perm=[1,0]>(w)  y = MatMul(x, t) }"
    module: Any = bridge.from_onnx(parse(text, {"w": weights(4, 3)}), trainable="none")
    with torch.no_grad():
        module.w.zero_()
    assert module(torch.ones(1, 3))[0].tolist() == [[0, 0, 0, 0]]


def test_memory_is_given_back_after_the_last_use() -> None:
    text = "agraph (float[N] x) => (float[N] y) { a = Exp(x)  b = Neg(a)  c = Relu(b)  y = Abs(c) }"
    steps = bridge.from_onnx(parse(text))._program.steps
    assert [step.done for step in steps] == [(step.inputs[0],) for step in steps]


def test_a_run_without_gradients_holds_two_tensors_at_a_time() -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = []

    @bridge.register("Next", domain="memory.test")
    def following(x: Tensor) -> Tensor:
        made = x + 1
        alive.append(weakref.ref(made))
        most.append(sum(one() is not None for one in alive))
        return made

    nodes = " ".join(f"v{place + 1} = memory.test.Next(v{place})" for place in range(20))
    text = f"""<ir_version: 10, opset_import: ["" : 21, "memory.test" : 1]>
    agraph (float[N] v0) => (float[N] v20) {{ {nodes} }}"""
    bridge.from_onnx(parse(text))(torch.ones(3))
    assert max(most) == 2


def test_an_overridable_initializer_is_a_default() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    agraph (float[N,2] x, float[2] w = {1.0, 2.0}) => (float[N,2] y) { y = Mul(x, w) }"""
    module: Any = bridge.from_onnx(parse(text))
    x = torch.ones(1, 2)
    assert module.input_names == ("x",)
    assert module(x)[0].tolist() == [[1, 2]]
    assert module(x, w=torch.tensor([3.0, 4.0]))[0].tolist() == [[3, 4]]


def test_functions_are_looked_into() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,2] x) => (float[N,2] y) { y = local.twice(x) }
    <opset_import: ["" : 21], domain: "local">
    twice (a) => (b) { b = Add(a, a) }"""
    assert bridge.from_onnx(parse(text))(torch.ones(1, 2))[0].tolist() == [[2, 2]]


def test_an_unknown_operator_is_named_with_its_node_and_can_be_taught() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "my.domain" : 1]>
    agraph (float[N,2] x) => (float[N,2] y) { [scaler] y = my.domain.Scale<factor=3.0>(x) }"""
    with pytest.raises(GraphoptError, match=r"node 'scaler' \(my\.domain::Scale\)") as caught:
        bridge.from_onnx(parse(text))
    assert "graphopt.torch.register" in str(caught.value)

    @bridge.register("Scale", domain="my.domain")
    def scale(x: Tensor, *, factor: float = 1.0) -> Tensor:
        return x * factor

    assert bridge.from_onnx(parse(text))(torch.ones(1, 2))[0].tolist() == [[3, 3]]


def test_an_unknown_attribute_is_refused_rather_than_ignored() -> None:
    with pytest.raises(GraphoptError, match="does not know the attribute 'strange'"):
        bridge.from_onnx(parse("agraph (float[N] x) => (float[N] y) { y = Elu<strange=1>(x) }"))


def test_an_error_names_the_node() -> None:
    text = "agraph (float[A] x, float[B] z) => (float[C] y) { [sum] y = Add(x, z) }"
    with pytest.raises(RuntimeError, match="must match") as caught:
        bridge.from_onnx(parse(text))(torch.ones(2), torch.ones(3))
    assert caught.value.__notes__ == ["while executing node 'sum'"]


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_means_what_it_meant_in_its_opset(axis: int) -> None:
    x = weights(2, 3, 4)
    for opset in (11, 13):
        text = f"""<ir_version: 7, opset_import: ["" : {opset}]>
        agraph (float[2,3,4] x) => (float[2,3,4] y) {{ y = Softmax<axis={axis}>(x) }}"""
        model = parse(text)
        np.testing.assert_allclose(
            bridge.from_onnx(model)(torch.from_numpy(x))[0], run(model, {"x": x})[0], rtol=1e-5, atol=1e-6
        )


CONTROL = """agraph (float[2] x, int64 count) => (float[2] total, float[K,2] rows) {
    start = Constant<value_floats=[0.0, 0.0]>()
    yes = Constant<value=bool {1}>()
    total, rows = Loop(count, yes, start) <body = inner (int64 i, bool going, float[2] carried) =>
        (bool more, float[2] next, float[2] row) {
        more = Identity(going)
        scaled = Mul(x, w)
        next = Add(carried, scaled)
        row = Neg(next)
    }>
}"""


def test_a_loop_captures_weights_that_get_gradients() -> None:
    model = parse(CONTROL, {"w": weights(2)})
    module: Any = bridge.from_onnx(model)
    x = weights(2)
    outputs = module(torch.from_numpy(x), torch.tensor(3))
    for one, other in zip(run(model, {"x": x, "count": np.array(3)}), outputs, strict=True):
        np.testing.assert_allclose(other.detach(), one, rtol=1e-6)
    outputs[0].sum().backward()
    torch.testing.assert_close(module.w.grad, 3 * torch.from_numpy(x))


def test_if_takes_one_branch_with_a_weight_of_its_own() -> None:
    text = """agraph (float[2] x, bool which) => (float[2] y) {
        y = If(which) <
            then_branch = one () => (float[2] a) { w = Constant<value_floats=[2.0, 3.0]>()  a = Mul(x, w) },
            else_branch = two () => (float[2] b) { b = Neg(x) }
        >
    }"""
    model = parse(text)
    module: Any = bridge.from_onnx(model)
    x = torch.ones(2)
    assert module(x, torch.tensor(True))[0].tolist() == [2, 3]
    assert module(x, torch.tensor(False))[0].tolist() == [-1, -1]
    assert [module.names[name] for name, _ in module.named_parameters()] == ["w"]
    with torch.no_grad():
        module.get_parameter(next(iter(module.names))).fill_(5)
    assert run(bridge.to_onnx(module, model), {"x": x.numpy(), "which": np.array(True)})[0].tolist() == [5, 5]
