"""What a pruning did, as plain data; :mod:`graphopt.pruning.render` shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphopt.reporting.plain import finite

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import Console, ConsoleOptions, RenderResult

    from graphopt.benchmark.stats import Interval
    from graphopt.pruning.plan import Plan
    from graphopt.pruning.reconstruction import Refit

__all__ = ["Fidelity", "GroupOutcome", "PruneReport", "Size"]


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """What a model costs: of one run for one sample, where that depends on the input and nothing else is said.

    Attributes:
        macs: Multiply-accumulates.
        params: Elements of weights.
        bytes: Bytes of constants.
        nodes: Nodes.
        memory: Bytes of constants and of what else exists at the peak of a run: :mod:`graphopt.analysis.memory`.
    """

    macs: int
    params: int
    bytes: int
    nodes: int
    memory: int

    @classmethod
    def of(
        cls, model: ir.Model, shapes: Mapping[str, Sequence[int]], run: Mapping[str, Sequence[int]] | None = None
    ) -> Size:
        """Counts a model.

        Args:
            model: The model.
            shapes: Of its inputs in one run, by name.
            run: Of its inputs in the run whose memory counts; ``shapes`` if ``None``.
        """
        from graphopt.analysis.cost import costs
        from graphopt.analysis.inlining import inlined
        from graphopt.analysis.memory import peak_bytes
        from graphopt.analysis.parameters import parameters
        from graphopt.analysis.shapes import Shapes
        from graphopt.pipeline.report import Summary

        names = {value.name for value in model.graph.inputs}
        sample, batch = (
            {name: tuple(one) for name, one in given.items() if name in names}
            for given in (shapes, shapes if run is None else run)
        )
        flat = inlined(model) if model.functions else model
        known = Shapes(flat, believe_declared=True)
        macs, peak = costs(flat, known, input_shapes=sample).macs, peak_bytes(flat, known, input_shapes=batch)
        summary = Summary.of(model)
        weights = summary.weight_bytes
        return cls(macs, parameters(model), weights, summary.nodes, weights + peak)


@dataclasses.dataclass(frozen=True, slots=True)
class GroupOutcome:
    """What became of a group.

    Attributes:
        name: Its name.
        units: How many units it had.
        kept: How many are left.
        harm: The estimated harm of each number of removed units, from none on; on one scale for all groups.
        heads: Whether units are attention heads.
    """

    name: str
    units: int
    kept: int
    harm: tuple[float, ...]
    heads: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Fidelity:
    """How close the pruned model comes to the original on the calibration inputs.

    Attributes:
        samples: On how many.
        error: For each output of floats, the squared difference as a share of the output's variance.
        agreement: For each output that looks like scores of classes, how often the highest one is the same.
        accuracy: Where the data have labels: of the original and of the pruned model; else ``None``.
    """

    samples: int
    error: Mapping[str, float]
    agreement: Mapping[str, float]
    accuracy: tuple[float, float] | None


@dataclasses.dataclass(eq=False)
class PruneReport:
    """What a pruning did.

    Attributes:
        goal: What was to be reached, as text.
        before: The original.
        after: The result.
        groups: What became of each group that might have shrunk.
        refits: How each layer was reconstructed.
        proof: ``proven`` that removal equals masking, ``unproven`` or ``unverified``.
        fidelity: How close the result comes; ``None`` where nothing was run.
        speedup: Measured, where latency was the goal.
        plan: The decision, to be carried out again.
        notes: What a user should know.
        seconds: Time by step.
    """

    goal: str
    before: Size
    after: Size
    groups: Sequence[GroupOutcome]
    refits: Sequence[Refit]
    proof: str
    fidelity: Fidelity | None
    speedup: Interval | None
    plan: Plan
    notes: list[str]
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the plan, as plain data for JSON; ``None`` for numbers that are not finite."""
        groups = [
            {key: value for key, value in dataclasses.asdict(one).items() if key != "harm"} for one in self.groups
        ]
        return {
            "goal": self.goal,
            "before": dataclasses.asdict(self.before),
            "after": dataclasses.asdict(self.after),
            "groups": groups,
            "refits": [finite(dataclasses.asdict(one)) for one in self.refits],
            "proof": self.proof,
            "fidelity": dataclasses.asdict(self.fidelity) if self.fidelity is not None else None,
            "speedup": dataclasses.asdict(self.speedup) if self.speedup is not None else None,
            "notes": list(self.notes),
            "seconds": dict(self.seconds),
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.pruning import render

        yield from render.report(self, options)

    def _repr_html_(self) -> str:
        from graphopt.pruning import render

        return render.html(self)
