"""A whole model at full size, and the machine that it runs on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt.benchmark.table import environment
from graphopt.errors import ModelError
from graphopt.pruning.latency.products import kind_of
from graphopt.verify.feeds import Feeds, Plan

if TYPE_CHECKING:
    from graphopt.channels.groups import ChannelGraph
    from graphopt.pruning.latency.meter import Meter
    from graphopt.pruning.latency.sessions import NodeTimes

__all__ = ["Whole", "first_that_runs", "machine", "shapes_of", "summarize", "weight_bytes", "whole_seconds"]

_MOST_GUESSES = 16


@dataclasses.dataclass(frozen=True)
class Whole:
    """The whole model at full size.

    Attributes:
        milliseconds: Of a run that nothing disturbed.
        shares: What part of the nodes' time each kind of them takes; empty where there is no profile by node.
        overhead: Milliseconds of a run beyond all nodes.
        undisturbed: What part of its time a run had the machine for itself, as far as can be told.
    """

    milliseconds: float
    shares: Mapping[str, float]
    overhead: float
    undisturbed: float = 1.0


def shapes_of(feeds: Feeds) -> dict[str, list[int]]:
    return {name: list(feed.shape) for name, feed in feeds.items() if hasattr(feed, "shape")}


def weight_bytes(graph: ChannelGraph) -> int:
    tensors = {id(tensor): tensor for place in graph.linker.constants if (tensor := graph.linker.constant(place.value))}
    return sum(tensor.nbytes for tensor in tensors.values() if tensor.dtype != ir.DataType.STRING)


def whole_seconds(max_seconds: float) -> float:
    return min(3.0, max_seconds / 4)


def first_that_runs(
    graph: ChannelGraph, shapes: Mapping[str, Sequence[int]] | None, meter: Meter, seed: int, max_seconds: float
) -> tuple[Feeds, Whole]:
    """The first feeds on which the model runs, and its time on them."""
    plan = Plan.of(graph.model, shapes)
    problem: ModelError | None = None
    for guess in itertools.islice(plan.guesses(), _MOST_GUESSES):
        feeds = plan.fill(guess, seed)
        if feeds is None:
            continue
        try:
            return feeds, summarize(meter.whole(graph.model, feeds, whole_seconds(max_seconds)))
        except ModelError as error:
            problem = problem or error
    message = problem.message if problem else "the model's inputs are too large to generate"
    raise ModelError(message, hint="Give shapes that it runs on.") from problem


def summarize(times: NodeTimes) -> Whole:
    every = sum(times.nodes.values())
    if not every:
        return Whole(round(times.wall, 6), {}, 0.0)
    shares: dict[str, float] = {}
    for (_, op_type), taken in times.nodes.items():
        kind = kind_of(op_type)
        shares[kind] = shares.get(kind, 0.0) + taken / every
    rounded = {kind: round(share, 6) for kind, share in sorted(shares.items())}
    return Whole(round(times.wall, 6), rounded, round(times.overhead, 6), round(times.share, 3))


def machine(provider: str) -> dict[str, Any]:
    here = environment()
    return {
        "onnxruntime": here["onnxruntime"],
        "device": _device(provider, str(here["processor"])),
        "cores": here["cores"],
    }


def _device(provider: str, processor: str) -> str:
    if not any(name in provider for name in ("CUDA", "Tensorrt", "TensorRT")):
        return processor
    names = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return ", ".join(names) or processor
