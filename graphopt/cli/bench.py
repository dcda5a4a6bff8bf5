"""``graphopt bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import graphopt
from graphopt.cli import options
from graphopt.cli.terminal import Terminal

__all__ = ["command"]

_COUNT = click.IntRange(min=1)


@click.command("bench")
@click.argument("models", type=options.MODEL, nargs=-1, required=True, metavar="MODEL...")
@click.option("--batch", type=_COUNT, metavar="N", help="Size of the leading symbolic dimension of the inputs.")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Threads inside operators. [default: ONNX Runtime's choice]",
)
@click.option("--runs", type=_COUNT, metavar="N", help="Timed runs of each model. [default: as many as it takes]")
@click.option("--warmup", type=_COUNT, default=5, metavar="N", show_default=True, help="Runs that are not timed.")
@click.option("--min-time", type=click.FloatRange(min=0), default=1.0, metavar="SECONDS", show_default=True,
              help="Of timed runs of each model, at least.")  # fmt: skip
@click.option("--io-binding/--no-io-binding", default=None, help="Keep inputs on the device. [default: on CUDA]")
@options.CUSTOM_OPS
@options.running
@options.reporting
def command(models: tuple[Path, ...], *, as_json: bool, quiet: bool, verbose: bool, **settings: Any) -> None:
    """Time MODELs against each other, the first one being what the others are compared to.

    Runs are interleaved; ONNX Runtime's own optimizations are on, as in production.
    """
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    with terminal.progress("bench") as progress:
        table = graphopt.bench(models, progress=progress, **settings)
    terminal.show(table)
    terminal.result(table.to_dict())
