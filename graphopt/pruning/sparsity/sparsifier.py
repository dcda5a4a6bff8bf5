"""Makes the layers of a model sparse, one after the other, each seeing what the sparse ones before it give."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.interop.kinds import Source
from graphopt.pipeline.runner import drop_initializer_inputs
from graphopt.pruning.layers import Layer
from graphopt.pruning.sparsity import statistics
from graphopt.pruning.sparsity.biases import bias_of
from graphopt.pruning.sparsity.choice import Keep, choose, magnitudes
from graphopt.pruning.sparsity.patterns import Pattern
from graphopt.pruning.sparsity.report import LayerSparsity, Report, Skipped
from graphopt.pruning.sparsity.settings import Method, Scope, Settings
from graphopt.pruning.sparsity.sizes import encoded_bytes, sizes
from graphopt.pruning.sparsity.statistics import Statistics
from graphopt.pruning.sparsity.targets import Target, find
from graphopt.pruning.sparsity.thresholds import Threshold
from graphopt.pruning.stages import Feeds, Stages, observe

if TYPE_CHECKING:
    from pathlib import Path

    from graphopt.datasets import Bound, Dataset

__all__ = ["bound", "sparsify", "sparsify_in_place"]

Array = npt.NDArray[Any]
Data: TypeAlias = "Dataset | Bound | str | Path | Mapping[str, Any] | Sequence[dict[str, Any]]"
Progress = Callable[[str, float | None], None]

_BATCH: Final = 32


def sparsify(
    model: Any,
    *,
    pattern: str | float | Pattern = "2:4",
    method: Method = "sparsegpt",
    scope: Scope = "layer",
    reconstruct: bool = True,
    calibration: Data | None = None,
    samples: int = 256,
    seed: int = 0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    smallest: int = 512,
    provider: str = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
    with_report: bool = False,
) -> Any:
    """Sets weights of Conv, ConvTranspose, Gemm and MatMul to zero, in a copy of a model.

    ``magnitude`` takes the smallest weights, ``wanda`` the smallest products of a weight and the root mean square of
    what it is multiplied with, within each output (Sun et al., arXiv 2306.11695), ``sparsegpt`` those whose absence
    the others can make up for best, and lets them (Frantar and Alistarh, arXiv 2301.00774).

    N:M runs along the input channels, as hardware reads it: of a convolution those at one place of the window.
    Depthwise convolutions stay dense, and so do layers whose channels are no multiple of M, weights that something
    else reads too, and those of subgraphs and functions. A weight that several layers share becomes sparse once, on
    what all of them read in the original.

    Args:
        model: A path, ``onnx_ir.Model``, ``onnx.ModelProto`` or graphsurgeon ``Graph``; not changed.
        pattern: ``2:4`` for two weights of each four; ``50%`` or ``0.5`` for the share that becomes zero.
        method: ``sparsegpt``, ``wanda`` or ``magnitude``.
        scope: Whether magnitudes are compared within each ``layer``, or over all of them (``global``).
        reconstruct: Refit what is left, and the bias where there is one, to the dense layer's results by least
            squares. It helps all methods, SparseGPT too, whose early columns are settled before it knows the later.
        calibration: Data, as :func:`graphopt.datasets.bind` takes them; random inputs by default, and none at all
            for ``magnitude`` without ``reconstruct``.
        samples: How many to draw of them.
        seed: Of what is drawn.
        include: Names of the layers to make sparse, with ``*`` and ``?``; by default all.
        exclude: Names of layers to leave dense.
        smallest: The fewest elements of a weight that becomes sparse.
        provider: Execution provider that runs the model on the data.
        threads: Its intra-op threads.
        progress: Called with what is done and the share of it.
        with_report: Return the pair ``(model, Report)``.

    Returns:
        A model of the caller's kind (an ``onnx_ir.Model`` for a path).

    Raises:
        UsageError: An option that makes no sense, or no layer that can become sparse.
        ModelError: The model or the data cannot be read, or ONNX Runtime cannot run it.
    """
    settings = Settings(
        Pattern.parse(pattern), method, scope, reconstruct, smallest, include, exclude, seed, provider, threads
    )
    source = Source.of(model)
    work = source.read()
    drop_initializer_inputs(work)
    before = sizes(work) if with_report else None
    data = bound(work, settings, calibration, samples)
    report = sparsify_in_place(work, settings, data, progress)
    result = source.give_back(work)
    if not with_report:
        return result
    return result, dataclasses.replace(report, before=before, after=sizes(work))


def bound(
    model: ir.Model,
    settings: Settings,
    calibration: Data | None,
    samples: int,
) -> Bound | None:
    """The data that fit a model; synthetic ones where none are given and the method needs some.

    Raises:
        UsageError: Options that do not fit the data or the model.
        ModelError: The data cannot be read or do not fit, or nothing makes the model run.
    """
    from graphopt.datasets import Bound, bind
    from graphopt.datasets.synthetic import synthetic

    if isinstance(calibration, Bound):
        return calibration
    if calibration is None and settings.need == "rows":
        return None
    data = calibration if calibration is not None else synthetic(model, samples, settings.seed)
    return bind(data, model, samples=samples, seed=settings.seed)


def sparsify_in_place(
    model: ir.Model, settings: Settings, data: Bound | None, progress: Progress | None = None
) -> Report:
    """Like :func:`sparsify`, on the model itself; the report lacks the sizes of files.

    Args:
        model: Without initializers that are listed as inputs only because an old IR version wants it.
        settings: How.
        data: ``None`` only for magnitudes that nothing follows.
        progress: Called with what is done and the share of it.

    Raises:
        UsageError: No layer can become sparse.
        ModelError: ONNX Runtime cannot run the model on the data.
    """
    targets, skipped = find(
        model, settings.pattern, include=settings.include, exclude=settings.exclude, smallest=settings.smallest
    )
    work = _Sparsifier(model, settings, targets, progress or (lambda step, share: None))
    work.run([] if data is None else list(data.batches(_BATCH)))
    order = {target.layer.name: place for place, target in enumerate(targets)}
    return Report(
        pattern=str(settings.pattern),
        method=settings.method,
        scope=settings.scope,
        reconstruct=settings.reconstruct,
        seed=settings.seed,
        provider=settings.provider,
        data="" if data is None else data.name,
        samples=0 if data is None else len(data),
        layers=sorted(work.done, key=lambda one: order[one.layer]),
        skipped=[*skipped, *work.skipped],
        notes=() if data is None else data.notes,
    )


class _Sparsifier:
    """Goes through the targets of one model."""

    def __init__(self, model: ir.Model, settings: Settings, targets: Sequence[Target], progress: Progress) -> None:
        self._model, self._settings, self._targets, self._progress = model, settings, targets, progress
        self._threshold: Threshold | None = None
        self.done: list[LayerSparsity] = []
        self.skipped: list[Skipped] = []

    def run(self, batches: Sequence[Feeds]) -> None:
        """Makes all targets sparse, in the order in which data reach them."""
        if self._settings.scope == "global":
            self._threshold = Threshold(
                lambda: (target.layer.matrix() for target in self._targets), self._settings.pattern.sparsity
            )
        if not batches:
            for target in self._targets:
                self._apply(target, None)
            return
        shared = [target for target in self._targets if len(target.layers) > 1]
        for target in shared:
            self._apply(target, self._observed(target, batches))
        self._walk([target for target in self._targets if len(target.layers) == 1], batches)

    def _observed(self, target: Target, batches: Sequence[Feeds]) -> Statistics:
        """What the layers of a shared weight read, as the model is now."""
        found = self._statistics(target, len(batches))
        values = [layer.input for layer in target.layers]
        running: dict[str, Any] = {"provider": self._settings.provider, "threads": self._settings.threads}
        for batch, arrays in enumerate(observe(self._model, values, batches, **running)):
            for layer, x in zip(target.layers, arrays, strict=True):
                found.add(layer, x, batch)
        return found

    def _walk(self, targets: Sequence[Target], batches: Sequence[Feeds]) -> None:
        """Runs the model piece by piece, so that each layer is fitted to what the sparse ones before it give."""
        if not targets:
            return
        settings = self._settings
        cuts = [target.layer.node for target in targets]
        stages = Stages(self._model, cuts, batches, provider=settings.provider, threads=settings.threads)
        by_stage: dict[int, dict[tuple[Any, ...], list[Target]]] = {}
        for target in targets:
            own = by_stage.setdefault(stages.stage[target.layer.node], {})
            own.setdefault(target.layer.rows_key, []).append(target)
        for stage in range(1, max(by_stage) + 1):
            _exhaust(stages.run(stage - 1))
            for alike in by_stage.get(stage, {}).values():
                layer = alike[0].layer
                found = self._statistics(alike[0], len(batches))
                for batch in range(len(batches)):
                    found.add(layer, stages.available(layer.input, batch), batch)
                for target in alike:
                    self._apply(target, found)

    def _statistics(self, target: Target, batches: int) -> Statistics:
        settings = self._settings
        seed = (settings.seed, self._targets.index(target))
        return Statistics(target.layer, settings.need, batches, of=settings.pattern.of, seed=seed)

    def _apply(self, target: Target, found: Statistics | None) -> None:
        self._progress("sparsify", (len(self.done) + len(self.skipped)) / len(self._targets))
        layer = target.layer
        dense = layer.matrix()
        obstacle = self._obstacle(dense, found)
        if obstacle:
            self.skipped += [Skipped(one.name, obstacle) for one in target.layers]
            return
        bias = None
        if self._settings.reconstruct and found is not None and len(target.layers) == 1:
            bias = bias_of(layer)
        stored = self._stored(layer, dense, found, centred=bias is not None)
        target.write(stored)
        sparse, shift = layer.matrix(stored), None
        if bias is not None and found is not None:
            lost = layer.alpha * np.einsum("goc,gc->go", dense - sparse, found.mean)
            shift = bias.shift(lost.reshape(-1), self._model).reshape(lost.shape) / layer.alpha
        self.done.append(
            LayerSparsity(
                layer=layer.name,
                operator=layer.node.op_type,
                shape=stored.shape,
                dtype=layer.weight.dtype.name,
                zeros=int((stored == 0).sum()),
                error=None if found is None else found.error(dense, sparse, shift),
                rows=0 if found is None else found.count,
                bytes=stored.nbytes,
                encoded_bytes=encoded_bytes(stored),
                note="; ".join(_notes(target, found, self._settings)),
            )
        )

    def _stored(self, layer: Layer, dense: Array, found: Statistics | None, *, centred: bool) -> Array:
        """The sparse weight in the layer's shape and dtype."""
        if self._threshold is not None:
            places: Keep = self._threshold.keep
        else:
            places = functools.partial(magnitudes, pattern=self._settings.pattern)
        weight, keep = choose(dense, found, self._settings, places, centred=centred)
        with np.errstate(over="ignore"):
            stored = layer.from_matrix(np.where(keep, weight, 0))
        if not np.isfinite(stored if stored.dtype.kind == "f" else stored.astype(np.float32)).all():
            stored = layer.from_matrix(np.where(keep, dense, 0))  # refitted beyond what the dtype holds
        stored[stored == 0] = 0  # no negative zeros: their bits are not zero
        return stored

    def _obstacle(self, dense: Array, found: Statistics | None) -> str:
        """Why a layer stays dense after all."""
        if not np.isfinite(dense).all():
            return "it has weights that are not finite"
        if found is not None and not found.is_finite:
            return "on the data it reads what is not finite"
        if found is not None and not found.count and self._settings.need != "rows":
            return "no data reach it"
        return ""


def _notes(target: Target, found: Statistics | None, settings: Settings) -> Iterator[str]:
    if len(target.layers) > 1:
        yield f"shared with {len(target.layers) - 1} more layers"
    if found is not None and settings.need == "products" and len(found.blocks) > 1:
        yield f"fitted in {len(found.blocks)} blocks of at most {statistics.WIDEST} columns"


def _exhaust(iterable: Iterable[Any]) -> None:
    for _ in iterable:
        pass
