"""``graphopt inspect``."""

from __future__ import annotations

from pathlib import Path

import click

from graphopt.cli import options
from graphopt.cli.terminal import Terminal
from graphopt.errors import UsageError

__all__ = ["command"]


@click.command("inspect")
@click.argument("model", type=options.MODEL)
@options.SHAPE
@click.option("--groups", is_flag=True, help="Instead: which channels and heads can be removed, and what that saves.")
@options.GRANULARITY
@options.reporting
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    *,
    shapes: options.Shapes,
    groups: bool,
    granularity: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Say what MODEL is made of: inputs and outputs, operators, parameters, cost, dtypes, largest tensors."""
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    if groups:
        _show_groups(terminal, model, shapes, granularity)
        return
    if context.get_parameter_source("granularity") is not click.core.ParameterSource.DEFAULT:
        raise UsageError("--granularity says nothing without --groups", hint="Add --groups.")
    from graphopt.inspect import inspect

    with terminal.progress("inspect"):
        inspection = inspect(model, shapes=shapes)
    terminal.show(inspection)
    terminal.result(inspection.to_dict())


def _show_groups(terminal: Terminal, model: Path, shapes: options.Shapes, granularity: str) -> None:
    from graphopt import channels

    if shapes:
        raise UsageError("--input-shape says nothing to --groups", hint="Channels do not depend on it; leave it out.")
    with terminal.progress("analyze"):
        graph = channels.analyze(model, granularity=granularity)
        data = graph.to_dict()
    terminal.show(graph)
    terminal.result(data)
