"""``graphopt quantize``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import graphopt
from graphopt.cli import options
from graphopt.cli.terminal import Terminal
from graphopt.errors import ExitCode
from graphopt.human import byte_size

__all__ = ["command"]

_SECTIONS = {
    "What becomes of it": ("scheme", "whole", "reduce_range", "method", "exclude", "no_optimize"),
    "How far it may go": ("max_error", "max_layer_error", "faster"),
    "The data": ("calibration", "preprocess", "samples", "seed"),
    "Where it runs": ("provider", "threads", "no_time"),
    "What is written": ("output_option", "external_data"),
}

_EPILOG = """\b
Examples:
  graphopt quantize model.onnx int8.onnx --calibration inputs.npz
  graphopt quantize model.onnx int8.onnx --calibration photos/ --max-error 0.001 --faster
  graphopt quantize llm.onnx small.onnx --scheme weights-int4 --max-error 0.05 --exclude '*lm_head*'
  graphopt quantize bert.onnx int8.onnx --scheme dynamic
\b
Exit codes: as of all commands; 9 if not one layer can be quantized. Unless it is 0, nothing is written.
"""


def _library_defaults() -> Mapping[str, object]:
    import inspect

    return {name: one.default for name, one in inspect.signature(graphopt.quantize).parameters.items()}


@click.command("quantize", cls=options.Sectioned, sections=_SECTIONS, defaults=_library_defaults, epilog=_EPILOG)
@click.argument("model", type=options.MODEL)
@click.argument("output", type=options.OUTPUT, required=False)
@click.option("-o", "--output", "output_option", type=options.OUTPUT, metavar="OUTPUT", help="Where to write.")
@click.option(
    "--scheme",
    metavar="NAME",
    help="static (int8 weights and activations), dynamic (MatMul and Gemm; activations rounded at run time), "
    "weights-int8 or weights-int4 (MatMul and Gemm in blocks).",
)
@click.option("--per-tensor", "whole", is_flag=True, help="One scale for a weight, not one for each output channel.")
@click.option("--reduce-range", is_flag=True, help="Weights of 7 bits, for x86 processors without VNNI.")
@click.option(
    "--method",
    metavar="NAME",
    help="How ranges of activations are chosen: minmax, percentile, entropy, mse, or auto for the best by measured "
    "error. Static only.",
)
@click.option(
    "--exclude", multiple=True, callback=options.names, metavar="PATTERN", help="Layers to leave as they are."
)
@click.option(
    "--max-error",
    type=float,
    metavar="SHARE",
    help="Squared error of the outputs that is allowed, as a share of their variance; layers that err most stay float "
    "until it is met.",
)
@click.option("--max-layer-error", type=float, metavar="SHARE", help="The same for each layer alone.")
@click.option("--no-optimize", is_flag=True, help="Do not run the default passes first.")
@click.option("--faster", is_flag=True, help="Leave layers float that are slower in integers, as measured here.")
@click.option("--no-time", is_flag=True, help="Do not time the model before and after.")
@click.option("--provider", metavar="EP", help="cpu, cuda, auto, or any that ONNX Runtime has.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="Intra-op threads. [default: as ONNX Runtime]"
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Of the samples: same seed, same bytes.")
@click.option(
    "--external-data/--no-external-data", default=None, help="Weights in a file of their own. [default: as needed]"
)
@options.calibration
@options.reporting
def command(
    model: Path,
    output: Path | None,
    output_option: Path | None,
    *,
    calibration: str | None,
    whole: bool,
    no_optimize: bool,
    no_time: bool,
    external_data: bool | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> int:
    """Quantize MODEL as far as its outputs stay what they were, and save it as OUTPUT.

    Each layer's rounding is measured at the outputs; the fewest layers stay float with which --max-error is met, and
    the report names them. Static ranges need --calibration; the other schemes do without. OUTPUT may be MODEL itself.
    """
    target = options.one_output(output, output_option)
    options.keep_apart([target], [calibration])
    terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose)
    size_before = model.stat().st_size if model.is_file() else 0
    own = {name: value for name, value in settings.items() if value is not None}
    with terminal.progress("load") as progress:
        quantized, report = graphopt.quantize(
            model,
            calibration,
            per_channel=not whole,
            optimize=not no_optimize,
            time=not no_time,
            progress=progress,
            with_report=True,
            **own,
        )
    terminal.show(report)
    graphopt.save(quantized, target, external_data=external_data)
    terminal.show(f"\nwrote {target}  {byte_size(target.stat().st_size)}, was {byte_size(size_before)}")
    terminal.result({"input": str(model), "output": str(target), **report.to_dict()})
    return ExitCode.OK
