"""What the removal of a share of a group does to the score, measured: for explanations, not for decisions.

One session serves all measurements: before each product of the network stands a multiplication with a mask, an input of
the instrumented model, so that another group is switched off by other masks and not by another model. Statistics of
normalizations still see the lanes that are off, so this is an estimate; what the search decides by is built and run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import runtime
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.workpiece import Workpiece
from graphopt.compression.judging import Judge
from graphopt.compression.workspace import Workspace
from graphopt.errors import ModelError
from graphopt.pruning.importance import Ranking

__all__ = ["Sensitivity", "sensitivities"]

Array = npt.NDArray[Any]

_SHARES: Final = (0.25, 0.5, 0.75)
_WORK: Final = 2e12  # multiply-accumulates of all measurements together: a minute or so
_SAMPLES: Final = (32, 512)
_TOLD: Final = 0.5  # the share that is told of


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """What a group's removal does.

    Attributes:
        group: Its name.
        scores: The share that is off, and the score then; from none on.
        harm: What half of it costs, in the unit of the score; more is worse.
    """

    group: str
    scores: Sequence[tuple[float, float]]
    harm: float

    @property
    def told(self) -> str:
        """For people."""
        return f"half of it costs {self.harm:.3g} of the score of {self.scores[0][1]:.3g}"


@dataclasses.dataclass(frozen=True)
class _Mask:
    """An input of the instrumented model, and the axis whose lanes it switches."""

    name: str
    axis: Any
    size: int
    shape: tuple[int, ...]
    dtype: Any


def sensitivities(
    graph: ChannelGraph,
    rankings: Sequence[Ranking],
    judge: Judge,
    workspace: Workspace,
    *,
    macs: int,
    progress: Callable[[str, float | None], None],
    provider: str = "cpu",
    threads: int | None = None,
) -> list[Sensitivity]:
    """Measures each group, unless that was done before in this folder.

    Args:
        graph: The model's channels.
        rankings: In which order units go.
        judge: Tells the score.
        workspace: Keeps what was measured.
        macs: Of one run of one sample.
        progress: Called with what is done.
        provider: Execution provider.
        threads: Intra-op threads.

    Raises:
        ModelError: ONNX Runtime cannot run the instrumented model.
    """
    kept = workspace.read("sensitivity.json")
    if kept is not None:
        return [
            Sensitivity(one["group"], [tuple(pair) for pair in one["scores"]], one["harm"]) for one in kept["groups"]
        ]
    runs = 1 + len(_SHARES) * len(rankings)
    fewest, most = _SAMPLES
    count = int(min(len(judge.samples), max(fewest, min(most, _WORK / max(1, macs * runs)))))
    numbers = np.random.default_rng(0).permutation(len(judge.samples))[: max(count, judge.samples.bound.group)]
    session = _Instrumented(graph, judge, np.sort(numbers), provider=provider, threads=threads)
    base = session.score(np.zeros(0, np.int64))
    found = []
    for number, ranking in enumerate(rankings):
        progress("sensitivity", number / len(rankings))
        scores = [(0.0, base)]
        for share in _SHARES:
            units = ranking.order[: round(share * len(ranking.order))]
            if 0 < len(units) < len(ranking.order):
                scores.append((share, session.score(units)))
        harm = max(((base - score) * judge.metric.is_better for share, score in scores if share <= _TOLD), default=0.0)
        found.append(Sensitivity(ranking.group.name, scores, harm))
    workspace.write("sensitivity.json", {"groups": [dataclasses.asdict(one) for one in found]})
    return found


class _Instrumented:
    """A model whose lanes can be switched off, open and with its samples at hand."""

    def __init__(
        self, graph: ChannelGraph, judge: Judge, numbers: Array, *, provider: str, threads: int | None
    ) -> None:
        self._graph = graph
        self._judge = judge
        samples = judge.samples.pick(numbers)
        self._truth = judge.truth[numbers[: len(samples)]]
        workpiece = Workpiece(graph.model)
        self._masks = list(_masked(graph, workpiece))
        self._session = runtime.open_session(workpiece.model, provider=provider, threads=threads)
        taken = {entry.name for entry in self._session.get_inputs()}
        self._feeds = [
            {name: array for name, array in feeds.items() if name in taken} for feeds in samples.batches(judge.batch)
        ]

    def score(self, units: Array) -> float:
        """The score without these units."""
        gone = self._graph.gone_units(units)
        masks = {one.name: _lanes(self._graph, one, gone) for one in self._masks}
        try:
            outputs = [self._session.run([self._judge.output], {**feeds, **masks})[0] for feeds in self._feeds]
        except runtime.ort_errors() as error:
            raise ModelError(f"ONNX Runtime cannot run the instrumented model: {runtime.trim(error)}") from error
        return self._judge.metric.score(np.concatenate(outputs), self._truth)


def _masked(graph: ChannelGraph, workpiece: Workpiece) -> Iterator[_Mask]:
    """Puts a mask before each product whose input has lanes that may go."""
    everything = graph.gone_units(np.arange(sum(len(group.units) for group in graph.groups)))
    made: dict[tuple[ir.Value, int], ir.Value] = {}
    for product in graph.linker.products:
        for index, value in enumerate(product.node.inputs):
            dtype = None if value is None else graph.linker.shapes.dtype(value)
            if value is None or dtype is None or graph.linker.constant(value) is not None:
                continue
            axes = graph.linker.of(value) or ()
            for place, axis in enumerate(axes):
                if not isinstance(axis.size, int) or graph.kept(axis, everything) is None:
                    continue
                near = workpiece.node(product.node)
                if near.graph is not workpiece.model.graph:
                    continue  # inputs of the model are not seen inside of bodies that are functions
                if (value, place) not in made:
                    shape = tuple(axis.size if at == place else 1 for at in range(len(axes)))
                    mask = ir.Value(
                        name=workpiece.names.fresh(f"mask_{len(made)}"),
                        type=ir.TensorType(dtype),
                        shape=ir.Shape(shape),
                    )
                    workpiece.model.graph.inputs.append(mask)
                    made[value, place] = mask
                    yield _Mask(str(mask.name), axis, axis.size, shape, dtype.numpy())
                read = near.inputs[index]
                near.replace_input_with(index, workpiece.insert(near, "Mul", [read, made[value, place]]))


def _lanes(graph: ChannelGraph, mask: _Mask, gone: Array) -> Array:
    lanes = np.ones(mask.size, mask.dtype)
    kept = graph.kept(mask.axis, gone)
    if kept is not None:
        lanes[:] = 0
        lanes[kept] = 1
    return lanes.reshape(mask.shape)
