"""How a pruning's report looks in a terminal and in a notebook."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from graphopt.human import byte_size, count, duration, percent, printable, times
from graphopt.sections import Section, html_table, plain, table

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType

    from graphopt.pruning.report import GroupOutcome, PruneReport

__all__ = ["brief", "html", "report"]

_MOST_GROUPS = 16
_MOST_LAYERS = 10
_MOST_OUTPUTS = 6

_STYLE = {"proven": "green", "unproven": "yellow", "unverified": "dim"}
_PROOF = {
    "unproven": "Unproven: ONNX Runtime cannot run the original.",
    "unverified": "Not verified (validation was switched off).",
}
_PROVEN = "Proven: removing the channels does what setting them to zero does."
_REFIT = f"{_PROVEN[:-1]}; then what is left was refitted."
_MISSED = "before, after: what it misses of what the original computes, in shares of its variance on held-out inputs."
_HARM = "harm: shares of the estimated harm."
_TIGHT = 60
"""Below this many columns tables leave figures out."""


def report(one: PruneReport, options: ConsoleOptions) -> Iterator[RenderableType]:
    """Sizes, groups, reconstructed layers, and what has been shown about the result."""
    width, ascii_only = options.max_width, options.ascii_only
    yield Text(_title(one), style="bold", overflow="fold")
    yield Text()
    yield _sizes(one, width)
    for section, note in _sections(one, width):
        yield Text()
        yield table(section, width, ascii_only)
        yield from (Text(text, style="dim") for text in (plain(section.more, ascii_only), note) if text)
    yield Text()
    yield from (Text(plain(text, ascii_only), style="yellow", overflow="fold") for text in map(printable, one.notes))
    yield Text(_proof(one), style=_STYLE[one.proof] if one.plan.removed else "dim")
    yield from (Text(plain(line, ascii_only), overflow="fold") for line in _findings(one))
    yield Text(_seconds(one), style="dim")


def html(one: PruneReport) -> str:
    """Self-contained HTML; every text from the model is escaped."""
    parts = [f"<p><b>{escape(_title(one))}</b></p>", html_table(Section(("", *_SIZES[1:]), _size_rows(one)))]
    for section, note in _sections(one, 1000):
        parts.append(html_table(section) + (f"<p><small>{escape(note)}</small></p>" if note else ""))
    lines = [*map(printable, one.notes), _proof(one), *_findings(one)]
    return "".join(parts) + "".join(f"<p>{escape(line)}</p>" for line in lines)


def _title(one: PruneReport) -> str:
    shrunk = [group for group in one.groups if group.kept < group.units]
    if not shrunk:
        return f"goal {one.goal}: nothing had to go"
    went = sum(group.units - group.kept for group in shrunk)
    total = sum(group.units for group in one.groups)
    what = "channels or heads" if any(group.heads for group in one.groups) else "channels"
    return f"goal {one.goal}: {went:,} of {total:,} {what} went, from {len(shrunk)} of {len(one.groups)} groups"


# -- sizes -----------------------------------------------------------------------------------------------------------

_SIZES = ("", "before", "after", "left", "ratio")


def _size_rows(one: PruneReport) -> list[tuple[str, ...]]:
    before, after = one.before, one.after
    figures = (
        ("MACs", count(before.macs), count(after.macs), before.macs, after.macs),
        ("parameters", count(before.params), count(after.params), before.params, after.params),
        ("weights", byte_size(before.bytes), byte_size(after.bytes), before.bytes, after.bytes),
        ("memory", byte_size(before.memory), byte_size(after.memory), before.memory, after.memory),
        ("nodes", str(before.nodes), str(after.nodes), before.nodes, after.nodes),
    )
    return [
        (name, old, new, "" if a == b or not a else f"{b / a:.1%}", "" if a == b or not b else times(a / b))
        for name, old, new, a, b in figures
    ]


def _sizes(one: PruneReport, width: int) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    heads = _SIZES if width >= _TIGHT else _SIZES[:-1]
    for head in heads:
        grid.add_column(head, justify="right" if head else "left", no_wrap=True)
    for name, before, after, left, ratio in _size_rows(one):
        color = "" if not ratio else "green" if float(ratio[:-1]) >= 1 else "yellow"
        cells = (Text(name, style="bold"), before, after, Text(left, style=color), Text(ratio, style=color))
        grid.add_row(*cells[: len(heads)])
    return grid


# -- groups and layers -----------------------------------------------------------------------------------------------


def _sections(one: PruneReport, width: int) -> Iterator[tuple[Section, str]]:
    """Tables, each with a note on it."""
    if any(group.kept < group.units for group in one.groups):
        section = _groups(one.groups)
        yield section, _HARM if "harm" in section.heads else ""
    if one.refits:
        yield _layers(one, tight=width < _TIGHT), _MISSED
    if one.fidelity is not None and len(one.fidelity.error) > 1:
        yield _outputs(one), ""


def _groups(groups: Sequence[GroupOutcome]) -> Section:
    """In the order of the graph; where they are many, those that lost most."""
    shrunk = [place for place, group in enumerate(groups) if group.kept < group.units]
    places = shrunk if len(groups) > _MOST_GROUPS else range(len(groups))
    places = sorted(places, key=lambda place: groups[place].kept - groups[place].units)[:_MOST_GROUPS]
    shown = [groups[place] for place in sorted(places)]
    harms = {group.name: _harm(group) for group in groups}
    total = sum(harms.values())
    rows, shares = [], []
    for name, group in zip(brief([group.name for group in shown]), shown, strict=True):
        share = group.kept / max(1, group.units)
        units = f"{group.units} heads" if group.heads else str(group.units)
        harm = (percent(harms[group.name] / total) or "-",) if total else ()
        rows.append((name, units, str(group.kept), f"{share:.0%}", *harm))
        shares.append(share)
    less, whole = len(shrunk) - len(shown), len(groups) - len(shrunk)
    rest = [f"{less} that lost less"] * (less > 0) + [f"{whole} that stay{'s' * (whole == 1)} whole"] * (whole > 0)
    more = f"and {' and '.join(rest)}; --json lists them all" if rest and len(shown) < len(groups) else ""
    return Section(("group", "units", "kept", "share", *(("harm",) if total else ())), rows, shares, more=more)


def _harm(group: GroupOutcome) -> float:
    gone = group.units - group.kept
    harm = group.harm[gone] if gone < len(group.harm) else 0.0
    return harm if math.isfinite(harm) else 0.0


def _layers(one: PruneReport, *, tight: bool) -> Section:
    worst = sorted(one.refits, key=lambda refit: -refit.after if math.isfinite(refit.after) else math.inf)
    shown = worst[:_MOST_LAYERS]
    rows = [
        (name, _share(refit.before), _share(refit.after), f"{refit.rows:,}", _ridge(refit.ridge))
        for name, refit in zip(brief([refit.layer for refit in shown]), shown, strict=True)
    ]
    left = len(worst) - len(shown)
    more = f"and {left} more that {'miss' if left > 1 else 'misses'} less" if left else ""
    heads = ("refitted layer", "before", "after", "rows", "ridge")
    columns = 3 if tight else len(heads)
    return Section(heads[:columns], [row[:columns] for row in rows], more=more)


def _ridge(ridge: float | None) -> str:
    return "bias only" if ridge is None else f"{ridge:g}"


def _outputs(one: PruneReport) -> Section:
    assert one.fidelity is not None
    found = one.fidelity
    worst = sorted(found.error, key=lambda name: -found.error[name])
    rows = [
        (printable(name), _share(found.error[name]), f"{found.agreement[name]:.1%}" if name in found.agreement else "")
        for name in worst[:_MOST_OUTPUTS]
    ]
    left = len(worst) - len(rows)
    more = f"and {left} more that differ{'' if left > 1 else 's'} less" if left else ""
    return Section(("output", "differs by", "same class"), rows, more=more)


def _share(share: float) -> str:
    """A share of variance; far more than all of it as a multiple."""
    if not math.isfinite(share):
        return "-"
    if share >= 10:
        return times(share)
    return "0%" if share <= 0 else "<0.01%" if share < 0.0001 else f"{share:.2%}" if share < 0.1 else f"{share:.1%}"


def brief(names: Sequence[str]) -> list[str]:
    """Names without the scopes that all have, and without the operator that exporters end them with."""
    from graphopt.channels.rules import RULES

    bases = []
    for name in names:
        base, mark, number = name.partition("#")
        head, _, tail = base.rpartition("/")
        bases.append((head if head.strip("/") and tail in RULES else base) + mark + number)
    first, last = min(bases, default=""), max(bases, default="")
    pairs = enumerate(zip(first, last, strict=False))
    shared = next((at for at, (a, b) in pairs if a != b), min(len(first), len(last)))
    scope = first.rfind("/", 0, shared) + 1
    found = [printable(base[scope:]) for base in bases]
    return found if len(set(found)) == len(set(names)) else [printable(name) for name in names]


# -- what has been shown ---------------------------------------------------------------------------------------------


def _proof(one: PruneReport) -> str:
    if not one.plan.removed:
        return "Nothing was removed."
    return _PROOF.get(one.proof) or (_REFIT if one.refits else _PROVEN)


def _findings(one: PruneReport) -> Iterator[str]:
    """How close the result comes, and how fast it is."""
    found = one.fidelity
    if found is not None and found.error:
        text = f"On {found.samples:,} of the calibration samples "
        if len(found.error) == 1:
            ((name, error),) = found.error.items()
            text += f"'{printable(name)}' differs from the original's by {_share(error)} of its variance"
            text += f"; the same class comes first in {found.agreement[name]:.1%}" if name in found.agreement else ""
        else:
            text += (
                f"the outputs differ from the original's by up to {_share(max(found.error.values()))} of the variance"
            )
        yield f"{text}."
    if found is not None and found.accuracy is not None:
        before, after = found.accuracy
        yield f"Accuracy on them: {before:.2%} before, {after:.2%} after."
    speedup = one.speedup
    if speedup is not None:
        text = f"Measured: {times(speedup.value)} as fast"
        if speedup.low is not None and speedup.high is not None:
            text += f" ({speedup.confidence:.0%} interval: {times(speedup.low)} to {times(speedup.high)})"
        yield f"{text}."


def _seconds(one: PruneReport) -> str:
    total = sum(one.seconds.values())
    steps = [f"{step} {duration(seconds * 1000)}" for step, seconds in one.seconds.items() if seconds >= total / 100]
    return f"{duration(total * 1000)} in all: {', '.join(steps)}"
