"""How a report on sparsity looks in a terminal and in a notebook."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from rich.text import Text

from graphopt.human import byte_size, count, printable
from graphopt.sections import Section, html_table, page

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType

    from graphopt.pruning.sparsity.report import Report

__all__ = ["html", "terminal"]

_MOST = 20


def terminal(report: Report, options: ConsoleOptions) -> Iterator[RenderableType]:
    """A summary, the layers of the largest error, and why others stayed dense."""
    yield from page(_title(report), _facts(report), _sections(report), options)
    yield Text()
    yield Text(report.latency, style="dim")


def html(report: Report) -> str:
    """Self-contained HTML; every text from the model is escaped."""
    facts = "".join(
        f'<tr><td style="text-align:left"><i>{escape(name)}</i></td>'
        f'<td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in _facts(report)
    )
    tables = "".join(html_table(section) for section in _sections(report) if section.rows)
    title, latency = escape(_title(report)), escape(report.latency)
    return f"<p><b>{title}</b></p><table>{facts}</table>{tables}<p><small>{latency}</small></p>"


def _title(report: Report) -> str:
    method = report.method + (" over all layers" if report.scope == "global" else "")
    return f"{report.pattern} zeros, {method}" + (", refitted" if report.reconstruct else "")


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    weights = sum(one.elements for one in report.layers)
    yield "layers", f"{len(report.layers)} of {len(report.layers) + len(report.skipped)}"
    yield "weights", f"{count(weights)}, {report.density:.1%} of them not zero"
    if report.data:
        yield "data", f"{report.samples} samples of {printable(report.data)}"
    if report.error is not None:
        yield "error", f"{_share(report.error)} of a layer's output, on average"
    raw, encoded = sum(one.bytes for one in report.layers), sum(one.encoded_bytes for one in report.layers)
    yield "stored", f"{byte_size(raw)}; as bitmap and values {byte_size(encoded)}"
    if report.before is not None and report.after is not None:
        yield "file", f"{byte_size(report.before.file)}, now {byte_size(report.after.file)}"
        yield "gzip", f"{byte_size(report.before.gzip)}, now {byte_size(report.after.gzip)}"
    for note in report.notes:
        yield "note", note


def _sections(report: Report) -> Iterator[Section]:
    ranked = sorted(report.layers, key=lambda one: -(one.error or 0.0))
    rows = [
        (
            printable(one.layer),
            one.operator,
            " x ".join(map(str, one.shape)),
            f"{one.density:.1%}",
            _share(one.error),
            byte_size(one.bytes),
            byte_size(one.encoded_bytes),
        )
        for one in ranked[:_MOST]
    ]
    more = f"and {len(ranked) - _MOST} more layers" if len(ranked) > _MOST else ""
    heads = ("layer", "operator", "weight", "dense", "error", "raw", "encoded")
    yield Section(heads, rows, texts=2, more=more)
    reasons = collections.Counter(one.reason for one in report.skipped)
    first = {one.reason: one.layer for one in reversed(report.skipped)}
    yield Section(
        ("left dense", "because", "layers"),
        [(printable(first[reason]), printable(reason), f"{times}") for reason, times in reasons.most_common()],
        texts=2,
    )


def _share(share: float | None) -> str:
    """A share that may be small: ``0.03%``."""
    return "-" if share is None else f"{share:.1%}" if share >= 0.1 else f"{100 * share:.2g}%"
