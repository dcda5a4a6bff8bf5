"""eliminate-cast."""

from __future__ import annotations

import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-cast"


@pytest.mark.parametrize(
    ("kind", "code"), [("float", 1), ("float16", 10), ("double", 11), ("int64", 7), ("int32", 6), ("uint8", 2)]
)
def test_cast_to_its_own_type(kind: str, code: int) -> None:
    text = f"agraph ({kind}[N,4] x) => ({kind}[N,4] y) {{ c = Cast<to = {code}>(x)  y = Add(c, c) }}"
    fires(NAME, parse(text), ["y = Add(x, x)"])


def test_type_that_nothing_declares() -> None:
    text = """agraph (int64[N,4] x) => (float[N,4] y) {
        a = Cast<to = 1>(x)
        b = Relu(a)
        y = Cast<to = 1>(b)
    }"""
    fires(NAME, parse(text), ["a = Cast<to=1>(x)", "y = Relu(a)"])


def test_strings() -> None:
    text = "agraph (string[N] x) => (string[M] y) { c = Cast<to = 8>(x)  y = Concat<axis = 0>(c, c) }"
    assert lines(apply(parse(text), NAME)[0]) == ["y = Concat<axis=0>(x, x)"]


def test_cast_like() -> None:
    text = """agraph (float[N,4] x, float[2] like, double[2] other) => (float[N,4] y, double[N,4] z) {
        c = CastLike(x, like)
        y = Relu(c)
        z = CastLike(x, other)
    }"""
    fires(NAME, parse(text), ["y = Relu(x)", "z = CastLike(x, other)"])


def test_chain_of_casts_keeps_what_rounds() -> None:
    text = """agraph (float[N,4] x) => (float[N,4] y) {
        a = Cast<to = 10>(x)
        y = Cast<to = 1>(a)
    }"""
    unchanged(NAME, parse(text))


@pytest.mark.parametrize(("kind", "code"), [("float", 10), ("int32", 7), ("uint8", 3), ("bool", 2)])
def test_other_type_of_the_same_kind(kind: str, code: int) -> None:
    names = {10: "float16", 7: "int64", 3: "int8", 2: "uint8"}
    text = f"agraph ({kind}[N,4] x) => ({names[code]}[N,4] y) {{ y = Cast<to = {code}>(x) }}"
    unchanged(NAME, parse(text))


def test_type_given_by_name_in_opset_1() -> None:
    text = """<ir_version: 3, opset_import: ["" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { c = Cast<to = "FLOAT">(x)  d = Cast<to = "DOUBLE">(c)
        y = Cast<to = "FLOAT">(d) }"""
    assert lines(apply(parse(text), NAME)[0]) == ["y = Identity(x)"]


def test_interface_needs_the_node() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Cast<to = 1>(x) }"
    assert misses(NAME, parse(text)) == ["it computes a graph output that cannot be renamed away"]


def test_inside_a_branch_on_a_captured_value() -> None:
    text = """agraph (float[N,4] x, bool t) => (float[N,4] y) {
        y = If (t) <
            then_branch = yes () => (float[N,4] a) { c = Cast<to = 1>(x)  a = Relu(c) },
            else_branch = no () => (float[N,4] b) { b = Neg(x) }
        >
    }"""
    result = fires(NAME, parse(text), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Relu(x)"]


def test_function_called_with_several_types() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x, double[N,4] z) => (float[N,4] y, float[N,4] w) { y = own.f(x)  w = own.f(z) }
    <domain: "own", opset_import: ["" : 21]>
    f (a) => (b) { c = Cast<to = 1>(a)  d = Relu(c)  b = Cast<to = 1>(d) }"""
    result, stats, _ = apply(parse(text), NAME)
    assert stats.counts == {NAME: 1}
    (function,) = result.functions.values()
    assert lines(function) == ["c = Cast<to=1>(a)", "b = Relu(c)"]


def test_unknown_type() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { a = other.Mystery(x)  c = Cast<to = 1>(a)  y = Relu(c) }"""
    assert misses(NAME, parse(text)) == ["the type of the Cast's input is not known"]


CODES = {
    "bool": 9, "int8": 3, "uint8": 2, "int16": 5, "uint16": 4, "int32": 6, "uint32": 12, "int64": 7, "uint64": 13,
    "float16": 10, "bfloat16": 16, "float": 1, "double": 11,
}  # fmt: skip


def chain(first: str, middle: str, last: str) -> str:
    body = f"m = Cast<to = {CODES[middle]}>(x)  c = Cast<to = {CODES[last]}>(m)"
    return f"agraph ({first}[N,4] x) => ({last}[N,4] y) {{ {body}  y = Identity(c) }}"


@pytest.mark.parametrize(
    ("first", "middle", "last"),
    [
        ("float", "double", "float"),
        ("float16", "float", "float16"),
        ("float16", "float", "double"),
        ("float", "double", "float16"),
        ("int32", "int64", "int32"),
        ("int32", "int64", "int8"),
        ("int32", "double", "int32"),
        ("int32", "int64", "float"),
        ("uint8", "float16", "uint8"),
        ("int16", "float", "int32"),
        ("bool", "int64", "float"),
        ("bool", "float", "bool"),
        ("int64", "int64", "bool"),
        ("uint16", "int32", "uint8"),
    ],
)
def test_detour_over_a_larger_type(first: str, middle: str, last: str) -> None:
    result = fires(NAME, parse(chain(first, middle, last)))
    assert len(result.graph) <= 2
    assert f"to={CODES[middle]}>" not in "".join(lines(result)) or middle == last


@pytest.mark.parametrize(
    ("first", "middle", "last"),
    [
        ("float", "float16", "float"),
        ("double", "float", "double"),
        ("float16", "bfloat16", "float16"),
        ("bfloat16", "float16", "bfloat16"),
        ("int64", "int32", "int64"),
        ("int32", "float", "int32"),
        ("int64", "double", "int64"),
        ("int16", "float16", "int16"),
        ("int8", "uint8", "int32"),
        ("uint64", "int64", "uint64"),
        ("int8", "uint64", "int8"),
        ("float", "double", "uint8"),
        ("float", "int64", "float"),
        ("int16", "float", "int8"),
        ("float", "bool", "float"),
    ],
)
def test_detour_that_rounds_or_may_overflow(first: str, middle: str, last: str) -> None:
    unchanged(NAME, parse(chain(first, middle, last)))


def test_detour_over_strings() -> None:
    text = """agraph (float[N] x) => (float[N] y) { s = Cast<to = 8>(x)  y = Cast<to = 1>(s) }"""
    unchanged(NAME, parse(text))
    text = """agraph (float[N] x) => (string[N] y) { s = Cast<to = 11>(x)  y = Cast<to = 8>(s) }"""
    unchanged(NAME, parse(text))  # a double has more digits


def test_detour_by_cast_like() -> None:
    text = """agraph (float16[N,4] x, float[2] a, float16[2] b) => (float16[N,4] y) {
        m = CastLike(x, a)
        c = CastLike(m, b)
        y = Neg(c)
    }"""
    fires(NAME, parse(text), ["y = Neg(x)"])


def test_first_cast_is_a_graph_output() -> None:
    text = """agraph (float16[N,4] x) => (float[N,4] m, float16[N,4] y) {
        m = Cast<to = 1>(x)
        c = Cast<to = 10>(m)
        y = Neg(c)
    }"""
    fires(NAME, parse(text), ["m = Cast<to=1>(x)", "y = Neg(x)"])


def test_detour_across_the_border_of_a_branch() -> None:
    text = """agraph (float16[N,4] x, bool t) => (float16[N,4] y) {
        m = Cast<to = 1>(x)
        y = If (t) <
            then_branch = yes () => (float16[N,4] a) { c = Cast<to = 10>(m)  a = Neg(c) },
            else_branch = no () => (float16[N,4] b) { b = Abs(x) }
        >
    }"""
    result = fires(NAME, parse(text), count=1)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["a = Neg(x)"]


def test_metadata_of_the_last_cast_survives() -> None:
    model = parse(chain("int32", "int64", "int8"))
    model.graph[1].metadata_props["origin"] = "tokens"
    result = fires(NAME, model, ["c = Cast<to=3>(x)", "y = Identity(c)"])
    assert result.graph[0].metadata_props == {"origin": "tokens"}


def filled(number: str, code: int, kind: str) -> str:
    """A ConstantOfShape of a number, cast to a type."""
    value = f"<value = {number}>" if number else ""
    return f"""agraph (float[N,4] x) => ({kind}[A,B] y) {{
        s = Shape (x)  c = ConstantOfShape {value} (s)  y = Cast <to = {code}> (c) }}"""


@pytest.mark.parametrize(
    ("number", "code", "kind"),
    [
        ("int64[1] {2}", 1, "float"),
        ("int64[1] {-1}", 6, "int32"),
        ("float[1] {3}", 7, "int64"),
        ("float[1] {0.5}", 10, "float16"),
        ("int64[1] {1}", 9, "bool"),
        ("", 11, "double"),
    ],
)
def test_a_number_that_is_repeated(number: str, code: int, kind: str) -> None:
    result = fires(NAME, parse(filled(number, code, kind)), count=1)
    assert [node.op_type for node in result.graph] == ["Shape", "ConstantOfShape"]


@pytest.mark.parametrize(
    ("number", "code", "kind"),
    [
        ("int64[1] {2}", 9, "bool"),
        ("int64[1] {300}", 2, "uint8"),
        ("float[1] {0.1}", 10, "float16"),
        ("float[1] {2.5}", 7, "int64"),
        ("int64[1] {16777217}", 1, "float"),
    ],
)
def test_a_repeated_number_that_the_type_lacks(number: str, code: int, kind: str) -> None:
    unchanged(NAME, parse(filled(number, code, kind)))


def test_repeated_numbers_that_are_read_elsewhere() -> None:
    text = filled("int64[1] {2}", 1, "float").replace("[A,B] y)", "[A,B] y, int64[C,D] z)")
    unchanged(NAME, parse(text.replace(" }", " z = Neg (c) }")))
