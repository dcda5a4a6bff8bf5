"""What pruning is worth in milliseconds: ResNet-50, VGG-16, MobileNetV2 and BERT-base under ONNX Runtime on this CPU.

``python tests/bench/pruning/latency.py [network ...] [--threads 1]``. The shapes are the published ones and the weights
random, since latency does not depend on them. Two goals each: half the multiplications, which must run at least 1.7
times as fast, and half the latency, which must be met within a tenth. Exit code 1 if a row misses.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import rich
from rich.table import Table

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench import shapes  # noqa: E402

import graphopt  # noqa: E402
from graphopt import proto  # noqa: E402
from graphopt.errors import Infeasible  # noqa: E402
from graphopt.pruning.latency.measure import Stopwatch  # noqa: E402
from graphopt.verify.feeds import generate  # noqa: E402

__all__ = ["main"]

NETWORKS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "resnet50": shapes.resnet50,
    "vgg16": shapes.vgg16,
    "mobilenet_v2": shapes.mobilenet_v2,
    "bert_base": shapes.bert_base,
}
_FASTER = 1.7  # for half the multiplications
_OFF = 0.10  # of the latency goal
_MULTIPLE = 16  # channels that this kind of processor likes; a latency goal finds it out by itself
_SECONDS = 8.0  # of the measurement that counts


def _row(name: str, goal: str, threads: int | None) -> tuple[list[str], bool]:
    model = proto.from_proto(NETWORKS[name]())
    sizes = {value.name: [1, *value.shape.dims[1:]] for value in model.graph.inputs if value.shape is not None}
    feeds = generate(model, shapes=sizes)[0]  # type: ignore[arg-type]
    options: dict[str, Any] = {"reconstruct": False, "check": False, "optimize": False, "importance": "l2"}
    if goal.startswith("macs"):
        options["multiple"] = _MULTIPLE
    began = time.perf_counter()
    try:
        pruned, report = graphopt.prune(
            model, goal, [feeds], ranking="uniform", threads=threads, with_report=True, **options
        )
    except Infeasible as error:
        return [name, goal, "", "", f"infeasible: {error.message}"], False
    took = time.perf_counter() - began
    with Stopwatch(model, feeds, threads=threads, seconds=_SECONDS) as watch:
        measured = watch.ratio(pruned)
        before = watch.milliseconds
    wanted, limit = goal.split("=")
    left = 1 / measured.value
    met = measured.value >= _FASTER if wanted == "macs" else left <= float(limit) * (1 + _OFF)
    fewer = report.before.macs / report.after.macs
    times = f"{before:.1f} to {before / measured.value:.1f} ms, {measured.value:.2f}x"
    return [name, goal, f"{fewer:.2f}x", times, f"{'met' if met else 'MISSED'} ({took:.0f} s)"], met


def main() -> bool:
    """Prints the table.

    Returns:
        Whether every row meets its goal.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), choices=[*NETWORKS, []])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--goals", nargs="*", default=["macs=0.5", "latency=0.5"])
    given = parser.parse_args()
    table = Table("network", "goal", "fewer MACs", "measured", "")
    met = True
    for name in given.networks:
        for goal in given.goals:
            cells, good = _row(name, goal, given.threads)
            print(*cells, sep="  ", flush=True)
            table.add_row(*cells)
            met = met and good
    rich.print(table)
    return met


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    sys.exit(0 if main() else 1)
