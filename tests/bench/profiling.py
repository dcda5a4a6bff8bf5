"""Where graphopt's time goes on one model: cProfile of load, optimize and save in a warm process."""

from __future__ import annotations

import cProfile
import pstats
import time
from pathlib import Path

from bench import graphs
from bench.tools import TOOLS, prepare
from equivalence import zoo

__all__ = ["profile"]


def profile(model: str, folder: Path, *, lines: int = 45) -> None:
    """Prints the time of each step and the costliest functions.

    Args:
        model: A path, the name of a real model, or a number of nodes to generate.
        folder: For the output.
        lines: How many functions to print, by own time and by cumulative time.
    """
    source = str(_find(model, folder))
    prepare("graphopt")
    import graphopt

    output = str(folder / "profiled.onnx")
    TOOLS["graphopt"](source, output)
    TOOLS["graphopt"](source, output)
    start = time.perf_counter()
    optimized, report = graphopt.optimize(source, validate=False, with_report=True)
    middle = time.perf_counter()
    graphopt.save(optimized, output)
    end = time.perf_counter()
    steps = {**report.seconds, "optimize, all": middle - start, "save": end - middle, "all": end - start}
    print("\n".join(f"{step:<16}{seconds * 1e3:10.2f} ms" for step, seconds in steps.items()))
    print("\n".join(f"{one.name:<36}{one.count:>8}" for one in report.passes if one.count))
    recorder = cProfile.Profile()
    recorder.runcall(TOOLS["graphopt"], source, output)
    statistics = pstats.Stats(recorder).strip_dirs()
    statistics.sort_stats("tottime").print_stats(lines)
    statistics.sort_stats("cumulative").print_stats(lines)


def _find(model: str, folder: Path) -> Path:
    if model.isdecimal():
        path = folder / f"nodes_{model}.onnx"
        path.write_bytes(graphs.many_nodes(int(model)).SerializeToString())
        return path
    named = {entry.name: entry.path for entry in zoo.entries()}
    return named[model] if model in named else Path(model).absolute()
