"""How channel graphs and explanations look in a terminal and in a notebook."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from graphopt.channels.explaining.ties import layers_of
from graphopt.channels.units import Saving
from graphopt.human import byte_size, count, percent, printable, shorten, shorten_all
from graphopt.names import label, operator
from graphopt.sections import NARROW, Section, html_table, plain, table

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType

    from graphopt.channels.explaining.explanation import Channels, Explanation
    from graphopt.channels.explaining.ties import Piece, Tie
    from graphopt.channels.groups import ChannelGraph
    from graphopt.channels.units import Frozen, Group

__all__ = ["explanation", "explanation_html", "overview", "overview_html"]

_MOST = 10
_MOST_LAYERS = 12
_WIDE = 130
"""From this many columns on the table of groups has every figure."""

_NORMS = (
    "norms: normalizations take statistics over these channels. Without some of them the statistics are over what is "
    "left, which is what the masked model is compared with too."
)
_FIGURES = (
    "one, half: parameters that go with one channel or head, and with half of them; shares of all that the model has."
)
_SYMBOLIC = "MACs are of one run, with 1 for every size that the shapes leave open."


# -- all groups ------------------------------------------------------------------------------------------------------


def overview(graph: ChannelGraph, options: ConsoleOptions) -> Iterator[RenderableType]:
    """What can be removed and what cannot, the largest first."""
    yield Text(_title(graph), style="bold", overflow="fold")
    yield Text(_totals(graph), style="dim", overflow="fold")
    if graph.groups:
        section = _groups(graph, wide=options.max_width >= _WIDE)
        yield Text()
        yield table(section, options.max_width, options.ascii_only)
        yield from _notes(graph, section)
    if graph.frozen:
        yield Text()
        rows, more = _frozen(graph)
        yield _frozen_table(rows, options)
        if more:
            yield Text(more, style="dim")


def overview_html(graph: ChannelGraph) -> str:
    """Self-contained HTML; every text from the model is escaped."""
    text = f"<p><b>{escape(_title(graph))}</b><br>{escape(_totals(graph))}</p>"
    if graph.groups:
        section = _groups(graph, wide=True)
        text += html_table(section) + "".join(f"<p><small>{escape(str(note))}</small></p>" for note in _notes(graph))
    if graph.frozen:
        rows, more = _frozen(graph)
        text += html_table(Section(_FROZEN_HEADS, rows, more=more))
    return text


def _title(graph: ChannelGraph) -> str:
    units = sum(len(group.units) for group in graph.groups)
    stay = f"{_plural(len(graph.frozen), 'axis')} stay{'s' if len(graph.frozen) == 1 else ''}"
    return f"{_plural(len(graph.groups), 'group')} of {units:,} channels or heads; {stay}"


def _totals(graph: ChannelGraph) -> str:
    total = graph.savings.total
    return f"of {count(total.parameters)} parameters, {byte_size(total.bytes)}, {count(total.macs)} MACs"


def _plural(number: int, what: str) -> str:
    if number == 1:
        return f"1 {what}"
    return f"{number:,} {'axes' if what == 'axis' else what + 's'}"


_WIDE_HEADS = (
    "group", "units", "layers", "one: params", "bytes", "MACs",
    "half: params", "share", "bytes", "MACs", "share", "exact",
)  # fmt: skip
_NARROW_HEADS = ("group", "units", "layers", "one", "half", "share", "MACs", "exact")


def _groups(graph: ChannelGraph, *, wide: bool) -> Section:
    halves = {group.index: graph.savings.half(group) for group in graph.groups}
    shares = {index: graph.savings.share(saving) for index, saving in halves.items()}
    shown = sorted(graph.groups, key=lambda group: (-max(shares[group.index]), group.index))[:_MOST]
    digits = len(str(max(group.index for group in shown)))
    scope = _scope([group.name for group in shown])
    rows: list[tuple[str, ...]] = []
    for group in shown:
        one, half, share = group.units[0].saving, halves[group.index], shares[group.index]
        units = _units(group) if wide or group.heads else str(len(group.units))
        start = (f"{group.index:>{digits}} {_brief(group, scope)}", units, str(len(layers_of(group))))
        if wide:
            rows.append(
                (
                    *start, count(one.parameters), byte_size(one.bytes), count(one.macs), count(half.parameters),
                    percent(share[0]), byte_size(half.bytes), count(half.macs), percent(share[2]), _exactness(group),
                )
            )  # fmt: skip
        else:
            exact = "yes" if group.exact else "norms"
            figures = (count(one.parameters), count(half.parameters), percent(share[0]), percent(share[2]))
            rows.append((*start, *figures, exact))
    heads = _WIDE_HEADS if wide else _NARROW_HEADS
    left = len(graph.groups) - len(shown)
    more = f"and {_plural(left, 'smaller group')}; --json lists them all" if left else ""
    return Section(heads, rows, more=more)


def _scope(names: Sequence[str]) -> int:
    """How many characters of scopes all names begin with."""
    first, last = min(names), max(names)
    shared = next(
        (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    return first.rfind("/", 0, shared) + 1


def _brief(group: Group, scope: int) -> str:
    """The name without the scopes that all have, and without the operator that exporters end it with."""
    name, mark, number = group.name[scope:].partition("#")
    head, _, tail = name.rpartition("/")
    if head and any(tail == node.op_type for node in group.nodes):
        name = head
    return printable(name + mark + number)


def _units(group: Group) -> str:
    return f"{len(group.units)} {'heads' if group.heads else 'channels'}"


def _exactness(group: Group) -> str:
    """Which normalizations take statistics over a group."""
    if group.exact:
        return "yes"
    kinds = collections.Counter(operator(node) for node in group.statistics)
    return ", ".join(f"{many} {kind}" for kind, many in kinds.items())


def _notes(graph: ChannelGraph, section: Section | None = None) -> Iterator[Text]:
    notes = [section.more] if section is not None else []
    if section is not None and section.heads == _NARROW_HEADS:
        notes.append(_FIGURES)
    if not all(group.exact for group in graph.groups):
        notes.append(_NORMS)
    if graph.savings.is_symbolic:
        notes.append(_SYMBOLIC)
    yield from (Text(note, style="dim") for note in notes if note)


_FROZEN_HEADS = ("stays, because", "axes", "channels", "half: params", "share", "MACs")


def _frozen(graph: ChannelGraph) -> tuple[list[tuple[str, ...]], str]:
    """Frozen axes by what froze them: rows, and how many more there are."""
    found: dict[tuple[str, str], list[Frozen]] = collections.defaultdict(list)
    for one in graph.frozen:
        found["" if one.node is None else operator(one.node), one.reason].append(one)
    rows = []
    for (kind, reason), many in found.items():
        half = Saving(*map(sum, zip(*[one.half for one in many], strict=True)))
        share = graph.savings.share(half)
        row = (
            _blame(kind, [label(one.node) for one in many if one.node is not None], reason), str(len(many)),
            count(sum(one.size for one in many)), count(half.parameters), percent(share[0]), percent(share[2]),
        )  # fmt: skip
        rows.append((max(share), row))
    rows.sort(key=lambda pair: -pair[0])
    more = len(rows) - _MOST
    return [row for _, row in rows[:_MOST]], f"and {_plural(more, 'more reason')}" if more > 0 else ""


def _blame(kind: str, names: Sequence[str], reason: str) -> str:
    """``Softmax 'probs' looks along it``."""
    if not kind:
        return reason
    nodes = list(dict.fromkeys(names))
    who = f"{kind} '{shorten(printable(nodes[0]), 44)}'" if len(nodes) == 1 else f"{len(nodes)} {kind} nodes"
    short = kind.rpartition("::")[2]
    return f"{who} {reason.removeprefix(short).strip()}" if reason.startswith(f"{short} ") else f"{who}: {reason}"


def _frozen_table(rows: Sequence[tuple[str, ...]], options: ConsoleOptions) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, head in enumerate(_FROZEN_HEADS):
        grid.add_column(head, justify="right" if index else "left", no_wrap=bool(index), overflow="fold")
    for row in rows:
        grid.add_row(*[Text(plain(text, options.ascii_only)) for text in row])
    return grid


# -- one explanation -------------------------------------------------------------------------------------------------


def explanation(one: Explanation, options: ConsoleOptions) -> Iterator[RenderableType]:
    """The subject, then its channels, part by part."""
    yield Text(plain(_subject(one), options.ascii_only), style="bold", overflow="fold")
    if not one.channels:
        yield Text("No channels that weights are laid out along run through it.")
    for number, part in enumerate(one.channels, 1):
        yield Text()
        yield Text(plain(f"{number}  {_heading(part)}", options.ascii_only), style="bold", overflow="fold")
        facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        facts.add_column(no_wrap=True, style="dim")
        facts.add_column(overflow="fold")
        for name, text in _facts(one, part):
            facts.add_row(f"   {name}", Text(plain(text, options.ascii_only)))
        yield facts
        if part.layers:
            yield _layers(part, options)
    if one.channels and one.graph.savings.is_symbolic:
        yield Text()
        yield Text(_SYMBOLIC, style="dim")


def explanation_html(one: Explanation) -> str:
    """Self-contained HTML with a picture of each part; every text from the model is escaped."""
    text = f"<p><b>{escape(_subject(one))}</b></p>"
    for number, part in enumerate(one.channels, 1):
        facts = "".join(
            f'<tr><td style="text-align:left"><i>{escape(name)}</i></td>'
            f'<td style="text-align:left">{escape(fact)}</td></tr>'
            for name, fact in _facts(one, part)
        )
        rows = [(printable(tie.name), tie.role, _amounts(tie.slices), printable(tie.because)) for tie in part.layers]
        text += f"<p><b>{number}&nbsp; {escape(_heading(part))}</b></p><table>{facts}</table>"
        if rows:
            text += html_table(Section(_LAYER_HEADS, rows, texts=4))
        text += f"<div>{one.to_svg(number)}</div>"
    return text


def _subject(one: Explanation) -> str:
    kind = f"{one.operator} " if one.kind == "node" else "tensor "
    source = f", which {one.operator} gives" if one.kind == "tensor" and one.operator else ""
    return f"{kind}'{printable(one.name)}'{source}"


def _heading(part: Channels) -> str:
    if part.group is None:
        return f"{part.role} {_plural(part.count, 'channel')} that stay"
    what = "head" if part.group.heads else "channel"
    total = len(part.group.units)
    of_all = f" of the {total}" if part.count != total else ""
    return (
        f"{part.role} {_plural(part.count, what)}{of_all} of group {part.group.index}, '{printable(part.group.name)}'"
    )


def _facts(one: Explanation, part: Channels) -> Iterator[tuple[str, str]]:
    share = one.graph.savings.share(part.half)
    yield "where", ", ".join(_place(piece) for piece in part.slices[:4]) + _and_more(part.slices, 4)
    if part.frozen is not None:
        cause = part.frozen
        names = [] if cause.node is None else [cause.node]
        where = f" {', '.join(repr(printable(name)) for name in cause.where)}" if cause.where else ""
        yield "because", _blame(cause.operator or "", names, cause.reason) + where
        if cause.plain:
            yield "that is", cause.plain
        if cause.via:
            yield "by way of", ", ".join(map(_step, cause.via[:4])) + _and_more(cause.via, 4)
        yield "cost", f"one fewer would have saved {_saving(part.saving)}"
        yield "", f"half of them {_saving(part.half, share)}"
        return
    assert part.group is not None
    yield "one saves", _saving(part.saving)
    yield "half saves", _saving(part.half, share)
    if part.group.exact:
        yield "removal", "exact: the result is that of the model in which they are zero"
    else:
        nodes = [f"'{shorten(printable(label(node)), 40)}'" for node in part.group.statistics]
        who = f"{_exactness(part.group)} ({', '.join(nodes[:2])}{_and_more(nodes, 2)})"
        yield "removal", f"exact up to statistics: {who} then normalize over what is left"
    if part.attendants:
        kinds = collections.Counter(kind for _, kind in part.attendants)
        yield "also", ", ".join(f"{many} {kind}" for kind, many in kinds.items())


def _step(step: object) -> str:
    return shorten(printable(str(step)), 60)


def _saving(saving: Saving, share: tuple[float, float, float] | None = None) -> str:
    shares = ["", "", ""] if share is None else [f" ({percent(part)} of all)" if part else "" for part in share]
    texts = (f"{count(saving.parameters)} parameters", byte_size(saving.bytes), f"{count(saving.macs)} MACs")
    return ", ".join(
        f"{text}{part if index != 1 else ''}" for index, (text, part) in enumerate(zip(texts, shares, strict=True))
    )


def _place(piece: Piece) -> str:
    return f"axis {piece.axis} of '{shorten(printable(piece.tensor), 44)}'"


def _and_more(items: Sequence[object], most: int) -> str:
    return f" and {len(items) - most} more" if len(items) > most else ""


_LAYER_HEADS = ("goes with", "which", "of one", "because")


def _layers(part: Channels, options: ConsoleOptions) -> Table:
    shown = part.layers[:_MOST_LAYERS]
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    room = options.max_width - 3
    names = shorten_all([f"{tie.operator} {printable(tie.name)}" for tie in shown], max(16, room * 2 // 5))
    grid.add_column("", width=1)
    heads = [*_LAYER_HEADS] if part.group is not None else [*_LAYER_HEADS[:2], "of all", _LAYER_HEADS[3]]
    if options.max_width < NARROW:
        del heads[1]
    for head in heads:
        grid.add_column(head, no_wrap=head != "because", overflow="fold")
    for name, tie in zip(names, shown, strict=True):
        cells = [name, tie.role, _amounts(tie.slices), _reason(tie, options.max_width)]
        if len(heads) < len(cells):
            del cells[1]
        grid.add_row("", *[Text(plain(text, options.ascii_only)) for text in cells])
    if len(part.layers) > len(shown):
        grid.add_row("", Text(f"and {len(part.layers) - len(shown)} more; --json lists them all", style="dim"))
    return grid


def _reason(tie: Tie, width: int) -> str:
    """With names short enough to read."""
    text = printable(tie.because)
    for step in tie.via:
        text = text.replace(f"'{printable(step.node)}'", f"'{shorten(printable(step.node), max(20, width // 4))}'")
    return text


def _amounts(pieces: Sequence[Piece]) -> str:
    """What one unit has of a weight: ``1/64 x 32 x 3 x 3``; of the largest one where there are several."""
    by_tensor: dict[str, dict[int, Piece]] = collections.defaultdict(dict)
    for piece in pieces:
        by_tensor[piece.tensor][piece.axis] = piece
    largest = max(by_tensor.values(), key=lambda axes: len(next(iter(axes.values())).shape), default={})
    if not largest:
        return ""
    dims = next(iter(largest.values())).shape
    return " x ".join(
        f"{largest[axis].lanes}/{size}" if axis in largest else "?" if size is None else str(size)
        for axis, size in enumerate(dims)
    )
