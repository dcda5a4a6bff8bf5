"""``graphopt prune``."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import graphopt
from graphopt.cli import options
from graphopt.cli.terminal import Terminal
from graphopt.errors import ExitCode, SaveError, UsageError
from graphopt.human import byte_size

__all__ = ["command"]

_SECTIONS = {
    "The goal": ("goal", "keep", "multiple", "groups", "exclude", "granularity", "allow_interface"),
    "The data": ("calibration", "preprocess", "samples", "seed"),
    "How": ("importance", "ranking", "no_reconstruct", "polish", "no_optimize", "no_validate"),
    "Where it runs": ("latency_table", "latency_batch", "provider", "threads", "run_directory"),
    "What is written": ("output_option", "external_data", "plan_target", "plan_source", "plot", "bench"),
}
_DECIDED = (
    "goal", "keep", "multiple", "groups", "exclude", "granularity", "allow_interface", "samples", "seed", "importance",
    "ranking", "steps", "no_reconstruct", "polish", "no_optimize", "latency_table", "latency_batch", "provider",
    "threads",
)  # fmt: skip
"""Options that a plan has decided already."""

_EPILOG = """\b
Examples:
  graphopt prune model.onnx small.onnx --goal macs=0.5 --calibration inputs.npz
  graphopt prune model.onnx fast.onnx --goal latency=0.4 --latency-table this-machine.json
  graphopt prune model.onnx small.onnx --goal params=0.3,macs=0.5 --exclude 'head*' --plan plan.json
  graphopt prune newer.onnx small.onnx --from-plan plan.json --calibration inputs.npz
\b
Exit codes: as of all commands; 9 if the goal cannot be reached. Unless it is 0 or 6, nothing is written.
"""


def _library_defaults() -> Mapping[str, object]:
    import inspect

    return {name: one.default for name, one in inspect.signature(graphopt.prune).parameters.items()}


@click.command("prune", cls=options.Sectioned, sections=_SECTIONS, defaults=_library_defaults, epilog=_EPILOG)
@click.argument("model", type=options.MODEL)
@click.argument("output", type=options.OUTPUT, required=False)
@click.option("-o", "--output", "output_option", type=options.OUTPUT, metavar="OUTPUT", help="Where to write.")
@click.option(
    "--goal",
    multiple=True,
    callback=options.names,
    metavar="LIMIT",
    help="What to come down to: macs, params, bytes, memory or latency, as a share of the original (macs=0.5) or with "
    "a unit (bytes=2MB, latency=0.4ms). Comma-separated; repeatable.",
)
@click.option("--keep", type=float, metavar="SHARE", help="Share of each group that stays whatever happens.")
@click.option(
    "--multiple",
    type=click.IntRange(min=1),
    metavar="N",
    help="Kept channels are multiples of it. [default: 8, or as measured where latency is the goal]",
)
@click.option(
    "--groups",
    multiple=True,
    callback=options.names,
    metavar="PATTERN",
    help="Groups or nodes to prune, as 'layer*'; see 'inspect --groups'. Repeatable. [default: all]",
)
@click.option("--exclude", multiple=True, callback=options.names, metavar="PATTERN", help="Groups to leave alone.")
@click.option(
    "--importance",
    metavar="NAME",
    help="Who goes first: obs, obs-swap, wanda, apoz, mean-activation (which watch the data), l1, l2, fpgm, lamp, "
    "bn-scale, random, or taylor, fisher and hessian (gradients, with the extra distill).",
)
@click.option(
    "--ranking",
    metavar="NAME",
    help="Who is compared with whom: global, uniform (the same share of each group), isomorphic or sensitivity.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Choose in N steps: importance is measured again after each, on what is left and refitted. [default: 1]",
)
@click.option("--no-reconstruct", is_flag=True, help="Leave the weights that stay as they are.")
@click.option(
    "--polish",
    type=click.IntRange(min=0),
    metavar="EPOCHS",
    help="Then train to the original's outputs, without labels; needs the extra distill and many inputs.",
)
@click.option("--no-optimize", is_flag=True, help="Do not run the default passes first.")
@click.option("--no-validate", is_flag=True, help="Skip the proof that removal equals masking.")
@click.option(
    "--latency-table",
    type=options.OUTPUT,
    metavar="FILE",
    help="Times of this model on this machine: read if the file is there, else measured and kept in it.",
)
@click.option(
    "--batch",
    "latency_batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Samples of the run whose latency or memory is the goal, and that --bench times.",
)
@click.option("--provider", metavar="EP", help="cpu, cuda, auto, or any that ONNX Runtime has.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="Intra-op threads. [default: as ONNX Runtime]"
)
@click.option(
    "--run-directory",
    type=options.OUTPUT,
    metavar="DIR",
    help="Keep what was worked out, so that an interrupted run goes on from there.",
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Of what is random: same seed, same bytes.")
@click.option(
    "--external-data/--no-external-data", default=None, help="Weights in a file of their own. [default: as needed]"
)
@click.option("--plan", "plan_target", type=options.OUTPUT, metavar="FILE", help="Write the decision as JSON.")
@click.option(
    "--from-plan", "plan_source", type=options.MODEL, metavar="FILE", help="Carry out a decision instead of making one."
)
@click.option("--plot", type=options.OUTPUT, metavar="FILE", help="Draw what went from where: .svg, .png or .pdf.")
@click.option("--bench", is_flag=True, help="Time the model before and after.")
@options.calibration
@options.channels
@options.reporting
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: Path,
    output: Path | None,
    output_option: Path | None,
    *,
    goal: list[str],
    calibration: str | None,
    plan_source: Path | None,
    plan_target: Path | None,
    latency_table: Path | None,
    plot: Path | None,
    bench: bool,
    external_data: bool | None,
    no_reconstruct: bool,
    no_optimize: bool,
    no_validate: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> int:
    """Make MODEL smaller: remove the channels that matter least, refit what is left, save it as OUTPUT.

    Removal is proven to equal a mask of zeros. Without --calibration noise stands in for the inputs.
    OUTPUT may be MODEL itself.
    """
    _check_goal(ctx, goal, plan_source)
    target = options.one_output(output, output_option)
    table_target = latency_table if latency_table is not None and not latency_table.exists() else None
    given = [path for path in (model, plan_source) if path is not None]
    beside_it = [path for path in (plan_target, plot, table_target) if path is not None]
    _check_targets(given, target, beside_it, settings["run_directory"])
    options.keep_apart([target, *beside_it], [calibration])
    if plot is not None:
        from graphopt.pruning import plots

        plots.check(plot)
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    size_before = model.stat().st_size if model.is_file() else 0
    own = {name: value for name, value in settings.items() if value is not None}
    with terminal.progress("load") as progress:
        pruned, report = graphopt.prune(
            model,
            ",".join(goal) or None,
            calibration,
            plan=plan_source,
            latency_table=latency_table,
            reconstruct=not no_reconstruct,
            optimize=not no_optimize,
            check=not no_validate,
            progress=progress,
            with_report=True,
            **own,
        )
    terminal.show(report)
    table = _timed(model, pruned, target, terminal, settings) if bench else None
    if table is not None:
        terminal.show("")
        terminal.show(table)
    beside = {}
    if plan_target is not None:
        beside[plan_target] = report.plan.to_json().encode()
    if plot is not None:
        beside[plot] = plots.image(report, plots.check(plot))
    _write(pruned, target, beside, external_data)
    terminal.show(f"\nwrote {target}  {byte_size(target.stat().st_size)}, was {byte_size(size_before)}")
    for path in beside:
        terminal.show(f"wrote {path}")
    terminal.result(
        {
            "input": str(model),
            "output": str(target),
            **report.to_dict(),
            "plan": str(plan_target) if plan_target is not None else None,
            "bench": table.to_dict() if table is not None else None,
        }
    )
    return ExitCode.UNPROVEN if report.proof == "unproven" else ExitCode.OK


def _check_goal(ctx: click.Context, goal: Sequence[str], plan: Path | None) -> None:
    """That there is either a goal or a plan, and nothing that a plan has decided already."""
    if plan is None and not goal:
        raise UsageError("no goal is given", hint="Write --goal macs=0.5, or --from-plan FILE.")
    if plan is None:
        return
    given = [name for name in _DECIDED if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    flags = [param.opts[-1] for param in ctx.command.params if param.name in given]
    if flags:
        raise UsageError(f"the plan decides on {', '.join(flags)}", hint="Leave it out, or make a new plan.")


def _check_targets(given: Iterable[Path], target: Path, beside: Sequence[Path], folder: Path | None) -> None:
    """Now, so that no work is lost: that everything can be written, and nothing replaces anything else.

    Only the model may be replaced, and only by the result.
    """
    from graphopt import io

    for path in beside:
        io.check_target(path)
    sources = {path.resolve() for path in given if path.is_file()} | ({folder.resolve()} if folder else set())
    written = [path.resolve() for path in (target, *beside)]
    model = next(iter(given)).resolve()
    for number, path in enumerate(written):
        if path in written[:number] or (path in sources and (number or path != model)):
            raise SaveError(f"{path} would be replaced by another file of this run", hint="Name another file.")


def _timed(model: Path, pruned: Any, target: Path, terminal: Terminal, settings: Mapping[str, Any]) -> Any:
    """Times both, before anything is written."""
    running = {"batch": settings["latency_batch"]} | {
        name: settings[name] for name in ("provider", "threads", "seed") if settings[name] is not None
    }
    with tempfile.TemporaryDirectory(prefix="graphopt-") as folder, terminal.progress("bench") as progress:
        candidate = Path(folder) / target.name
        graphopt.save(pruned, candidate)
        return graphopt.bench([model, candidate], progress=progress, **running)


def _write(pruned: Any, target: Path, beside: Mapping[Path, bytes], external_data: bool | None) -> None:
    """The model and what goes with it, all of it or nothing."""
    from graphopt import io

    with contextlib.ExitStack() as stack:
        for path, contents in beside.items():
            stack.enter_context(io.staged(path, contents))
        graphopt.save(pruned, target, external_data=external_data)
