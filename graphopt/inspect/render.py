"""How an inspection looks in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from graphopt.human import byte_size, count, percent, printable, shorten
from graphopt.sections import Section, html_table, page

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType

    from graphopt.inspect.inspection import Inspection, Port

__all__ = ["html", "terminal"]

_MOST = 10
_MOST_EXTENTS = 6
_LONGEST_DIM = 24


def terminal(inspection: Inspection, options: ConsoleOptions) -> Iterator[RenderableType]:
    """The interface, a summary, then the ten largest of everything."""
    yield from page(_title(inspection), _facts(inspection), _sections(inspection), options)


def html(inspection: Inspection) -> str:
    """Self-contained HTML; every text from the model is escaped."""
    facts = "".join(
        f'<tr><td style="text-align:left"><i>{escape(name)}</i></td>'
        f'<td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in _facts(inspection)
    )
    tables = "".join(html_table(section) for section in _sections(inspection) if section.rows)
    return f"<p><b>{escape(_title(inspection))}</b></p><table>{facts}</table>{tables}"


def _title(inspection: Inspection) -> str:
    name = "model" if inspection.path is None else inspection.path.name
    opsets = ", ".join(f"{domain or 'opset'} {version}" for domain, version in inspection.opsets.items())
    parts = [printable(name), opsets, f"IR {inspection.ir_version}", printable(inspection.producer)]
    return "  ".join(filter(None, parts))


def _facts(inspection: Inspection) -> Iterator[tuple[str, str]]:
    for what, ports in (("inputs", inspection.inputs), ("outputs", inspection.outputs)):
        shown = ports[:_MOST]
        widths = [max((len(part) for part in column), default=0) for column in zip(*map(_port, shown), strict=True)]
        for index, port in enumerate(shown):
            name, dtype, shape = (part.ljust(width) for part, width in zip(_port(port), widths, strict=True))
            yield what if index == 0 else "", f"{name}  {dtype}  {shape}".rstrip()
        if len(ports) > _MOST:
            yield "", f"and {len(ports) - _MOST} more"
    yield "nodes", _nodes(inspection)
    yield "parameters", _parameters(inspection)
    yield "size", _size(inspection)
    yield "work", _work(inspection)
    weights = sum(one.bytes for one in inspection.stored)
    yield "memory", f"{byte_size(inspection.memory)} at the peak of that run, {byte_size(weights)} of it weights"
    if inspection.folding.nodes:
        yield "would fold", _folding(inspection)
    if inspection.unused_initializers:
        yield "unused", f"{inspection.unused_initializers} initializers"


def _port(port: Port) -> tuple[str, str, str]:
    """Name, type and shape."""
    if port.shape is None:
        shape = "any shape"
    else:
        shape = " x ".join("?" if dim is None else shorten(str(dim), _LONGEST_DIM) for dim in port.shape) or "scalar"
    return shorten(printable(port.name), 40), port.dtype.lower(), printable(shape) + ", optional" * port.optional


def _nodes(inspection: Inspection) -> str:
    parts = [f"{inspection.nodes:,} of {len(inspection.operators)} kinds"]
    if inspection.constants:
        parts.append(f"{inspection.constants:,} constants")
    if inspection.subgraphs:
        parts.append(f"{inspection.subgraphs} subgraphs")
    if inspection.functions:
        parts.append(f"{len(inspection.functions)} functions")
    return ", ".join(parts)


def _parameters(inspection: Inspection) -> str:
    mix = [f"{byte_size(one.bytes)} {one.dtype.lower()}" for one in inspection.stored if one.bytes]
    more = f", and {len(mix) - 4} more types" if len(mix) > 4 else ""
    return f"{count(inspection.parameters)}; stored: {', '.join(mix[:4]) or 'nothing'}{more}"


def _size(inspection: Inspection) -> str:
    parts = [] if inspection.file_bytes is None else [byte_size(inspection.file_bytes)]
    if inspection.external:
        files = len(inspection.external)
        parts.append(f"{byte_size(sum(inspection.external.values()))} in {files} data file{'s' * (files > 1)}")
    return " + ".join(parts) or "in memory"


def _work(inspection: Inspection) -> str:
    costs = inspection.costs
    work = f"{count(costs.macs)} MACs, {count(costs.flops)} operations"
    traffic = f"{byte_size(costs.weight_bytes)} of weights and {byte_size(costs.activation_bytes)} of activations"
    text = f"{work}; {traffic} pass through nodes"
    if inspection.extents:
        text += f"; at {_extents(inspection)}"
    if costs.assumed:
        text += f"; with {len(costs.assumed)} data-dependent extents taken to be 1"
    if costs.uncounted:
        text += f"; not counting {', '.join(f'{times} {name}' for name, times in list(costs.uncounted.items())[:6])}"
    return text


def _extents(inspection: Inspection) -> str:
    """``batch = 1, x[2] = 64``, guesses marked as such."""
    parts = [f"{printable(name)} = {extent}" for name, extent in inspection.extents.items()]
    more = [f"{len(parts) - _MOST_EXTENTS} more"] if len(parts) > _MOST_EXTENTS else []
    note = " (a guess; --input-shape says otherwise)" if inspection.guessed else ""
    return ", ".join(parts[:_MOST_EXTENTS] + more) + note


def _folding(inspection: Inspection) -> str:
    folding = inspection.folding
    names = ", ".join(f"{times} {name}" for name, times in list(folding.operators.items())[:4])
    more = ", ..." if len(folding.operators) > 4 else ""
    sizes = f"{byte_size(folding.bytes_before)} of constants become {byte_size(folding.bytes_after)}"
    return f"{folding.nodes:,} nodes ({names}{more}); {sizes}"


def _sections(inspection: Inspection) -> Iterator[Section]:
    total = max(1, inspection.costs.macs)
    yield _operators(inspection, total)
    yield _blocks(inspection, total)
    yield _layers(inspection, total)
    largest = [one for one in inspection.largest if one.bytes][:_MOST]
    yield Section(
        ("largest tensors", "type", "shape", "size"),
        [
            (printable(one.name), one.dtype.lower(), " x ".join(map(str, one.shape)) or "scalar", byte_size(one.bytes))
            for one in largest
        ],
        texts=2,
    )


def _operators(inspection: Inspection, total: int) -> Section:
    shown = inspection.operators[:_MOST]
    shares = [one.macs / total for one in shown]
    rows = [
        (printable(one.operator), f"{one.nodes:,}", _count(one.macs), percent(share), byte_size(one.moved_bytes))
        for one, share in zip(shown, shares, strict=True)
    ]
    more = _more(len(inspection.operators), "operators")
    return Section(("operator", "nodes", "MACs", "share", "bytes moved"), rows, shares, more=more)


def _blocks(inspection: Inspection, total: int) -> Section:
    shown = sorted(inspection.groups, key=lambda one: (-one.macs, -one.moved_bytes))[:_MOST]
    shares = [one.macs / total for one in shown]
    rows = [
        (
            _brief(one.name),
            f"{one.nodes:,}",
            _count(one.parameters),
            _count(one.macs),
            percent(share),
            byte_size(one.moved_bytes),
        )
        for one, share in zip(shown, shares, strict=True)
    ]
    more = _more(len(inspection.groups), "blocks")
    return Section(("block", "nodes", "params", "MACs", "share", "bytes moved"), rows, shares, more=more)


def _layers(inspection: Inspection, total: int) -> Section:
    shown = sorted(inspection.layers, key=lambda one: (-(one.macs or 0) * one.times, -one.weight_bytes))[:_MOST]
    shares = [(one.macs or 0) * one.times / total for one in shown]
    rows = [
        (
            _brief(one.name, one.operator),
            shorten(printable(one.operator.rpartition("::")[2]), 20),
            count(one.parameters),
            _count(one.macs),
            percent(share),
            byte_size(one.weight_bytes),
            byte_size(one.activation_bytes),
        )
        for one, share in zip(shown, shares, strict=True)
    ]
    heads = ("layer", "operator", "params", "MACs", "share", "weights", "activations")
    return Section(heads, rows, shares, texts=2, more=_more(len(inspection.layers), "layers"))


def _brief(name: str, operator: str = "") -> str:
    """A scoped name without what it says twice: ``/layer1/layer1.0/conv/Conv`` of a Conv is ``layer1.0/conv``."""
    parts = [part for part in printable(name).split("/") if part]
    if len(parts) > 1 and parts[-1] == operator.rpartition("::")[2]:
        parts.pop()
    kept = [part for part, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{part}.")]
    return "/".join(kept) or printable(name)


def _count(number: int | None) -> str:
    """A count that is missing where nothing happens, so that the eye finds what does; unknown is ``?``."""
    return "?" if number is None else count(number) if number else ""


def _more(total: int, what: str) -> str:
    return f"and {total - _MOST:,} more {what}" if total > _MOST else ""
