"""Accuracy against latency: ``graphopt.compress`` beside what else there is, on the same models and in the same time.

``python tests/bench/compression/rivals.py [--models digits fashion-resnet] [--seed 0] [--plot FILE]``. Each tool gives
a family of models: graphopt is asked for shares of the latency, pruners for shares of the multiply-accumulates. What
they prune is trained on the labels, too, for as many epochs as make for the processor time that graphopt took for the
same share: what onnxsim prunes by its own ``apply_pruning_finetune`` first and then by plain training, what
Torch-Pruning prunes by plain training. ONNX Runtime's static quantization stands alone. All are timed with one thread
beside the original, and judged on the half of the test samples that graphopt does not see. Every run that is over is
kept in ``.zoo/compression``.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.compression.cases import FOLDER  # noqa: E402
from bench.distillation.ledger import Figures, Ledger  # noqa: E402
from bench.pruning import data as datasets  # noqa: E402
from bench.pruning import models, peers  # noqa: E402
from bench.pruning.models import Trained  # noqa: E402

import graphopt  # noqa: E402
from graphopt import proto  # noqa: E402
from graphopt.pruning.latency.measure import speedup  # noqa: E402

__all__ = ["TOOLS", "main"]

SHARES: Final = (0.8, 0.6, 0.4, 0.25)
_EPOCHS: Final = {"digits": 20, "fashion-resnet": 2}  # at least, of the rivals
_RATES: Final = {"digits": 2e-3, "fashion-resnet": 1e-3}


def _ours(trained: Trained, share: float, seconds: float) -> bytes:
    """graphopt, asked for a share of the latency."""
    data = datasets.SOURCES[models.MODELS[trained.name].data](datasets.FOLDER, trained.seed)
    ((name, _),) = trained.calibration.items()
    made = graphopt.compress(
        trained.onnx_path,
        {name: data.x_train, "y": data.y_train},
        evaluation={name: data.x_test[::2], "y": data.y_test[::2]},
        goal={"latency": share},
        skip=["sensitivity"],
        threads=1,
        best_effort=True,
    )
    return bytes(proto.to_proto(made).SerializeToString())


def _trained_for(trained: Trained, model: bytes, seconds: float) -> bytes:
    """The model after plain training on the labels for about so many seconds, and the usual epochs at least."""
    start = time.process_time()
    _trained_on(trained, model, 1)
    taken = time.process_time() - start
    return _trained_on(trained, model, max(_EPOCHS[trained.name], round(seconds / taken)))


def _trained_on(trained: Trained, model: bytes, epochs: int) -> bytes:
    data = datasets.SOURCES[models.MODELS[trained.name].data](datasets.FOLDER, trained.seed)
    ((name, _),) = trained.calibration.items()
    made = graphopt.distill(
        onnx.load_from_string(model),
        None,
        {name: data.x_train, "y": data.y_train},
        loss="ce",
        epochs=epochs,
        learning_rate=_RATES[trained.name],
        threads=1,
        seed=trained.seed,
    )
    return (
        bytes(proto.to_proto(made).SerializeToString())
        if not isinstance(made, onnx.ModelProto)
        else bytes(made.SerializeToString())
    )


def _onnxsim(trained: Trained, share: float, seconds: float) -> bytes:
    onnxsim = importlib.import_module("onnxsim")
    pruned = onnx.load_from_string(peers.PRUNERS["onnxsim L2"](trained, share))
    fitted = onnxsim.apply_pruning_finetune(onnx.load(trained.path), pruned, [trained.calibration])
    return _trained_for(trained, bytes(fitted.SerializeToString()), seconds)


def _torch_pruning(trained: Trained, share: float, seconds: float) -> bytes:
    return _trained_for(trained, peers.PRUNERS["Torch-Pruning + BN"](trained, share), seconds)


def _ort_static(trained: Trained, share: float, seconds: float) -> bytes:
    """As ONNX Runtime's own guide does it: prepared, per channel, QDQ; there is no share to ask for."""
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    prepare: Any = importlib.import_module("onnxruntime.quantization.shape_inference").quant_pre_process
    ((name, calibration),) = trained.calibration.items()

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(np.array_split(calibration[:512], 8))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {name: batch}

    with tempfile.TemporaryDirectory() as folder:
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "made.onnx"
        prepare(trained.onnx_path, str(prepared))
        quantization.quantize_static(str(prepared), str(made), Reader(), per_channel=True)
        return made.read_bytes()


TOOLS: Final[Mapping[str, tuple[Callable[[Trained, float, float], bytes], Sequence[float]]]] = {
    "graphopt compress": (_ours, SHARES),
    "onnxsim, fine-tuned": (_onnxsim, SHARES),
    "Torch-Pruning, fine-tuned": (_torch_pruning, SHARES),
    "ORT static int8": (_ort_static, (1.0,)),
}


def measure(name: str, seed: int, tool: str, share: float, seconds: float) -> Figures:
    """Makes one model in about so many seconds, times it and judges it."""
    torch.set_num_threads(1)
    trained = models.load(name, seed)
    start = time.process_time()
    model = TOOLS[tool][0](trained, share, seconds)
    taken = time.process_time() - start
    # graphopt chooses by the other half.
    x, y = trained.x_test[1::2], trained.y_test[1::2]
    found, base = (models.score(models.predictions(one, x), y) for one in (model, str(trained.onnx_path)))
    ((key, calibration),) = trained.calibration.items()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        ratio = speedup(Path(trained.onnx_path), path, {key: calibration[:1]}, threads=1)
    return {"latency": 1 / ratio.value, "accuracy": found.accuracy, "base": base.accuracy, "took": taken}


Key = tuple[str, str]


def table(runs: Mapping[Key, Sequence[Figures]]) -> Iterator[str]:
    """The lines of the table: share of the latency and percent right."""
    yield "| model | tool | latency: % right | seconds each |"
    yield "|---|---|---|--:|"
    for (name, tool), own in runs.items():
        cells = ", ".join(f"{run['latency']:.2f}: {100 * run['accuracy']:.2f}" for run in own)
        took = np.mean([run["took"] for run in own])
        yield f"| {name} ({100 * own[0]['base']:.2f}) | {tool} | {cells} | {took:.0f} |"


def plot(runs: Mapping[Key, Sequence[Figures]], path: Path) -> None:
    """Draws accuracy over latency, a panel a model."""
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    names = list(dict.fromkeys(name for name, _ in runs))
    figure, panels = pyplot.subplots(1, len(names), figsize=(4.6 * len(names), 3.4), squeeze=False)
    for name, panel in zip(names, panels[0], strict=True):
        base = next(own[0]["base"] for (model, _), own in runs.items() if model == name)
        panel.axhline(100 * base, color="#999999", linewidth=0.8, linestyle="--")
        for (model, tool), own in runs.items():
            if model == name:
                ordered = sorted(own, key=lambda run: float(run["latency"]))
                x, y = ([scale * run[key] for run in ordered] for key, scale in (("latency", 1), ("accuracy", 100)))
                panel.plot(x, y, marker="o", markersize=4, label=tool)
        panel.set(title=name, xlabel="share of the original's latency", ylabel="% right")
        panel.set_ylim(max(panel.get_ylim()[0], 100 * base - 15), 100 * base + 1)
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is not known yet, and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=_EPOCHS, default=list(_EPOCHS))
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--shares", nargs="+", type=float, choices=SHARES, default=list(SHARES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it there, too")
    options = parser.parse_args(arguments)
    book = Ledger("rivals", FOLDER)
    runs: dict[Key, list[Figures]] = {}
    for name in options.models:
        budgets: dict[float, float] = {}
        for tool in options.tools:
            for share in [one for one in TOOLS[tool][1] if one in options.shares or len(TOOLS[tool][1]) == 1]:
                settings = {"model": name, "seed": options.seed, "tool": tool, "share": share, "budget": "time"}
                make = functools.partial(measure, name, options.seed, tool, share, budgets.get(share, 0.0))
                found = book.run(settings, make)
                budgets.setdefault(share, found["took"])
                runs.setdefault((name, tool), []).append(found)
    print("\n".join(table(runs)))
    if options.plot:
        plot(runs, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
