"""Why channels go together or stay: the right operator is named, and what it costs."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from channels.examples import attention, residual, weights
from harness import parse
from rich.console import Console

from graphopt import channels
from graphopt.channels import ChannelGraph, Explanation, explain
from graphopt.errors import UsageError


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return channels.analyze(residual())


@pytest.fixture(scope="module")
def heads() -> ChannelGraph:
    return channels.analyze(attention())


def because(explanation: Explanation, part: int = 0) -> dict[str, str]:
    return {tie.name: tie.because for tie in explanation.channels[part].layers}


def text(thing: object, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, emoji=False, markup=False)
    console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_an_addition_couples_what_it_adds(graph: ChannelGraph) -> None:
    explanation = explain(graph, "conv1")
    (gives, reads) = explanation.channels
    assert (gives.role, gives.count, gives.frozen) == ("gives", 8, None)
    assert because(explanation) == {
        "narrow": "reads them",
        "conv3": "Add 'add_3' adds them",
        "conv4": "reads them",
    }
    (via,) = next(tie.via for tie in gives.layers if tie.name == "conv3")
    assert (via.node, via.operator) == ("add_3", "Add")
    assert gives.attendants == (("bn1", "BatchNormalization"),)
    assert (reads.role, reads.count, reads.group) == ("reads", 3, None)


def test_the_way_from_the_other_side_leads_through_the_addition(graph: ChannelGraph) -> None:
    explanation = explain(graph, "conv3")
    assert because(explanation) == {
        "conv1": "Add 'add_3' adds them",
        "narrow": "reads them after Add 'add_3'",
        "conv4": "reads them after Add 'add_3'",
    }
    assert because(explanation, 1) == {"narrow": "gives them"}


def test_slices_are_those_of_the_unit(graph: ChannelGraph) -> None:
    gives = explain(graph, "conv1").channels[0]
    assert gives.group is not None
    members = {(member.tensor, member.axis, len(member.indices)) for member in gives.group.units[0].members}
    told = {(piece.tensor, piece.axis, piece.lanes) for tie in gives.layers for piece in tie.slices}
    told |= {(piece.tensor, piece.axis, piece.lanes) for piece in gives.slices if piece.tensor != "a"}
    assert told < members
    assert {tensor for tensor, _, _ in members - told} == {"scale", "shift", "mean", "var"}


def test_savings_of_one_and_of_half(graph: ChannelGraph) -> None:
    gives = explain(graph, "conv1").channels[0]
    per_unit = 3 * 3 * 3 + 4 + 4 + 4 + 6  # conv1, bn1, narrow, conv3, conv4
    assert gives.saving.parameters == per_unit
    assert gives.half.parameters == 4 * per_unit
    assert gives.half.bytes == 16 * per_unit
    smaller = channels.remove(graph, gives.group.units[:4], check=False) if gives.group else None
    removed = sum(value.const_value.size for value in graph.model.graph.initializers.values() if value.const_value)
    assert smaller is not None
    left = sum(value.const_value.size for value in smaller.graph.initializers.values() if value.const_value)
    assert removed - left == gives.half.parameters


def test_a_tensor_that_shrinks_along_two_axes_saves_more_than_to_first_order() -> None:
    model = parse(
        """agraph (float[N,3] x) => (float[N,2] y) {
            [first] a = MatMul (x, w1)
            [inner] b = MatMul (a, w2)
            [add] c = Add (a, b)
            [last] y = MatMul (c, w3)
        }""",
        {"w1": weights(3, 8), "w2": weights(8, 8), "w3": weights(8, 2)},
    )
    graph = channels.analyze(model)
    (group,) = graph.groups
    assert group.units[0].saving.parameters == 3 + 16 + 2
    assert graph.savings.half(group).parameters == 4 * 3 + (64 - 16) + 4 * 2
    assert graph.savings.total.parameters == 24 + 64 + 16
    assert graph.savings.half(group).macs == 4 * 3 + (64 - 16) + 4 * 2
    assert {tie.name: tie.role for tie in explain(graph, "first").channels[0].layers}["inner"] == "reads and gives"


def test_softmax_is_named_for_what_it_freezes(graph: ChannelGraph) -> None:
    explanation = explain(graph, "fc")
    stays = explanation.channels[0]
    assert (stays.role, stays.count, stays.group) == ("gives", 5, None)
    cause = stays.frozen
    assert cause is not None
    assert (cause.operator, cause.node) == ("Softmax", "softmax")
    assert "zero" in cause.plain
    # One row of w5, one number of b5, one row of w6.
    assert stays.saving.parameters == 6 + 1 + 5
    assert stays.half.parameters == 2 * stays.saving.parameters
    assert explanation.channels[1].group is not None


def test_the_interface_is_named_with_the_input(graph: ChannelGraph) -> None:
    cause = explain(graph, "conv1").channels[1].frozen
    assert cause is not None
    assert (cause.node, cause.where) == (None, ("x",))
    assert "input" in cause.reason
    out = explain(graph, "last").channels[0].frozen
    assert out is not None
    assert out.where == ("probs",)


def test_what_lies_between_is_told() -> None:
    model = parse(
        """agraph (float[N,4] x) => (float[N,5] y) {
            [fc] a = MatMul (x, w)
            [relu] b = Relu (a)
            [bias] c = Add (b, shift)
            [softmax] y = Softmax (c)
        }""",
        {"w": weights(4, 5), "shift": weights(5)},
    )
    cause = explain(channels.analyze(model), "fc").channels[0].frozen
    assert cause is not None
    assert cause.operator == "Softmax"
    assert [step.node for step in cause.via] in ([], ["bias"])


def test_heads_go_together_by_the_products_of_attention(heads: ChannelGraph) -> None:
    explanation = explain(heads, "q")
    gives, *others = explanation.channels
    assert gives.group is not None
    assert gives.group.heads
    assert (gives.role, gives.count) == ("gives", 4)
    assert because(explanation) == {
        "k": "MatMul 'scores' multiplies them",
        "v": "MatMul 'context' multiplies them",
        "out": "reads them",
    }
    assert {(piece.axis, piece.lanes, piece.size) for tie in gives.layers for piece in tie.slices} == {
        (1, 4, 16),
        (0, 4, 16),
    }
    lanes = others[-1].frozen
    assert lanes is not None
    assert lanes.is_choice
    assert "4 heads" in text(explanation)


def test_the_other_granularity_frees_lanes() -> None:
    explanation = explain(channels.analyze(attention(), granularity="head-dim"), "q")
    gives = explanation.channels[0]
    assert gives.group is not None
    assert gives.count == 4
    assert because(explanation) == {"k": "MatMul 'scores' multiplies them"}


def test_concatenation_does_not_couple_what_it_joins() -> None:
    model = parse(
        """agraph (float[N,3,4,4] x) => (float[N,2,4,4] y) {
            [left] a = Conv (x, w1)
            [right] b = Conv (x, w2)
            [joined] c = Concat <axis=1> (a, b)
            [last] y = Conv (c, w3)
        }""",
        {"w1": weights(4, 3, 1, 1), "w2": weights(4, 3, 1, 1), "w3": weights(2, 8, 1, 1)},
    )
    graph = channels.analyze(model)
    assert because(explain(graph, "left")) == {"last": "reads them"}
    parts = explain(graph, "joined").channels
    assert [(part.role, part.count) for part in parts] == [("passes on", 4), ("passes on", 4)]
    (piece,) = explain(graph, "left").channels[0].layers[0].slices
    assert (piece.lanes, piece.size) == (1, 8)


def test_concatenation_is_not_blamed_for_what_an_addition_couples() -> None:
    """Both are read by the Concat too, which is as near."""
    model = parse(
        """agraph (float[N,3,4,4] x) => (float[N,2,4,4] y, float[N,2,4,4] z) {
            [left] a = Conv (x, w1)
            [right] b = Conv (x, w2)
            [joined] c = Concat <axis=1> (a, b)
            [sum] d = Add (a, b)
            [last] y = Conv (c, w3)
            [other] z = Conv (d, w4)
        }""",
        {"w1": weights(4, 3, 1, 1), "w2": weights(4, 3, 1, 1), "w3": weights(2, 8, 1, 1), "w4": weights(2, 4, 1, 1)},
    )
    explanation = explain(channels.analyze(model), "left")
    assert because(explanation)["right"] == "Add 'sum' adds them"
    last = next(tie for tie in explanation.channels[0].layers if tie.name == "last")
    assert [(piece.lanes, piece.size) for piece in last.slices] == [(2, 8)]


def test_shared_weights_couple() -> None:
    model = parse(
        """agraph (float[N,3] x, float[N,3] z) => (float[N,2] y, float[N,2] u) {
            [left] a = MatMul (x, w)
            [right] b = MatMul (z, w)
            [after_left] y = MatMul (a, w2)
            [after_right] u = MatMul (b, w3)
        }""",
        {"w": weights(3, 8), "w2": weights(8, 2), "w3": weights(8, 2)},
    )
    assert because(explain(channels.analyze(model), "left"))["right"] == "has the same weights"


def test_statistics_are_told() -> None:
    model = parse(
        """agraph (float[N,3] x) => (float[N,2] y) {
            [first] a = MatMul (x, w1)
            [norm] b = LayerNormalization (a, gamma)
            [last] y = MatMul (b, w2)
        }""",
        {"w1": weights(3, 8), "gamma": weights(8), "w2": weights(8, 2)},
    )
    graph = channels.analyze(model)
    shown = text(explain(graph, "first"))
    assert "exact up to statistics: 1 LayerNormalization ('norm')" in shown
    data = explain(graph, "first").to_dict()["channels"][0]
    assert data["exact"] is False
    assert data["statistics"] == [{"node": "norm", "operator": "LayerNormalization"}]
    assert "norms" in text(graph, 80)
    assert "1 LayerNormalization" in text(graph, 160)


@pytest.mark.parametrize("name", ["w1", "a"])
def test_tensors_have_explanations(name: str, graph: ChannelGraph) -> None:
    explanation = explain(graph, name)
    assert explanation.kind == "tensor"
    first = explanation.channels[0]
    assert first.role == "has"
    assert first.count == 8
    assert because(explanation)["conv3"] == "Add 'add_3' adds them"


def test_a_vector_is_explained_for_each_reader(graph: ChannelGraph) -> None:
    explanation = explain(graph, "scale")
    assert [part.count for part in explanation.channels] == [8]
    assert {"conv1", "conv3", "narrow", "conv4"} == set(because(explanation))


def test_names_that_are_not_there_are_guessed(graph: ChannelGraph) -> None:
    with pytest.raises(UsageError, match="no node and no tensor 'con1'") as caught:
        explain(graph, "con1")
    assert "conv1" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        explain(graph, "completely different")
    assert "--groups --json" in caught.value.hint
    with pytest.raises(UsageError):
        explain(graph, "")


def test_a_name_that_two_nodes_have_is_not_taken() -> None:
    model = residual()
    for node in model.graph:
        if node.op_type == "Conv":
            node.name = "conv"
    graph = channels.analyze(model)
    with pytest.raises(UsageError, match="4 nodes are called 'conv'") as caught:
        explain(graph, "conv")
    assert "'a'" in caught.value.hint
    assert explain(graph, "a").channels


def test_a_node_without_channels_says_so() -> None:
    model = parse("agraph (float[N] x) => (float[N] y) { [relu] y = Relu (x) }")
    explanation = explain(channels.analyze(model), "relu")
    assert explanation.channels == ()
    assert "No channels" in text(explanation)
    with pytest.raises(UsageError, match="no channels to draw"):
        explanation.to_svg()


def test_json_is_plain(graph: ChannelGraph) -> None:
    data = json.loads(json.dumps(explain(graph, "conv1").to_dict(), allow_nan=False))
    assert data["schema"] == "graphopt.explanation/1"
    gives = data["channels"][0]
    assert gives["group_name"] == "conv1"
    assert 0 < gives["share_half"]["parameters"] < 1
    assert gives["layers"][2]["via"] == [{"node": "add_3", "operator": "Add", "does": "adds them"}]
    whole = json.loads(json.dumps(graph.to_dict(), allow_nan=False))
    assert [group["name"] for group in whole["groups"]] == ["conv1", "narrow", "conv4"]
    assert whole["groups"][0]["layers"] == 4
    assert whole["total"]["parameters"] == graph.savings.total.parameters
    softmax = next(one for one in whole["frozen"] if one["operator"] == "Softmax")
    assert (softmax["node"], softmax["size"], softmax["name"]) == ("softmax", 5, "fc")


def test_the_terminal_says_what_matters(graph: ChannelGraph) -> None:
    shown = text(explain(graph, "conv1"), 80)
    assert max(map(len, shown.splitlines())) <= 80
    for words in ("Conv 'conv1'", "gives 8 channels of group 0, 'conv1'", "Add 'add_3' adds them", "exact", "'x'"):
        assert words in shown


@pytest.mark.parametrize("width", [80, 140])
def test_the_overview_fits(width: int, graph: ChannelGraph) -> None:
    shown = text(graph, width)
    assert max(map(len, shown.splitlines())) <= width
    assert "Softmax 'softmax' looks along it" in shown
    assert "3 groups" in shown
    assert ("bytes" in shown) == (width == 140)


def test_the_overview_of_many_groups_shows_the_largest() -> None:
    lines = [f"[fc{index}] v{index + 1} = MatMul (v{index}, w{index})" for index in range(15)]
    model = parse(
        "agraph (float[N,4] v0) => (float[N,4] v15) { " + "\n".join(lines) + " }",
        {f"w{index}": weights(4 if not index else 3 + index, 4 if index == 14 else 4 + index) for index in range(15)},
    )
    graph = channels.analyze(model)
    shown = text(graph, 80)
    assert len(graph.groups) == 14
    assert "and 4 smaller groups; --json lists them all" in shown
    assert "fc13" in shown
    assert "fc0 " not in shown


def test_groups_are_named_after_what_gives_their_lanes(heads: ChannelGraph) -> None:
    assert [group.name for group in heads.groups] == ["q"]
    split = parse(
        """agraph (float[N,3] x) => (float[N,2] y, float[N,2] z) {
            [wide] a = MatMul (x, w)
            [cut] b, c = Split <axis=1, num_outputs=2> (a)
            y = MatMul (b, w2)
            z = MatMul (c, w3)
        }""",
        {"w": weights(3, 8), "w2": weights(4, 2), "w3": weights(4, 2)},
    )
    assert [group.name for group in channels.analyze(split).groups] == ["wide", "wide#2"]


def test_names_cannot_move_the_cursor() -> None:
    model = residual()
    first = next(iter(model.graph))
    first.name = "evil\x1b[2Jname\n" + "long" * 100
    graph = channels.analyze(model)
    for thing in (graph, explain(graph, first.name)):
        assert "\x1b" not in text(thing, 80)
        assert max(map(len, text(thing, 80).splitlines())) <= 80


def test_notebooks_escape_names() -> None:
    model = residual()
    next(iter(model.graph)).name = "<script>alert(1)</script>"
    graph = channels.analyze(model)
    for thing in (graph, explain(graph, "<script>alert(1)</script>")):
        assert "<script" not in thing._repr_html_()
    assert "<svg" in explain(graph, "conv3")._repr_html_()


def test_explanations_are_the_same_each_time() -> None:
    one, other = (explain(channels.analyze(residual()), "conv1").to_dict() for _ in range(2))
    assert one == other
    assert np.isfinite(one["channels"][0]["share_half"]["macs"])
