"""How good and how fast quantized models are: ``graphopt.quantize`` beside ``onnxruntime.quantization`` alone.

``python tests/bench/quantization.py [--models NAME ...] [--ways NAME ...]`` quantizes the trained models of
``tests/bench/pruning/models.py`` on the same 512 samples, and ``paddle-direction``, which tells lines of text from such
upside down (made up here). It prints a line each: accuracy on the test set, squared error of the outputs as a share of
their variance, bytes of the file, and speed on one thread, interleaved with the original. What is distilled learns from
the original on the calibration samples, without labels.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.pruning import models  # noqa: E402
from bench.pruning.models import Trained  # noqa: E402

import graphopt  # noqa: E402
from graphopt.pruning.latency.measure import Stopwatch  # noqa: E402

__all__ = ["WAYS", "main"]

_SAMPLES: Final = 512
_JUDGED: Final = 1000
_DIRECTION: Final = "paddle-direction"
_BATCHES: Final = (1, 32)


def _ours(**options: Any) -> Callable[[Trained, Path], None]:
    def run(trained: Trained, target: Path) -> None:
        given = {name: array[:_SAMPLES] for name, array in trained.calibration.items()}
        graphopt.save(graphopt.quantize(trained.path, given, threads=1, time=False, **options), target)

    return run


def _distilled(spec: str) -> Callable[[Trained, Path], None]:
    def run(trained: Trained, target: Path) -> None:
        options: dict[str, Any] = {"epochs": 2 if trained.name == _DIRECTION else 6, "batch": 32, "learning_rate": 3e-4}
        made = graphopt.distill(
            trained.path, None, trained.calibration, quantize=spec, threads=1, seed=trained.seed, **options
        )
        graphopt.save(made, target)

    return run


def _theirs(*, dynamic: bool = False, **options: Any) -> Callable[[Trained, Path], None]:
    def run(trained: Trained, target: Path) -> None:
        from onnxruntime.quantization import quantize_dynamic, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        prepared = target.with_suffix(".prepared.onnx")
        with _silence():
            quant_pre_process(str(trained.path), str(prepared), skip_symbolic_shape=True)
            if dynamic:
                quantize_dynamic(str(prepared), str(target))
            else:
                quantize_static(str(prepared), str(target), _Reader(trained.calibration), **options)

    return run


class _Reader:
    """What the library reads calibration data from."""

    def __init__(self, calibration: Mapping[str, np.ndarray[Any, Any]]) -> None:
        ((name, array),) = calibration.items()
        self._batches = iter([{name: array[at : at + 64]} for at in range(0, min(_SAMPLES, len(array)), 64)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
    logging.disable(logging.NOTSET)


WAYS: Final[Mapping[str, Callable[[Trained, Path], None]]] = {
    "static": _ours(),
    "static, faster": _ours(faster=True),
    "static, all layers": _ours(max_error=math.inf),
    "static, distilled": _distilled("static"),
    "per tensor, 7 bits": _ours(max_error=math.inf, per_channel=False, reduce_range=True),
    "per tensor, 7 bits, distilled": _distilled("static:per-channel=no:reduce-range=yes"),
    "dynamic": _ours(scheme="dynamic"),
    "weights-int8": _ours(scheme="weights-int8"),
    "weights-int4": _ours(scheme="weights-int4"),
    "onnxruntime static": _theirs(),
    "onnxruntime static, per channel": _theirs(per_channel=True),
    "onnxruntime dynamic": _theirs(dynamic=True),
}
"""What is measured, by name."""


def _loaded(name: str, seed: int) -> Trained:
    if name != _DIRECTION:
        return models.load(name, seed)
    from bench.compression.cases import CASES

    load = CASES["Paddle OCR direction, no labels"].load
    (path, learnt, _), (_, judged, _) = load(seed), load(seed + 100)
    x = judged["x"][:_JUDGED]
    y = np.arange(len(x)) % 2
    base = models.score(models.predictions(str(path), x), y)
    return Trained(name, seed, path, dict(learnt), x, y, base)


def _line(trained: Trained, name: str, target: Path) -> str:
    x, expected = trained.x_test, trained.logits.astype(np.float64)
    found = models.predictions(str(target), x)
    error = np.square(expected - found).sum() / np.square(expected - expected.mean()).sum()
    before, after = trained.base_accuracy, models.score(found, trained.y_test).accuracy
    size = target.stat().st_size / trained.path.stat().st_size
    (input_name,) = trained.calibration
    speeds = []
    for batch in _BATCHES:
        with Stopwatch(trained.path, {input_name: x[:batch]}, threads=1) as watch:
            speeds.append(f"{watch.ratio(target).value:.2f}x at {batch}")
    return (
        f"{trained.name:<14} {name:<32} {before:7.2%} to {after:7.2%}, error {error:.1e}, "
        f"{size:4.0%} of the bytes, speed {', '.join(speeds)}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=[*models.MODELS, _DIRECTION], default=list(models.MODELS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for model in options.models:
        trained = _loaded(model, options.seed)
        for name in options.ways:
            with tempfile.TemporaryDirectory(prefix="graphopt-bench-") as folder:
                target = Path(folder) / "quantized.onnx"
                try:
                    WAYS[name](trained, target)
                except graphopt.GraphoptError as error:
                    print(f"{model:<14} {name:<32} {error.message}", flush=True)
                    continue
                print(_line(trained, name, target), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
