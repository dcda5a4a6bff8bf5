"""One quantization, step by step: what is there, how much each layer errs, which are quantized, how good it is."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt.errors import ModelError
from graphopt.interop.kinds import Source
from graphopt.pipeline.runner import drop_initializer_inputs
from graphopt.pruning import fidelity
from graphopt.pruning.calibration import Calibration
from graphopt.pruning.layers import Layer
from graphopt.pruning.report import Size
from graphopt.pruning.stages import Feeds
from graphopt.quantization import candidates, evidence, ranges
from graphopt.quantization.candidates import Target
from graphopt.quantization.choice import Choice, choose
from graphopt.quantization.gates import affordable, harms
from graphopt.quantization.normalizing import normalize
from graphopt.quantization.report import LayerOutcome, QuantizeReport
from graphopt.quantization.schemes import SCHEMES, Settings
from graphopt.quantization.speed import faster
from graphopt.quantization.yardstick import Yardstick

if TYPE_CHECKING:
    from graphopt.datasets import Bound

__all__ = ["Job", "Options", "Progress"]

Progress = Callable[[str, float | None], None]

_SAMPLES = 512  # to see ranges on, unless said otherwise
_JUDGED = 256  # of these, to choose with
_FEWEST = 32  # to compare on
_OPSET = 13  # the first in which DequantizeLinear knows channels
_SLOWER = 0.97  # times as fast: what is called slower
_UNTRUSTED = "ranges of activations were seen on noise, not on inputs of yours: do not trust the result"
_NEAREST = "weights are rounded to the nearest integers; with inputs of yours they would err less"
_HARMLESS = "no calibration inputs were given: errors are measured on noise"


@dataclasses.dataclass(frozen=True)
class Options:
    """How to quantize; see :func:`graphopt.quantization.quantizer.quantize`."""

    scheme: str
    per_channel: bool
    reduce_range: bool
    method: str
    exclude: Sequence[str]
    max_error: float
    max_layer_error: float | None
    samples: int | None
    batch: int
    optimize: bool
    seed: int
    provider: str
    threads: int | None
    faster: bool
    time: bool


class Job:
    """One quantization, step by step."""

    def __init__(self, origin: Source, options: Options, progress: Progress) -> None:
        self._origin = origin
        self._options = options
        self._scheme = SCHEMES[options.scheme]
        self._progress = progress
        self._notes: list[str] = []
        self._seconds: dict[str, float] = {}
        self._running: dict[str, Any] = {"provider": options.provider, "threads": options.threads}

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        self._progress(step, None)
        start = time.perf_counter()
        yield
        self._seconds[step] = self._seconds.get(step, 0.0) + time.perf_counter() - start

    # -- what there is -----------------------------------------------------------------------------------------------

    def load(self, calibration: Any, preprocess: str) -> None:
        """Reads the model and the data, and finds the layers."""
        options = self._options
        with self._timed("load"):
            self._original = self._origin.read()
            candidates.refuse_quantized(self._original)
        self._model = self._prepared()
        self._layers, self._skipped = candidates.find(
            self._model, self._scheme.operators, options.exclude, original=self._original
        )
        evidence.declare_floats(self._layers)
        with self._timed("data"):
            self._data = Calibration.of(
                calibration,
                self._model,
                samples=options.samples or 0,
                preprocess=preprocess,
                seed=options.seed,
                train=False,
            )
            self._note_data(calibration is None)
            fitted = self._some(self._data.fitted, options.samples or _SAMPLES)
            self._batches = list(fitted.batches(options.batch))
            self._fitted = self._some(fitted, _JUDGED)
            self._judged = list(self._fitted.batches(options.batch))

    def _some(self, data: Bound, count: int) -> Bound:
        """So many samples, or all if there are fewer, or as few as the model takes."""
        return data.take(max(data.group, min(count, len(data))), self._options.seed)

    def _prepared(self) -> ir.Model:
        """Optimized, of an opset that can say what is wanted, with constants where they are looked for."""
        if self._options.optimize:
            from graphopt.optimizer import optimize

            with self._timed("optimize"):
                model, report = optimize(self._original, with_report=True)
            self._notes += [f"pass '{one.name}' was left out: {one.reason}" for one in report.dropped]
        else:
            model = self._origin.read()
            drop_initializer_inputs(model)
        prepared: ir.Model = model
        version = prepared.opset_imports.get("", _OPSET)
        if version < self._scheme.opset:
            from graphopt.interop.opset import upgraded

            with self._timed("upgrade"):
                prepared = upgraded(prepared, _OPSET)
            self._notes.append(f"the model was of opset {version} and is now of opset {_OPSET}")
        normalize(prepared)
        return prepared

    def _note_data(self, synthetic: bool) -> None:
        if not synthetic:
            self._notes += self._data.notes
        else:
            self._notes += [_UNTRUSTED if self._scheme.needs_data else _HARMLESS, *self._data.notes[1:]]
            self._notes += [_NEAREST] if self._scheme.block_bits else []

    # -- what becomes of it ------------------------------------------------------------------------------------------

    def choose(self) -> None:
        """Measures the harm of each layer, and quantizes those that may be."""
        options = self._options
        with self._timed("original"):
            yardstick = Yardstick(self._original, self._judged, **self._running)
        settings, self._method = self._settings(yardstick)
        with self._timed("harm"):
            self._harms = harms(
                self._model,
                self._layers,
                lambda layer: self._scheme.rounding(layer, settings),
                Yardstick(self._original, self._affordable(), **self._running),
                progress=lambda share: self._progress("harm", share),
                **self._running,
            )

        def build(chosen: Sequence[Target]) -> ir.Model:
            return self._scheme.build(self._model, chosen, settings)

        with self._timed("choose"):
            self._choice: Choice = choose(
                self._layers,
                self._harms,
                build,
                yardstick,
                max_error=options.max_error,
                max_layer_error=options.max_layer_error,
            )
        if options.faster:
            with self._timed("faster"):
                self._choice = self._faster(build, yardstick)

    def _affordable(self) -> list[Feeds]:
        """Inputs that the harm of each layer is measured on."""
        count = affordable(self._model, len(self._layers), next(iter(self._fitted.batches(1))))
        return list(self._some(self._fitted, count).batches(self._options.batch))

    def _faster(self, build: Callable[[Sequence[Target]], ir.Model], yardstick: Yardstick) -> Choice:
        """Without the layers that are slower in integers, if that errs no more than allowed."""
        found = faster(
            self._choice,
            build,
            next(iter(self._data.held_out.batches(1))),
            seed=self._options.seed,
            progress=lambda share: self._progress("faster", share),
            **self._running,
        )
        error = self._choice.error if found is self._choice else yardstick.error(found.model)
        return dataclasses.replace(found, error=error) if error <= self._options.max_error else self._choice

    def _settings(self, yardstick: Yardstick) -> tuple[Settings, str]:
        """With the ranges of activations that the method gives, or the best one."""
        options = self._options
        fixed = Settings(options.per_channel, options.reduce_range)
        if self._scheme.block_bits:
            with self._timed("round"):
                layers = [layer for layer in self._layers if isinstance(layer, Layer)]
                batches = () if self._data.is_synthetic else self._batches
                blocks = evidence.blocks(self._model, layers, self._scheme.block_bits, batches, **self._running)
                return dataclasses.replace(fixed, blocks=blocks), ""
        with self._timed("calibrate"):
            whole = self._scheme.needs_data
            seen = evidence.histograms(self._model, self._layers, self._batches, whole=whole, **self._running)
            self._leave_infinite(seen)
        if not self._scheme.needs_data:
            return dataclasses.replace(fixed, ranges=_ranges(seen, "minmax")), ""
        if options.method != "auto":
            return dataclasses.replace(fixed, ranges=_ranges(seen, options.method)), options.method
        with self._timed("method"):
            tried = {
                name: dataclasses.replace(fixed, ranges=found)
                for name, found in ((name, _ranges(seen, name)) for name in ranges.METHODS)
            }
            errors = {
                name: yardstick.error(self._scheme.build(self._model, self._layers, one)) for name, one in tried.items()
            }
        best = min(errors, key=lambda name: errors[name])
        return tried[best], best

    def _leave_infinite(self, seen: dict[str, ranges.Histogram]) -> None:
        """Takes away layers whose activations are not finite on the data, or that no data reach."""
        reasons = {
            name: "on the data an activation is not finite" if not one.is_finite else "no data reach it"
            for name, one in seen.items()
            if not one.is_finite or one.low > one.high
        }
        for layer in [layer for layer in self._layers if isinstance(layer, Layer)]:
            found = next((reasons[name] for name in (layer.input.name, layer.output.name) if name in reasons), "")
            if found:
                self._layers.remove(layer)
                self._skipped.append(candidates.Skipped(layer.name, layer.node.op_type, found))
        if not self._layers:
            raise ModelError(f"nothing to quantize: of '{self._skipped[-1].layer}' {self._skipped[-1].reason}")

    @property
    def result(self) -> ir.Model:
        """The quantized model."""
        return self._choice.model

    # -- how good it is ----------------------------------------------------------------------------------------------

    def report(self) -> QuantizeReport:
        """Counts and compares."""
        options, result = self._options, self._choice.model
        with self._timed("compare"):
            held_out = self._some(self._data.held_out, max(_FEWEST, options.samples or _SAMPLES))
            batches = list(held_out.batches(options.batch))
            found = fidelity.compare(self._original, result, batches, held_out.labels, **self._running)
        one = next(iter(self._data.held_out.batches(1)))
        speedup = self._speedup(one) if options.time else None
        shapes = {name: tuple(array.shape) for name, array in one.items() if hasattr(array, "shape")}
        return QuantizeReport(
            options.scheme,
            self._method,
            Size.of(self._original, shapes),
            Size.of(result, shapes),
            self._outcomes(),
            self._choice.error,
            options.max_error,
            found,
            self._data.held_out is not self._data.fitted,
            speedup,
            self._notes,
            self._seconds,
        )

    def _speedup(self, feeds: Feeds) -> Any:
        from graphopt.pruning.latency.measure import speedup

        with self._timed("time"):
            found = speedup(self._original, self.result, feeds, seconds=1.0, seed=self._options.seed, **self._running)
        if found.value < _SLOWER:
            hint = "" if self._options.faster else "; 'faster' leaves out the layers that are to blame"
            self._notes.append(
                f"the quantized model is slower here than the original ({found.value:.2f} times as fast){hint}"
            )
        return found

    def _outcomes(self) -> list[LayerOutcome]:
        harmed = dict(zip(self._layers, self._harms, strict=True))
        found = [
            LayerOutcome(
                layer.name,
                layer.node.op_type,
                harm,
                layer not in self._choice.left,
                self._choice.left.get(layer, ""),
            )
            for layer, harm in harmed.items()
        ]
        return found + [LayerOutcome(one.layer, one.operator, None, False, one.reason) for one in self._skipped]


def _ranges(seen: dict[str, ranges.Histogram], method: str) -> dict[str, ranges.Range]:
    choose_range = ranges.METHODS[method]
    return {name: choose_range(one) for name, one in seen.items() if one.is_finite and one.low <= one.high}
