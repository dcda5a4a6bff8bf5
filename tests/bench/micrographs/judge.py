"""What a tool made of a micro-graph: whether the pattern is gone, and whether the results are still the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from bench.micrographs.case import Case, at_least, kinds, within
from equivalence.compare import difference, open_quietly, outputs
from harness import feeds

from graphopt import proto
from graphopt.runtime import ort_errors, trim

__all__ = ["Judge", "Outcome", "summary"]

_SIZES = (3, 5, 4, 2, 1)  # of all symbolic dims; what the original cannot run with is passed over
_ENOUGH = 3


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of one tool on one case.

    Attributes:
        fired: Nothing of the pattern is left; on a trap, something that had to stay is gone.
        wrong: What is wrong with the result, in words; empty when nothing is.
        error: Why there is no result.
        foreign: The result has nodes of other domains than the original.
    """

    fired: bool = False
    wrong: str = ""
    error: str = ""
    foreign: bool = False


class Judge:
    """Knows the original of a case and its results.

    Raises:
        ValueError: The original runs with none of the sizes.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.original = case.model()
        self._runs: list[tuple[Mapping[str, Any], list[Any]]] = []
        session = open_quietly(self.original.SerializeToString())
        readable = proto.from_proto(self.original)
        symbols = {str(dim) for value in readable.graph.inputs for dim in value.shape or () if not isinstance(dim, int)}
        for seed, size in enumerate(_SIZES):
            given = feeds(readable, seed, dict.fromkeys(symbols, size))
            try:
                self._runs.append((given, outputs(session, given)))
            except ort_errors() as problem:
                complaint = problem
            if len(self._runs) == _ENOUGH:
                break
        if not self._runs:
            raise ValueError(f"{case.row}, {case.name}: {complaint}")

    def outcome(self, model: onnx.ModelProto) -> Outcome:
        """What became of the original."""
        case, found = self.case, kinds(model)
        fired = within(found, case.gone) if case.gone else not at_least(found, case.keep)
        foreign = bool(_domains(model) - _domains(self.original))
        return Outcome(fired, self._wrong(model), foreign=foreign)

    def _wrong(self, model: onnx.ModelProto) -> str:
        try:
            session = open_quietly(model.SerializeToString())
        except ort_errors() as problem:
            return f"does not load: {trim(problem, 200)}"
        names = [one.name for one in self.original.graph.output]
        if [one.name for one in session.get_outputs()] != names:
            return "other outputs"
        inputs = {one.name for one in session.get_inputs()}
        for given, expected in self._runs:
            try:
                results = outputs(session, {name: value for name, value in given.items() if name in inputs})
            except ort_errors() as problem:
                return f"does not run: {trim(problem, 200)}"
            if self.case.compare and (found := difference(expected, results, exact=False)):
                return found
        return ""


def _domains(model: onnx.ModelProto) -> set[str]:
    return {kind.partition("::")[0] for kind in kinds(model) if "::" in kind}


def summary(outcomes: Sequence[Outcome], *, trap: bool) -> str:
    """A cell of the table: ``3/4`` fired, ``c`` into another domain, ``!1`` wrong, ``E1`` no result."""
    wrong = sum(bool(one.wrong) for one in outcomes)
    errors = sum(bool(one.error) for one in outcomes)
    fired = sum(one.fired and not one.wrong for one in outcomes)
    marks = [f"!{wrong}" * bool(wrong), f"E{errors}" * bool(errors)]
    if trap:
        marks.insert(0, f"fired {fired}" * bool(fired))
        return " ".join(filter(None, marks)) or "ok"
    foreign = any(one.foreign and one.fired for one in outcomes)
    return " ".join(filter(None, [f"{fired}/{len(outcomes)}{'c' * foreign}" if fired else "·", *marks]))
