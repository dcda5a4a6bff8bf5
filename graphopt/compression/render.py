"""Shows a compression in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from graphopt.human import byte_size, count, duration, energy, times

if TYPE_CHECKING:
    from rich.console import RenderableType

    from graphopt.compression.gates import Check
    from graphopt.compression.report import CompressionReport

__all__ = ["report"]

_FEW = 12  # rows of a table


def report(found: CompressionReport) -> Iterator[RenderableType]:
    """Tables: stages, variants, sizes, gates; then notes and the verdict."""
    yield _stages(found)
    yield ""
    if len(found.choice.points) > 1:
        yield _variants(found)
        yield ""
    yield _sizes(found)
    yield ""
    yield _gates(found)
    for note in found.notes:
        yield f"note: {note}"
    yield ""
    style = "bold green" if found.is_met else "bold red"
    from rich.text import Text

    yield Text(found.verdict, style=style)


def _table(*columns: str, **last: str) -> object:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for name in columns:
        text = name.startswith("<")
        table.add_column(name.removeprefix("<"), justify="left" if text else "right", overflow="fold")
    return table


def _stages(found: CompressionReport) -> RenderableType:
    table = _table("<stage", "time", "<what was decided")
    for one in found.stages:
        took = "skipped" if one.skipped else duration(1000 * one.seconds)
        table.add_row(one.name, took, one.decision)  # type: ignore[attr-defined]
    table.add_row("total", duration(1000 * found.seconds), "")  # type: ignore[attr-defined]
    return table  # type: ignore[return-value]


def _variants(found: CompressionReport) -> RenderableType:
    """The variants that were measured, fastest first."""
    table = _table("<variant", "latency", "bytes", "memory", "MACs", found.audit.metric, "<")
    points = sorted(found.choice.points, key=lambda one: one.left["latency"])
    for one in points[: 2 * _FEW]:
        score = one.score * found.is_better
        said = "taken" if one is found.point and found.choice.point is one else one.complaint
        told = f"{100 * score:.2f} %" if found.is_share else f"{score:.4g}"
        left = [f"{one.left[name]:.3f}" for name in ("latency", "bytes", "memory", "macs")]
        table.add_row(one.variant.name, *left, told, said)  # type: ignore[attr-defined]
    return table  # type: ignore[return-value]


def _sizes(found: CompressionReport) -> RenderableType:
    table = _table("<", "original", "compressed", "")
    before, after = found.before, found.after
    left, (old, new) = found.point.left["latency"], found.millijoules
    rows = [
        ("latency", duration(found.milliseconds), duration(found.milliseconds * left), times(1 / left)),
        ("weights", byte_size(before.bytes), byte_size(after.bytes), _times(before.bytes, after.bytes)),
        ("memory", byte_size(before.memory), byte_size(after.memory), _times(before.memory, after.memory)),
        ("MACs", count(before.macs), count(after.macs), _times(before.macs, after.macs)),
        ("parameters", count(before.params), count(after.params), _times(before.params, after.params)),
    ]
    if old is not None and new is not None:
        rows.insert(1, ("energy", energy(old), energy(new), times(old / new)))
    for row in rows:
        table.add_row(*row)  # type: ignore[attr-defined]
    return table  # type: ignore[return-value]


def _times(before: int, after: int) -> str:
    return times(before / max(1, after)) if before else ""


def _gates(found: CompressionReport) -> RenderableType:
    table = _table(f"<gate, on {found.audit.samples:,} samples", "original", "compressed", "lost", "allowed", "<")
    for one in found.audit.checks:
        allowed = "" if one.limit is None else f"{one.limit:.3g}"
        told = "" if one.limit is None else ("passed" if one.passed else "FAILED")
        where = f" {one.where}" if one.where else ""
        table.add_row(f"{one.name}{where}", *_pair(one), f"{one.harm:+.3g}", allowed, told)  # type: ignore[attr-defined]
    return table  # type: ignore[return-value]


def _pair(check: Check) -> tuple[str, str]:
    return f"{check.before:.4g}", f"{check.after:.4g}"
