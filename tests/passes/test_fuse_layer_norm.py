"""fuse-layer-norm."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from bench import torch_networks
from harness import fires, lines, misses, parse, unchanged

import graphopt
from graphopt import proto

NAME = "fuse-layer-norm"
RANDOM = np.random.default_rng(0)
VECTOR = {name: RANDOM.standard_normal(4).astype(np.float32) for name in ("w", "b")}
NUMBERS = {"two": np.float32(2), "half": np.float32(0.5), "eps": np.float32(1e-5), "minus": np.float32(-0.5)}
LAST = np.array([-1])
HEADER = '<ir_version: 10, opset_import: ["" : 18]>'


def model(body: str, *, opset: int = 18, x: str = "[N,3,4]", extra: str = "", **values: Any) -> Any:
    if opset < 18:
        body = body.replace("ReduceMean(x, axes)", "ReduceMean<axes=[-1]>(x)")
        body = body.replace("ReduceMean(q, axes)", "ReduceMean<axes=[-1]>(q)")
    arrays = {**VECTOR, **NUMBERS, "axes": LAST, **values}
    words = set(re.split(r"\W+", body))
    used = {name: np.asarray(array) for name, array in arrays.items() if name in words}
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    return parse(f"{header} agraph (float{x} x) => (float{x} y{extra}) {{ {body} }}", used)


CORE = "m = ReduceMean(x, axes) d = Sub(x, m) q = Pow(d, two) v = ReduceMean(q, axes) a = Add(v, eps) s = Sqrt(a) "
SPELLINGS = {
    "torch": CORE + "n = Div(d, s) h = Mul(n, w) y = Add(h, b)",
    "dynamo": "m = ReduceMean(x, axes) d = Sub(x, m) p = Sub(x, m) q = Mul(p, p) v = ReduceMean(q, axes) "
    "a = Add(eps, v) s = Sqrt(a) r = Reciprocal(s) n = Mul(r, d) h = Mul(w, n) y = Add(b, h)",
    "tensorflow": CORE + "r = Reciprocal(s) g = Mul(r, w) xs = Mul(x, g) ms = Mul(m, g) o = Sub(b, ms) y = Add(xs, o)",
    "power": CORE.replace("s = Sqrt(a)", "s = Pow(a, minus)") + "n = Mul(d, s) h = Mul(n, w) y = Add(h, b)",
    "root by power": CORE.replace("s = Sqrt(a)", "s = Pow(a, half)") + "n = Div(d, s) h = Mul(n, w) y = Add(h, b)",
}
WHOLE = ["y = LayerNormalization<axis=-1, epsilon=9.999999747378752e-06>(x, w, b)"]


@pytest.mark.parametrize("opset", [17, 18, 21])
@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(body: str, opset: int) -> None:
    fires(NAME, model(body, opset=opset), WHOLE, count=1)


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_exported(exporter: str) -> None:
    exported = torch_networks.export(torch_networks.MeansNorm(4), torch.randn(2, 3, 4), exporter=exporter, opset=18)
    passes = ["hoist-constants", "fold-constants"]
    folded = graphopt.optimize(proto.from_proto(exported), passes=passes, validate=False)
    (node,) = fires(NAME, folded, count=1).graph
    assert node.op_type == "LayerNormalization"


def test_without_scale_and_bias() -> None:
    assert lines(fires(NAME, model(CORE + "y = Div(d, s)"), count=1))[0].endswith("(x, scale)")
    assert lines(fires(NAME, model(CORE + "n = Div(d, s) y = Mul(n, w)"), count=1))[0].endswith("(x, w)")
    assert lines(fires(NAME, model(CORE + "n = Div(d, s) y = Add(n, b)"), count=1))[0].endswith("(x, scale, b)")


def test_several_axes() -> None:
    scale = RANDOM.standard_normal((3, 4)).astype(np.float32)
    body = CORE + "n = Div(d, s) y = Mul(n, w)"
    found = fires(NAME, model(body, axes=np.array([1, 2]), w=scale), count=1)
    assert found.graph[0].attributes["axis"].as_int() == -2


def test_a_scale_that_others_read_is_not_copied() -> None:
    result = fires(NAME, model(SPELLINGS["torch"].replace("y =", "t =") + " y = Mul(t, w)"), count=1)
    assert set(result.graph.initializers) >= {"w", "b"}
    assert lines(result)[-1] == "y = Mul(t, w)"


def test_a_residual_after_it_is_no_bias() -> None:
    body = CORE + "n = Div(d, s) h = Mul(n, w) y = Add(h, x)"
    assert [line.split("<")[0] for line in lines(fires(NAME, model(body), count=1))] == [
        "h = LayerNormalization",
        "y = Add(h, x)",
    ]


def test_one_after_the_other() -> None:
    inner = set(re.findall(r"(\w+) =", SPELLINGS["torch"]))
    first = re.sub(r"\w+", lambda word: f"{word[0]}1" if word[0] in inner else word[0], SPELLINGS["torch"])
    fires(NAME, model(first + " " + SPELLINGS["torch"].replace("(x,", "(y1,")), count=2)


def test_half_precision() -> None:
    text = f"{HEADER} agraph (float16[N,3,4] x) => (float16[N,3,4] y) {{ {SPELLINGS['torch']} }}"
    halves = {name: np.asarray(one, np.float16) for name, one in {**VECTOR, **NUMBERS, "eps": np.float32(1e-3)}.items()}
    halves = {name: one for name, one in halves.items() if name in ("w", "b", "two", "eps")}
    fires(NAME, parse(text, {**halves, "axes": LAST}), count=1)


def test_before_opset_17() -> None:
    assert misses(NAME, model(SPELLINGS["torch"], opset=16))[:1] == ["LayerNormalization came with opset 17"]


@pytest.mark.parametrize("inner", ["m", "d", "v", "s"])
def test_an_inner_result_is_read_elsewhere(inner: str) -> None:
    body = CORE + f"n = Div(d, s) h = Mul(n, w) t = Add(h, b) y = Sub(t, {inner})"
    assert "an inner result is read elsewhere" in misses(NAME, model(body))
    extra = f", float[N,3,P] {inner}"
    assert "an inner result is read elsewhere" in misses(NAME, model(SPELLINGS["torch"], extra=extra))


@pytest.mark.parametrize("axes", [[1], [0, 2], [-2]])
def test_other_axes(axes: list[int]) -> None:
    body = CORE + "y = Div(d, s)"
    assert misses(NAME, model(body, x="[4,4,4]", axes=np.array(axes))) == [
        "the means are not both over the last axes, kept"
    ]


def test_means_over_different_axes() -> None:
    body = CORE.replace("ReduceMean(q, axes)", "ReduceMean(q, other)") + "y = Div(d, s)"
    assert misses(NAME, model(body, x="[4,4,4]", other=np.array([1, 2]))) == [
        "the means are not both over the last axes, kept"
    ]


def test_means_that_lose_the_axis() -> None:
    """``(4, 4)``: the means of the rows are subtracted from the columns."""
    body = CORE.replace("ReduceMean(", "ReduceMean<keepdims=0>(") + "y = Div(d, s)"
    assert misses(NAME, model(body, x="[4,4]")) == ["the means are not both over the last axes, kept"]


@pytest.mark.parametrize("shape", [(3, 1), (3, 4), (1, 3, 4), (1, 4)])
def test_a_scale_over_more_than_the_normalized_axes(shape: tuple[int, ...]) -> None:
    body = CORE + "n = Div(d, s) y = Mul(n, w)"
    scale = RANDOM.standard_normal(shape).astype(np.float32)
    result = lines(fires(NAME, model(body, w=scale), count=1))
    assert result[-1] == "y = Mul(n, w)"


def test_channels_as_many_as_the_width() -> None:
    """A scale for each channel of ``(N, 4, 4)`` is no scale for each column."""
    body = CORE + "n = Div(d, s) y = Mul(n, w)"
    result = fires(NAME, model(body, x="[N,4,4]", w=RANDOM.standard_normal((4, 1)).astype(np.float32)), count=1)
    assert lines(result)[-1] == "y = Mul(n, w)"


def test_epsilon_outside_the_root() -> None:
    body = CORE.replace("a = Add(v, eps) s = Sqrt(a)", "a = Sqrt(v) s = Add(a, eps)") + "y = Div(d, s)"
    unchanged(NAME, model(body))


def test_other_formulas() -> None:
    for body in (
        CORE + "y = Div(x, s)",  # the mean is not subtracted
        CORE.replace("Sub(x, m)", "Add(x, m)") + "y = Div(d, s)",
        CORE.replace("Pow(d, two)", "Pow(d, three)") + "y = Div(d, s)",
        CORE.replace("Pow(d, two)", "Mul(d, x)") + "y = Div(d, s)",
        CORE + "y = Mul(d, s)",
        CORE + "y = Div(s, d)",
        CORE.replace("Add(v, eps)", "Mul(v, two)") + "y = Div(d, s)",
    ):
        unchanged(NAME, model(body, three=np.float32(3)))


def test_epsilon_for_each_channel() -> None:
    unchanged(NAME, model(CORE + "y = Div(d, s)", eps=np.full(4, 1e-5, np.float32)))


def test_no_scale_and_an_unknown_length() -> None:
    assert misses(NAME, model(CORE + "y = Div(d, s)", x="[N,3,M]")) == [
        "there is no scale, and how many ones would stand for it is not known"
    ]


def test_float64() -> None:
    text = f"{HEADER} agraph (double[N,3,4] x) => (double[N,3,4] y) {{ {CORE} y = Div(d, s) }}"
    values = {"two": np.float64(2), "eps": np.float64(1e-5), "axes": LAST}
    assert misses(NAME, parse(text, {name: np.asarray(one) for name, one in values.items()})) == [
        "the type is not known to be float32 or of half precision"
    ]
