"""What a report says, section by section; what there is nothing to say about is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

from graphopt.human import byte_size, count, duration, energy, times
from graphopt.reporting import candidates, curves, tables
from graphopt.reporting.blocks import Code, Part, Prose, Section, Tile
from graphopt.reporting.schema import Costs, Report
from graphopt.reporting.wording import Scores, finite, lines, many, name, sentence, shown

__all__ = ["Content", "content"]

_NOTES: Final = 40
_TITLE: Final = 120


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """A report in words.

    Attributes:
        title: What it is about.
        met: Whether the goal was; None where there was none.
        verdict: The same in a sentence.
        reasons: Why.
        terms: What was asked for: names and values.
        tiles: The summary.
        sections: The rest.
    """

    title: str
    met: bool | None
    verdict: str
    reasons: Sequence[str]
    terms: Sequence[tuple[str, str]]
    tiles: Sequence[Tile]
    sections: Sequence[Section]


def content(report: Report) -> Content:
    """Puts a report in words."""
    verdict = report.get("verdict") or {}
    met = verdict.get("met")
    terms = (("goal", report.get("goal")), ("allowed drop", report.get("max_drop")), ("metric", report.get("metric")))
    return Content(
        sentence(report.get("title"), _TITLE),
        met if isinstance(met, bool) else None,
        sentence(verdict.get("text")),
        [text for reason in verdict.get("reasons") or () if (text := sentence(reason))],
        [(term, name(value).text) for term, value in terms if value],
        _tiles(report),
        [section for build in _SECTIONS if (section := build(report)) is not None],
    )


def _tiles(report: Report) -> list[Tile]:
    before, after = report.get("before") or Costs(), report.get("after") or Costs()
    found = [
        _costs("File size", before.get("bytes"), after.get("bytes"), byte_size, "smaller", "larger"),
        _costs("Latency", before.get("latency_ms"), after.get("latency_ms"), duration, "faster", "slower"),
        _costs("Energy of a run", before.get("energy_mj"), after.get("energy_mj"), energy, "less", "more"),
        _score(report, before.get("score"), after.get("score")),
        _costs("Memory of a run", before.get("memory"), after.get("memory"), byte_size, "less", "more"),
        _costs("MACs", before.get("macs"), after.get("macs"), count, "fewer", "more"),
        _costs("Parameters", before.get("params"), after.get("params"), count, "fewer", "more"),
        _costs("Nodes", before.get("nodes"), after.get("nodes"), count, "fewer", "more"),
    ]
    return [tile for tile in found if tile is not None]


def _costs(label: str, before: object, after: object, form: Callable[..., str], less: str, greater: str) -> Tile | None:
    old, new = finite(before), finite(after)
    if new is None:
        return None if old is None else Tile(label, "not known", f"was {shown(before, form)}")
    if old is None or old <= 0 or new <= 0:
        return Tile(label, shown(after, form), "" if old is None else f"was {shown(before, form)}")
    was, ratio = f"was {shown(before, form)}", max(old, new) / min(old, new)
    if ratio < 1.005:
        return Tile(label, shown(after, form), was, "the same")
    if new < old:
        return Tile(label, shown(after, form), was, f"{times(ratio)} {less}", "good")
    return Tile(label, shown(after, form), was, f"{times(ratio)} {greater}", "bad")


def _score(report: Report, before: object, after: object) -> Tile | None:
    scores = Scores.of(report)
    old, new = finite(before), finite(after)
    if new is None:
        return None
    label = scores.metric[:1].upper() + scores.metric[1:]
    if old is None:
        return Tile(label, scores.text(new))
    cell, allowed = scores.change(old, new), candidates.allowed_drop(report)
    lost = (old - new) * scores.is_better
    tone = "" if cell.tone == "bad" and allowed is not None and lost <= allowed + 1e-12 else cell.tone
    return Tile(label, scores.text(new), f"was {scores.text(old)}", f"{cell.text}{scores.unit}", tone)


def _gates(report: Report) -> Section | None:
    checks = report.get("checks") or ()
    if not checks:
        return None
    judged = [one for one in checks if finite(one.get("limit")) is not None or not one.get("passed", True)]
    failed = sum(not one.get("passed") for one in judged)
    text = f"{len(judged) - failed} of {len(judged)} gates passed." if judged else "No limit was set: none is judged."
    return Section("gates", "Safety gates", text, [tables.gates(checks)])


def _pareto(report: Report) -> Section | None:
    points = report.get("points") or ()
    if not points:
        return None
    chart = candidates.chart(report)
    table = tables.candidates(points, Scores.of(report))
    text = "What was tried, by how fast and how good it is; towards the upper left is better."
    if Scores.of(report).is_better < 0:
        text = "What was tried, by how fast and how good it is; towards the lower left is better."
    return Section("candidates", "Candidates", text, [chart, table] if chart is not None else [table])


def _kept(report: Report) -> Section | None:
    groups = report.get("groups") or ()
    if not groups:
        return None
    left, units = (sum(finite(one.get(key)) or 0 for one in groups) for key in ("kept", "units"))
    text = f"{left:,.0f} of {units:,.0f} units are left, in {many(len(groups), 'group')}." if units else ""
    return Section("kept", "Kept channels", text, [tables.kept(groups)])


def _curves(report: Report) -> Section | None:
    groups = report.get("groups") or ()
    found = [curves.harm(groups), curves.sensitivity(groups, Scores.of(report))]
    parts: list[Part] = [one for one in found if one is not None]
    text = "What it costs to remove units, group by group: what stays flat can go."
    return Section("curves", "Importance and sensitivity", text, parts) if parts else None


def _latency(report: Report) -> Section | None:
    layers = report.get("layers") or ()
    if not layers:
        return None
    totals = [sum(finite(one.get(key)) or 0 for one in layers) for key in ("before_ms", "after_ms")]
    text = f"{many(len(layers), 'layer')} together: {duration(totals[0])} before, {duration(totals[1])} now."
    text = text if any(totals) else ""
    return Section("latency", "Latency by layer", text, [tables.latencies(layers)])


def _classes(report: Report) -> Section | None:
    found = report.get("classes") or ()
    if not found:
        return None
    scores = Scores("accuracy")
    return Section(
        "classes", "Accuracy by class", _direction(scores), [tables.parts("Accuracy by class", "class", found, scores)]
    )


def _slices(report: Report) -> Section | None:
    scores = Scores.of(report)
    found = [(name(key).text, parts) for key, parts in (report.get("slices") or {}).items() if parts]
    many = [tables.parts(f"By {key}", key or "slice", parts, scores, titled=True) for key, parts in found]
    return Section("slices", f"{scores.metric} by slice".capitalize(), _direction(scores), many) if many else None


def _direction(scores: Scores) -> str:
    return "" if scores.is_better > 0 else "Less is better."


def _flips(report: Report) -> Section | None:
    flips = report.get("flips") or {}
    share, samples = finite(flips.get("share")), flips.get("samples") or ()
    if share is None and not samples:
        return None
    text = "" if share is None else f"{share:.2%} of all samples get another class than before."
    return Section("flips", "Predictions that changed", text, [tables.changed(samples)] if samples else [])


def _training(report: Report) -> Section | None:
    history = report.get("history") or ()
    if not history:
        return None
    parts: list[Part] = [*curves.training(report), tables.training(history, Scores.of(report))]
    return Section("training", "Training", "", parts)


def _stages(report: Report) -> Section | None:
    found = report.get("stages") or ()
    if not found:
        return None
    seconds = sum(finite(one.get("seconds")) or 0 for one in found)
    text = many(len(found), "stage") + (f", {duration(1000 * seconds)} in all." if seconds else ".")
    return Section("stages", "What was done, and why", text, [tables.stages(found)])


def _operators(report: Report) -> Section | None:
    table = tables.operators(report)
    return Section("operators", "Operators", "", [table]) if table is not None else None


def _provenance(report: Report) -> Section | None:
    provenance = report.get("provenance") or {}
    command, table = lines(provenance.get("command")), tables.facts(provenance)
    parts: list[Part] = [Code("To make it again", command)] if command else []
    parts += [table] if table is not None else []
    return Section("provenance", "Provenance", "", parts) if parts else None


def _notes(report: Report) -> Section | None:
    notes = [text for note in report.get("notes") or () if (text := sentence(note))]
    if len(notes) > _NOTES:
        notes = [*notes[:_NOTES], f"… and {len(notes) - _NOTES:,} more; the JSON report has all."]
    return Section("notes", "Notes", "", [Prose(notes)]) if notes else None


_SECTIONS: Final[Sequence[Callable[[Report], Section | None]]] = (
    _gates, _pareto, _kept, _curves, _latency, _classes, _slices, _flips, _training, _stages, _operators, _notes,
    _provenance,
)  # fmt: skip
"""In the order in which they are shown."""
