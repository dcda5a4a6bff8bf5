"""What a command prints, and where: results to stdout, progress to stderr."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Terminal"]

_PIPE_WIDTH = 120
"""Columns of a table that goes to a file or a pipe, where there is no terminal to ask."""


class Terminal:
    """The output of one command.

    Args:
        as_json: Print only the JSON result to stdout, no tables.
        quiet: Print no tables and no progress. JSON that was asked for is still printed.
        verbose: Print each step as a line of its own instead of a passing status.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self._json = as_json
        self._quiet = quiet
        self._verbose = verbose

    def show(self, renderable: RenderableType) -> None:
        """Prints a table or text that a person reads."""
        if not self._json and not self._quiet:
            _console().print(renderable)

    def result(self, data: Any) -> None:
        """Prints the machine-readable result if it was asked for."""
        if self._json:
            click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str))

    @contextlib.contextmanager
    def progress(self, first: str) -> Iterator[Callable[[str], None]]:
        """Shows what goes on while the block runs, on stderr.

        Args:
            first: The first step.

        Yields:
            A function to call with the name of each next step.
        """
        if self._quiet:
            yield lambda _: None
        elif self._verbose:
            click.echo(first, err=True)
            yield lambda step: click.echo(step, err=True)
        else:
            console = _console(stderr=True)
            if not console.is_terminal:
                yield lambda _: None
                return
            with console.status(first, refresh_per_second=8) as status:
                yield status.update


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console
