"""``graphopt validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import graphopt
from graphopt.cli import options
from graphopt.cli.terminal import Terminal
from graphopt.errors import ExitCode

__all__ = ["command"]

_EXIT = {"equal": ExitCode.OK, "different": ExitCode.NOT_EQUIVALENT, "unproven": ExitCode.UNPROVEN}


@click.command("validate")
@click.argument("original", type=options.MODEL)
@click.argument("candidate", type=options.MODEL)
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="How many generated inputs to compare on.")
@click.option("--rtol", type=click.FloatRange(min=0), metavar="X", help="Relative tolerance. [default: by dtype]")
@click.option("--atol", type=click.FloatRange(min=0), metavar="X", help="Absolute tolerance. [default: by dtype]")
@click.option("--metric", metavar="NAME", help="Compare a metric on --inputs: accuracy, f1, mae or module:function.")
@click.option(
    "--max-drop", type=click.FloatRange(min=0), metavar="X", help="Judge by --metric alone: how far it may drop."
)
@click.option("--exact", is_flag=True, help="Ask for identical bits.")
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Threads inside operators.")
@options.verification
@options.reporting
def command(
    original: Path,
    candidate: Path,
    *,
    inputs: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> int:
    """Prove that CANDIDATE does the same job as ORIGINAL.

    Both run in ONNX Runtime on the same inputs, ORIGINAL without any optimization. Exits with 5 if they differ and
    with 6 if ORIGINAL cannot be run.
    """
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    given = {name: value for name, value in settings.items() if value is not None}
    with terminal.progress("validate"):
        verdict = graphopt.validate(original, candidate, feeds_file=inputs, **given)
    terminal.show(verdict)
    terminal.result(verdict.to_dict())
    return _EXIT[verdict.status]
