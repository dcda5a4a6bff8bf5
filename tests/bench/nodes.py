"""Nodes that are left, beside the peers: of the shipped models and of exports of many architectures.

``python tests/bench/nodes.py [--only TEXT] [--tools graphopt onnxslim]`` prints a line for each model on which a peer
leaves fewer, and sums. A peer's result counts if it is equal to the original, stays in the domains of the original, and
has no more bytes of tensors than it and what folding may add to a part, or than graphopt's result. Constant nodes are
not counted. Exit code 1 if a peer leaves fewer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnx

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.latency import Subject, exports, real  # noqa: E402
from bench.peers import nodes_of  # noqa: E402
from bench.tools import TOOLS  # noqa: E402
from bench.worker import Worker  # noqa: E402
from equivalence import compare  # noqa: E402
from graphopt_passes.fold_constants import FoldConstants  # noqa: E402

from graphopt.runtime import ort_errors  # noqa: E402

__all__ = ["main"]

_OURS: Final = "graphopt"
_TIMEOUT: Final = 120.0  # seconds that a tool has for a model


def measure(subject: Subject, workers: Mapping[str, Worker], folder: Path) -> dict[str, int]:
    """Nodes by tool, of the results that count, and of the ``original``."""
    source = folder / "original.onnx"
    onnx.save(subject.model, source)
    try:
        expected = compare.outputs(str(source), subject.feeds)
    except ort_errors():
        return {}
    found = {"original": nodes_of(source)}
    largest = _bytes_of(source) + FoldConstants().max_bytes
    for tool, worker in sorted(workers.items(), key=lambda one: one[0] != _OURS):
        output = folder / f"{tool}.onnx"
        output.unlink(missing_ok=True)
        if worker.run(source, output, timeout=_TIMEOUT).error or not _counts(output, subject, expected):
            continue
        size = _bytes_of(output)
        largest = max(largest, size) if tool == _OURS else largest
        if size <= largest:
            found[tool] = nodes_of(output)
    return found


def _bytes_of(path: Path) -> int:
    """Of all tensors in the main graph; names and notes on nodes do not count."""
    graph = onnx.load(path).graph
    constants = [attribute.t for node in graph.node if node.op_type == "Constant" for attribute in node.attribute]
    return sum(tensor.ByteSize() for tensor in (*graph.initializer, *constants))


def _counts(output: Path, subject: Subject, expected: list[Any]) -> bool:
    """Whether a result is equal, and in the same domains."""
    known = {"", *(one.domain for one in subject.model.opset_import)}
    if not known.issuperset(one.domain for one in onnx.load(output).opset_import):
        return False
    try:
        actual = compare.outputs(str(output), subject.feeds)
    except ort_errors():  # a peer's model that does not run does not count
        return False
    return not compare.difference(expected, actual, exact=False, slack=50)


def _subjects(only: str) -> Iterator[Subject]:
    for one in (*real(), *exports()):
        if only in one.name:
            yield one


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; exit code 1 if a peer leaves fewer nodes."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--tools", nargs="+", default=[name for name in TOOLS if name != "ort-basic"], choices=TOOLS)
    options = parser.parse_args(arguments)
    workers = {tool: Worker(tool) for tool in options.tools}
    sums = dict.fromkeys(("original", *options.tools), 0)
    behind = models = 0
    print(f"| model | original | {' | '.join(options.tools)} |\n|---|{'--:|' * (len(workers) + 1)}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            for subject in _subjects(options.only):
                found = measure(subject, workers, Path(folder))
                if _OURS not in found:
                    print(f"| {subject.name} | does not run, or no result of graphopt |", flush=True)
                    continue
                models += 1
                for tool in sums:
                    sums[tool] += found.get(tool, found["original"])
                if min(found.values()) < found[_OURS]:
                    behind += 1
                    cells = " | ".join(str(found.get(tool, "-")) for tool in options.tools)
                    print(f"| {subject.name} | {found['original']} | {cells} |", flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    print(f"| all {models}, the original where a result does not count | {' | '.join(map(str, sums.values()))} |")
    print(f"\nA peer leaves fewer nodes of {behind} of {models} models.")
    return int(bool(behind))


if __name__ == "__main__":
    sys.exit(main())
