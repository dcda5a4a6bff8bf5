"""Pictures as SVG that needs nothing else: no scripts, no fonts, no files besides."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from graphopt.channels.explaining.drawing import COLORS, LEGEND, Box, Picture
from graphopt.channels.explaining.layout import arrange
from graphopt.human import printable, shorten

__all__ = ["to_svg"]

_LONGEST = 38
_FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
_ARROW_HEAD = (
    '<defs><marker id="graphopt-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto"><path d="M0,0 L8,4 L0,8 Z" fill="#555555"/></marker></defs>'
)
_LINE = 16.0
_PAD = 10.0
_MARGIN = 24.0
_HEAD = 64.0


def to_svg(drawn: Picture) -> str:
    """A picture as SVG: no scripts, no fonts, no files besides; dark on white."""
    texts = [_texts(box) for box in drawn.boxes]
    sizes = [_size(lines) for lines in texts]
    layout = arrange(sizes, [(arrow.source, arrow.target) for arrow in drawn.arrows])
    legend = [kind for kind in LEGEND if any(box.kind == kind for box in drawn.boxes)]
    head = max(_width(drawn.title, 15, bold=True), _width(drawn.subtitle, 12))
    foot = sum(_width(LEGEND[kind], 11) + 44 for kind in legend)
    width = max(layout.width, head, foot) + 2 * _MARGIN
    height = layout.height + _HEAD + _MARGIN + 44
    shift = (width - layout.width) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {_extent(width, height)} font-family="{_FONT}" role="img">',
        f"<title>{_xml(drawn.title)}</title>",
        _ARROW_HEAD,
        f'<path d="M0,0 H{width:.0f} V{height:.0f} H0 Z" fill="#ffffff"/>',
        _text(_MARGIN, 30, drawn.title, 15, bold=True, anchor="start"),
        _text(_MARGIN, 50, drawn.subtitle, 12, fill="#444444", anchor="start"),
    ]
    for arrow, route in zip(drawn.arrows, layout.routes, strict=True):
        dash = ' stroke-dasharray="4 3"' if arrow.is_weight else ""
        points = [(x + shift, y + _HEAD) for x, y in route]
        parts.append(
            f'<path d="{_curve(points)}" fill="none" stroke="#555555" stroke-width="1.3"{dash} '
            'marker-end="url(#graphopt-arrow)"/>'
        )
    for box, lines, (box_width, box_height), (x, y) in zip(drawn.boxes, texts, sizes, layout.centers, strict=True):
        parts += _drawn(box, lines, x + shift, y + _HEAD, box_width, box_height)
    parts += _drawn_legend(legend, height - 26)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _extent(width: float, height: float) -> str:
    return f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'


def _texts(box: Box) -> list[tuple[str, float, bool]]:
    """Its lines: text, size, bold."""
    lines = [(shorten(box.title, _LONGEST), 12.5, True)]
    if box.name:
        lines.append((shorten(printable(box.name), _LONGEST), 11.0, False))
    lines += [(shorten(line, _LONGEST), 11.0, False) for line in box.lines[:4]]
    if len(box.lines) > 4:
        lines.append((f"and {len(box.lines) - 4} more", 11.0, False))
    return lines


def _size(lines: Sequence[tuple[str, float, bool]]) -> tuple[float, float]:
    widest = max(_width(text, size, bold=bold) for text, size, bold in lines)
    return max(96.0, widest + 2 * _PAD), len(lines) * _LINE + 1.2 * _PAD


def _width(text: str, size: float, *, bold: bool = False) -> float:
    """Enough for the widest of the fonts that a viewer may have."""
    units = sum(0.36 if char in "iljtfrI.,:;'|/ ()[]!" else 0.92 if char in "mwMW@%…" else 0.66 for char in text)
    wide = sum(0.4 for char in text if ord(char) > 0x2E80)
    return (units + wide) * size * (1.08 if bold else 1.0)


def _drawn(
    box: Box, lines: Sequence[tuple[str, float, bool]], x: float, y: float, width: float, height: float
) -> list[str]:
    fill, border = COLORS[box.kind]
    stroke = 3.0 if box.is_subject else 1.3
    radius = height / 2 if box.kind == "end" else 2 if box.kind == "layer" else 7
    dash = ' stroke-dasharray="5 3"' if box.kind == "weight" else ""
    place = f'x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}"'
    parts = [
        f'<g class="{box.kind}"><title>{_xml(box.detail)}</title>',
        f'<rect {place} rx="{radius:.0f}" fill="{fill}" stroke="{border}" stroke-width="{stroke}"{dash}/>',
    ]
    at = y - height / 2 + 0.6 * _PAD + 12
    for number, (text, size, bold) in enumerate(lines):
        color = "#111111" if bold or (number == 1 and box.name) else border if box.kind != "pass" else "#444444"
        parts.append(_text(x, at, text, size, bold=bold, fill=color))
        at += _LINE
    return [*parts, "</g>"]


def _drawn_legend(kinds: Sequence[str], y: float) -> list[str]:
    parts = []
    x = _MARGIN
    for kind in kinds:
        fill, border = COLORS[kind]
        parts.append(
            f'<path d="M{x:.1f},{y - 11:.1f} h14 v14 h-14 Z" fill="{fill}" stroke="{border}" stroke-width="1.3"/>'
        )
        parts.append(_text(x + 20, y, LEGEND[kind], 11, fill="#444444", anchor="start"))
        x += _width(LEGEND[kind], 11) + 44
    return parts


def _text(
    x: float, y: float, text: str, size: float, *, bold: bool = False, fill: str = "#111111", anchor: str = "middle"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"{weight}>'
        f"{_xml(text)}</text>"
    )


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Through all points, upright where it meets a box or a row."""
    (x, y), *others = points
    text = f"M{x:.1f},{y:.1f}"
    for to_x, to_y in others:
        if abs(to_x - x) < 0.5:
            text += f" L{to_x:.1f},{to_y:.1f}"
        else:
            bend = (to_y - y) / 2
            text += f" C{x:.1f},{y + bend:.1f} {to_x:.1f},{to_y - bend:.1f} {to_x:.1f},{to_y:.1f}"
        x, y = to_x, to_y
    return text


def _xml(text: str) -> str:
    """Escaped; what XML cannot hold at all is made visible."""
    return escape("\n".join(printable(line) for line in text.split("\n")), quote=True)
