"""The tables of a report."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from graphopt.human import byte_size, count, duration, percent, times
from graphopt.reporting.blocks import Bar, Cell, Column, Table
from graphopt.reporting.schema import Check, Costs, Epoch, Flip, Group, Layer, Part, Point, Report, Stage
from graphopt.reporting.wording import (
    DASH,
    Scores,
    finite,
    lines,
    more,
    most,
    name,
    names,
    plain,
    sentence,
    shown,
    signed,
)

__all__ = ["candidates", "changed", "facts", "gates", "kept", "latencies", "operators", "parts", "stages", "training"]

_ROWS: Final = 40
"""What a table shows at most."""
_DEPTH: Final = 4
"""How deep nested facts are taken apart."""


def gates(checks: Sequence[Check]) -> Table:
    """Each gate, and whether it was passed."""
    columns = [Column("gate", "name"), Column("result", "text")]
    columns += [*map(Column, ("harm", "limit", "original", "now")), Column("where", "text")]
    rows = []
    for check in most(checks, lambda one: not one.get("passed", True), _ROWS):
        unit = check.get("unit", "")
        verdict = Cell("not judged", "dim")
        if finite(check.get("limit")) is not None or not check.get("passed", True):
            verdict = Cell("✓ passed", "good") if check.get("passed") else Cell("✗ failed", "bad")
        cells = [shown(check.get("harm"), _HARMS.get(unit, plain)), shown(check.get("limit"), _LIMITS.get(unit, plain))]
        cells += [shown(check.get(key), _percentage if unit else plain) for key in ("before", "after")]
        rows.append([name(check.get("name")), verdict, *map(Cell, cells), name(check.get("where"), "")])
    return _lean(Table("Gates", columns, rows, more(len(checks), _ROWS, "none of which is worse")))


def candidates(points: Sequence[Point], scores: Scores) -> Table:
    """All candidates, the fastest first."""
    order = sorted(points, key=lambda one: _or_last(one.get("latency")))
    chosen = most(order, lambda one: 2.0 * bool(one.get("chosen")) + bool(one.get("on_front")), _ROWS)
    columns = [Column("candidate", "name"), Column("", "text"), *map(Column, ("latency", scores.metric, "drop"))]
    columns += [*map(Column, ("size", "memory", "MACs")), Column("precision", "text"), Column("trained", "text")]
    rows = []
    for point, called in zip(chosen, names([one.get("name") for one in chosen]), strict=True):
        drop = finite(point.get("drop"))
        place = "chosen" if point.get("chosen") else "best for its latency" if point.get("on_front") else ""
        rows.append(
            [
                called,
                Cell(place, "good" if point.get("chosen") else ""),
                Cell(shown(point.get("latency"), lambda share: f"{share:.1%}")),
                Cell(shown(point.get("score"), scores.text)),
                Cell(DASH if drop is None else f"{scores.difference(drop)}{scores.unit}"),
                Cell(shown(point.get("bytes"), byte_size)),
                Cell(shown(point.get("memory"), byte_size)),
                Cell(shown(point.get("macs"), count)),
                name(point.get("precision"), ""),
                Cell("yes" if point.get("trained") else "no"),
            ]
        )
    return _lean(Table("Candidates", columns, rows, more(len(points), _ROWS, "slower or worse"), folded=True))


def kept(groups: Sequence[Group]) -> Table:
    """What is left of each group, in the order of the graph."""
    columns = [Column("group", "name"), Column("left", "bar"), Column("kept"), Column("of"), Column("share")]
    chosen = most(groups, _gone, _ROWS)
    rows = []
    for group, called in zip(chosen, names([one.get("name") for one in chosen]), strict=True):
        left, units = finite(group.get("kept")), finite(group.get("units"))
        share = None if left is None or not units else left / units
        bar = None if share is None else Bar("kept", round(100 * share, 2))
        cells = [shown(left, "{:,}".format), shown(units, "{:,}".format), shown(share, lambda one: f"{one:.0%}")]
        rows.append([called, Cell("", bar=bar), *map(Cell, cells)])
    return Table("Kept channels by group", columns, rows, more(len(groups), _ROWS, "of which less was removed"))


def latencies(layers: Sequence[Layer]) -> Table:
    """The slowest layers, in the order of the graph."""
    chosen = most(layers, _slowest, _ROWS)
    longest = max(map(_slowest, chosen), default=0.0) or 1.0
    columns = [Column("layer", "name"), Column("", "bar"), *map(Column, ("original, ms", "now, ms", "faster"))]
    columns += [Column("op", "text"), Column("precision", "text")]
    rows = []
    for layer, called in zip(chosen, names([one.get("name") for one in chosen]), strict=True):
        before, after = finite(layer.get("before_ms")), finite(layer.get("after_ms"))
        bar = Bar("pair", *(round(100 * (one or 0) / longest, 2) for one in (before, after)))
        ratio = Cell(times(before / after), "good" if before > after * 1.05 else "") if before and after else Cell("")
        numbers = [Cell(shown(before, plain)), Cell(shown(after, plain)), ratio]
        rows.append([called, Cell("", bar=bar), *numbers, *(name(layer.get(key), "") for key in ("op", "precision"))])
    note = "Upper bar: the original; lower bar: now."
    return _lean(Table("Latency by layer", columns, rows, more(len(layers), _ROWS, "all faster"), picture=note))


def parts(label: str, what: str, found: Sequence[Part], scores: Scores, *, titled: bool = False) -> Table:
    """The score by class or slice; those that lost most, if there are too many."""
    chosen = most(found, lambda one: _lost(one, scores), _ROWS)
    values = [finite(one.get(key)) for one in chosen for key in ("before", "after")]
    low, high = _ends([value for value in values if value is not None])
    columns = [Column(what, "name"), Column("original → now", "bar"), *map(Column, ("change", "original", "now"))]
    rows = []
    for part, called in zip(chosen, names([one.get("name") for one in chosen]), strict=True):
        before, after = finite(part.get("before")), finite(part.get("after"))
        bar = None
        if before is not None and after is not None:
            bar = Bar("span", *(round(100 * (one - low) / (high - low), 2) for one in (before, after)))
        cells = [Cell(shown(one, scores.text)) for one in (before, after)]
        rows.append([called, Cell("", bar=bar), scores.change(before, after), *cells])
        rows[-1].append(Cell(shown(part.get("samples"), "{:,}".format)))
    note = f"A ring is the original, a dot what it is now; from {scores.text(low)} to {scores.text(high)}."
    rest = more(len(found), _ROWS, "that lost less")
    return Table(label, [*columns, Column("samples")], rows, rest, titled=titled, picture=note)


def changed(samples: Sequence[Flip]) -> Table:
    """The samples whose prediction changed most."""
    columns = [Column("sample", "name"), *(Column(head, "text") for head in ("original", "now", "label", "so it is"))]
    rows = []
    for flip in samples[:_ROWS]:
        before, after, label = (flip.get("before"), flip.get("after"), flip.get("label"))
        said = [_said(before, flip.get("confidence_before")), _said(after, flip.get("confidence_after"))]
        effect = {str(after): Cell("now right", "good"), str(before): Cell("now wrong", "bad")}
        verdict = Cell("") if label is None else effect.get(str(label), Cell("wrong both times"))
        rows.append([Cell(shown(flip.get("index"), str)), *said, name(label, ""), verdict])
    return _lean(Table("Samples that changed most", columns, rows, more(len(samples), _ROWS, "that changed less")))


def training(history: Sequence[Epoch], scores: Scores) -> Table:
    """Loss and score by epoch."""
    stride = -(-len(history) // _ROWS)
    rows = [
        [Cell(shown(one.get(key), form)) for key, form in (("epoch", str), ("loss", plain), ("score", scores.text))]
        for one in history[::stride]
    ]
    columns = [Column("epoch", "name"), Column("loss"), Column(scores.metric)]
    note = f"Every {stride}th epoch; the JSON report has all." if stride > 1 else ""
    return _lean(Table("Training by epoch", columns, rows, note, folded=True))


def stages(found: Sequence[Stage]) -> Table:
    """What was done, for how long, and why."""
    columns = [Column("stage", "name"), Column("status", "text"), Column("time"), Column("decision", "text")]
    rows = [
        [
            name(one.get("name")),
            name(one.get("status"), "")._replace(tone="dim" if one.get("status") == "skipped" else ""),
            Cell(shown(one.get("seconds"), lambda seconds: duration(1000 * seconds) if seconds else DASH)),
            Cell(sentence(one.get("decision"))),
        ]
        for one in found
    ]
    return _lean(Table("Stages", columns, rows[:_ROWS], more(len(rows), _ROWS, "later")))


def operators(report: Report) -> Table | None:
    """How many nodes of each operator there are."""
    before, after = (_counts(report.get("before")), _counts(report.get("after")))
    found = sorted({*before, *after}, key=lambda op: (-before.get(op, 0), -after.get(op, 0), op))
    rows = [
        [called, Cell(f"{before.get(op, 0):,}"), Cell(f"{after.get(op, 0):,}"), Cell(_signed(op, before, after))]
        for op, called in zip(found, names(found), strict=True)
    ]
    columns = [Column("operator", "name"), Column("original"), Column("now"), Column("change")]
    return Table("Operators", columns, rows[:_ROWS], more(len(rows), _ROWS, "rarer")) if rows else None


def facts(provenance: Mapping[str, Any]) -> Table | None:
    """Everything that is known of how the result came about, but the command."""
    rows = [
        [Cell(key), Cell(value)] for key, value in _flat({k: v for k, v in provenance.items() if k != "command"}, (), 0)
    ]
    columns = [Column("what", "name"), Column("value", "text")]
    return Table("Provenance", columns, rows[: 2 * _ROWS], more(len(rows), 2 * _ROWS, "deeper")) if rows else None


def _lean(table: Table) -> Table:
    """Without the columns that say nothing."""
    filled = [
        any(cell.bar or cell.text not in ("", DASH) for cell in column) for column in zip(*table.rows, strict=True)
    ]
    shown_ones = [index for index, says in enumerate(filled) if says or not index]
    rows = [[row[index] for index in shown_ones] for row in table.rows]
    return dataclasses.replace(table, columns=[table.columns[index] for index in shown_ones], rows=rows)


def _percentage(share: float) -> str:
    return f"{share:.2%}".replace("-", "−")


_HARMS: Final[Mapping[str, Callable[[float], str]]] = {"points": signed, "share": _percentage}
_LIMITS: Final[Mapping[str, Callable[[float], str]]] = {"points": plain, "share": _percentage}


def _or_last(value: object) -> float:
    number = finite(value)
    return math.inf if number is None else number


def _gone(group: Group) -> float:
    units, left = finite(group.get("units")), finite(group.get("kept"))
    return 1 - left / units if units and left is not None else 0.0


def _slowest(layer: Layer) -> float:
    return max(finite(layer.get("before_ms")) or 0.0, finite(layer.get("after_ms")) or 0.0)


def _lost(part: Part, scores: Scores) -> float:
    before, after = finite(part.get("before")), finite(part.get("after"))
    return 0.0 if before is None or after is None else (before - after) * scores.is_better


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Of the axis that bars lie on."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 1.0, low)


def _said(label: object, confidence: object) -> Cell:
    share = finite(confidence)
    return Cell(name(label).text + ("" if share is None else f" ({percent(share) or '0%'})"))


def _counts(costs: Costs | None) -> dict[str, int]:
    found = (costs or {}).get("ops") or {}
    return {str(op): int(number) for op, number in found.items() if finite(number) is not None}


def _signed(op: str, before: Mapping[str, int], after: Mapping[str, int]) -> str:
    difference = after.get(op, 0) - before.get(op, 0)
    return signed(difference, 0)


def _flat(value: object, path: tuple[str, ...], depth: int) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and depth < _DEPTH:
        for key, one in value.items():
            yield from _flat(one, (*path, name(key).text), depth + 1)
    elif isinstance(value, list | tuple):
        yield " / ".join(path), sentence(", ".join(map(str, value[:_ROWS])) + (", …" if len(value) > _ROWS else ""))
    elif value is not None:
        yield " / ".join(path), sentence(lines(value))
