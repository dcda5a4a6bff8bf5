"""What is refitted computes what the original computed, as far as it can."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import parse, run

import graphopt
from graphopt.channels.slicing import carve
from graphopt.channels.workpiece import Workpiece
from graphopt.pruning.reconstruction import Refit, reconstruct

Array = npt.NDArray[Any]


def _random(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    return (scale * np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(np.float32)


def _pruned(model: ir.Model, group: str, places: list[int], x: Array) -> tuple[ir.Model, ir.Model, list[Refit]]:
    """Without units of a group: as it is, and refitted."""
    graph = graphopt.channels.analyze(model)
    (found,) = [one for one in graph.groups if one.name == group]
    gone = graph.gone([found.units[place] for place in places])
    results = []
    refits: list[Refit] = []
    for fit in (False, True):
        workpiece = Workpiece(model)
        carve(graph, gone, workpiece)
        workpiece.remove_orphans()
        if fit:
            refits = reconstruct(graph, gone, workpiece, [{"x": part} for part in np.array_split(x, 4)])
        results.append(workpiece.model)
    return results[0], results[1], refits


def _error(original: ir.Model, other: ir.Model, x: Array) -> float:
    wanted, got = (np.asarray(run(one, {"x": x})[0], np.float64) for one in (original, other))
    return float(np.square(got - wanted).sum() / np.square(wanted - wanted.mean(0)).sum())


# In each, channel 1 of the first layer is twice channel 0 (plus a constant), so that nothing is lost without it.
_LAYERS = {
    "gemm": ("float[N,6]", "[two] y = Gemm (b, w2, c2)", (6, 5), (5, 3), (5,)),
    "gemm without a bias": ("float[N,6]", "[two] y = Gemm (b, w2)", (6, 5), (5, 3), (5,)),
    "gemm scaled": ("float[N,6]", "[two] y = Gemm <alpha=0.5, beta=2.0> (b, w2, c2)", (6, 5), (5, 3), (5,)),
    "gemm transposed": ("float[N,6]", "[two] y = Gemm <transB=1> (b, w2, c2)", (6, 5), (3, 5), (5,)),
    "matmul and add": ("float[N,4,6]", "m = MatMul (b, w2) y = Add (m, c2)", (6, 5), (5, 3), (5,)),
}


@pytest.mark.parametrize("name", _LAYERS)
def test_a_channel_that_another_stands_in_for_is_made_up_for(name: str) -> None:
    kind, second, first_shape, second_shape, bias = _LAYERS[name]
    first = "a = MatMul (x, w1)" if "matmul" in name else "[one] a = Gemm (x, w1)"
    rank = 3 if "matmul" in name else 2
    text = f"agraph ({kind} x) => (float y) {{ {first.replace('a =', '[one] a =') if rank == 3 else first} "
    text += f"b = Add (a, c1) {second} }}"
    w1 = _random(*first_shape)
    w1[:, 1] = 2 * w1[:, 0]
    held = {"w1": w1, "c1": _random(*bias, seed=1), "w2": _random(*second_shape, seed=2), "c2": _random(3, seed=3)}
    model = parse(text, {key: array for key, array in held.items() if key in text})
    x = _random(64, *([4] if rank == 3 else []), 6, seed=4)
    raw, fitted, refits = _pruned(model, "one", [1], x)
    assert _error(model, raw, x) > 0.05
    assert _error(model, fitted, x) < 1e-4
    assert [one.layer for one in refits] == ["two" if rank == 2 else refits[0].layer]
    assert refits[0].after < refits[0].before


_CONVOLUTIONS = {
    "conv": ("Conv <pads=[1,1,1,1]> (b, w2, c2)", (3, 6, 3, 3), 3),
    "conv without a bias": ("Conv <pads=[1,1,1,1], strides=[2,2]> (b, w2)", (3, 6, 3, 3), 3),
    "grouped": ("Conv <group=2> (b, w2, c2)", (4, 3, 3, 3), 4),
    "transposed": ("ConvTranspose <strides=[2,2]> (b, w2, c2)", (6, 3, 3, 3), 3),
}


@pytest.mark.parametrize("name", _CONVOLUTIONS)
def test_convolutions_make_up_for_a_channel_padding_and_all(name: str) -> None:
    second, shape, outputs = _CONVOLUTIONS[name]
    text = f"agraph (float[N,2,8,8] x) => (float y) {{ [one] a = Conv (x, w1, c1) b = Relu (a) [two] y = {second} }}"
    w1, c1 = _random(6, 2, 1, 1), _random(6, seed=1)
    removed = [1, 4] if name == "grouped" else [1]  # the same place of each group goes
    for place in removed:
        w1[place], c1[place] = 2 * w1[place - 1], 2 * c1[place - 1]
    held = {"w1": w1, "c1": c1, "w2": _random(*shape, seed=2), "c2": _random(outputs, seed=3)}
    model = parse(text, {key: array for key, array in held.items() if key in text})
    x = _random(32, 2, 8, 8, seed=4)
    raw, fitted, _ = _pruned(model, "one", removed if name != "grouped" else [1], x)
    assert _error(model, raw, x) > 0.02
    assert _error(model, fitted, x) < 1e-4


def test_a_depthwise_layer_after_another_refit_is_refitted_too() -> None:
    text = """agraph (float[N,2,8,8] x) => (float y) {
        [one] a = Conv (x, w1) b = Relu (a) [two] c = Conv (b, w2)
        [deep] d = Conv <group=4> (c, w3) [three] y = Conv (d, w4)
    }"""
    held = {"w1": _random(6, 2, 1, 1), "w2": _random(4, 6, 1, 1), "w3": _random(4, 1, 3, 3), "w4": _random(2, 4, 1, 1)}
    model, x = parse(text, held), _random(32, 2, 8, 8, seed=4)
    raw, fitted, refits = _pruned(model, "one", [0, 1], x)
    assert [one.layer for one in refits] == ["two", "deep", "three"]
    assert _error(model, fitted, x) < 0.5 * _error(model, raw, x)


def test_a_branch_makes_up_for_what_its_shortcut_lost() -> None:
    text = """agraph (float[N,6] x) => (float y) {
        [one] a = Gemm (x, w1) b = Relu (a) [two] c = Gemm (b, w2)
        [three] d = Gemm (x, w3) [four] e = Gemm (b, w4) s = Add (c, e) f = Add (s, d) y = Relu (f)
    }"""
    held = {"w1": _random(6, 8), "w2": _random(8, 5), "w3": _random(6, 5), "w4": _random(8, 5, seed=1)}
    model, x = parse(text, held), _random(400, 6, seed=4)
    raw, fitted, refits = _pruned(model, "one", [0, 1], x)
    assert [one.layer for one in refits] == ["two", "four"]
    assert _error(model, fitted, x) < 0.5 * _error(model, raw, x)


def test_layers_that_nothing_changed_for_keep_their_weights() -> None:
    text = """agraph (float[N,6] x) => (float y, float z) {
        [one] a = Gemm (x, w1) b = Relu (a) [two] y = Gemm (b, w2)
        [apart] p = Gemm (x, w3) q = Relu (p) [other] z = Gemm (q, w4)
    }"""
    held = {"w1": _random(6, 8), "w2": _random(8, 5), "w3": _random(6, 16), "w4": _random(16, 5)}
    model, x = parse(text, held), _random(64, 6, seed=4)
    _, fitted, refits = _pruned(model, "one", [0], x)
    assert [one.layer for one in refits] == ["two"]
    for name in ("w3", "w4"):
        tensor = fitted.graph.initializers[name].const_value
        assert tensor is not None
        assert np.array_equal(tensor.numpy(), held[name])


def test_a_shared_weight_stays_shared_with_those_it_is_not_refitted_for() -> None:
    text = """agraph (float[N,6] x) => (float y, float z) {
        [one] a = Gemm (x, w1) b = Relu (a) [two] c = Gemm (b, w2) d = Relu (c) [three] y = Gemm (d, w3)
        e = Relu (x) [apart] z = Gemm (e, w3)
    }"""
    held = {"w1": _random(6, 8), "w2": _random(8, 6), "w3": _random(6, 3)}
    model, x = parse(text, held), _random(64, 6, seed=4)
    _, fitted, _ = _pruned(model, "one", [0, 1], x)
    assert np.array_equal(run(model, {"x": x})[1], run(fitted, {"x": x})[1])


def test_half_precision_models_are_refitted() -> None:
    text = "agraph (float16[N,6] x) => (float16[N,3] y) { [one] a = Gemm (x, w1) b = Relu (a) [two] y = Gemm (b, w2) }"
    w1 = _random(6, 5)
    w1[:, 1] = 2 * w1[:, 0]
    model = parse(text, {"w1": w1.astype("f2"), "w2": _random(5, 3).astype("f2")})
    x = _random(64, 6, seed=4).astype("f2")
    raw, fitted, _ = _pruned(model, "one", [1], x)
    assert _error(model, fitted, x) < 1e-3 < _error(model, raw, x)


def test_few_samples_do_no_harm() -> None:
    text = "agraph (float[N,6] x) => (float[N,3] y) { [one] a = Gemm (x, w1) b = Relu (a) [two] y = Gemm (b, w2) }"
    model = parse(text, {"w1": _random(6, 40), "w2": _random(40, 3)})
    x = _random(10, 6, seed=4)
    fresh = _random(500, 6, seed=5)
    raw, fitted, _ = _pruned(model, "one", list(range(10)), x)
    assert _error(model, fitted, fresh) <= 1.2 * _error(model, raw, fresh)


def test_it_is_the_same_every_time() -> None:
    text = """agraph (float[N,2,8,8] x) => (float y) {
        [one] a = Conv (x, w1) b = Relu (a) [two] y = Conv (b, w2)
    }"""
    model = parse(text, {"w1": _random(6, 2, 3, 3), "w2": _random(4, 6, 3, 3)})
    x = _random(300, 2, 8, 8, seed=4)
    first, second = (_pruned(model, "one", [0, 2], x)[1] for _ in range(2))
    for name, value in first.graph.initializers.items():
        again = second.graph.initializers[name].const_value
        assert value.const_value is not None
        assert again is not None
        assert np.array_equal(value.const_value.numpy(), again.numpy())


_SHARED = """agraph (float[N,6] x, float[N,6] v) => (float y, float z) {
    [one] a = Gemm (x, w1, c1) b = Relu (a) [two] y = Gemm (b, w2, c2)
    [uno] p = Gemm (v, w1, c1) q = Relu (p) [due] z = Gemm (q, w2, c2)
}"""


def test_layers_of_one_weight_get_one_fit() -> None:
    w1, c1 = _random(6, 8), _random(8)
    w1[:, 1], c1[1] = 2 * w1[:, 0], 2 * c1[0]
    model = parse(_SHARED, {"w1": w1, "c1": c1, "w2": _random(8, 5), "c2": _random(5)})
    graph = graphopt.channels.analyze(model)
    gone = graph.gone([graph.groups[0].units[1]])
    workpiece = Workpiece(model)
    carve(graph, gone, workpiece)
    workpiece.remove_orphans()
    raw = workpiece.model.clone()
    batches = [{"x": _random(40, 6, seed=seed), "v": _random(40, 6, seed=seed + 9)} for seed in range(5)]
    refits = reconstruct(graph, gone, workpiece, batches)
    fitted = workpiece.model
    assert [one.layer for one in refits] == ["two", "due"]
    assert sorted(fitted.graph.initializers) == ["c1", "c2", "w1", "w2"]
    feeds = {"x": _random(50, 6, seed=90), "v": _random(50, 6, seed=91)}
    for wanted, cut, got in zip(*(run(one, feeds) for one in (model, raw, fitted)), strict=True):
        assert np.square(got - wanted).mean() < 1e-3 * np.square(cut - wanted).mean()


def test_a_weight_that_another_kind_of_layer_reads_stays_tied() -> None:
    text = "agraph (float[N,6] x) => (float y) { [one] a = Gemm (x, w1, c1) b = Relu (a) y = Gemm <transB=1> (b, w1) }"
    model = parse(text, {"w1": _random(6, 8), "c1": _random(8)})
    x = _random(64, 6, seed=4)
    raw, fitted, _ = _pruned(model, "one", [0, 1], x)
    assert "w1" in fitted.graph.initializers
    assert (
        sum(value.const_value.size for value in fitted.graph.initializers.values() if value.const_value) == 36 + 6 + 6
    )
    assert _error(model, fitted, x) < _error(model, raw, x)  # by the bias


@pytest.mark.parametrize("shape", [(6, 3), (6, 1), (3, 1)])
def test_what_is_added_row_by_row_is_no_bias(shape: tuple[int, int]) -> None:
    rows = shape[0]
    text = (
        f"agraph (float[{rows},6] x) => (float y) {{ [one] a = Gemm (x, w1) b = Relu (a) [two] y = Gemm (b, w2, c2) }}"
    )
    added = 10 * _random(*shape)
    model = parse(text, {"w1": _random(6, 8), "w2": _random(8, 3), "c2": added})
    raw, fitted, refits = _pruned(model, "one", [0], _random(4 * rows, 6, seed=4))
    assert not refits
    x = _random(rows, 6, seed=5)
    assert np.array_equal(run(raw, {"x": x})[0], run(fitted, {"x": x})[0])


@pytest.mark.parametrize("attribute", ["beta=0.0", "alpha=0.0"])
def test_gemms_that_leave_something_out(attribute: str) -> None:
    text = "agraph (float[N,6] x) => (float y) { [one] a = Gemm (x, w1) b = Relu (a) [two] y = Gemm <@> (b, w2, c2) }"
    model = parse(text.replace("@", attribute), {"w1": _random(6, 8), "w2": _random(8, 3), "c2": _random(3)})
    x = _random(64, 6, seed=4)
    raw, fitted, _ = _pruned(model, "one", [0], x)
    wanted, cut, got = (run(one, {"x": x})[0] for one in (model, raw, fitted))
    assert np.isfinite(got).all()
    assert np.square(got - wanted).sum() <= np.square(cut - wanted).sum()


def test_tokens_may_go_as_well_as_channels() -> None:
    text = """agraph (float[N,6,4] x) => (float y) {
        t = Transpose <perm=[0,2,1]> (x) [tokens] a = MatMul (t, w1) b = Relu (a)
        u = Transpose <perm=[0,2,1]> (b) [channels] c = MatMul (u, w2) d = Relu (c) [out] e = MatMul (d, w3)
        v = Transpose <perm=[0,2,1]> (e) [last] y = MatMul (v, w4)
    }"""
    held = {"w1": _random(6, 8), "w2": _random(4, 7), "w3": _random(7, 5), "w4": _random(8, 3)}
    model, x = parse(text, held), _random(64, 6, 4, seed=4)
    graph = graphopt.channels.analyze(model)
    gone = graph.gone([group.units[place] for group in graph.groups for place in (0, 1)])
    workpiece = Workpiece(model)
    carve(graph, gone, workpiece)
    workpiece.remove_orphans()
    raw = workpiece.model.clone()
    refits = reconstruct(graph, gone, workpiece, [{"x": part} for part in np.array_split(x, 4)])
    assert {"out", "last"} <= {one.layer for one in refits}
    assert _error(model, workpiece.model, x) < 0.8 * _error(model, raw, x)


def test_numbers_that_overflow_leave_the_weights_alone() -> None:
    text = "agraph (double[N,6] x) => (double y) { [one] a = Gemm (x, w1) b = Relu (a) [two] y = Gemm (b, w2) }"
    model = parse(text, {"w1": 1e100 * _random(6, 8).astype("f8"), "w2": 1e-100 * _random(8, 3).astype("f8")})
    x = _random(64, 6, seed=4).astype("f8")
    raw, fitted, refits = _pruned(model, "one", [0], x)
    assert [one.rows for one in refits] == [0]
    assert np.array_equal(run(raw, {"x": x})[0], run(fitted, {"x": x})[0])


def test_constant_nodes_that_a_fit_replaces_go() -> None:
    text = """agraph (float[N,6] x) => (float y) {
        [one] a = Gemm (x, w1) b = Relu (a)
        c = Constant <value = float[3] {1, 2, 3}> () [two] y = Gemm (b, w2, c)
    }"""
    model = parse(text, {"w1": _random(6, 8), "w2": _random(8, 3)})
    _, fitted, (refit,) = _pruned(model, "one", [0], _random(64, 6, seed=4))
    assert refit.rows
    assert [node.op_type for node in fitted.graph] == ["Gemm", "Relu", "Gemm"]
