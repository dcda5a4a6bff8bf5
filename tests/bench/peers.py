"""graphopt beside its peers: nodes, load-to-save seconds, memory and equivalence, on real and generated models.

Every tool runs in a warm process of its own; per model the rounds are interleaved (A B C, A B C, ...) and the fastest
of each tool counts. The large models run in fresh processes, so that memory is counted from the process's own start.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench import graphs, render  # noqa: E402
from bench.tools import TOOLS  # noqa: E402
from bench.worker import Reply, Worker  # noqa: E402
from equivalence import compare, zoo  # noqa: E402

_ENOUGH = 60.0  # seconds of a tool on one model, after which no further round is asked for
_COMPARABLE = 20_000  # nodes; opening more takes ONNX Runtime minutes
RIVALS = ("onnxslim", "onnxsim")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        name: As in the table.
        path: The file.
        feeds: Inputs for the comparison.
        kind: ``real``, ``nodes`` or ``bytes``.
        size: Bytes of model and weights; generated nodes for ``nodes``.
        fresh: Measure in fresh processes.
    """

    name: str
    path: Path
    feeds: Mapping[str, Any]
    kind: str
    size: int
    fresh: bool = False


@dataclasses.dataclass
class Row:
    """One tool on one model."""

    model: str
    kind: str
    size: int
    tool: str
    seconds: float | None = None
    peak: int = 0
    nodes: int | None = None
    nodes_before: int = 0
    verdict: str = ""


def count_nodes(nodes: Iterable[onnx.NodeProto]) -> int:
    """Nodes in all scopes, Constant nodes left out."""
    total = 0
    for node in nodes:
        total += node.op_type != "Constant"
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs]:
                total += count_nodes(graph.node)
    return total


def nodes_of(path: Path) -> int:
    """Nodes of a model file, functions included."""
    model = onnx.load(path, load_external_data=False)
    return count_nodes(model.graph.node) + sum(count_nodes(function.node) for function in model.functions)


def real_subjects(wanted: Sequence[str]) -> list[Subject]:
    """The models of the manifests whose name is wanted (all, if nothing is)."""
    return [
        Subject(one.name, one.path, one.feeds(), "real", one.path.stat().st_size)
        for one in zoo.entries()
        if not wanted or one.name in wanted
    ]


def generated_subjects(folder: Path, sizes: Sequence[int], megabytes: int) -> list[Subject]:
    """Graphs of each number of nodes, and one heavy model embedded and with external data."""
    made = []
    for size in sizes:
        path = folder / f"nodes_{size}.onnx"
        path.write_bytes(graphs.many_nodes(size).SerializeToString())
        feeds = {"x": np.random.default_rng(0).standard_normal((2, 8, 3, 3)).astype(np.float32)}
        made.append(Subject(path.stem, path, feeds, "nodes", size))
    for external in (False, True) if megabytes else ():
        path = folder / f"weights_{megabytes}mb_{'external' if external else 'embedded'}.onnx"
        graphs.many_bytes(path, megabytes, external=external)
        feeds = {"x": np.random.default_rng(0).standard_normal((2, 2048)).astype(np.float32)}
        made.append(Subject(path.stem, path, feeds, "bytes", megabytes * 2**20, fresh=True))
    return made


def measure(subject: Subject, workers: Mapping[str, Worker], rounds: int, timeout: float, folder: Path) -> list[Row]:
    """Runs all tools on one model, interleaved; a tool that fails is not asked again."""
    replies: dict[str, list[Reply]] = {tool: [] for tool in workers}
    results = {tool: folder / f"{subject.name}.{tool}.onnx" for tool in workers}
    for _ in range(1 if subject.fresh else rounds):
        for tool, worker in workers.items():
            if any(reply.error for reply in replies[tool]) or sum(reply.seconds for reply in replies[tool]) > _ENOUGH:
                continue
            replies[tool].append(worker.run(subject.path, results[tool], timeout=timeout))
            if subject.fresh:
                worker.close()
    before = nodes_of(subject.path)
    comparable = before <= _COMPARABLE
    expected = compare.outputs(str(subject.path), subject.feeds) if comparable else None
    rows = [_row(subject, tool, replies[tool], before, results[tool], expected) for tool in workers]
    for path in folder.glob(f"{subject.name}.*"):
        path.unlink()
    return rows


def _row(
    subject: Subject, tool: str, replies: Sequence[Reply], before: int, result: Path, expected: list[Any] | None
) -> Row:
    row = Row(subject.name, subject.kind, subject.size, tool, nodes_before=before)
    failed = next((reply.error for reply in replies if reply.error), "")
    if failed or not result.exists():
        row.verdict = failed or "wrote nothing"
        return row
    row.seconds = min(reply.seconds for reply in replies)
    row.peak = replies[0].peak
    row.nodes = nodes_of(result)
    if expected is None:
        row.verdict = "not compared"
        return row
    try:
        actual = compare.outputs(str(result), subject.feeds)
    except Exception as error:  # noqa: BLE001 -- a rival's model that does not run is a row of the table
        row.verdict = f"does not run: {' '.join(str(error).split())[:120]}"
        return row
    row.verdict = compare.difference(expected, actual, exact=False, slack=50) or "equal"
    return row


def ratios(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """By model: graphopt's time over that of the faster of onnxslim and onnxsim, and that time."""
    times: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.seconds is not None:
            times.setdefault(row.model, {})[row.tool] = row.seconds
    found = {}
    for model, by_tool in times.items():
        rivals = [by_tool[tool] for tool in RIVALS if tool in by_tool]
        if rivals and "graphopt" in by_tool:
            found[model] = (by_tool["graphopt"] / min(rivals), min(rivals))
    return found


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures that matter: ratio by model, their geometric mean, growth per step of size, memory."""
    by_model = ratios(rows)
    growth: dict[str, list[float]] = {}
    for tool in dict.fromkeys(row.tool for row in rows):
        mine = [row for row in rows if row.kind == "nodes" and row.tool == tool]
        steps = sorted((row.size, row.seconds) for row in mine if row.seconds)
        growth[tool] = [later[1] / sooner[1] for sooner, later in itertools.pairwise(steps)]
    logarithms = [math.log(ratio) for ratio, _ in by_model.values()]
    return {
        "ratio": {model: ratio for model, (ratio, _) in by_model.items()},
        "rival_over_1s": {model: ratio for model, (ratio, rival) in by_model.items() if rival > 1},
        "geometric_mean": math.exp(float(np.mean(logarithms))) if by_model else None,
        "growth": growth,
        "memory": {f"{row.model} {row.tool}": row.peak / row.size for row in rows if row.kind == "bytes"},
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[], help="names of real models (all if none is given)")
    parser.add_argument("--tools", nargs="*", default=list(TOOLS), choices=list(TOOLS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="*", type=int, default=[1_000, 10_000, 100_000], help="generated nodes")
    parser.add_argument("--megabytes", type=int, default=432, help="weights of the heavy model; 0 leaves it out")
    parser.add_argument("--timeout", type=float, default=300, help="seconds a run may take")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--quick", action="store_true", help="two rounds, up to 1000 nodes, no heavy model")
    parser.add_argument("--profile", metavar="MODEL", help="profile graphopt on a model (a name or a path) instead")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.sizes, options.megabytes = 2, [1_000], 0
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the tables, writes the JSON."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.profile:
            from bench.profiling import profile

            profile(options.profile, folder)
            return
        subjects = real_subjects(options.models) + generated_subjects(folder, options.sizes, options.megabytes)
        workers = {tool: Worker(tool) for tool in options.tools}
        rows: list[Row] = []
        try:
            for tool, worker in workers.items():
                worker.run(subjects[0].path, folder / f"warm-up.{tool}.onnx", timeout=options.timeout)
            for subject in subjects:
                if subject.fresh:
                    for worker in workers.values():
                        worker.close()
                rows += measure(subject, workers, options.rounds, options.timeout, folder)
                render.progress(rows[-len(workers) :])
        finally:
            for worker in workers.values():
                worker.close()
    figures = summary(rows)
    render.show(rows, figures)
    if options.json:
        options.json.write_text(json.dumps({"rows": [dataclasses.asdict(row) for row in rows], **figures}, indent=1))


if __name__ == "__main__":
    main()
