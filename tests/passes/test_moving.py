"""What moves elements is computed as ONNX Runtime computes it, or not at all."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from equivalence import backend, cases
from graphopt_passes import _evaluation, _moving
from harness import parse

from graphopt.errors import ModelError
from graphopt.pipeline.base import Context

SAME_KINDS = {
    "Cast", "Concat", "ConstantOfShape", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze",
    "Transpose", "Unsqueeze",
}  # fmt: skip


def both(text: str, weights: dict[str, Any]) -> tuple[list[Any] | None, list[Any] | None]:
    """Without ONNX Runtime, and with it; ``None`` where it is refused."""
    model = parse(text, weights)
    context = Context(model)
    nodes, wanted = list(model.graph), list(model.graph.outputs)
    moved = _moving.move(nodes, wanted, model.opset_imports[""], context)
    try:
        ran = _evaluation.evaluate(nodes, wanted, model.opset_imports, context)
    except ModelError:
        ran = None
    return tuple(None if one is None else [each.numpy() for each in one] for one in (moved, ran))  # type: ignore[return-value]


def check(text: str, weights: dict[str, Any]) -> bool:
    """Asserts that nothing else comes out than from ONNX Runtime; whether anything does."""
    moved, ran = both(text, weights)
    if moved is None:
        return False
    assert ran is not None
    for one, other in zip(moved, ran, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    return True


def test_slices_of_all_kinds() -> None:
    text = "agraph () => (int64[A] y) { y = Slice (x, s, e, d, k) }"
    bounds = [-9, -4, -1, 0, 2, 5, 2**31 - 1, 2**63 - 1, -(2**63)]
    done = [
        check(text, {"x": np.arange(4), **{n: np.array([v]) for n, v in zip("sedk", (s, e, 0, k), strict=True)}})
        for s, e, k in itertools.product(bounds, bounds, (-2, -1, 1, 2))
    ]
    assert sum(done) > len(done) // 2


@pytest.mark.parametrize("target", [[6], [-1], [0, -1], [0, 3], [3, 0], [2, -1, 1], [-1, 0], [4], [-1, -1], [0, 0, 1]])
@pytest.mark.parametrize("allowzero", [0, 1])
def test_reshapes(target: list[int], allowzero: int) -> None:
    text = f"agraph () => (float[A] y) {{ y = Reshape <allowzero = {allowzero}> (x, t) }}"
    weights = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "t": np.array(target)}
    done = check(text, weights)
    assert done or both(text, weights)[1] is None or 0 in target


@pytest.mark.parametrize("wanted", [1, 6, 7, 9, 10, 11])
@pytest.mark.parametrize("kind", [np.bool_, np.int32, np.int64, np.uint8, np.float32])
def test_casts(wanted: int, kind: Any) -> None:
    check(f"agraph () => (int64[A] y) {{ y = Cast <to = {wanted}> (x) }}", {"x": np.array([0, 1, 100]).astype(kind)})


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = Gather <axis = 1> (x, i)", {"i": np.array([[0, -1]])}),
        ("y = Gather (x, i)", {"i": np.array(1)}),
        ("y = Transpose (x)", {}),
        ("y = Transpose <perm = [1, 0]> (x)", {}),
        ("y = Concat <axis = -1> (x, x)", {}),
        ("a = Unsqueeze (x, i) y = Squeeze (a)", {"i": np.array([-1, 0])}),
        ("a = Unsqueeze (x, i) y = Squeeze (a, i)", {"i": np.array([-2])}),
        ("y = Flatten <axis = -1> (x)", {}),
        ("y = Flatten <axis = 0> (x)", {}),
        ("y = Expand (x, i)", {"i": np.array([4, 1, 3])}),
        ("y = ConstantOfShape (i)", {"i": np.array([2, 0])}),
        ("y = ConstantOfShape <value = int32[1] {7}> (i)", {"i": np.array([], np.int64)}),
        ("s = Slice (x, i, j) y = Identity (s)", {"i": np.array([0, 1]), "j": np.array([1, 9])}),
    ],
)
def test_the_others(body: str, weights: dict[str, Any]) -> None:
    x = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)} if "x" in body else {}
    assert check(f"agraph () => (float[A] y) {{ {body} }}", x | weights)


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = Add (x, x)", {}),
        ("y = Gather (x, i)", {"i": np.array(9)}),
        ("y = Cast <to = 6> (x)", {}),
        ("y = Slice (x, i, j)", {"i": np.array([0, 0, 0]), "j": np.array([1, 1, 1])}),
    ],
)
def test_what_is_left_to_onnx_runtime(body: str, weights: dict[str, Any]) -> None:
    x = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    assert both(f"agraph () => (float[A] y) {{ {body} }}", x | weights)[0] is None


@pytest.mark.slow
def test_node_cases_with_constants() -> None:
    chosen = [case for case in cases.collect() if {node.op_type for node in case.model.graph.node} & SAME_KINDS]
    verdicts = [backend.judge(case, "all-constant", ["fold-constants"]) for case in chosen]
    assert not [line for one in verdicts for line in one.failures]
    assert sum(one.changed for one in verdicts) > 60
