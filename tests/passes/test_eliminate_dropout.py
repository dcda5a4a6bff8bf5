"""eliminate-dropout."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-dropout"


def graph(body: str, outputs: str = "float[N,4] y", opset: int = 21) -> str:
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
    agraph (float[N,4] x, bool t) => ({outputs}) {{ {body} }}"""


def scalar(number: float | bool) -> np.ndarray:
    return np.array(number, np.bool_ if isinstance(number, bool) else np.float32)


@pytest.mark.parametrize("opset", [7, 10, 12, 13, 22])
def test_inference_form(opset: int) -> None:
    text = graph("d = Dropout(x)  y = Relu(d)", opset=opset).replace(", bool t", "")
    fires(NAME, parse(text), ["y = Relu(x)"])


def test_ratio_and_constant_training_mode() -> None:
    text = graph("d, m = Dropout(x, r, k)  y = Relu(d)")
    weights = {"r": scalar(0.9), "k": scalar(False)}
    assert lines(apply(parse(text, weights), NAME)[0]) == ["y = Relu(x)"]
    text = graph("d = Dropout(x, , k)  y = Relu(d)")
    assert lines(apply(parse(text, weights), NAME)[0]) == ["y = Relu(x)"]


def test_training_with_a_ratio_of_zero() -> None:
    text = graph("d = Dropout(x, r, t)  y = Relu(d)")
    fires(NAME, parse(text, {"r": scalar(0.0)}), ["y = Relu(x)"])


def test_result_is_a_graph_output() -> None:
    fires(NAME, parse(graph("r = Relu(x)  y = Dropout(r)")), ["y = Relu(x)"])
    assert misses(NAME, parse(graph("y = Dropout(x)"))) == ["it computes a graph output that cannot be renamed away"]


@pytest.mark.parametrize("mode", [True, None])
def test_training(mode: bool | None) -> None:
    text = graph("d = Dropout(x, r, k)  y = Relu(d)")
    if mode is None:
        text = text.replace("bool t", "bool t, bool k")  # an initializer that the caller may override
    weights = {"r": scalar(0.5), "k": scalar(bool(mode))}
    assert misses(NAME, parse(text, weights)) == ["the Dropout may train"]


@pytest.mark.parametrize("training", ["", ", r, t"])
def test_mask_is_read(training: str) -> None:
    text = graph(f"d, m = Dropout(x{training})  y = Relu(d)  n = Not(m)", "float[N,4] y, bool[N,4] n")
    assert misses(NAME, parse(text, {"r": scalar(0.5)})) == ["the Dropout's mask is read"]


def test_mask_is_a_graph_output() -> None:
    text = graph("d, m = Dropout(x)  y = Relu(d)", "float[N,4] y, bool[N,4] m")
    assert misses(NAME, parse(text)) == ["the Dropout's mask is read"]


def test_before_opset_7_is_test_decides() -> None:
    text = graph("d = Dropout<is_test = 1>(x)  y = Relu(d)", opset=6)
    assert lines(apply(parse(text), NAME)[0]) == ["y = Relu(x)"]
    assert misses(NAME, parse(text.replace("<is_test = 1>", ""))) == ["the Dropout may train"]


def test_inside_a_branch() -> None:
    text = graph("""y = If (t) <
        then_branch = yes () => (float[N,4] a) { d = Dropout(x)  a = Relu(d) },
        else_branch = no () => (float[N,4] b) { b = Dropout(x) }
    >""")
    result = fires(NAME, parse(text), count=1)
    branches = result.graph[0].attributes
    assert lines(branches["then_branch"].as_graph()) == ["a = Relu(x)"]
    assert lines(branches["else_branch"].as_graph()) == ["b = Dropout(x)"]  # its output must be computed in it


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = own.f<train = 0>(x) }
    <domain: "own", opset_import: ["" : 21]>
    f <train> (a) => (b) {
        k = Constant<value_int: int = @train>()
        t = Cast<to = 9>(k)
        r = Constant<value_float = 0.5>()
        c = Dropout(a, r)
        b = Dropout(c, r, t)
    }"""
    result, stats, _ = apply(parse(text), NAME)
    assert stats.counts == {NAME: 1}
    (function,) = result.functions.values()
    assert lines(function)[-1] == "b = Dropout(a, r, t)"


def test_other_domains_are_left_alone() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { d = other.Dropout(x)  y = Relu(d) }"""
    unchanged(NAME, parse(text))
