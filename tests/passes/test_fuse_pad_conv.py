"""fuse-pad-conv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import fires, lines, misses, parse, unchanged

NAME = "fuse-pad-conv"
Array = npt.NDArray[Any]


def weight(*shape: int) -> Array:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def padded(
    pads: Sequence[int],
    node: str = "Conv (p, w)",
    extra: str = "",
    opset: int = 21,
    constants: Mapping[str, Array] | None = None,
) -> ir.Model:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    agraph (float[N,4,8,8] x) => (float[N,C,H,W] y) {{
        p = Pad (x, pads{extra})
        y = {node}
    }}"""
    weights: dict[str, Array] = {"w": weight(6, 4, 3, 3), "pads": np.array(pads, np.int64)}
    return parse(text, {**weights, **(constants or {})})


ONE = [0, 0, 1, 2, 0, 0, 3, 4]


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("node", ["Conv (p, w)", 'Conv <auto_pad = "VALID"> (p, w)'])
def test_conv_pads_itself(node: str, opset: int) -> None:
    fires(NAME, padded(ONE, node, opset=opset), ["y = Conv<pads=(1, 2, 3, 4)>(x, w)"])


def test_own_pads_are_added() -> None:
    node = "Conv <pads = [1,0,0,1], strides = [2,2]> (p, w)"
    fires(NAME, padded(ONE, node), ["y = Conv<pads=(2, 2, 3, 5), strides=(2, 2)>(x, w)"])


def test_pads_as_an_attribute() -> None:
    text = """<ir_version: 4, opset_import: ["" : 9]>
    agraph (float[N,4,8,8] x) => (float[N,6,11,13] y) {
        p = Pad <pads = [0,0,1,2,0,0,3,4], value = VALUE> (x)
        y = Conv <kernel_shape = [3,3]> (p, w)
    }"""
    after = ["y = Conv<kernel_shape=(3, 3), pads=(1, 2, 3, 4)>(x, w)"]
    weights = {"w": weight(6, 4, 3, 3)}
    text = text.replace("N,6,11,13", "N,6,10,12")
    fires(NAME, parse(text.replace("VALUE", "0.0"), weights), after)
    assert misses(NAME, parse(text.replace("VALUE", "1.0"), weights)) == ["the Pad fills with what counts"]


def test_explicit_zero_and_axes() -> None:
    constants: dict[str, Array] = {"zero": np.zeros((), np.float32), "axes": np.array([-1, 2], np.int64)}
    fires(NAME, padded([1, 2, 3, 4], extra=", zero, axes", constants=constants), ["y = Conv<pads=(2, 1, 4, 3)>(x, w)"])
    fires(NAME, padded([1, 2, 3, 4], extra=", , axes", constants=constants), ["y = Conv<pads=(2, 1, 4, 3)>(x, w)"])


def test_axes_need_a_rank() -> None:
    text = """agraph (float[A] x, int64[R] shape) => (float[N,C,H,W] y) {
        r = Reshape (x, shape)
        p = Pad (r, pads, , axes)
        y = Conv (p, w)
    }"""
    weights = {"w": weight(6, 4, 3, 3), "pads": np.array([1, 1], np.int64), "axes": np.array([2], np.int64)}
    assert misses(NAME, parse(text, weights)) == ["the padded axes are not known"]


def test_pad_stays_for_its_other_readers() -> None:
    text = """agraph (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,6,8,8] z, float[N,4,10,10] p) {
        p = Pad (x, pads)
        y = Conv (p, w)
        z = Conv (p, w)
    }"""
    weights = {"w": weight(6, 4, 3, 3), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}
    fires(NAME, parse(text, weights), [
        "p = Pad(x, pads)", "y = Conv<pads=(1, 1, 1, 1)>(x, w)", "z = Conv<pads=(1, 1, 1, 1)>(x, w)",
    ])  # fmt: skip


def test_average_counts_what_was_padded() -> None:
    pads = [0, 0, 1, 1, 0, 0, 1, 1]
    fires(NAME, padded(pads, "AveragePool <kernel_shape = [3,3]> (p)"), [
        "y = AveragePool<count_include_pad=1, kernel_shape=(3, 3), pads=(1, 1, 1, 1)>(x)",
    ])  # fmt: skip
    own = "AveragePool <kernel_shape = [3,3], pads = [0,1,0,1], count_include_pad = 1, strides = [2,2]> (p)"
    fires(NAME, padded(pads, own), [
        "y = AveragePool<count_include_pad=1, kernel_shape=(3, 3), pads=(1, 2, 1, 2), strides=(2, 2)>(x)",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ("kernel_shape = [3,3], ceil_mode = 1, strides = [2,2]", "the pooling rounds its size up"),
        ("kernel_shape = [3,3], pads = [1,1,1,1]", "the AveragePool leaves its own padding out"),
        ("kernel_shape = [2,2]", "the padding is as large as the window"),
        ('kernel_shape = [3,3], auto_pad = "SAME_UPPER"', "the node pads to keep the size"),
    ],
)
def test_average_that_would_differ(attributes: str, reason: str) -> None:
    assert misses(NAME, padded([0, 0, 1, 1, 0, 0, 2, 1], f"AveragePool <{attributes}> (p)")) == [reason]


def test_inside_a_branch() -> None:
    text = """agraph (float[N,4,8,8] x, bool b) => (float[N,6,8,8] y) {
        q = Pad (x, pads)
        y = If (b) <
            then_branch = left () => (float[N,6,8,8] l) { p = Pad (x, pads)  l = Conv (p, w) },
            else_branch = right () => (float[N,6,8,8] r) { r = Conv (q, w) }
        >
    }"""
    weights = {"w": weight(6, 4, 3, 3), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}
    result = fires(NAME, parse(text, weights), count=2)
    assert [node.op_type for node in result.graph] == ["If"]
    for branch, name in (("then_branch", "l"), ("else_branch", "r")):
        graph = result.graph[0].attributes[branch].as_graph()
        assert lines(graph) == [f"{name} = Conv<pads=(1, 1, 1, 1)>(x, w)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4,8,8] x) => (float[N,6,10,10] y) { y = local.block (x, w) }
    <domain: "local", opset_import: ["" : 21]>
    block (x, w) => (y) {
        pads = Constant <value_ints = [0,0,2,2,0,0,2,2]> ()
        p = Pad (x, pads)
        y = Conv (p, w)
    }"""
    result = fires(NAME, parse(text, {"w": weight(6, 4, 3, 3)}), count=1)
    assert lines(next(iter(result.functions.values()))) == ["y = Conv<pads=(2, 2, 2, 2)>(x, w)"]


@pytest.mark.parametrize(
    ("pads", "extra", "reason"),
    [
        ([0, 1, 1, 1, 0, 0, 1, 1], "", "the Pad pads the batch or the channels"),
        ([0, 0, 1, 1, 1, 0, 1, 1], "", "the Pad pads the batch or the channels"),
        ([0, 0, 1, -1, 0, 0, 1, 1], "", "the Pad cuts elements off"),
        ([0, 0, 1, 1, 0, 0, 1, 1], ", one", "the Pad fills with what counts"),
    ],
)
def test_pads_that_do_not_fit(pads: list[int], extra: str, reason: str) -> None:
    node = "Conv (p, v)"
    weights = {"one": np.ones((), np.float32), "v": weight(6, 5 if pads[1] else 4, 3, 3)}
    assert misses(NAME, padded(pads, node, extra, constants=weights)) == [reason]


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_other_modes(mode: str) -> None:
    text = f"""agraph (float[N,4,8,8] x) => (float[N,6,8,8] y) {{
        p = Pad <mode = "{mode}"> (x, pads)
        y = Conv (p, w)
    }}"""
    weights = {"w": weight(6, 4, 3, 3), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}
    assert misses(NAME, parse(text, weights)) == ["the Pad does not fill with a constant"]


def test_convolution_that_keeps_the_size() -> None:
    assert misses(NAME, padded(ONE, 'Conv <auto_pad = "SAME_UPPER"> (p, w)')) == ["the node pads to keep the size"]


def test_pads_that_are_not_constant() -> None:
    text = """agraph (float[N,4,8,8] x, int64[8] pads) => (float[N,6,H,W] y) {
        p = Pad (x, pads)
        y = Conv (p, w)
    }"""
    weights = {"w": weight(6, 4, 3, 3)}
    assert misses(NAME, parse(text, weights)) == ["the pads are not constant"]
    overridable = {**weights, "pads": np.array(ONE, np.int64)}
    assert misses(NAME, parse(text, overridable)) == ["the pads are not constant"]


def test_max_pool_and_no_padding_at_all() -> None:
    unchanged(NAME, padded(ONE, "MaxPool <kernel_shape = [3,3]> (p)"))
    unchanged(NAME, padded([0] * 8))


@pytest.mark.parametrize(
    ("pads", "node", "reason"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], "Conv <pads = [1, 1]> (p, w)", "the pads of the two differ in rank"),
        ([0, 0, 1, 0, 0, 1], "Conv <pads = [1, 1, 1, 1]> (p, w)", "the pads of the two differ in rank"),
        ([0, 0, 1, 0, 0, 1], "AveragePool <kernel_shape = [3, 3]> (p)", "the padding is as large as the window"),
    ],
)
def test_malformed_ranks(pads: list[int], node: str, reason: str) -> None:
    text = f"agraph (float[N,4,8,8] x) => (float[N,C,H,W] y) {{ p = Pad (x, pads)  y = {node} }}"
    assert misses(NAME, parse(text, {"w": weight(6, 4, 3, 3), "pads": np.array(pads, np.int64)})) == [reason]


def max_pool(source: str, options: str = "kernel_shape = [3,3]", *, fill: float = 0.0, opset: int = 21) -> ir.Model:
    text = f"""<ir_version: 7, opset_import: ["" : {opset}]>
    agraph (float[N,4,7,8] x) => (float[N,4,H,W] y) {{
        r = {source}
        p = Pad (r, pads, fill)
        y = MaxPool <{options}> (p)
    }}"""
    fixed = {"fill": np.array(fill, np.float32), "zero": np.array(0, np.float32), "low": np.array(-1, np.float32)}
    return parse(text, {"pads": np.array([0, 0, 1, 2, 0, 0, 2, 1]), **fixed})


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize("options", ["kernel_shape = [3,3]", "kernel_shape = [4,4], strides = [2,2], pads = [1,0,1,2]"])
@pytest.mark.parametrize("source", ["Relu (x)", "Sigmoid (x)", "Clip (x, zero)"])
def test_zeros_before_a_max_pool_of_what_is_not_negative(source: str, options: str, opset: int) -> None:
    result = fires(NAME, max_pool(source, options, opset=opset), count=1)
    assert [node.op_type for node in result.graph] == [source.split()[0], "MaxPool"]


def test_lowest_number_before_a_max_pool() -> None:
    assert len(fires(NAME, max_pool("Neg (x)", fill=-np.inf), count=1).graph) == 2


@pytest.mark.parametrize("source", ["Neg (x)", "Clip (x, low)", "Clip (x)", "Mul (x, x)"])
def test_zeros_before_a_max_pool_of_what_may_be_negative(source: str) -> None:
    assert misses(NAME, max_pool(source)) == ["the Pad fills with what counts"]


@pytest.mark.parametrize("fill", [1.0, -1.0])
def test_other_fill_before_a_max_pool(fill: float) -> None:
    assert misses(NAME, max_pool("Relu (x)", fill=fill)) == ["the Pad fills with what counts"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("kernel_shape = [3,3], ceil_mode = 1", "the pooling rounds its size up"),
        ("kernel_shape = [2,2]", "the padding is as large as the window"),
        (
            "kernel_shape = [3,3], dilations = [2,1]",
            "the pooling has dilations, or says where it found the largest",
        ),
        ('kernel_shape = [3,3], auto_pad = "SAME_UPPER"', "the node pads to keep the size"),
    ],
)
def test_max_pool_that_would_do_something_else(options: str, reason: str) -> None:
    assert misses(NAME, max_pool("Relu (x)", options)) == [reason]
