"""``graphopt extract``."""

from __future__ import annotations

from pathlib import Path

import click

import graphopt
from graphopt.cli import options
from graphopt.cli.terminal import Terminal

__all__ = ["command"]


@click.command("extract")
@click.argument("model", type=options.MODEL)
@click.argument("output", type=options.OUTPUT, required=False)
@click.option("-o", "--output", "output_option", type=options.OUTPUT, metavar="OUTPUT", help="Where to write.")
@click.option(
    "--inputs",
    multiple=True,
    callback=options.names,
    metavar="NAME",
    help="Values that become the inputs, comma-separated. Repeatable. [default: the model's own]",
)
@click.option(
    "--outputs",
    multiple=True,
    callback=options.names,
    metavar="NAME",
    help="Values that become the outputs, comma-separated. Repeatable. [default: the model's own]",
)
@options.reporting
def command(
    model: Path,
    output: Path | None,
    output_option: Path | None,
    *,
    inputs: list[str],
    outputs: list[str],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Cut the part of MODEL that computes --outputs from --inputs, and save it as OUTPUT.

    It takes along only the weights, functions and operator sets that it needs.
    """
    from graphopt.extraction import extract
    from graphopt.pipeline.report import Summary

    target = options.one_output(output, output_option)
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    with terminal.progress("extract"):
        whole = graphopt.load(model)
        part = extract(whole, inputs, outputs)
        graphopt.save(part, target)
    before, after = Summary.of(whole), Summary.of(part)
    names = {
        "inputs": [value.name for value in part.graph.inputs if not value.is_initializer()],
        "outputs": [value.name for value in part.graph.outputs],
    }
    terminal.show(f"wrote {target}  {after.nodes} of {before.nodes} nodes")
    for kind, values in names.items():
        terminal.show(f"{kind}: {', '.join(map(str, values))}")
    terminal.result({"input": str(model), "output": str(target), "nodes": after.nodes, **names})
