"""The trained models of the scoreboard, in ONNX, made on first use and kept in ``.zoo/pruning``.

``python tests/bench/pruning/models.py [--models NAME ...] [--seeds SEED ...] [--data FOLDER]`` makes them and prints
how good they are.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import hashlib
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.pruning import data as datasets  # noqa: E402
from bench.pruning import networks, training  # noqa: E402
from bench.pruning.training import Recipe  # noqa: E402

__all__ = [
    "MODELS",
    "SEEDS",
    "Score",
    "Trained",
    "divergence",
    "essence",
    "exported",
    "load",
    "predictions",
    "recipe_hash",
    "score",
]

Array = np.ndarray[Any, Any]

SEEDS: Final = (0, 1, 2, 3, 4)
_CACHE: Final = ROOT / ".zoo" / "pruning"
_CALIBRATION: Final = 2048
_OPSET: Final = 17
_BATCH: Final = 500

MODELS: Final = {
    "digits": Recipe("digits", "resnet8", epochs=40, batch=64, shift=1),
    "mnist-lenet": Recipe("mnist", "lenet5", epochs=8, shift=2),
    "mnist-resnet": Recipe("mnist", "resnet8-strided", epochs=3, rate=8e-3, shift=2),
    "fashion-lenet": Recipe("fashion", "lenet5", epochs=12, flip=True),
    "fashion-resnet": Recipe("fashion", "resnet8-strided", epochs=6, rate=8e-3, shift=1, flip=True),
    "text": Recipe("mails", "transformer", epochs=3, rate=1e-3, batch=32, drop=0.1),
}


@dataclasses.dataclass(frozen=True)
class Score:
    """How good predictions are.

    Attributes:
        accuracy: The share that is right, in [0, 1].
        loss: Mean cross-entropy in nats.
        classes: The share that is right of each class.
    """

    accuracy: float
    loss: float
    classes: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A trained model and what to judge it by.

    Attributes:
        name: A key of :data:`MODELS`.
        seed: Of the initial weights, the order of samples, and the split where there is no official one.
        path: The ONNX file; one input with a dynamic batch, one output of logits.
        calibration: 2,048 samples of the training set, or all of a smaller one, by input name; no labels.
        x_test: Inputs that training has not seen.
        y_test: Their labels.
        base: The score of the model itself in ONNX Runtime.
    """

    name: str
    seed: int
    path: Path
    calibration: dict[str, Array]
    x_test: Array
    y_test: Array
    base: Score

    @property
    def onnx_path(self) -> str:
        """The file, as a string."""
        return str(self.path)

    @property
    def base_accuracy(self) -> float:
        """The share of test samples that the model itself gets right."""
        return self.base.accuracy

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one sample, as :func:`graphopt.analysis.cost.costs` takes them."""
        return {name: (1, *array.shape[1:]) for name, array in self.calibration.items()}

    @functools.cached_property
    def logits(self) -> Array:
        """What the model itself says about the test samples, ``(N, classes)``."""
        return predictions(self.onnx_path, self.x_test)

    def module(self) -> nn.Module:
        """The network in torch, in evaluation mode, with batch normalizations of its own: a fresh one each call."""
        module = networks.NETWORKS[MODELS[self.name].network]()
        module.load_state_dict(torch.load(self.path.with_suffix(".pt"), weights_only=True))
        return module.eval()


def load(name: str, seed: int, folder: Path = datasets.FOLDER) -> Trained:
    """The model, trained now unless it is in the cache.

    Raises:
        EnvironmentProblem: The data are not in ``folder``, or scikit-learn is wanted and missing.
    """
    recipe = MODELS[name]
    path = _CACHE / f"{name}-{seed}-{recipe_hash(recipe)}.onnx"
    record = path.with_suffix(".json")
    if not record.exists():
        _make(recipe, seed, folder, path)
    with np.load(path.with_suffix(".npz")) as arrays:
        calibration, x_test, y_test = arrays["calibration"], arrays["x_test"], arrays["y_test"]
    saved = json.loads(record.read_text())
    base = Score(saved["accuracy"], saved["loss"], tuple(saved["classes"]))
    return Trained(name, seed, path, {saved["input"]: calibration}, x_test, y_test, base)


def unlabelled(trained: Trained, folder: Path = datasets.FOLDER) -> Array:
    """All inputs that the model was trained on, without labels: what a polish may look at."""
    return datasets.SOURCES[MODELS[trained.name].data](folder, trained.seed).x_train


@functools.cache
def recipe_hash(recipe: Recipe) -> str:
    """Differs for other recipes, other code of networks, data or training, and other versions of torch."""
    code = "".join(essence(Path(str(module.__file__))) for module in (datasets, networks, training))
    return hashlib.sha256(f"{recipe} {torch.__version__} {_OPSET} {code}".encode()).hexdigest()[:16]


def essence(path: Path) -> str:
    """The code without comments, docstrings and layout, which nothing depends on."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [line for line in node.body if not _is_text(line)]
    return ast.dump(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _make(recipe: Recipe, seed: int, folder: Path, path: Path) -> None:
    data = datasets.SOURCES[recipe.data](folder, seed)
    began = time.perf_counter()
    network = training.train(recipe, data, seed)
    seconds = time.perf_counter() - began
    chosen = np.random.default_rng(seed).choice(len(data.y_train), min(_CALIBRATION, len(data.y_train)), replace=False)
    calibration = data.x_train[np.sort(chosen)]
    name = "ids" if calibration.ndim == 2 else "input"
    _CACHE.mkdir(parents=True, exist_ok=True)
    _write(path, lambda file: file.write(exported(network, calibration[:2], name)))
    _write(path.with_suffix(".pt"), lambda file: torch.save(network.state_dict(), file))
    arrays: dict[str, Any] = {"calibration": calibration, "x_test": data.x_test, "y_test": data.y_test}
    _write(path.with_suffix(".npz"), lambda file: np.savez_compressed(file, **arrays))
    found = score(predictions(str(path), data.x_test), data.y_test)
    record = {"input": name, "seconds": round(seconds, 1), **dataclasses.asdict(found)}
    _write(path.with_suffix(".json"), lambda file: file.write(json.dumps(record).encode()))


def _write(path: Path, write: Callable[[Any], object]) -> None:
    """At once or not at all: several processes may train."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        write(file)
    temporary.replace(path)


def exported(network: nn.Module, example: Array, name: str = "input") -> bytes:
    """The network in ONNX, with a dynamic batch; the exporter folds batch normalizations into convolutions."""
    stream: Any = io.BytesIO()
    options: dict[str, Any] = {"opset_version": _OPSET, "input_names": [name], "output_names": ["logits"]}
    options |= {"dynamic_axes": {name: {0: "batch"}, "logits": {0: "batch"}}, "dynamo": False}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (torch.from_numpy(example),), stream, **options)
    return bytes(stream.getvalue())


def predictions(model: str | bytes, x: Array) -> Array:
    """Logits ``(N, classes)`` of ONNX Runtime for the model's only input, on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: x[at : at + _BATCH]})[0] for at in range(0, len(x), _BATCH)]
    return np.concatenate(parts)


def score(logits: Array, labels: Array) -> Score:
    """How good logits ``(N, classes)`` are for labels ``(N,)``."""
    right = logits.argmax(1) == labels
    loss = -_log_softmax(logits)[np.arange(len(labels)), labels]
    classes = tuple(float(right[labels == label].mean()) for label in np.unique(labels))
    return Score(float(right.mean()), float(loss.mean()), classes)


def divergence(before: Array, after: Array) -> float:
    """Kullback and Leibler's, in nats, of the predictions after from those before; both are logits ``(N, classes)``."""
    old, new = _log_softmax(before), _log_softmax(after)
    return float((np.exp(old) * (old - new)).sum(1).mean())


def _log_softmax(logits: Array) -> Array:
    wide = logits.astype(np.float64) - logits.max(1, keepdims=True)
    result: Array = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes models and prints a line for each."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--data", type=Path, metavar="FOLDER", default=datasets.FOLDER, help="where the files lie")
    options = parser.parse_args(arguments)
    for seed in options.seeds:
        for name in options.models:
            trained = load(name, seed, options.data)
            seconds = json.loads(trained.path.with_suffix(".json").read_text())["seconds"]
            base = trained.base
            worst = min(base.classes)
            figures = (
                f"{base.accuracy:8.2%}, worst class {worst:7.2%}, loss {base.loss:.4f}, trained in {seconds:4.0f} s"
            )
            print(f"{name:<14} seed {seed} {figures}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
