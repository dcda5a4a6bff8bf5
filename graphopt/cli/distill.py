"""``graphopt distill``."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

import graphopt
from graphopt.cli import options
from graphopt.cli.terminal import Terminal
from graphopt.errors import ExitCode, SaveError, UsageError
from graphopt.human import byte_size

__all__ = ["command"]

_SECTIONS = {
    "What is learnt": ("student", "loss", "balance", "teacher_weights", "mask", "prune", "prune_steps", "quantize"),
    "The data": ("data", "evaluation", "preprocess", "samples", "augment", "views"),
    "Training": (
        *("epochs", "batch", "optimizer", "learning_rate", "schedule", "warmup", "weight_decay", "clip", "accumulate"),
        *("average", "precision", "patience", "seed"),
    ),
    "Teachers' outputs": ("cache", "top_k", "half"),
    "Where it runs": ("provider", "threads", "run_directory", "resume"),
    "What is written": ("output", "optimize", "external_data", "plot", "log_to", "dry_run"),
}

_EPILOG = """\b
Losses (joined by +, each with options such as weight=0.9, student=NAME, teacher=NAME):
  of outputs       kd, soft-ce, logit-mse, logit-std, dkd, dist, box, score
  of inner values  fitnets, at, hidden, mgd, sp, rkd, crd
  of labels        ce, bce, mse, l1, huber
Augmentations (joined by +): shift:pixels=2, flip:share=0.5, noise:deviation=0.1,
  drop:share=0.1:token=0; or module:function, which runs that code.
Quantization: static (int8), with options per-channel=no, reduce-range=yes (7 bits),
  method=minmax, exclude=PATTERN.
\b
Examples:
  graphopt distill teacher.onnx --student student.onnx --data train.npz --eval test.npz \\
      --loss kd:temperature=4:weight=0.9+ce:weight=0.1 -o out.onnx
  graphopt distill teacher.onnx --student shrink:macs=0.25 --data digits -o small.onnx
  graphopt distill model.onnx --data train.npz --loss ce -o tuned.onnx
  graphopt distill model.onnx --data train.npz --quantize static -o int8.onnx
  graphopt distill --recipe recipe.toml --epochs 20 --run-directory run
  torchrun --nproc-per-node 2 -m graphopt distill teacher.onnx ...
\b
A recipe is a TOML file of these options: teacher = "teacher.onnx", epochs = 10.
Its paths are relative to it, and what is given here goes before it.
\b
Exit codes: as of all commands; 5 if the result is not what was trained, 9 if the
student cannot be that small. Unless it is 0, no model is written.
"""


def _library_defaults() -> Mapping[str, object]:
    import inspect

    if importlib.util.find_spec("torch") is None:
        return {}
    return {name: one.default for name, one in inspect.signature(graphopt.distill).parameters.items()}


def _weights(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    if text is None or text == "sample":
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"'{text}' is neither 'sample' nor numbers such as 0.7,0.3", ctx, param) from None


_COUNT = click.IntRange(min=1)
_FROM_ZERO = click.IntRange(min=0)
_NUMBER = click.FloatRange(min=0)


@click.command("distill", cls=options.Sectioned, sections=_SECTIONS, defaults=_library_defaults, epilog=_EPILOG)
@click.argument("teacher", type=options.MODEL, nargs=-1, metavar="[TEACHER]...")
@click.option("--recipe", type=options.MODEL, metavar="FILE", help="Read options from a TOML file.")
@click.option(
    "--student",
    metavar="STUDENT",
    help="Who learns: a model; shrink:macs=0.25, the teacher with fewer channels; or module:factory, which runs that "
    "code and gives a torch module. [default: the teacher itself, to be fine-tuned]",
)
@click.option(
    "--loss",
    metavar="SUM",
    help="What to bring down, see below. [default: kd:temperature=4, with labels kd:temperature=4:weight=0.9+"
    "ce:weight=0.1]",
)
@click.option("--balance", metavar="NAME", help="How tasks are weighed: static, uncertainty or gradnorm.")
@click.option(
    "--teacher-weights",
    metavar="NUMBERS",
    callback=_weights,
    help="Of several teachers: one weight each, as 0.7,0.3; or sample, by how right each is. [default: equal]",
)
@click.option("--mask", metavar="INPUT", help="The input that tells which tokens count.")
@click.option("--prune", metavar="LIMIT", help="Prune the student too, as macs=0.25, and train what is left.")
@click.option("--prune-steps", type=_COUNT, metavar="N", help="In N rounds of pruning and training.")
@click.option(
    "--quantize",
    metavar="SPEC",
    help="Quantize the student too, as static, and train it to be right in spite of the rounding "
    "(quantization-aware), see below.",
)
@click.option(
    "--data",
    metavar="SPEC",
    help="To learn from: PATH[:KEY=VALUE...] of arrays, IDX, images or text; module:function; digits, mnist or "
    "fashion-mnist. Labels are used if there are any.",
)
@click.option("--eval", "evaluation", metavar="SPEC", help="To judge by. [default: a tenth of the data, held out]")
@click.option("--preprocess", metavar="KEY=VALUE[:...]", help="For both, such as scale=255:layout=nchw.")
@click.option("--samples", type=_COUNT, metavar="N", help="How many to learn from. [default: all]")
@click.option("--augment", metavar="CHANGES", help="Change inputs at random, see below.")
@click.option("--views", type=_COUNT, metavar="N", help="Variants of each sample. [default: 8, or as many as epochs]")
@click.option("--epochs", type=_COUNT, metavar="N", help="How often each sample is seen.")
@click.option("--batch", type=_COUNT, metavar="N", help="Samples of a step, over all processes.")
@click.option("--optimizer", metavar="NAME", help="adamw or sgd.")
@click.option("--learning-rate", type=float, metavar="RATE", help="The highest.")
@click.option("--schedule", metavar="NAME", help="How the rate falls: cosine, linear, step or constant.")
@click.option("--warmup", type=_NUMBER, metavar="SHARE", help="Share of the run in which the rate rises.")
@click.option("--weight-decay", type=_NUMBER, metavar="RATE", help="On weights, not on biases and normalizations.")
@click.option("--clip", type=_NUMBER, metavar="NORM", help="The longest that the gradient may be; 0 for any length.")
@click.option("--accumulate", type=_COUNT, metavar="N", help="Batches whose gradients make one step.")
@click.option("--average", type=_NUMBER, metavar="DECAY", help="Average the weights over steps, as 0.999; 0 for not.")
@click.option("--precision", metavar="NAME", help="float32, or mixed with bfloat16 or (CUDA) float16.")
@click.option("--patience", type=_FROM_ZERO, metavar="N", help="Stop after N epochs without a better score; 0: never.")
@click.option("--seed", type=_FROM_ZERO, metavar="N", help="Of all that is random: same seed, same bytes.")
@click.option("--cache/--no-cache", default=None, help="Keep teachers' outputs in files. [default: where it pays]")
@click.option("--top-k", type=_COUNT, metavar="K", help="Of those, keep the K largest probabilities. [default: all]")
@click.option("--half", is_flag=True, default=None, help="Keep them in half precision.")
@click.option("--provider", metavar="EP", help="cpu or cuda, for teachers and student.")
@click.option("--threads", type=_COUNT, metavar="N", help="Of torch and ONNX Runtime. [default: theirs]")
@click.option(
    "--run-directory",
    type=options.OUTPUT,
    metavar="DIR",
    help="Keep checkpoints and teachers' outputs there; an interrupted run goes on from them, to the same weights.",
)
@click.option("--resume", is_flag=True, default=None, help="Go on with the run in the directory, or fail.")
@click.option("-o", "--output", type=options.OUTPUT, metavar="OUTPUT", help="Where to write the student.")
@click.option("--optimize/--no-optimize", default=None, help="Run the default passes on the result. [default: yes]")
@click.option(
    "--external-data/--no-external-data", default=None, help="Weights in a file of their own. [default: as needed]"
)
@click.option("--plot", type=options.OUTPUT, metavar="FILE", help="Draw loss and accuracy: .svg, .png or .pdf.")
@click.option(
    "--log-to",
    multiple=True,
    metavar="TRACKER",
    help="tensorboard:FOLDER, or wandb:PROJECT (offline unless :mode=online is added). Repeatable.",
)
@click.option("--dry-run", is_flag=True, default=None, help="Try one batch, say what would be done, write nothing.")
@options.reporting
@click.pass_context
def command(ctx: click.Context, /, *, recipe: Path | None, as_json: bool, quiet: bool, verbose: bool, **_: Any) -> int:
    """Teach a student what TEACHERs say of the data, or what labels say, or both; save it as OUTPUT.

    Several teachers are asked together. The student is trained in torch, and saved once ONNX Runtime gives what torch
    gives.
    """
    chosen = _chosen(ctx, recipe)
    beside = {name: chosen.pop(name, None) for name in ("output", "plot", "external_data")}
    trackers = chosen.pop("log_to", ())
    output, plot = beside["output"], beside["plot"]
    _check(chosen, output, plot, recipe)

    from graphopt.distillation.parallel import World
    from graphopt.reporting.tracking import tracked

    shown = {name: value if isinstance(value, int | float) else str(value) for name, value in chosen.items()}
    with World.joined(cuda=chosen.get("provider") == "cuda") as world:
        terminal = Terminal(as_json=as_json, quiet=quiet, verbose=verbose) if world.is_first else Terminal(quiet=True)
        with (
            tracked(trackers if world.is_first and not chosen.get("dry_run") else (), shown) as follow,
            terminal.progress("load") as progress,
        ):
            student, report = graphopt.distill(**chosen, progress=progress, follow=follow, with_report=True)
        if not world.is_first:
            return ExitCode.OK
        terminal.show(report)
        written = _write(student, report, terminal, **beside) if not chosen.get("dry_run") else {}
        teachers = [str(one) for one in chosen["teacher"]]
        terminal.result({"teachers": teachers, "student": chosen.get("student"), **written, **report.to_dict()})
    return ExitCode.OK


def _chosen(ctx: click.Context, recipe: Path | None) -> dict[str, Any]:
    """What the recipe says, and before it what the command line says, by parameter."""
    found: dict[str, Any] = {}
    if recipe is not None:
        from graphopt.distillation import recipe as recipes

        found = recipes.read(recipe)
    own = {"recipe", "as_json", "quiet", "verbose"}
    return found | {
        name: value
        for name, value in ctx.params.items()
        if name not in own
        and value not in (None, ())
        and ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }


def _check(chosen: Mapping[str, Any], output: Path | None, plot: Path | None, recipe: Path | None) -> None:
    """Now, so that no work is lost: that all is named, can be written, and replaces nothing that is read.

    Only the student's file may be replaced, and only by the result.
    """
    from graphopt import io
    from graphopt.datasets.options import parse_spec

    if not chosen.get("teacher"):
        raise UsageError("no teacher is named", hint="Write graphopt distill teacher.onnx ...")
    if not chosen.get("data"):
        raise UsageError("no data are named", hint="Write --data PATH.")
    if chosen.get("dry_run"):
        return
    if output is None:
        raise UsageError("no output is named", hint="Write -o OUTPUT, or --dry-run.")
    if plot is not None:
        from graphopt.distillation import plots

        plots.check(plot)
    targets = [path for path in (output, plot) if path is not None]
    for path in targets:
        io.check_target(path)
    student = chosen.get("student") or chosen["teacher"][0]
    data = [parse_spec(chosen[name])[0] for name in ("data", "evaluation") if chosen.get(name)]
    read = {Path(one).resolve() for one in (*chosen["teacher"], student, *data, recipe) if one and Path(one).is_file()}
    folder = chosen.get("run_directory")
    _check_replaced(targets, read | ({Path(folder).resolve()} if folder else set()), Path(student).resolve())


def _check_replaced(targets: Iterable[Path], read: set[Path], student: Path) -> None:
    written: set[Path] = set()
    for number, path in enumerate(one.resolve() for one in targets):
        if path in written or (path in read and (number or path != student)):
            raise SaveError(f"{path} would be replaced by another file of this run", hint="Name another file.")
        written.add(path)


def _write(
    student: Any, report: Any, terminal: Terminal, *, output: Path, plot: Path | None, external_data: bool | None
) -> dict[str, Any]:
    """The model and its picture, both or neither."""
    from graphopt import io

    with contextlib.ExitStack() as stack:
        if plot is not None:
            from graphopt.distillation import plots

            stack.enter_context(io.staged(plot, plots.image(report, plots.check(plot))))
        graphopt.save(student, output, external_data=external_data)
    terminal.show(f"\nwrote {output}  {byte_size(output.stat().st_size)}")
    if plot is not None:
        terminal.show(f"wrote {plot}")
    return {"output": str(output), "plot": None if plot is None else str(plot)}
