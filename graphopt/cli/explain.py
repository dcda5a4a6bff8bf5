"""``graphopt explain``."""

from __future__ import annotations

from pathlib import Path

import click

from graphopt.cli import options
from graphopt.cli.terminal import Terminal

__all__ = ["command"]


@click.command("explain")
@click.argument("model", type=options.MODEL)
@click.argument("node")
@options.channels
@click.option("--svg", type=options.OUTPUT, metavar="FILE", help="Draw the group in its graph.")
@click.option("--dot", type=options.OUTPUT, metavar="FILE", help="The same as Graphviz text.")
@click.option(
    "--part", type=click.IntRange(min=1), default=1, show_default=True, help="Which of the numbered parts to draw."
)
@options.reporting
def command(
    model: Path,
    node: str,
    *,
    granularity: str,
    allow_interface: list[str],
    svg: Path | None,
    dot: Path | None,
    part: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Say which channels of MODEL go together at NODE and why, or what makes them stay and what that costs.

    NODE is the name of a node, a value or a constant.
    """
    from graphopt import channels, io
    from graphopt.errors import SaveError

    targets = [target for target in (svg, dot) if target is not None]
    for target in targets:
        io.check_target(target)
    if len({path.resolve() for path in (model, *targets)}) <= len(targets):
        raise SaveError("a drawing would replace the model or the other drawing", hint="Name another file.")
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    with terminal.progress("analyze"):
        graph = channels.analyze(model, granularity=granularity, allow_interface=allow_interface)
        if any(str(target.resolve()) in graph.model.meta.get("graphopt.external", {}) for target in targets):
            raise SaveError("a drawing would replace the weights of the model", hint="Name another file.")
        explanation = channels.explain(graph, node)
    drawings = [
        (target, draw(part))
        for target, draw in ((svg, explanation.to_svg), (dot, explanation.to_dot))
        if target is not None
    ]
    for target, text in drawings:
        io.write_text(target, text)
    terminal.show(explanation)
    for target, _ in drawings:
        terminal.show(f"wrote {target}")
    terminal.result(explanation.to_dict())
