"""The order in which a list of passes runs, until nothing changes."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import harness
import onnx_ir as ir

from graphopt.pipeline import runner
from graphopt.pipeline.base import Context, GraphPass, Outcome, Pass, Safety


@dataclasses.dataclass(frozen=True)
class First(GraphPass):
    """Says that it changed something the first few times, and leaves a trace."""

    name: ClassVar[str] = "first"
    safety: ClassVar[Safety] = Safety.EXACT
    trace: list[str] = dataclasses.field(default_factory=list)
    times: int = 0

    def run(self, model: ir.Model, context: Context) -> Outcome:
        self.trace.append(self.name)
        return Outcome(int(self.trace.count(self.name) <= self.times), None)


@dataclasses.dataclass(frozen=True)
class Second(First):
    """Another."""

    name: ClassVar[str] = "second"


@dataclasses.dataclass(frozen=True)
class Late(First):
    """One that waits."""

    name: ClassVar[str] = "late"
    late: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class OfExp(First):
    """One that looks at Exp."""

    name: ClassVar[str] = "of-exp"
    needs: ClassVar[frozenset[str]] = frozenset({"Exp", "Log"})


@dataclasses.dataclass(frozen=True)
class ToExp(First):
    """Makes Relu an Exp."""

    name: ClassVar[str] = "to-exp"
    needs: ClassVar[frozenset[str]] = frozenset({"Relu"})

    def run(self, model: ir.Model, context: Context) -> Outcome:
        self.trace.append(self.name)
        for node in model.graph:
            node.op_type = "Exp"
        return Outcome(1, None)


def run(*passes: Pass) -> int:
    model = harness.parse("agraph (float[N] x) => (float[N] y) { y = Relu(x) }")
    return runner.run(model, list(passes), Context(model)).rounds


def test_a_pass_runs_again_when_another_changed_something() -> None:
    trace: list[str] = []
    assert run(First(trace, 1), Second(trace, 1)) == 2
    assert trace == ["first", "second", "first"]


def test_a_late_pass_waits_until_nothing_else_changes() -> None:
    trace: list[str] = []
    run(First(trace, 1), Late(trace, 0), Second(trace, 1))
    assert trace == ["first", "second", "first", "late"]
    trace.clear()
    run(First(trace, 0), Late(trace, 1), Second(trace, 0))
    assert trace == ["first", "late", "second", "first"]


def test_a_pass_waits_until_the_model_has_what_it_needs() -> None:
    trace: list[str] = []
    run(OfExp(trace), First(trace))
    assert trace == ["first"]
    trace.clear()
    run(OfExp(trace), ToExp(trace))
    assert trace == ["to-exp", "of-exp"]
