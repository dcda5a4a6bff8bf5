"""``graphopt passes``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphopt.cli import options
from graphopt.cli.terminal import Terminal
from graphopt.errors import ExitCode, UsageError
from graphopt.pipeline import catalogue, registry

if TYPE_CHECKING:
    from rich.console import RenderableType

    from graphopt.pipeline.catalogue import Card

__all__ = ["command"]

_STYLE = {"exact": "green", "numeric": "cyan", "lossy": "yellow"}


@click.command("passes")
@click.argument("names", nargs=-1, metavar="[PASS]...")
@click.option("--markdown", is_flag=True, help="Print the page passes/README.md.")
@click.option("--check", type=click.Path(path_type=Path), metavar="FILE", help="Fail if FILE is not that page.")
@options.reporting
def command(
    names: tuple[str, ...], *, markdown: bool, check: Path | None, as_json: bool, quiet: bool, verbose: bool
) -> int:
    """List the passes that can be run, or say everything about each PASS."""
    shown = catalogue.cards(names)
    if check is not None:
        _check(check, catalogue.to_markdown(shown))
        return ExitCode.OK
    if markdown:
        click.echo(catalogue.to_markdown(shown), nl=False)
        return ExitCode.OK
    terminal = Terminal(as_json=as_json, quiet=quiet)
    if names or verbose:
        for card in shown:
            terminal.show(_details(card))
    else:
        terminal.show(_list(shown))
    terminal.result([card.to_dict() for card in shown])
    for point, reason in registry.broken().items():
        click.echo(f"warning: the entry point {point} does not load: {reason}", err=True)
    return ExitCode.OK


def _check(page: Path, expected: str) -> None:
    if not page.is_file() or page.read_text("utf-8") != expected:
        raise UsageError(f"{page} is not the page of the passes installed here", hint="'make passes' writes it anew.")


def _list(shown: Sequence[Card]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("pass", no_wrap=True)
    table.add_column("safety")
    table.add_column("what it does", style="dim")
    for card in shown:
        table.add_row(card.name, Text(card.safety, style=_STYLE[card.safety]), _plain(card.summary).rstrip("."))
    presets = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    presets.add_column("preset")
    presets.add_column("passes", justify="right")
    for preset in registry.presets():
        presets.add_row(preset, str(len(registry.names_of_preset(preset))))
    return Group(table, "", presets)


def _details(card: Card) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text.assemble((card.name, "bold"), "  ", (card.safety, _STYLE[card.safety]), "  ", _plain(card.summary)),
        Text(f"presets: {', '.join(card.presets) or 'none'}    {card.module}", style="dim"),
    ]
    for heading, text in card.sections.items():
        parts += [Text(heading, style="bold"), _section(text)]
    if card.options:
        parts.append(Text("Options", style="bold"))
        parts += [Text(f"  {card.name}:{name}=  {kind}, by default {default}") for name, kind, default in card.options]
    return Group(*parts, "")


def _section(text: str) -> RenderableType:
    """Paragraphs and list items, each wrapped anew for the terminal's width."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    blocks: list[str] = []
    for line in _plain(text).splitlines():
        if not blocks or not line or line.startswith("- ") or blocks[-1] == "":
            blocks.append(line)
        else:
            blocks[-1] += f" {line.lstrip()}"
    return Group(*[_item(block) if block.startswith("- ") else Padding(Text(block), (0, 0, 0, 2)) for block in blocks])


def _item(text: str) -> RenderableType:
    from rich.table import Table

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row("  -", text.removeprefix("- "))
    return grid


def _plain(text: str) -> str:
    """Docstring text as a terminal shows it."""
    return text.replace("``", "")
