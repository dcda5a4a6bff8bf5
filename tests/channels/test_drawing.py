"""Pictures of groups: well-formed, complete, escaped, laid out without overlap."""

from __future__ import annotations

import itertools
import random
import xml.etree.ElementTree as ET

import pytest
from channels.examples import attention, residual, weights
from harness import parse

from graphopt import channels
from graphopt.channels import ChannelGraph, explain
from graphopt.channels.explaining import drawing
from graphopt.channels.explaining.layout import arrange
from graphopt.channels.explaining.svg import to_svg

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "a<b> & \"c\" 'd' \\ {e|f} \x00\n ]]> é 日本" + "x" * 300


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return channels.analyze(residual())


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    root = ET.fromstring(svg)
    return [tuple(float(one.attrib[key]) for key in ("x", "y", "width", "height")) for one in root.iter(f"{SVG}rect")]  # type: ignore[misc]


def texts(svg: str) -> list[str]:
    return ["".join(one.itertext()) for one in ET.fromstring(svg).iter(f"{SVG}text")]


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def test_one_box_a_node(graph: ChannelGraph) -> None:
    svg = graph.groups[0].to_svg()
    # conv1, bn1 and relu1 in one, narrow, conv3, add_3, conv4
    assert len(boxes(svg)) == 6
    shown = texts(svg)
    for name in ("conv1", "narrow", "conv3", "add_3", "conv4"):
        assert name in shown
    assert "BatchNormalization, Relu" in shown
    assert "softmax" not in shown
    titles = [one.text or "" for one in ET.fromstring(svg).iter(f"{SVG}title")]
    assert "BatchNormalization bn1\nRelu relu1" in titles


def test_slices_are_kept_of_all(graph: ChannelGraph) -> None:
    group = graph.groups[0]
    assert "7/8 x 3 x 3 x 3" in texts(group.to_svg())
    assert "6 x 7/8 x 1 x 1" in texts(group.to_svg())
    assert "4 of 7/8" in texts(group.to_svg())
    half = texts(group.to_svg(group.units[:4]))
    assert "4/8 x 3 x 3 x 3" in half
    assert any("without 4 of them" in line for line in half)
    assert "8/8 x 3 x 3 x 3" in texts(group.to_svg([]))


def test_arrows_follow_the_graph(graph: ChannelGraph) -> None:
    picture = drawing.picture(graph.groups[0])
    names = {number: box.name or box.title for number, box in enumerate(picture.boxes)}
    assert {(names[arrow.source], names[arrow.target]) for arrow in picture.arrows} == {
        ("conv1", "BatchNormalization, Relu"),
        ("BatchNormalization, Relu", "narrow"),
        ("BatchNormalization, Relu", "add_3"),
        ("conv3", "add_3"),
        ("add_3", "conv4"),
    }
    kinds = {box.name: box.kind for box in picture.boxes}
    assert (kinds["conv1"], kinds["add_3"]) == ("layer", "join")


def test_the_subject_and_the_cause_are_marked(graph: ChannelGraph) -> None:
    explanation = explain(graph, "fc")
    picture = drawing.explained(explanation, explanation.channels[0])
    assert [box.name for box in picture.boxes if box.is_subject] == ["fc"]
    assert [box.name for box in picture.boxes if box.kind == "cause"] == ["softmax"]
    assert "Softmax 'softmax'" in picture.subtitle
    interface = explain(graph, "conv1")
    ends = drawing.explained(interface, interface.channels[1])
    assert [(box.title, box.name) for box in ends.boxes if box.kind == "end"] == [("model input", "x")]
    assert any(ends.boxes[arrow.source].kind == "end" for arrow in ends.arrows)


def test_heads(graph: ChannelGraph) -> None:
    svg = channels.analyze(attention()).groups[0].to_svg()
    shown = texts(svg)
    assert "16 x 12/16" in shown
    assert "12/16 x 16" in shown
    assert {"scores", "context"} <= set(shown)


def test_shared_weights_are_drawn() -> None:
    model = parse(
        """agraph (float[N,3] x, float[N,3] z) => (float[N,2] y, float[N,2] u) {
            [left] a = MatMul (x, w)
            [right] b = MatMul (z, w)
            y = MatMul (a, w2)
            u = MatMul (b, w3)
        }""",
        {"w": weights(3, 8), "w2": weights(8, 2), "w3": weights(8, 2)},
    )
    picture = drawing.picture(channels.analyze(model).groups[0])
    (shared,) = [number for number, box in enumerate(picture.boxes) if box.kind == "weight"]
    assert (picture.boxes[shared].name, picture.boxes[shared].lines) == ("w", ("3 x 7/8",))
    assert sum(arrow.is_weight and arrow.source == shared for arrow in picture.arrows) == 2


def test_names_are_escaped() -> None:
    model = residual()
    for number, node in enumerate(model.graph):
        node.name = f"{number}{EVIL}"
    graph = channels.analyze(model)
    group = graph.groups[0]
    svg = group.to_svg()
    assert len(boxes(svg)) == 6
    assert any('a<b> & "c"' in line for line in texts(svg))
    assert max(map(len, texts(svg))) < 120
    assert max(width for _, _, width, _ in boxes(svg)) < 420
    dot = group.to_dot()
    assert r"\"c\" 'd' \\ {e|f}" in dot
    assert "\x00" not in dot
    # Quotes are balanced: without escapes, an even number in each line.
    for line in dot.splitlines():
        assert line.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 0


def test_dot_has_every_box_and_arrow(graph: ChannelGraph) -> None:
    picture = drawing.picture(graph.groups[0])
    dot = graph.groups[0].to_dot()
    assert dot.startswith("digraph group {")
    assert dot.count(" -> ") == len(picture.arrows)
    assert dot.count("fillcolor=") == len(picture.boxes)


def test_large_groups_are_cut_near_the_subject() -> None:
    blocks = []
    tensors = {"stem": weights(4, 3)}
    for number in range(100):
        before = f"v{number}"
        blocks.append(f"[fc{number}] u{number} = MatMul ({before}, w{number})")
        blocks.append(f"[add{number}] v{number + 1} = Add ({before}, u{number})")
        tensors[f"w{number}"] = weights(8, 8)
    tensors |= {"stem": weights(3, 8), "end": weights(8, 2)}
    model = parse(
        "agraph (float[N,3] x) => (float[N,2] y) {\n[first] v0 = MatMul (x, stem)\n"
        + "\n".join(blocks)
        + "\n[last] y = MatMul (v100, end)\n}",
        tensors,
    )
    graph = channels.analyze(model)
    explanation = explain(graph, "fc50")
    picture = drawing.explained(explanation, explanation.channels[0])
    assert len(picture.boxes) <= drawing.MOST
    assert "more nodes are not drawn" in picture.subtitle
    names = {box.name for box in picture.boxes}
    assert {"fc50", "add50", "fc49", "add45"} <= names
    assert "fc0" not in names
    drawn = boxes(to_svg(picture))
    assert not any(overlap(a, b) for a, b in itertools.combinations(drawn, 2))


def test_everything_lies_within_the_picture(graph: ChannelGraph) -> None:
    svg = graph.groups[0].to_svg()
    root = ET.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for x, y, w, h in boxes(svg):
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height


@pytest.mark.parametrize("seed", range(12))
def test_boxes_do_not_overlap_and_arrows_go_down(seed: int) -> None:
    dice = random.Random(seed)
    count = dice.randrange(1, 50)
    sizes = [(dice.uniform(60, 250), dice.uniform(20, 90)) for _ in range(count)]
    edges = sorted({tuple(sorted(dice.sample(range(count), 2))) for _ in range(count)} if count > 1 else set())
    layout = arrange(sizes, edges)  # type: ignore[arg-type]
    places = [(x - w / 2, y - h / 2, w, h) for (x, y), (w, h) in zip(layout.centers, sizes, strict=True)]
    assert not any(overlap(a, b) for a, b in itertools.combinations(places, 2))
    assert all(x >= -1e-6 and x + w <= layout.width + 1e-6 and y + h <= layout.height + 1e-6 for x, y, w, h in places)
    for (source, target), route in zip(edges, layout.routes, strict=True):
        assert route[0][1] == pytest.approx(places[source][1] + sizes[source][1])
        assert route[-1][1] == pytest.approx(places[target][1])
        heights = [y for _, y in route]
        assert heights == sorted(heights)
        for x, y in route[1:-1]:  # on its way it stays clear of boxes
            assert not any(bx < x < bx + w and by < y < by + h for bx, by, w, h in places)


def test_a_trunk_stands_upright_where_it_can() -> None:
    sizes = [(100.0, 30.0)] * 9
    # 0 -> 1 -> 2 -> 3 -> 4, with a leaf beside each.
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (1, 6), (2, 7), (3, 8)]
    layout = arrange(sizes, edges)
    trunk = [layout.centers[box][0] for box in range(5)]
    assert max(trunk) - min(trunk) < 20


def test_cycles_do_not_hang() -> None:
    layout = arrange([(50.0, 20.0)] * 3, [(0, 1), (1, 2), (2, 0)])
    assert len(layout.routes) == 3
