"""``graphopt inspect``."""

from __future__ import annotations

from pathlib import Path

import click

from graphopt.cli import options
from graphopt.cli.terminal import Terminal

__all__ = ["command"]


@click.command("inspect")
@click.argument("model", type=options.MODEL)
@options.SHAPE
@options.reporting
def command(model: Path, *, shapes: options.Shapes, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Say what MODEL is made of: inputs and outputs, operators, parameters, cost, dtypes, largest tensors."""
    from graphopt.inspect import inspect

    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    with terminal.progress("inspect"):
        inspection = inspect(model, shapes=shapes)
    terminal.show(inspection)
    terminal.result(inspection.to_dict())
