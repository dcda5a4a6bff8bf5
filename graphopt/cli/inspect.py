"""``graphopt inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graphopt.cli import options
from graphopt.cli.terminal import Terminal
from graphopt.errors import SaveError, UsageError

__all__ = ["command"]

_EPILOG = """\b
Examples:
  graphopt inspect model.onnx --input-shape x:1,3,224,224
  graphopt inspect model.onnx --groups
  graphopt inspect model.onnx --mobile --input-shape x:1,3,224,224
  graphopt inspect small.ort --mobile --required-operators small.config
"""


@click.command("inspect", epilog=_EPILOG)
@click.argument("model", type=options.MODEL)
@options.SHAPE
@click.option("--groups", is_flag=True, help="Instead: which channels and heads can be removed, and what that saves.")
@click.option(
    "--mobile", is_flag=True, help="Instead: what XNNPACK, NNAPI and CoreML take of it, and why not the rest."
)
@click.option(
    "--required-operators",
    type=options.OUTPUT,
    metavar="FILE",
    help="With --mobile: write what a reduced build of ONNX Runtime must have, for its build.py "
    "--include_ops_by_config. MODEL may be an .ort then.",
)
@options.channels
@options.reporting
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    *,
    shapes: options.Shapes,
    groups: bool,
    mobile: bool,
    required_operators: Path | None,
    granularity: str,
    allow_interface: list[str],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Say what MODEL is made of: inputs and outputs, operators, parameters, cost, dtypes, largest tensors."""
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    if groups and mobile:
        raise UsageError("--groups and --mobile say two different things", hint="Ask for one after the other.")
    if required_operators is not None and not mobile:
        raise UsageError("--required-operators says nothing without --mobile", hint="Add --mobile.")
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
    if mobile:
        _show_mobile(terminal, model, shapes, required_operators)
        return
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


def _show_mobile(terminal: Terminal, model: Path, shapes: options.Shapes, file: Path | None) -> None:
    from graphopt import mobile
    from graphopt.io import check_target, write_text

    if file is not None:
        check_target(file)
        if file.resolve() == model.resolve():
            raise SaveError(f"{file} is the model", hint="Name another file.")
    with terminal.progress("divide"):
        survey = mobile.survey(model, shapes=shapes, operators=file is not None)
    terminal.show(survey)
    if file is not None and survey.required_operators is not None:
        write_text(file, survey.required_operators.config)
        terminal.show(f"\nwrote {file}")
    terminal.result(survey.to_dict())
