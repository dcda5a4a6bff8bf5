"""``graphopt compress``."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import graphopt
from graphopt.cli import options
from graphopt.cli.main import complain
from graphopt.cli.terminal import Terminal
from graphopt.errors import EnvironmentProblem, ExitCode, LimitReached, SaveError, UsageError
from graphopt.human import byte_size
from graphopt.lock import exclusive

__all__ = ["command"]

_SECTIONS = {
    "The goal": ("goal", "max_drop", "metric", "judged"),
    "Gates": ("class_drop", "slices", "slice_drop", "gap", "flips", "calibration", "noise_drop"),
    "The data": ("data", "evaluation", "preprocess", "samples", "seed"),
    "How": (
        *("skip", "precisions", "importance", "keep", "exclude", "epochs", "learning_rate", "loss", "augment"),
        *("quantization_aware", "tune", "train_batch"),
    ),
    "Where it runs": ("provider", "threads", "batch", "latency_table", "executor", "workers", "run_directory"),
    "What is written": ("output", "report", "external_data", "best_effort"),
}

_UNDECIDING = ("best_effort", "executor", "workers")
"""What may change from one run to the next one that goes on from it."""

_EPILOG = """\b
Examples:
  graphopt compress model.onnx --data train.npz --eval test.npz --goal latency=0.5 --max-drop 0.5 -o out.onnx
  graphopt compress model.onnx --data train.npz --eval test.npz --max-drop 0.5 --report page.html -o out.onnx
  graphopt compress model.onnx --data digits --goal bytes=0.25 --class-drop 2 --skip quantize -o out.onnx
  graphopt compress model.onnx --goal latency=0.7 -o out.onnx                # without data: nothing is promised
\b
What was worked out stays in OUTPUT.run (or --run-directory) until a run succeeds: give the same command again and an
interrupted one goes on from there.
\b
Exit codes: as of all commands; 9 if the goal cannot be met within --max-drop and the gates, 10 if the result fails a
gate on the samples that it is judged by. Unless it is 0, OUTPUT is written with --best-effort only.
"""


def _library_defaults() -> Mapping[str, object]:
    import inspect

    return {name: one.default for name, one in inspect.signature(graphopt.compress).parameters.items()}


_COUNT = click.IntRange(min=1)
_NUMBER = click.FloatRange(min=0)


@click.command("compress", cls=options.Sectioned, sections=_SECTIONS, defaults=_library_defaults, epilog=_EPILOG)
@click.argument("model", type=options.MODEL)
@click.option(
    "--goal",
    multiple=True,
    callback=options.names,
    metavar="LIMIT",
    help="What to come down to: latency, macs, params, bytes or memory, as a share of the original (latency=0.5) or "
    "with a unit (latency=0.4ms, memory=2MB). Comma-separated; repeatable. [default: the fastest that does no harm]",
)
@click.option("--max-drop", metavar="DROP", help="What the metric may lose: points, as 0.5, or rel:0.5%.")
@click.option(
    "--metric",
    metavar="NAME",
    help="accuracy, f1, miou, map, mae, rmse, or module:function. [default: accuracy; without labels, agreement with "
    "the original]",
)
@click.option("--judge-output", "judged", metavar="NAME", help="The output that is judged. [default: the first]")
@click.option("--class-drop", type=_NUMBER, metavar="POINTS", help="What any class may lose.")
@click.option(
    "--slices", multiple=True, callback=options.names, metavar="COLUMN", help="Columns of the data that make slices."
)
@click.option("--slice-drop", type=_NUMBER, metavar="POINTS", help="What any slice may lose.")
@click.option("--gap", type=_NUMBER, metavar="POINTS", help="By how much best and worst slice may move apart.")
@click.option("--flips", type=_NUMBER, metavar="SHARE", help="Of samples that may change their class.")
@click.option("--calibration", type=_NUMBER, metavar="RISE", help="Of the expected calibration error, 0 to 1.")
@click.option("--noise-drop", type=_NUMBER, metavar="POINTS", help="What noisy inputs may cost more than before.")
@click.option(
    "--data",
    metavar="SPEC",
    help="To learn and calibrate with: PATH[:KEY=VALUE...] of arrays, IDX, images or text; module:function; digits, "
    "mnist or fashion-mnist. Labels are used if there are any. [default: noise]",
)
@click.option(
    "--eval",
    "evaluation",
    metavar="SPEC",
    help="Half to choose by, half to judge by; best what the model has never seen. [default: some data are held out]",
)
@click.option("--preprocess", metavar="KEY=VALUE[:...]", help="For both, such as scale=255:layout=nchw.")
@click.option("--samples", type=_COUNT, metavar="N", help="To rank and calibrate with. [default: at most 2048]")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Of all that is random.")
@click.option(
    "--skip",
    multiple=True,
    callback=options.names,
    metavar="STAGE",
    help="Leave out optimize, sensitivity, prune, depth (of blocks), refine, distill or quantize. Repeatable.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    callback=options.names,
    metavar="NAME",
    help="What may be chosen: float32, int8, int8-dynamic, int8-weights, int4-weights, float16. Repeatable. "
    "[default: float32, int8]",
)
@click.option("--importance", metavar="NAME", help="Who goes first, as for prune.")
@click.option("--keep", type=float, metavar="SHARE", help="Share of each group that stays, unless its block goes.")
@click.option(
    "--exclude",
    multiple=True,
    callback=options.names,
    metavar="PATTERN",
    help="Groups to leave alone, and their blocks.",
)
@click.option("--epochs", type=_COUNT, metavar="N", help="Of each distillation. [default: 2 to 60, by the data's size]")
@click.option("--learning-rate", type=float, metavar="RATE", help="Of distillation.")
@click.option("--loss", metavar="SUM", help="Of distillation, as for distill.")
@click.option("--augment", metavar="CHANGES", help="Of distillation, as for distill.")
@click.option(
    "--quantization-aware",
    is_flag=True,
    default=None,
    help="What is distilled and becomes int8 is distilled once more with the rounding in place.",
)
@click.option(
    "--tune",
    type=click.IntRange(min=0),
    metavar="N",
    help="Try N settings of distillation first, in short runs; needs the extra tune.",
)
@click.option("--train-batch", type=_COUNT, metavar="N", help="Samples of a step of distillation.")
@click.option("--batch", type=_COUNT, metavar="N", help="Samples of the run whose latency and memory count.")
@click.option("--provider", metavar="EP", help="cpu, cuda, auto, or any that ONNX Runtime has.")
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Intra-op. [default: as ONNX Runtime]")
@click.option(
    "--latency-table",
    type=options.OUTPUT,
    metavar="FILE",
    help="What was measured: read if it is there, and written. With it, the same run gives the same bytes.",
)
@click.option("--executor", metavar="NAME", help="Where variants are built: serial, processes or ray.")
@click.option("--workers", type=_COUNT, metavar="N", help="How many at once, in processes or with ray.")
@click.option("--run-directory", type=options.OUTPUT, metavar="DIR", help="Keep all there. [default: OUTPUT.run]")
@click.option("-o", "--output", type=options.OUTPUT, metavar="OUTPUT", help="Where to write.")
@click.option(
    "--report",
    type=options.OUTPUT,
    multiple=True,
    metavar="FILE",
    help="Write a report: .html (one page, no network), .md or .json. Repeatable.",
)
@click.option(
    "--external-data/--no-external-data", default=None, help="Weights in a file of their own. [default: as needed]"
)
@click.option("--best-effort", is_flag=True, default=None, help="Write the best that can be had if there is no better.")
@options.reporting
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: Path,
    *,
    goal: list[str],
    judged: str | None,
    output: Path | None,
    report: Sequence[Path],
    run_directory: Path | None,
    external_data: bool | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> int:
    """Make MODEL as small and fast as the goal asks, or as harm allows, prove it on data, save it as OUTPUT.

    Optimizes, drops residual blocks, prunes channels, refits, distils and quantizes; times variants on this machine and
    judges them on samples.
    """
    target = options.one_output(None, output)
    table: Path | None = settings["latency_table"]
    writers = _writers([model, target, *([table] if table else [])], report)
    if table is not None:
        _check_table(table, model, target)
    options.keep_apart([target, *report, *([table] if table else [])], [settings["data"], settings["evaluation"]])
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    own = {name: value for name, value in settings.items() if value not in (None, [], ())}
    deciding = {name: value for name, value in own.items() if name not in _UNDECIDING}
    asked = json.dumps([str(model), goal, judged, deciding], sort_keys=True, default=str)
    folders = target.with_name(f"{target.name}.run")
    folder = run_directory or folders / hashlib.sha256(asked.encode()).hexdigest()[:8]
    with terminal.progress("load") as progress:
        result, found = graphopt.compress(
            model,
            own.pop("data", None),
            goal=",".join(goal) or None,
            output=judged or "",
            run_directory=folder,
            progress=progress,
            with_report=True,
            **{**own, "best_effort": True},
        )
    found.provenance["command"] = shlex.join(["graphopt", *sys.argv[1:]])
    terminal.show(found)
    data = found.to_dict()
    is_written = found.is_met or bool(settings["best_effort"])
    with contextlib.ExitStack() as stack:
        from graphopt import io

        for path, write in writers.items():
            stack.enter_context(io.staged(path, write(data).encode()))
        if is_written:
            graphopt.save(result, target, external_data=external_data)
    if is_written:
        terminal.show(f"\nwrote {target}  {byte_size(target.stat().st_size)}")
    for path in writers:
        terminal.show(f"wrote {path}")
    if found.is_met and run_directory is None:
        _remove(folders)
    elif not found.is_met:
        terminal.show(f"what was worked out is in {folder}")
    terminal.result({"input": str(model), "output": str(target) if is_written else None, **data})
    if found.is_met:
        return ExitCode.OK
    code = ExitCode.INFEASIBLE if found.choice.point is None else ExitCode.HARMFUL
    return complain(found.verdict, "", code) if quiet else code


def _remove(folders: Path) -> None:
    """Removes what runs for this output have left, unless one of them is at work; whatever else is there stays."""
    for lock in folders.glob("*/lock"):
        with contextlib.suppress(LimitReached, SaveError), exclusive(lock, wait=0):
            shutil.rmtree(lock.parent, ignore_errors=True)
    with contextlib.suppress(OSError):
        folders.rmdir()


def _check_table(table: Path, model: Path, target: Path) -> None:
    """That the latency table can be written, and replaces no other file of this run.

    Raises:
        SaveError: It cannot.
    """
    from graphopt import io

    if table.resolve() in (model.resolve(), target.resolve()):
        raise SaveError(f"{table} would be replaced by another file of this run", hint="Name another file.")
    io.check_target(table)


def _writers(others: Sequence[Path], reports: Sequence[Path]) -> dict[Path, Callable[[Mapping[str, Any]], str]]:
    """How each report is written; checked now, so that no work is lost.

    Args:
        others: Files that this run reads or writes, too.
        reports: Files.

    Raises:
        UsageError: The ending of a file says nothing.
        SaveError: It cannot be written, or would replace another file of this run.
        EnvironmentProblem: The extra ``report`` is missing.
    """
    from graphopt import io

    found: dict[Path, Callable[[Mapping[str, Any]], str]] = {}
    taken = {path.resolve() for path in others}
    for path in reports:
        if path.suffix.lower() not in _FORMATS:
            raise UsageError(f"{path} is no report", hint=f"Let its name end in {', '.join(_FORMATS)}.")
        if path.resolve() in taken:
            raise SaveError(f"{path} would be replaced by another file of this run", hint="Name another file.")
        io.check_target(path)
        taken.add(path.resolve())
        found[path] = _FORMATS[path.suffix.lower()]
        if path.suffix.lower() == ".html" and importlib.util.find_spec("jinja2") is None:
            raise EnvironmentProblem("a page needs jinja2", hint="Install it with: pip install 'graphopt[report]'.")
    return found


def _page(data: Mapping[str, Any]) -> str:
    from graphopt.reporting.page import page

    return page(data)


def _markdown(data: Mapping[str, Any]) -> str:
    from graphopt.reporting.markdown import markdown

    return markdown(data)


_FORMATS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    ".html": _page,
    ".md": _markdown,
    ".json": lambda data: json.dumps(data, indent=2) + "\n",
}
