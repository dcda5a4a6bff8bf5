"""Prunes channels, heads and hidden units down to a goal."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from graphopt.channels.analysis import analyze, mask
from graphopt.errors import UsageError
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.pruning.pruner import prune

__all__ = ["PruneChannels"]

_NEXT = re.compile(r"\+(?=[a-z])")
"""Between two limits; a comma would begin another pass, and ``1e+9`` is a number."""


@dataclasses.dataclass(frozen=True)
class PruneChannels(GraphPass):
    """Prunes the channels that matter least, down to a goal: ``graphopt prune`` as a pass.

    What it does:
        Channels, attention heads and hidden units go from every tensor that has them, until ``goal`` is met:
        ``macs=0.5``, or several as ``macs=0.5+params=0.4``. ``importance`` says who goes first, ``ranking`` who is
        compared with whom, ``keep`` what share of each group stays, ``exclude`` (a shell pattern) what is left alone.
        With ``reconstruct``, what is left is then refitted on the ``calibration`` data, so that it computes what the
        original computed. Without data, noise serves.

    Before:
        ``c = Conv(x, W1); r = Relu(c); y = Conv(r, W2)``

    After:
        ``c = Conv(x, W1'); r = Relu(c); y = Conv(r, W2')``, with fewer filters in ``W1'``

    Does not apply when:
        - the goal is met already;
        - the goal cannot be reached, or no channel can go: that is an error;
        - the channels are those of the model's inputs and outputs.

    Safety:
        Lossy: the model computes something else. Without ``reconstruct`` what it computes is proven equal to the
        model in which the weights of these channels are zero. With it, that is proven of the removal, before what is
        left is refitted; nothing more is claimed of the result.
    """

    name = "prune-channels"
    safety = Safety.LOSSY

    goal: str = ""
    importance: str = "obs"
    ranking: str = "global"
    calibration: str = ""
    samples: int = 1024
    keep: float = 0.1
    exclude: str = ""
    seed: int = 0
    reconstruct: bool = True

    def run(self, model: ir.Model, context: Context) -> Outcome:
        if not self.goal:
            raise UsageError("prune-channels needs a goal", hint="Write prune-channels:goal=macs=0.5.")
        smaller, report = prune(
            model,
            _NEXT.sub(",", self.goal),
            self.calibration or None,
            importance=self.importance,
            ranking=self.ranking,
            exclude=[self.exclude] if self.exclude else [],
            keep=self.keep,
            reconstruct=self.reconstruct,
            optimize=False,
            samples=self.samples,
            check=self.reconstruct,  # else the pipeline proves it
            seed=self.seed,
            with_report=True,
        )
        count = sum(map(len, report.plan.removed.values()))
        if not count:
            return Outcome()
        reference = None if self.reconstruct else _masked(model, report.plan.removed)
        model.graph = smaller.graph
        model.functions.clear()  # what they computed is in the graph now
        context.refresh()
        return Outcome(count, None, reference)


def _masked(model: ir.Model, removed: Mapping[str, Sequence[int]]) -> ir.Model:
    """The model with zeros in place of what goes."""
    graph = analyze(model)
    groups = {group.name: group for group in graph.groups}
    found: ir.Model = mask(graph, [groups[name].units[place] for name, places in removed.items() for place in places])
    return found
