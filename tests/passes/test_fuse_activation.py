"""fuse-activation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, misses, parse, run, unchanged

NAME = "fuse-activation"
NUMBERS = {"zero": 0, "one": 1, "two": 2, "three": 3, "six": 6, "sixth": 1 / 6, "half": 0.5, "seven": 7}
KINDS = {"float": np.float32, "float16": np.float16, "double": np.float64}


def model(body: str, *, opset: int = 21, kind: str = "float", x: str = "[N,4]", **numbers: Any) -> ir.Model:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    values = {name: np.asarray(one, KINDS[kind]) for name, one in {**NUMBERS, **numbers}.items() if name in words}
    header = f'<ir_version: 7, opset_import: ["" : {opset}]>'
    return parse(f"{header} agraph ({kind}{x} x) => ({kind}{x} y) {{ {body} }}", values)


CLIP = "a = Add (x, three) c = Clip (a, zero, six) "
SWISH = {
    "torch": "h = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (x, h)",
    "onnx": CLIP + "m = Mul (x, c) y = Div (m, six)",
    "paddle": CLIP + "m = Mul (x, c) y = Mul (m, sixth)",
    "keras": CLIP + "d = Mul (sixth, c) y = Mul (d, x)",
    "numerator": CLIP + "d = Div (x, six) y = Mul (c, d)",
    "swapped": "a = Add (three, x) c = Clip (a, zero, six) d = Div (c, six) y = Mul (x, d)",
    "scaled first": "p = Mul (x, sixth) a = Add (half, p) c = Clip (a, zero, one) y = Mul (x, c)",
    "subtracted": "a = Sub (x, minus) c = Clip (a, zero, six) m = Mul (c, x) y = Div (m, six)",
}


@pytest.mark.parametrize("opset", [14, 21, 22])
@pytest.mark.parametrize("body", SWISH.values(), ids=SWISH)
def test_hard_swish(body: str, opset: int) -> None:
    result = fires(NAME, model(body, opset=opset, minus=-3), ["y = HardSwish(x)"])
    assert len(result.graph) == 1


@pytest.mark.parametrize("spelling", ["onnx", "paddle", "keras", "numerator", "swapped"])
def test_hard_swish_before_opset_14(spelling: str) -> None:
    result = fires(NAME, model(SWISH[spelling], opset=11))
    sigmoid, product = lines(result)
    assert sigmoid.split(" = ")[1].startswith("HardSigmoid<alpha=0.16666")
    assert product.startswith("y = Mul(")
    assert not [name for name in result.graph.initializers if any(name in line for line in lines(result))]


def test_hard_swish_before_opset_14_that_is_one_already() -> None:
    unchanged(NAME, model(SWISH["torch"], opset=11))


SIGMOID = {
    "divided": CLIP + "y = Div (c, six)",
    "multiplied": CLIP + "y = Mul (sixth, c)",
    "last": "p = Mul (x, sixth) a = Add (p, half) y = Clip (a, zero, one)",
    "divided first": "p = Div (x, six) a = Add (half, p) y = Clip (a, zero, one)",
}


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize("body", SIGMOID.values(), ids=SIGMOID)
def test_hard_sigmoid(body: str, opset: int) -> None:
    (line,) = lines(fires(NAME, model(body, opset=opset)))
    assert line.startswith("y = HardSigmoid<alpha=0.1666666")
    assert line.endswith("beta=0.5>(x)")


def test_hard_sigmoid_before_opset_11() -> None:
    body = "a = Add (x, three) c = Clip <min = 0.0, max = 6.0> (a) y = Div (c, six)"
    (line,) = lines(fires(NAME, model(body, opset=10)))
    assert line.startswith("y = HardSigmoid<")


def test_other_hard_sigmoids_times_x_are_no_hard_swish() -> None:
    unchanged(NAME, model("h = HardSigmoid (x) y = Mul (x, h)"))


SOFTPLUS = {
    "torch": "e = Exp (x) a = Add (e, one) s = Log (a)",
    "swapped": "e = Exp (x) a = Add (one, e) s = Log (a)",
    "operator": "s = Softplus (x)",
}


@pytest.mark.parametrize("opset", [11, 21, 22])
@pytest.mark.parametrize("name", ["torch", "swapped"])
def test_a_softplus_that_overflows_stays(name: str, opset: int) -> None:
    unchanged(NAME, model(SOFTPLUS[name].replace("s =", "y ="), opset=opset))


@pytest.mark.parametrize("product", ["Mul (x, t)", "Mul (t, x)"])
@pytest.mark.parametrize("body", SOFTPLUS.values(), ids=SOFTPLUS)
def test_mish(body: str, product: str) -> None:
    text = f"{body} t = Tanh (s) y = {product}"
    fires(NAME, model(text, opset=18), ["y = Mish(x)"], count=1)
    unchanged(NAME, model(text, opset=17))


def test_mish_of_other_sums() -> None:
    unchanged(NAME, model("e = Exp (x) a = Add (e, two) s = Log (a) t = Tanh (s) y = Mul (x, t)"))
    unchanged(NAME, model("e = Exp (x) a = Add (e, x) s = Log (a) t = Tanh (s) y = Mul (x, t)"))


def test_mish_of_what_overflows() -> None:
    numbers = np.array([[-100, 0, 89, 1e38]], np.float32)
    before = model(SOFTPLUS["torch"] + " t = Tanh (s) y = Mul (x, t)")
    after = apply(before, NAME)[0]
    assert lines(after) == ["y = Mish(x)"]
    expected, found = (run(one, {"x": numbers})[0] for one in (before, after))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-30)


def test_of_another_operand_it_is_no_mish() -> None:
    unchanged(NAME, model("s = Softplus (x) t = Tanh (s) r = Relu (x) y = Mul (r, t)"))


def test_half_precision() -> None:
    fires(NAME, model(SWISH["onnx"], kind="float16"), ["y = HardSwish(x)"])
    fires(NAME, model("s = Softplus (x) t = Tanh (s) y = Mul (x, t)", kind="float16"), ["y = Mish(x)"])


TYPE = ["the type is not known to be float32 or of half precision"]
READ = ["an inner result is read elsewhere"]
AXES = ["a number may give the result more axes"]


@pytest.mark.parametrize("body", [SWISH["onnx"], SIGMOID["last"], "s = Softplus (x) t = Tanh (s) y = Mul (x, t)"])
def test_doubles(body: str) -> None:
    assert misses(NAME, model(body, kind="double")) == TYPE


@pytest.mark.parametrize(
    ("body", "inner"),
    [(SWISH["onnx"], "c"), (SWISH["onnx"], "m"), (SWISH["paddle"], "m"), (SIGMOID["divided"], "c")],
)
def test_inner_result_read_elsewhere_or_put_out(body: str, inner: str) -> None:
    values = {
        name: np.asarray(number, np.float32) for name, number in NUMBERS.items() if f" {name}" in body.replace("(", " ")
    }
    text = f"agraph (float[N,4] x) => (float[N,4] y, float[N,4] z) {{ {body} z = Neg ({inner}) }}"
    assert misses(NAME, parse(text, values)) == READ
    text = f"agraph (float[N,4] x) => (float[N,4] y, float[N,4] {inner}) {{ {body} }}"
    assert misses(NAME, parse(text, values)) == READ


@pytest.mark.parametrize("numbers", [{"six": 5.5}, {"three": 2.5}, {"zero": 0.1}])
def test_other_numbers_are_no_hard_swish(numbers: dict[str, Any]) -> None:
    result, _, _ = apply(model(SWISH["onnx"], **numbers), NAME)
    assert "HardSwish" not in "".join(lines(result))


def test_no_offset_is_no_hard_sigmoid() -> None:
    unchanged(NAME, model("a = Mul (x, three) y = Clip (a, zero, one)"))
    unchanged(NAME, model("y = Clip (x, zero, one)"))


def test_vector_of_numbers() -> None:
    unchanged(NAME, model(SWISH["onnx"], three=[3, 3, 3, 3]))


def test_number_with_more_axes() -> None:
    body = CLIP + "m = Mul (x, c) y = Div (m, six)"
    values = {name: np.asarray(number, np.float32) for name, number in NUMBERS.items() if name in ("zero", "six")}
    text = f"agraph (float[N,4] x) => (float[1,N,4] y) {{ {body} }}"
    assert misses(NAME, parse(text, {**values, "three": np.full((1, 1, 1), 3, np.float32)})) == AXES


def test_bound_of_the_caller() -> None:
    text = f"agraph (float[N,4] x, float six) => (float[N,4] y) {{ {CLIP} y = Div (c, six) }}"
    unchanged(NAME, parse(text, {"three": np.array(3, np.float32), "zero": np.array(0, np.float32)}))


def test_inside_a_branch_and_a_function() -> None:
    text = f"""agraph (float[N,4] x, bool b) => (float[N,4] z) {{
        z = If (b) <then_branch = g1 () => (float[N,4] y) {{ {SWISH["onnx"]} }},
                    else_branch = g2 () => (float[N,4] r) {{ r = Relu (x) }}>
    }}"""
    values = {name: np.asarray(NUMBERS[name], np.float32) for name in ("zero", "three", "six")}
    result = fires(NAME, parse(text, values))
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["y = HardSwish(x)"]
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) { s = Softplus (x)  t = Tanh (s)  y = Mul (x, t) }"""
    assert misses(NAME, parse(text)) == TYPE


def test_metadata_survives() -> None:
    before = model(SWISH["onnx"])
    before.graph[-1].name, before.graph[-1].doc_string = "act", "kept"
    (node,) = fires(NAME, before).graph
    assert (node.name, node.doc_string) == ("act", "kept")
