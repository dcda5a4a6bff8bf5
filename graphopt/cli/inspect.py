"""``graphopt inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graphopt.cli import options
from graphopt.cli.terminal import Terminal
from graphopt.errors import UsageError

__all__ = ["command"]


@click.command("inspect")
@click.argument("model", type=options.MODEL)
@options.SHAPE
@click.option("--groups", is_flag=True, help="Instead: which channels and heads can be removed, and what that saves.")
@options.channels
@options.reporting
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    *,
    shapes: options.Shapes,
    groups: bool,
    granularity: str,
    allow_interface: list[str],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Say what MODEL is made of: inputs and outputs, operators, parameters, cost, dtypes, largest tensors."""
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    if groups:
        if shapes:
            raise UsageError(
                "--input-shape says nothing to --groups", hint="Leave it out: channels do not depend on it."
            )
        _show_groups(terminal, model, granularity=granularity, allow_interface=allow_interface)
        return
    for name in ("granularity", "allow_interface"):
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise UsageError(f"--{name.replace('_', '-')} says nothing without --groups", hint="Add --groups.")
    from graphopt.inspect import inspect

    with terminal.progress("inspect"):
        inspection = inspect(model, shapes=shapes)
    terminal.show(inspection)
    terminal.result(inspection.to_dict())


def _show_groups(terminal: Terminal, model: Path, **choices: Any) -> None:
    from graphopt import channels

    with terminal.progress("analyze"):
        graph = channels.analyze(model, **choices)
        data = graph.to_dict()
    terminal.show(graph)
    terminal.result(data)
