"""A damaged model comes closer to its original, without labels, and never ends farther away."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import parse, run

from graphopt.errors import UsageError
from graphopt.torch.polish import polish

RANDOM = np.random.default_rng(0)


def network(width: int = 16, *, seed: int = 0, batch: str = "N") -> ir.Model:
    random = np.random.default_rng(seed)
    text = f"""agraph (float[{batch},8] x) => (float[{batch},4] y) {{
        h = Gemm<transB=1>(x, w, b)
        r = Relu(h)
        y = Gemm<transB=1>(r, v, c)
    }}"""
    shapes = {"w": (width, 8), "b": (width,), "v": (4, width), "c": (4,)}
    return parse(text, {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})


def narrowed(model: ir.Model, width: int) -> ir.Model:
    """The first hidden units of a network, as after pruning without care."""
    small = network(width)
    for name, value in small.graph.initializers.items():
        array = model.graph.initializers[name].const_value.numpy()  # type: ignore[union-attr]
        cut = array[:width] if name in ("w", "b") else array[:, :width] if name == "v" else array
        value.const_value = ir.tensor(np.ascontiguousarray(cut))
    return small


def data(count: int = 512, size: int = 64) -> list[dict[str, Any]]:
    x = np.random.default_rng(1).standard_normal((count, 8)).astype(np.float32)
    return [{"x": x[at : at + size]} for at in range(0, count, size)]


def error(model: ir.Model, other: ir.Model) -> float:
    """Divergence of the classes on inputs that nobody has seen."""
    x = {"x": np.random.default_rng(2).standard_normal((500, 8)).astype(np.float32)}
    one, two = (_softmax(run(each, x)[0]) for each in (model, other))
    return float((one * (np.log(one) - np.log(two))).sum(1).mean())


def _softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    made = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(made / made.sum(1, keepdims=True))


def test_it_comes_closer() -> None:
    original = network()
    pruned = narrowed(original, 12)
    polished = polish(pruned, original, data(), epochs=30, learning_rate=1e-2)
    assert error(original, polished) < 0.3 * error(original, pruned)
    assert [node.op_type for node in polished.graph] == [node.op_type for node in pruned.graph]
    assert error(original, pruned) > 0.05, "it was changed in place"


def test_the_same_seed_gives_the_same_bytes() -> None:
    original = network()
    pruned = narrowed(original, 12)
    results = [polish(pruned, original, data(), epochs=3, seed=seed, threads=1) for seed in (0, 0, 1)]
    first, again, other = ([v.const_value.numpy() for v in one.graph.initializers.values()] for one in results)  # type: ignore[union-attr]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_what_cannot_improve_comes_back_as_it_is() -> None:
    original = network()
    assert polish(original, original, data(), epochs=2) is original


def test_a_limit_in_seconds_ends_it() -> None:
    shares: list[float | None] = []
    original = network()
    polish(
        narrowed(original, 12), original, data(), epochs=100_000, seconds=0.5,
        progress=lambda step, share: shares.append(share),
    )  # fmt: skip
    assert shares[-1] == 1.0
    assert len(shares) < 2000


def test_a_fixed_batch_is_taken_as_it_is() -> None:
    original, pruned = network(batch="64"), narrowed(network(batch="64"), 12)
    for model in (original, pruned):
        for value in (*model.graph.inputs, *model.graph.outputs):
            value.shape = ir.Shape([64, *list(value.shape)[1:]])  # type: ignore[arg-type]
    polished = polish(pruned, original, data(), epochs=30, learning_rate=1e-2)
    x = data()[0]
    assert (
        np.abs(run(polished, x)[0] - run(original, x)[0]).mean()
        < np.abs(run(pruned, x)[0] - run(original, x)[0]).mean()
    )


def test_values_are_learned_by_their_squared_error() -> None:
    text = "agraph (float[N,5,3] x) => (float[N,5,2] y) { y = MatMul(x, w) }"
    original = parse(text, {"w": RANDOM.standard_normal((3, 2)).astype(np.float32)})
    damaged = parse(text, {"w": RANDOM.standard_normal((3, 2)).astype(np.float32)})
    batches = [{"x": RANDOM.standard_normal((32, 5, 3)).astype(np.float32)} for _ in range(8)]
    polished = polish(damaged, original, batches, epochs=60, learning_rate=0.1)
    w = [model.graph.initializers["w"].const_value.numpy() for model in (original, polished)]  # type: ignore[union-attr]
    np.testing.assert_allclose(w[0], w[1], atol=0.05)


@pytest.mark.parametrize("batches", [[{"x": np.zeros((1, 8), np.float32)}]])
def test_too_little_data_is_told(batches: Any) -> None:
    with pytest.raises(UsageError, match="too little"):
        polish(network(), network(seed=1), batches)
