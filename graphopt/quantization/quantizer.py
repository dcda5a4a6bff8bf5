"""``quantize``: calibrate, measure the harm of each layer, quantize those that may be, compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from graphopt.errors import UsageError
from graphopt.interop.kinds import Source
from graphopt.quantization.job import Job, Options
from graphopt.quantization.ranges import METHODS
from graphopt.quantization.schemes import SCHEMES

__all__ = ["quantize"]


def quantize(
    source: Any,
    calibration: Any = None,
    *,
    scheme: str = "static",
    per_channel: bool = True,
    reduce_range: bool = False,
    method: str = "auto",
    exclude: Iterable[str] = (),
    max_error: float = 0.01,
    max_layer_error: float | None = None,
    samples: int | None = None,
    batch: int = 64,
    preprocess: str = "",
    optimize: bool = True,
    faster: bool = False,
    time: bool = True,
    seed: int = 0,
    provider: str = "cpu",
    threads: int | None = None,
    allow_loss: bool = False,
    progress: Callable[[str, float | None], None] | None = None,
    with_report: bool = False,
) -> Any:
    """Lets layers compute in integers, or keeps their weights as such, as far as the outputs stay what they were.

    How much each layer's rounding changes the outputs is measured, alone and all together; the fewest layers are left
    as they are with which the whole stays within ``max_error``. The report names them.

    Args:
        source: A path, an ``onnx_ir.Model``, an ``onnx.ModelProto`` or an ``onnx_graphsurgeon.Graph``; never changed.
        calibration: Inputs: whatever :func:`graphopt.datasets.bind` takes, as a path, arrays by name, or feeds. Static
            ranges are worth nothing without real ones.
        scheme: A name of :data:`graphopt.quantization.SCHEMES`: ``static``, ``dynamic``, ``weights-int8`` or
            ``weights-int4``.
        per_channel: A scale for each output channel of a weight, not one for all; ``static`` and ``dynamic``.
        reduce_range: Weights of 7 bits, for x86 processors without VNNI, whose sums may saturate; likewise.
        method: How ranges of activations follow from what was seen: ``minmax``, ``percentile``, ``entropy``, ``mse``,
            or ``auto`` for the one with the least measured error. Static only.
        exclude: Shell patterns of layers to leave as they are.
        max_error: The squared error of the outputs that is allowed, as a share of their variance.
        max_layer_error: The same for each layer alone; ``None`` for no such limit.
        samples: Calibration samples to draw: at most 512, and 256 MiB, if ``None``.
        batch: Samples of one run.
        preprocess: What to do to the calibration data, see :func:`graphopt.datasets.open_dataset`.
        optimize: Run the default passes first, which fold what would be rounded for nothing.
        faster: Leave layers float without which the model is faster, as measured here on one sample; what is measured
            is never quite the same, so the result may not be either.
        time: Time both models, to say so where the quantized one is slower.
        seed: Of samples: same seed, same bytes.
        provider: Execution provider of calibration and timing.
        threads: Intra-op threads of both; ``None`` leaves it to ONNX Runtime.
        allow_loss: Accept that a graphsurgeon graph cannot hold all of the model.
        progress: Called with the name of each step and the share of it that is done.
        with_report: Return ``(model, report)``.

    Returns:
        The quantized model, of the kind that came in (a path gives an ``onnx_ir.Model``).

    Raises:
        UsageError: Options that make no sense.
        ModelError: The model or the data cannot be read or run, or there is nothing to quantize.
        Infeasible: Not one layer can be quantized within the error that is allowed.
        NotEquivalent: The result is not finite where the original is.
        EnvironmentProblem: The provider is missing.
    """
    _check(scheme, SCHEMES, "scheme")
    _check(method, {**METHODS, "auto": None}, "method")
    for name, limit in (("max_error", max_error), ("max_layer_error", max_layer_error)):
        if limit is not None and (not isinstance(limit, int | float) or not limit > 0 or math.isnan(limit)):
            raise UsageError(f"{name}={limit!r} is no limit", hint="Give a number above 0, such as 0.01.")
    for name, number, least in (("samples", samples, 1), ("batch", batch, 1), ("seed", seed, 0)):
        if number is not None and (not isinstance(number, int) or number < least):
            raise UsageError(f"{name}={number!r} makes no sense", hint=f"Give a whole number from {least} on.")
    options = Options(
        scheme=scheme,
        per_channel=per_channel,
        reduce_range=reduce_range,
        method=method,
        exclude=(exclude,) if isinstance(exclude, str) else tuple(exclude),
        max_error=max_error,
        max_layer_error=max_layer_error,
        samples=samples,
        batch=batch,
        optimize=optimize,
        seed=seed,
        provider=provider,
        threads=threads,
        faster=faster,
        time=time,
    )
    origin = Source.of(source, allow_loss=allow_loss)
    job = Job(origin, options, progress or (lambda step, share: None))
    job.load(calibration, preprocess)
    job.choose()
    if not with_report:
        return origin.give_back(job.result)
    report = job.report()
    return origin.give_back(job.result), report


def _check(name: str, known: Any, kind: str) -> None:
    if name not in known:
        raise UsageError(f"there is no {kind} '{name}'", hint=f"There are: {', '.join(known)}.")
