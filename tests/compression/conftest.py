"""A small network that knows handwritten digits, made in a second: random convolutions, and a fitted last layer."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from harness import parse
from sklearn.datasets import load_digits

import graphopt
from graphopt import runtime
from graphopt.compression import clock

Array = npt.NDArray[Any]

NETWORK = """agraph (float[N,1,8,8] x) => (float[N,10] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (b, w2, b2)
    d = Relu (c)
    e = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (d, w3, b3)
    f = Relu (e)
    g = Flatten (f)
    y = Gemm (g, w4, b4)
}"""
WIDTHS = (1, 16, 24, 48)


def weights(seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(WIDTHS), start=1):
        scale = np.sqrt(2 / (9 * inputs))
        found[f"w{number}"] = (scale * random.standard_normal((outputs, inputs, 3, 3))).astype(np.float32)
        found[f"b{number}"] = (0.1 * random.standard_normal(outputs)).astype(np.float32)
    return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies are rough here, and quickly measured."""
    monkeypatch.setattr(clock, "_SECONDS", 0.05)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model.onnx``, ``train.npz`` and ``test.npz``; the latter two with a column ``pen``."""
    folder = tmp_path_factory.mktemp("digits")
    found = load_digits()
    x = (found.images / 16).astype(np.float32)[:, None]
    y = found.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    pen = np.where(x.mean((1, 2, 3)) > 0.3, "thick", "thin")
    for name, rows in (("train", order[:1100]), ("test", order[1100:])):
        np.savez(folder / f"{name}.npz", x=x[rows], y=y[rows])
        np.savez(folder / f"{name}-sliced.npz", x=x[rows], y=y[rows], pen=pen[rows])
    graphopt.save(parse(NETWORK, _fitted(x[order[:1100]], y[order[:1100]])), folder / "model.onnx")
    return folder


def _fitted(x: Array, y: Array) -> dict[str, Array]:
    """Weights, those of the last layer the best in the least squares."""
    random = weights()
    text = NETWORK.replace("float[N,10] y", "float[N,192] g").replace("    y = Gemm (g, w4, b4)\n", "")
    seen = runtime.open_session(parse(text, random)).run(None, {"x": x})[0].astype(np.float64)
    wide = np.hstack([seen, np.ones((len(seen), 1))])
    solved = np.linalg.solve(wide.T @ wide + np.eye(193), wide.T @ (8 * np.eye(10)[y]))
    return random | {"w4": solved[:-1].astype(np.float32), "b4": solved[-1].astype(np.float32)}
