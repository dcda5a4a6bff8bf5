"""How a distillation's report looks in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from rich.text import Text

from graphopt.human import byte_size, count, duration, printable
from graphopt.sections import Section, html_table, plain, table

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType

    from graphopt.distillation.history import Record
    from graphopt.distillation.report import DistillReport

__all__ = ["html", "report"]

_MOST_EPOCHS = 12
_NAME = 12
"""Columns that the name of a model needs at least."""


def report(one: DistillReport, options: ConsoleOptions) -> Iterator[RenderableType]:
    """The models beside each other, the epochs, and what has been shown about the result."""
    width, ascii_only = options.max_width, options.ascii_only
    yield Text(plain(_title(one), ascii_only), style="bold", overflow="fold")
    for whole in _sections(one):
        section = _fitting(whole, width)
        yield Text()
        yield table(section, width, ascii_only)
        if section.more:
            yield Text(plain(section.more, ascii_only), style="dim", overflow="fold")
    yield Text()
    yield from (Text(plain(text, ascii_only), style="yellow", overflow="fold") for text in map(printable, one.notes))
    if one.deviation:
        yield Text(plain(_proof(one), ascii_only), style="green", overflow="fold")
    spent = ", ".join(f"{step} {duration(1000 * seconds)}" for step, seconds in one.seconds.items() if seconds >= 0.05)
    yield Text(spent, style="dim", overflow="fold")


def html(one: DistillReport) -> str:
    """Self-contained HTML; every text from models and data is escaped."""
    lines = [*map(printable, one.notes), *([_proof(one)] if one.deviation else [])]
    tables = "".join(map(html_table, _sections(one)))
    return f"<p><b>{escape(_title(one))}</b></p>{tables}" + "".join(f"<p>{escape(line)}</p>" for line in lines)


def _title(one: DistillReport) -> str:
    learnt, judged = one.samples
    return f"{printable(one.loss)}: {learnt:,} samples to learn from, {judged:,} held out"


def _sections(one: DistillReport) -> list[Section]:
    return [found for found in (_models(one), _epochs(one)) if found.rows]


def _fitting(section: Section, width: int) -> Section:
    """Without the columns that there is no room for; the first one and the scores, which are shares, go last."""
    columns = list(zip(section.heads, *section.rows, strict=True))
    room = width - min(_NAME, max(map(len, columns[0]))) - 2
    spare = [place for place in range(len(columns) - 1, 0, -1) if not columns[place][-1].endswith("%")]
    scores = [place for place in range(len(columns) - 1, 0, -1) if place not in spare]
    left_out: set[int] = set()
    for place in (*spare, *scores):
        if sum(max(map(len, columns[n])) + 2 for n in range(1, len(columns)) if n not in left_out) <= room:
            break
        left_out.add(place)
    if not left_out:
        return section
    kept = [column for place, column in enumerate(columns) if place not in left_out]
    heads, *rows = zip(*kept, strict=True)
    names = ", ".join(columns[place][0] for place in sorted(left_out))
    return Section(heads, rows, more=f"{section.more}{'; ' if section.more else ''}no room for: {names}")


def _models(one: DistillReport) -> Section:
    metrics = list(dict.fromkeys(name for model in one.contenders for name in model.scores))
    rows = [
        (
            model.name,
            count(model.params),
            count(model.macs),
            byte_size(model.bytes),
            *(_share(model.scores.get(name)) for name in metrics),
        )
        for model in one.contenders
    ]
    return Section(("model", "parameters", "MACs", "weights", *map(printable, metrics)), rows)


def _epochs(one: DistillReport) -> Section:
    if not one.records:
        return Section((), ())
    first = one.records[0]
    parts = list(first.parts) if len(first.parts) > 1 else []
    metrics = [name for name in first.evaluation if name != "loss"]
    held_out = ["held-out loss"] if "loss" in first.evaluation else []
    heads = ("epoch", "loss", *map(printable, parts), *held_out, *map(printable, metrics), "s")
    shown = _shown(one.records, one.best)
    rows = [
        (
            f"{record.epoch + 1}{' *' if record.epoch == one.best else ''}",
            _number(record.loss),
            *(_number(record.parts[name]) for name in parts),
            *([_number(record.evaluation["loss"])] if "loss" in record.evaluation else []),
            *(_share(record.evaluation.get(name)) for name in metrics),
            f"{record.seconds:.1f}",
        )
        for record in shown
    ]
    left = len(one.records) - len(shown)
    stayed = ["*: the weights that stayed"] if one.best is not None else []
    return Section(heads, rows, more="; ".join(stayed + ([f"{left} epochs are not shown"] if left else [])))


def _shown(records: Sequence[Record], best: int | None) -> list[Record]:
    """Some of many epochs: evenly chosen, the first, the last and the best among them."""
    if len(records) <= _MOST_EPOCHS:
        return list(records)
    step = (len(records) - 1) / (_MOST_EPOCHS - 2)
    chosen = {round(step * place) for place in range(_MOST_EPOCHS - 1)}
    chosen |= set() if best is None else {best}
    return [record for place, record in enumerate(records) if place in chosen]


def _proof(one: DistillReport) -> str:
    worst = max(one.deviation.values())
    found = f"In ONNX Runtime the student is within {worst:.0e} of what was trained, relative to its largest output"
    if one.off_by_one is None:
        return f"{found}."
    how = f"{one.off_by_one:.0e} of them give the next integer" if one.off_by_one else "all give the same integers"
    return f"{found}, compared rounding by rounding ({how})."


def _number(value: float) -> str:
    return f"{value:.4g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
