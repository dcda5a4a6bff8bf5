"""What an optimisation did, as text, table, JSON and notebook HTML."""

from __future__ import annotations

import collections
import dataclasses
import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from graphopt import walk
from graphopt.analysis import constants
from graphopt.analysis.effects import is_standard
from graphopt.human import byte_size

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import RenderableType

    from graphopt.verify.result import Equivalence

__all__ = ["DroppedPass", "PassCount", "Report", "Summary"]


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """The size of a model at one moment.

    Attributes:
        nodes: Nodes of all scopes, Constant nodes left out (they run no kernel).
        ops: Nodes by operator type, Constant included.
        initializers: Constants held as initializers, in all scopes.
        weight_bytes: Bytes of initializers and Constant nodes.
    """

    nodes: int
    ops: Mapping[str, int]
    initializers: int
    weight_bytes: int

    @classmethod
    def of(cls, model: ir.Model) -> Summary:
        """Measures ``model``; linear in its nodes, reads no weights."""
        ops: collections.Counter[str] = collections.Counter()
        initializers = weight_bytes = 0
        for scope in walk.scopes(model):
            for value in scope.graph.initializers.values():
                initializers += 1
                weight_bytes += value.const_value.nbytes if value.const_value is not None else 0
            for node in scope.graph:
                ops[node.op_type if is_standard(node) else f"{node.domain}::{node.op_type}"] += 1
                if node.op_type == "Constant" and "value" in node.attributes:
                    tensor = constants.tensor_of_constant_node(node)
                    weight_bytes += 0 if tensor is None else tensor.nbytes
        return cls(ops.total() - ops["Constant"], dict(ops), initializers, weight_bytes)


@dataclasses.dataclass(frozen=True, slots=True)
class PassCount:
    """How often a pass changed the model."""

    name: str
    safety: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class DroppedPass:
    """A pass that was left out, and why."""

    name: str
    reason: str


@dataclasses.dataclass(slots=True)
class Report:
    """The record of one ``optimize``.

    Attributes:
        before: The model as it came.
        after: The model as it is returned.
        passes: Every pass that ran, in order, with its number of changes.
        dropped: Passes left out because the result was wrong with them, or could not be proven.
        status: ``proven``, ``unproven`` (ONNX Runtime cannot run the original) or ``unverified`` (not asked to).
        baseline: What the result was compared with: ``the original``, or the model after the lossy passes.
        equivalence: The comparison with it, where there was one.
        misses: For ``explain``: reasons by pass, each with how often and an example node.
        seconds: Wall time by step: ``load``, ``passes``, ``verify``, ``save``, as far as they happened.
        rounds: How often the pass list was gone through.
        target: The target platform.
        notes: Anything else a user should know.
    """

    before: Summary
    after: Summary
    passes: list[PassCount]
    status: str
    target: str
    baseline: str = "the original"
    rounds: int = 0
    dropped: list[DroppedPass] = dataclasses.field(default_factory=list)
    equivalence: Equivalence | None = None
    misses: dict[str, dict[str, tuple[int, str]]] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether any pass changed anything."""
        return any(one.count for one in self.passes)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data for JSON."""
        return {
            "status": self.status,
            "target": self.target,
            "baseline": self.baseline,
            "before": dataclasses.asdict(self.before),
            "after": dataclasses.asdict(self.after),
            "passes": [dataclasses.asdict(one) for one in self.passes],
            "dropped": [dataclasses.asdict(one) for one in self.dropped],
            "equivalence": self.equivalence.to_dict() if self.equivalence is not None else None,
            "misses": {
                name: [{"reason": reason, "count": count, "example": node} for reason, (count, node) in reasons.items()]
                for name, reasons in self.misses.items()
            },
            "seconds": {step: round(seconds, 6) for step, seconds in self.seconds.items()},
            "rounds": self.rounds,
            "notes": list(self.notes),
        }

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Label, before, after, change: the sizes, then each operator whose number changed."""
        rows = [
            _row("nodes", self.before.nodes, self.after.nodes),
            _row("initializers", self.before.initializers, self.after.initializers),
            _row("weights", self.before.weight_bytes, self.after.weight_bytes, byte_size),
        ]
        ops = sorted({*self.before.ops, *self.after.ops})
        changed = [op for op in ops if self.before.ops.get(op, 0) != self.after.ops.get(op, 0)]
        rows += [_row(op, self.before.ops.get(op, 0), self.after.ops.get(op, 0)) for op in changed]
        return rows

    def proof(self) -> str:
        """One sentence on what has been proven."""
        if self.status == "unverified":
            return "Not verified (validation was switched off)."
        if self.status == "unproven":
            reason = self.equivalence.message if self.equivalence is not None else ""
            said = "Unproven: ONNX Runtime cannot run the original, so only exact passes were applied."
            return f"{said} {reason}".strip()
        return f"Proven equal to {self.baseline}. {self.equivalence.message if self.equivalence else ''}".strip()

    def to_text(self) -> str:
        """The report as plain text."""
        lines = [f"{label:<28}{before:>14}{after:>14}{change:>10}" for label, before, after, change in self.rows()]
        lines += ["", *(f"{one.name:<36}{one.count:>6}  {one.safety}" for one in self.passes if one.count)]
        lines += [f"dropped {one.name}: {one.reason}" for one in self.dropped]
        lines += [*self.notes, self.proof()]
        return "\n".join(lines)

    def __rich__(self) -> RenderableType:
        from graphopt.pipeline.report_table import render

        return render(self)

    def _repr_html_(self) -> str:
        body = "".join(
            "<tr>"
            + "".join(
                f"<td style='text-align:{side}'>{html.escape(cell)}</td>"
                for cell, side in zip(row, ("left", "right", "right", "right"), strict=True)
            )
            + "</tr>"
            for row in self.rows()
        )
        fired = ", ".join(f"{html.escape(one.name)} &times;{one.count}" for one in self.passes if one.count)
        return (
            "<table><thead><tr><th></th><th>before</th><th>after</th><th>change</th></tr></thead>"
            f"<tbody>{body}</tbody></table><p>{fired or 'Nothing to do.'}</p><p>{html.escape(self.proof())}</p>"
        )


def _row(label: str, before: int, after: int, show: Callable[[int], str] = str) -> tuple[str, str, str, str]:
    return label, show(before), show(after), _change(before, after)


def _change(before: int, after: int) -> str:
    if before == after:
        return ""
    if not before:
        return "new"
    share = f"{(after - before) / before:+.0%}"
    return "~0%" if share in ("-0%", "+0%") else share
