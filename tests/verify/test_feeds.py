"""Feeds are made from the model alone: types, shapes that agree, integers that index, constants it asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import parse

from graphopt import io, runtime
from graphopt.errors import ModelError, UsageError
from graphopt.verify import dims, feeds, fill, values
from graphopt.verify.feeds import Plan
from graphopt.verify.search import Attempt, Search

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))
SHARED = sorted((Path(__file__).parents[3] / "shared" / "models").glob("*.onnx"))


def _runner(model: ir.Model | Path, ran: list[dict[str, Any]]) -> Callable[[feeds.Feeds, bool], Attempt]:
    session = runtime.open_session(model, optimization="off")

    def attempt(made: feeds.Feeds, replace: bool) -> Attempt:
        try:
            session.run(None, made)
        except runtime.ort_errors() as error:
            return Attempt(runtime.trim(error))
        ran.append(made)
        return Attempt()

    return attempt


@pytest.mark.parametrize("path", [*MODELS, *SHARED], ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_real_models_run_on_generated_feeds(path: Path) -> None:
    plan = Plan.of(io.load(path))
    ran: list[dict[str, Any]] = []
    assert Search(plan, _runner(path, ran), seed=0).run(samples=2)
    assert len(ran) >= 2
    # The second sample of silero_vad takes the other branch, by other rules.
    if plan.open_dims.free and path.stem != "silero_vad":
        assert any(np.shape(ran[0][name]) != np.shape(ran[1][name]) for name in ran[0])


@pytest.mark.skipif(not SHARED, reason="the shared models are not here")
def test_all_shared_models_are_tried() -> None:
    assert len(SHARED) == 15


def _first(text: str, **options: Any) -> dict[str, Any]:
    return feeds.generate(parse(text), **options)[0]


@pytest.mark.parametrize(
    "dtype",
    [
        "float", "double", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
        "uint64", "bool", "string", "float8e4m3fn", "float8e5m2", "int4", "uint4",
    ],
)  # fmt: skip
def test_every_type(dtype: str) -> None:
    model = parse(f"agraph ({dtype}[3,N] x) => ({dtype}[3,N] y) {{ y = Identity(x) }}")
    made = feeds.generate(model)[0]["x"]
    expected = model.graph.inputs[0].dtype
    assert expected is not None
    assert made.dtype == expected.numpy()
    assert made.shape[0] == 3


def test_seeded_and_distinct() -> None:
    model = parse("agraph (float[8] x, float[8] z) => (float[8] y) { y = Add(x, z) }")
    first, second = feeds.generate(model, seed=3, samples=2)
    again = feeds.generate(model, seed=3)[0]
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], second["x"])
    assert not np.array_equal(first["x"], first["z"])


def test_symbols_agree_across_inputs() -> None:
    made = _first("agraph (float[batch,seq] x, float[batch,seq] z, float[seq] w) => (float[N] y) { y = Add(x, z) }")
    assert made["x"].shape == made["z"].shape
    assert made["w"].shape == made["x"].shape[1:]


def test_given_shapes_bind_their_symbols() -> None:
    text = "agraph (float[batch,seq] x, float[seq] w) => (float[N] y) { y = Add(x, w) }"
    made = _first(text, shapes={"x": [4, 11]})
    assert made["x"].shape == (4, 11)
    assert made["w"].shape == (11,)


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ({"q": [1]}, "no input 'q'"),
        ({"x": [1]}, "2 dimensions"),
        ({"x": [2, 3]}, "fixed dimension of 4"),
        ({"x": [-1, 4]}, "not negative"),
        ({"x": [2, 4], "w": [3]}, "both 2 and 3"),
    ],
)
def test_shapes_that_contradict_the_model(shapes: dict[str, list[int]], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        _first("agraph (float[N,4] x, float[N] w) => (float[M] y) { y = Identity(x) }", shapes=shapes)


def test_expressions_of_symbols() -> None:
    model = parse("agraph (float[past] p, int64[seq] s, float[total] t) => (float[M] y) { y = Identity(p) }")
    model.graph.inputs[2].shape = ir.Shape(["past + seq"])
    plan = Plan.of(model)
    for guess in plan.guesses():
        made = plan.fill(guess, 0)
        assert made is not None
        assert made["t"].size == made["p"].size + made["s"].size


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ("y = Gather(w, i)", 7),
        ("y = Gather<axis = 1>(w, i)", 3),
        ("c = Cast<to = 7>(i) y = Gather(w, c)", 7),
        ("k = Constant<value_int = 4>() j = Add(i, k) y = Gather(w, j)", 3),
        ("j = Unsqueeze(i, zero) y = GatherND(w, j)", 7),
        ("d = Identity(i) e = Reshape(d, minus) y = Gather(w, e) ", 7),
        ("y = GatherElements(w, i)", 7),
    ],
)
def test_indices_stay_inside(body: str, limit: int) -> None:
    model = parse(
        f"agraph (int64[200,1] i) => (float[M] y) {{ {body} }}",
        {"w": np.zeros((7, 3), np.float32), "zero": np.array([0]), "minus": np.array([-1])},
    )
    made = feeds.generate(model)[0]["i"]
    assert made.min() == 0
    assert made.max() == limit - 1


def test_float_inputs_that_become_indices() -> None:
    model = parse(
        "agraph (float[300] i) => (float[M,3] y) { j = Cast<to = 6>(i) y = Gather(w, j) }",
        {"w": np.zeros((7, 3), np.float32)},
    )
    made = feeds.generate(model)[0]["i"]
    assert set(made.tolist()) == set(range(7))


def test_indices_into_another_input_follow_its_size() -> None:
    text = "agraph (float[atoms,2] p, int64[edges] i) => (float[M,2] y) { y = Gather(p, i) }"
    made = _first(text, shapes={"p": [5, 2], "i": [300]})
    assert made["i"].max() == 4


def test_indices_used_in_a_subgraph_and_a_function() -> None:
    weights = {"w": np.zeros((7, 3), np.float32)}
    branch = parse(
        """agraph (int64[300] i, bool c) => (float[M,3] y) {
            y = If (c) <then_branch = t () => (float[M,3] a) { a = Gather(w, i) },
                        else_branch = e () => (float[M,3] b) { b = Gather(w, i) }> }""",
        weights,
    )
    assert feeds.generate(branch)[0]["i"].max() == 6
    returned = parse(
        """agraph (int64[300] i, bool c) => (float[M,3] y) {
            j = If (c) <then_branch = t () => (int64[300] a) { a = Identity(i) },
                        else_branch = e () => (int64[300] b) { b = Abs(i) }>
            y = Gather(w, j) }""",
        weights,
    )
    assert feeds.generate(returned)[0]["i"].max() == 6
    call = parse(
        """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        agraph (int64[300] i) => (float[M,3] y) { y = local.f(w, i) }
        <domain: "local", opset_import: ["" : 21]>
        f (data, at) => (q) { same = Identity(at) q = Gather(data, same) }""",
        weights,
    )
    plan = Plan.of(call)
    assert plan.inputs[0].uses.is_index


def test_what_the_graph_compares_with_is_fed() -> None:
    model = parse(
        """agraph (int64 rate, float[4] x) => (float[4] y) {
            k = Constant<value_int = 16000>()
            c = Equal(rate, k)
            y = If (c) <then_branch = t () => (float[4] a) { a = Neg(x) },
                        else_branch = e () => (float[4] b) { b = Abs(x) }> }"""
    )
    plan = Plan.of(model)
    rates = [made["rate"].item() for guess in plan.guesses() if (made := plan.fill(guess, 0)) is not None]
    assert rates[0] == 16000
    assert set(rates) == {16000, 8000}
    ran: list[dict[str, Any]] = []
    assert Search(plan, _runner(model, ran), seed=0).run(samples=2)
    assert {made["rate"].item() for made in ran} == {16000, 8000}, "both branches"


def test_both_sides_of_a_condition_are_taken() -> None:
    model = parse(
        """agraph (bool c, float[4] x) => (float[4] y) {
            y = If (c) <then_branch = t () => (float[4] a) { a = Neg(x) },
                        else_branch = e () => (float[4] b) { b = Abs(x) }> }"""
    )
    ran: list[dict[str, Any]] = []
    assert Search(Plan.of(model), _runner(model, ran), seed=0).run(samples=2)
    assert [made["c"].item() for made in ran] == [True, False]


def test_masks_are_ones_then_mixed() -> None:
    model = parse("agraph (int64[3,50] attention_mask) => (int64[3,50] y) { y = Identity(attention_mask) }")
    ran: list[dict[str, Any]] = []
    assert Search(Plan.of(model), _runner(model, ran), seed=0).run(samples=2)
    assert set(np.unique(ran[0]["attention_mask"])) == {1}
    assert set(np.unique(ran[1]["attention_mask"])) == {0, 1}


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("agraph (float[2,3,4] x, int64[2] s) => (float[A,B] y) { y = Reshape(x, s) }", 2),
        ("agraph (float[2,3] x, int64[2] s) => (float[A,B] y) { y = Expand(x, s) }", 2),
        ("agraph (float[2,3] x, int64[2] s) => (float[A,B] y) { y = Tile(x, s) }", 2),
        ("agraph (int64[2] s) => (float[A,B] y) { y = ConstantOfShape(s) }", 1),
        ("agraph (float[8,3] x, int64[1] s, int64[1] e, int64[1] a) => (float[A,B] y) { y = Slice(x, s, e, a) }", 4),
        ("agraph (float[8,3] x, int64[2] s) => (float[A,3] y, float[B,3] z) { y, z = Split(x, s) }", 2),
        ("agraph (float[8,9] x, int64[1] k) => (float[8,K] y, int64[8,K] i) { y, i = TopK(x, k) }", 2),
        ("agraph (float[2,3] x, int64[1] a) => (float[A,B,C] y) { y = Unsqueeze(x, a) }", 2),
        ("agraph (float[2,3] x, int64[1] a) => (float[A,B] y) { y = ReduceSum(x, a) }", 2),
        ("agraph (float[2,3] x, int64[4] p) => (float[A,B] y) { y = Pad(x, p) }", 2),
        ("agraph (int64 s, int64 l, int64 d) => (int64[A] y) { y = Range(s, l, d) }", 3),
        ("agraph (int64[5] x, int64[5] d) => (int64[5] y) { y = Div(x, d) }", 2),
        ("agraph (int64[5] x, int64 d, float[2] v) => (float[5,D] y) { y = OneHot(x, d, v) }", 3),
        ("agraph (float[1,3,4,4] x, float[4] s) => (float[A,B,C,D] y) { y = Resize<mode = \"linear\">(x, , s) }", 2),
        ("agraph (float[1,3,4,4] x, int64[4] s) => (float[A,B,C,D] y) { y = Resize<mode = \"cubic\">(x, , , s) }", 2),
        ("agraph (seq(float[N]) s) => (float[M] y) { y = ConcatFromSequence<axis = 0>(s) }", 1),
        ("agraph () => (float[2] y) { y = Constant<value_floats = [1.0, 2.0]>() }", 0),
    ],
)  # fmt: skip
def test_sizes_axes_and_counts_that_run(text: str, inputs: int) -> None:
    model = parse(text)
    ran: list[dict[str, Any]] = []
    search = Search(Plan.of(model), _runner(model, ran), seed=0)
    assert search.run(samples=1), search.tried
    assert len(ran[0]) == inputs


def test_bounds_are_learned_from_refusals() -> None:
    model = parse("agraph (float[4,2] x, int64[50] i) => (float[50,2] y) { r = Relu(x) y = Gather(r, i) }")
    ran: list[dict[str, Any]] = []
    search = Search(Plan.of(model), _runner(model, ran), seed=0)
    assert search.run(samples=1)
    assert search.tried, "nothing says how long r is"
    assert ran[0]["i"].max() == 3


def test_choices_of_encoders() -> None:
    model = parse(
        """<ir_version: 10, opset_import: ["" : 21, "ai.onnx.ml" : 3]>
        agraph (string[40] s) => (int64[40] y) {
            y = ai.onnx.ml.LabelEncoder<keys_strings = ["cat", "dog"], values_int64s = [1, 2]>(s) }"""
    )
    assert set(feeds.generate(model)[0]["s"].tolist()) == {"cat", "dog"}


def test_overridable_initializers_are_moved_once() -> None:
    model = parse("agraph (float[4] x, float[4] w) => (float[4] y) { y = Add(x, w) }", {"w": np.ones(4, np.float32)})
    plan = Plan.of(model)
    assert [entry.name for entry in plan.inputs] == ["x"]
    ran: list[dict[str, Any]] = []
    assert Search(plan, _runner(model, ran), seed=0).run(samples=1)
    assert [sorted(made) for made in ran] == [["x"], ["w", "x"]]
    assert not np.array_equal(ran[1]["w"], np.ones(4))


def test_other_values_where_outputs_are_mostly_nan() -> None:
    model = parse("agraph (float[1000] x) => (float[1000] y) { y = Log(x) }")
    session = runtime.open_session(model)
    seen: list[tuple[dict[str, Any], bool]] = []

    def attempt(made: feeds.Feeds, replace: bool) -> Attempt:
        seen.append((made, replace))
        return Attempt(finite=float(np.isfinite(session.run(None, made)[0]).mean()) - 0.1)

    search = Search(Plan.of(model), attempt, seed=0)
    assert search.run(samples=1)
    assert seen[-1][1], "in place of the first"
    assert (seen[-1][0]["x"] >= 0).all()


def test_refusals_are_told() -> None:
    model = parse("agraph (float[N,3] x) => (float[N,3] y) { y = Identity(x) }")
    search = Search(Plan.of(model), lambda made, replace: Attempt("no"), seed=0)
    assert not search.run(samples=1)
    assert len(search.tried) > 3
    assert all(line.endswith(": no") for line in search.tried)


def test_absurd_sizes_are_not_allocated() -> None:
    with pytest.raises(ModelError, match="too large"):
        _first("agraph (float[1000000,1000000] x) => (float[M] y) { y = Identity(x) }")


def test_input_without_type() -> None:
    model = parse("agraph (float[2] x) => (float[2] y) { y = Identity(x) }")
    model.graph.inputs[0].type = None
    with pytest.raises(ModelError, match="'x' has no type"):
        Plan.of(model)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("a", 2),
        ("a + b", 5),
        ("2*a", 4),
        ("a*b - 1", 5),
        ("b // 2", 1),
        ("b/0", None),
        ("c", None),
        ("__import__('os')", None),
    ],
)
def test_dimension_arithmetic(name: str, size: int | None) -> None:
    assert dims.evaluate(name, {"a": 2, "b": 3}) == size


def test_every_kind_has_a_filler() -> None:
    assert set(values.KINDS.values()) <= set(fill.KINDS)
