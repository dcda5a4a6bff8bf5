"""What a command prints, and where: results to stdout, progress to stderr."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Progress", "Terminal"]

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
            _console().print(renderable, soft_wrap=isinstance(renderable, str))

    def result(self, data: Any) -> None:
        """Prints the machine-readable result if it was asked for."""
        if self._json:
            click.echo(json.dumps(data, indent=2, allow_nan=False, default=str))

    @contextlib.contextmanager
    def progress(self, first: str) -> Iterator[Progress]:
        """Shows what goes on while the block runs, on stderr.

        Args:
            first: The first step.

        Yields:
            A function to call with the name of each next step.
        """
        if self._quiet or self._verbose:
            yield Progress(_print_step if self._verbose and not self._quiet else None, first)
            return
        console = _console(stderr=True)
        if not console.is_terminal:
            yield Progress(None, first)
            return
        with console.status(first, refresh_per_second=8) as status:
            yield Progress(status.update, first, with_share=True)


class Progress:
    """Call it with the name of the next step and, where it is known, the share of the whole that is done.

    Args:
        show: What to do with a line of text; nothing if ``None``.
        first: The first step, shown at once.
        with_share: Show each share too, not just each new step.
    """

    def __init__(self, show: Callable[[str], None] | None, first: str, *, with_share: bool = False) -> None:
        self._show = show
        self._with_share = with_share
        self._step = ""
        self(first)

    def __call__(self, step: str, done: float | None = None) -> None:
        if self._show is None:
            return
        if self._with_share and done is not None:
            self._show(f"{step}  {done:.0%}")
        elif step != self._step:
            self._show(step)
        self._step = step


def _print_step(step: str) -> None:
    click.echo(step, err=True)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console
