"""``graphopt optimize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import graphopt
from graphopt.cli import options
from graphopt.cli.terminal import Terminal
from graphopt.errors import ExitCode
from graphopt.human import byte_size

__all__ = ["command"]


@click.command("optimize")
@click.argument("model", type=options.MODEL)
@click.argument("output", type=options.OUTPUT, required=False)
@click.option("-o", "--output", "output_option", type=options.OUTPUT, metavar="OUTPUT", help="Where to write.")
@click.option(
    "--passes",
    multiple=True,
    callback=options.names,
    metavar="SPEC",
    help="Passes or presets to run, comma-separated; options as fold-constants:max-bytes=4096. Repeatable.",
)
@click.option("--skip", multiple=True, callback=options.names, metavar="NAME", help="Passes to leave out. Repeatable.")
@click.option(
    "--mask",
    type=options.MODEL,
    metavar="FILE",
    help="Weights to take for zero, .npz or .json; the result is compared with the masked model.",
)
@click.option("--exact", is_flag=True, help="Only passes that change no bit of any result.")
@click.option(
    "--target",
    default="portable",
    metavar="PLATFORM",
    show_default=True,
    help="portable, ort-cpu or ort-cuda: the operators that the result may use.",
)
@click.option("--strict", is_flag=True, help="Fail where a pass makes the result differ, or nothing can be proven.")
@click.option("--no-validate", is_flag=True, help="Skip the proof.")
@click.option("--explain", is_flag=True, help="Say why passes did not apply.")
@click.option("--debug", is_flag=True, help="Check the structure of the model after every rewrite.")
@click.option(
    "--external-data/--no-external-data", default=None, help="Weights in a file of their own. [default: as needed]"
)
@click.option("--bench", is_flag=True, help="Time the model before and after.")
@options.verification
@options.reporting
def command(
    model: Path,
    output: Path | None,
    output_option: Path | None,
    *,
    bench: bool,
    external_data: bool | None,
    no_validate: bool,
    passes: list[str],
    shapes: options.Shapes,
    provider: str,
    seed: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> int:
    """Rewrite MODEL, prove that it does the same job, save it as OUTPUT.

    A result that differs is never written: the pass to blame is found and left out.
    OUTPUT may be MODEL itself.
    """
    target = options.one_output(output, output_option)
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    size_before = model.stat().st_size if model.is_file() else 0
    with terminal.progress("load") as progress:
        optimized, report = graphopt.optimize(
            model,
            passes or None,
            validate=not no_validate,
            input_shapes=shapes,
            provider=provider,
            seed=seed,
            progress=progress,
            with_report=True,
            **settings,
        )
    terminal.show(report)
    # In place, the original has to be timed before it is gone.
    in_place = target.exists() and target.samefile(model)
    if not in_place:
        graphopt.save(optimized, target, external_data=external_data)
    table = None
    if bench:
        with terminal.progress("bench") as progress:
            after = optimized if in_place else target
            table = graphopt.bench(
                [model, after],
                shapes=shapes,
                provider=provider,
                seed=seed,
                custom_ops=settings["custom_ops"],
                progress=progress,
            )
        terminal.show("")
        terminal.show(table)
    if in_place:
        graphopt.save(optimized, target, external_data=external_data)
    terminal.show(f"\nwrote {target}  {byte_size(target.stat().st_size)}, was {byte_size(size_before)}")
    terminal.result(
        {
            "input": str(model),
            "output": str(target),
            **report.to_dict(),
            "bench": table.to_dict() if table is not None else None,
        }
    )
    return ExitCode.UNPROVEN if report.status == "unproven" else ExitCode.OK
