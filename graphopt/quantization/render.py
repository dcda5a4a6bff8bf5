"""How a quantization's report looks in a terminal and in a notebook."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from rich.text import Text

from graphopt.human import byte_size, duration, printable, times
from graphopt.quantization.yardstick import share
from graphopt.sections import Section, html_table, page, plain

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType

    from graphopt.quantization.report import QuantizeReport

__all__ = ["html", "report"]

_MOST = 12
_EXPLAINED = "error: of the outputs when that layer alone is quantized, as a share of their variance."


def report(one: QuantizeReport, options: ConsoleOptions) -> Iterator[RenderableType]:
    """Sizes, layers, and how close the result comes."""
    yield from page(_title(one), _facts(one), _sections(one), options)
    yield Text()
    if any(layer.error is not None for layer in one.layers):
        yield Text(plain(_EXPLAINED, options.ascii_only), style="dim", overflow="fold")
    for text in map(printable, one.notes):
        yield Text(plain(text, options.ascii_only), style="yellow", overflow="fold")
    yield Text(_seconds(one), style="dim")


def html(one: QuantizeReport) -> str:
    """Self-contained HTML; every text from the model is escaped."""
    facts = html_table(Section(("", ""), list(_facts(one)), texts=2))
    tables = "".join(html_table(section) for section in _sections(one) if section.rows)
    notes = "".join(f"<p>{escape(printable(note))}</p>" for note in one.notes)
    return f"<p><b>{escape(_title(one))}</b></p>{facts}{tables}<p><small>{escape(_EXPLAINED)}</small></p>{notes}"


def _title(one: QuantizeReport) -> str:
    done = sum(layer.quantized for layer in one.layers)
    return f"{one.scheme}: {done} of {len(one.layers)} layers quantized"


def _facts(one: QuantizeReport) -> Iterator[tuple[str, str]]:
    before, after = one.before.bytes, one.after.bytes
    yield "weights", f"{byte_size(before)}, now {byte_size(after)}" + (f" ({times(before / after)})" if after else "")
    yield "nodes", f"{one.before.nodes}, now {one.after.nodes}"
    if one.method:
        yield "ranges", one.method
    found = one.fidelity
    if found.error:
        worst = max(found.error, key=lambda name: found.error[name])
        text = f"'{printable(worst)}' is off by {share(found.error[worst])} of its variance"
        apart = " that had no part in it" if one.is_held_out else ""
        yield "outputs", f"{text}, on {found.samples:,} samples{apart}"
    for name, agreement in found.agreement.items():
        yield "same class", f"{agreement:.2%} of '{printable(name)}'"
    if found.accuracy is not None:
        yield "accuracy", f"{found.accuracy[0]:.2%}, now {found.accuracy[1]:.2%}"
    if one.speedup is not None:
        yield "speed", f"{times(one.speedup.value)} as fast here, one sample a run"


def _sections(one: QuantizeReport) -> Iterator[Section]:
    ranked = sorted((layer for layer in one.layers if layer.error is not None), key=lambda layer: -(layer.error or 0.0))
    rows = [
        (printable(layer.name), layer.operator, "yes" if layer.quantized else "no", share(layer.error or 0.0))
        for layer in ranked[:_MOST]
    ]
    left = len(ranked) - len(rows)
    more = f"and {left} more that err less; --json lists them all" if left else ""
    yield Section(("layer", "operator", "quantized", "error"), rows, texts=3, more=more)
    kept = [layer for layer in one.layers if not layer.quantized]
    reasons = collections.Counter(layer.reason for layer in kept)
    first = {layer.reason: layer.name for layer in reversed(kept)}
    yield Section(
        ("left as it is", "because", "layers"),
        [(printable(first[reason]), printable(reason), str(count)) for reason, count in reasons.most_common(_MOST)],
        texts=2,
    )


def _seconds(one: QuantizeReport) -> str:
    total = sum(one.seconds.values())
    steps = [f"{step} {duration(seconds * 1000)}" for step, seconds in one.seconds.items() if seconds >= total / 100]
    return f"{duration(total * 1000)} in all: {', '.join(steps)}"
