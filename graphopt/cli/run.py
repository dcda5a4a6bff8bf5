"""``graphopt run``."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from graphopt.cli import options, recipes
from graphopt.cli.main import complain
from graphopt.cli.terminal import Terminal
from graphopt.errors import ExitCode, GraphoptError

__all__ = ["command"]

_EPILOG = """\b
A recipe is a TOML file: a command and its options, or several steps of that kind, one after another.
\b
  [[steps]]
  command = "compress"
  model = "model.onnx"
  data = "train.npz"
  goal = "latency=0.5"
  max-drop = 1
  skip = ["distill", "quantize"]
  output = "small.onnx"
\b
  [[steps]]
  command = "bench"
  models = ["model.onnx", "small.onnx"]
\b
Keys are the options and arguments that the --help of the command shows. All paths are relative to the recipe's
folder, those of --set too, and so are modules of module:function. All steps are checked before the first one runs.
\b
Examples:
  graphopt run recipe.toml
  graphopt run recipe.toml --set max-drop=0.5 --set compress.seed=1 --set 2.threads=1
  graphopt run recipe.toml --dry-run
  graphopt run recipe.toml --json > results.json
\b
Exit codes: 0, or that of the first step that fails, which is the last one to run.
"""


@click.command("run", epilog=_EPILOG)
@click.argument("recipe", type=options.MODEL)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Goes before what the recipe says, in every step that has the key; or in those that STEP.KEY=VALUE names by "
    "number or command. Repeatable, for an option that is repeatable too.",
)
@click.option("--dry-run", is_flag=True, help="Check the recipe, print the command lines that it stands for.")
@options.reporting
@click.pass_context
def command(
    ctx: click.Context,
    /,
    recipe: Path,
    *,
    settings: Sequence[str],
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Carry out RECIPE: one command after another, with the options that it names."""
    given = [recipes.Setting.parse(one) for one in settings]
    asked = {"--json": as_json, "--quiet": quiet, "--verbose": verbose}
    steps = recipes.read(recipe, given, [flag for flag, is_asked in asked.items() if is_asked])
    with contextlib.chdir(recipe.parent):
        contexts = [step.parsed(ctx.parent) for step in steps]
        if dry_run:
            _show(steps, recipe.parent, as_json=as_json)
            return ExitCode.OK
        return _run(
            steps, contexts, Terminal(as_json=as_json, quiet=quiet), found=[] if as_json and len(steps) > 1 else None
        )


def _run(
    steps: Sequence[recipes.Step], contexts: Sequence[click.Context], terminal: Terminal, *, found: list[Any] | None
) -> int:
    """Runs steps until one fails; gives its exit code, or 0.

    Args:
        steps: What to run.
        contexts: Their values.
        terminal: For what is said between them.
        found: Takes what they print, to be printed as one document; None if each may print its own.
    """
    try:
        for step, context in zip(steps, contexts, strict=True):
            terminal.show(f"$ {_line(step)}\n")
            with _collected(found):
                code = _carry_out(step, context)
            if code:
                meaning = ExitCode(code).name.lower().replace("_", " ")
                return complain(f"{step.where}: it ended with exit code {code}, {meaning}", "", code)
            if step is not steps[-1]:
                terminal.show("")
        return ExitCode.OK
    finally:
        if found is not None:
            terminal.result(found)


@contextlib.contextmanager
def _collected(found: list[Any] | None) -> Iterator[None]:
    """Takes what is printed in the block, read where it is JSON."""
    if found is None:
        yield
        return
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        text = printed.getvalue()
        if text:
            try:
                found.append(json.loads(text))
            except ValueError:
                found.append(text)


def _line(step: recipes.Step) -> str:
    return shlex.join(["graphopt", step.name, *step.words])


def _show(steps: Sequence[recipes.Step], folder: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([[step.name, *step.words] for step in steps], indent=2))
        return
    if folder != Path():
        click.echo(f"cd {shlex.quote(str(folder))}")
    for step in steps:
        click.echo(_line(step))


def _carry_out(step: recipes.Step, context: click.Context) -> int:
    """Runs a step and gives its exit code; an error says which step it was."""
    try:
        with context:
            return int(step.command.invoke(context) or ExitCode.OK)
    except GraphoptError as error:
        error.message = f"{step.where}: {error.message}"
        raise
