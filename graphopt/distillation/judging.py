"""How good the models of a run are, how large they are, and whether the result is what was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir
from torch import Tensor, nn

from graphopt.datasets import Bound
from graphopt.distillation.evaluation import Accuracy, Agreement, Metric, Model, evaluate
from graphopt.distillation.losses import Objective
from graphopt.distillation.losses.tasks import Ce
from graphopt.distillation.parallel import World
from graphopt.distillation.reading import Reader
from graphopt.distillation.report import Contender
from graphopt.distillation.student import GraphStudent
from graphopt.distillation.teacher import Teacher
from graphopt.errors import NotEquivalent
from graphopt.torch.outputs import Kind, kinds

__all__ = ["Judge", "Served", "choose_metrics", "deviation", "named_kinds", "size"]

_CLOSE = 1e-3  # of an output's largest magnitude: beyond it the result is not what was trained


class Served:
    """A model in ONNX Runtime, to be judged like a student."""

    learns_statistics = False

    def __init__(self, model: ir.Model, threads: int | None, teacher: Teacher | None = None) -> None:
        """Args:
        model: The model.
        threads: Of ONNX Runtime.
        teacher: The same model, already there; used if it gives all outputs.
        """
        names = [value.name or "" for value in model.graph.outputs]
        has_all = teacher is not None and set(names) <= set(teacher.names)
        self.module = nn.Module()
        self._session = teacher if teacher is not None and has_all else Teacher(model, names, threads=threads)

    def outputs(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What ONNX Runtime gives."""
        return self._session.tensors(feeds)


@dataclasses.dataclass(frozen=True)
class Judge:
    """Judges models by the same samples.

    Attributes:
        reader: The held-out samples; None where there are none.
        metrics: What to tell of them.
        data: Samples of the size that multiply-accumulates are counted for.
        world: The processes that share the work.
    """

    reader: Reader | None
    metrics: Sequence[Metric]
    data: Bound
    world: World

    def student(self, name: str, student: Model, model: ir.Model | None = None, *, alone: bool = False) -> Contender:
        """A student's size and scores.

        Args:
            name: For reports.
            student: To be run.
            model: As a graph, if it is none itself.
            alone: Whether this process judges without the others.
        """
        return self._judged(name, student, model, self.metrics, World() if alone else self.world)

    def teacher(self, name: str, served: Served, model: ir.Model, outputs: Sequence[str]) -> Contender:
        """A teacher's size, and how often it is right, as far as it has the student's ``outputs``.

        What it calls otherwise is taken by its place, where there are as many.
        """
        own = [value.name or "" for value in model.graph.outputs]
        named = dict(zip(outputs, own, strict=True)) if len(own) == len(outputs) else {}
        named |= {output: output for output in outputs if output in own}
        right = [one for one in self.metrics if isinstance(one, Accuracy) and one.output in named]
        metrics = [dataclasses.replace(one, output=named[one.output]) for one in right]
        return self._judged(name, served, model, metrics, self.world)

    def _judged(
        self, name: str, one: Model, model: ir.Model | None, metrics: Sequence[Metric], world: World
    ) -> Contender:
        has_scores = self.reader is not None and metrics
        scores = evaluate(one, None, self.reader, metrics, world=world) if self.reader and has_scores else {}
        if model is None and isinstance(one, GraphStudent):
            model = one.to_onnx()
        params, macs, weights = (None, None, None) if model is None else size(model, self.data)
        return Contender(name, params, macs, weights, scores)


def choose_metrics(
    objective: Objective, held_out: Bound | None, student: Mapping[str, Kind], teacher: ir.Model
) -> list[Metric]:
    """How often the student is right where there are labels of classes; else how often it agrees with the teacher.

    Args:
        objective: Tells which output has which labels.
        held_out: The samples to judge by.
        student: What the student's outputs are.
        teacher: The first one.
    """
    if held_out is None:
        return []
    outputs = [name for name, kind in student.items() if kind != "values"]
    labels = held_out.labels
    if outputs and labels is not None and labels.dtype.kind in "iu" and labels.ndim <= 2:
        told = [one for one in objective.losses if isinstance(one, Ce) and one.student in outputs]
        columns = {one.student: one.column for one in told}
        if not columns and labels.ndim == 1:
            columns = {outputs[0]: -1}
        if columns:
            names = {output: "accuracy" if len(columns) == 1 else f"accuracy of {output}" for output in columns}
            return [Accuracy(output, column, names[output]) for output, column in columns.items()]
    theirs, kind = next(iter(named_kinds(teacher).items()))
    return [Agreement(outputs[0], theirs)] if outputs and kind != "values" else []


def deviation(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, float]:
    """How far the result in ONNX Runtime is from the student in torch, by output, as shares of the largest magnitude.

    Args:
        ours: Outputs of the student.
        theirs: Of the result.

    Raises:
        NotEquivalent: Too far.
    """
    found = {}
    for name, got in theirs.items():
        expected = ours[name].detach()
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        found[name] = float((expected - got).abs().max()) / max(scale, 1e-12) if expected.numel() else 0.0
        if not found[name] <= _CLOSE:
            raise NotEquivalent(
                f"output '{name}' of the exported student is off by {found[name]:.1e} of its size from the trained one",
                hint="Please report it; with the student as an ONNX graph, weights are written back as they are.",
            )
    return found


def named_kinds(model: ir.Model) -> dict[str, Kind]:
    """What a model's outputs are, by name."""
    return {value.name or "": kind for value, kind in zip(model.graph.outputs, kinds(model), strict=True)}


def size(model: ir.Model, data: Bound) -> tuple[int, int, int]:
    """Parameters, multiply-accumulates of one sample, and bytes of constants."""
    from graphopt.analysis.cost import costs
    from graphopt.analysis.parameters import parameters
    from graphopt.pipeline.report import Summary

    feeds = next(iter(data.batches(1)))
    own = {value.name for value in model.graph.inputs}
    shapes = {name: tuple(array.shape) for name, array in feeds.items() if name in own and hasattr(array, "shape")}
    return parameters(model), costs(model, input_shapes=shapes).macs, Summary.of(model).weight_bytes
