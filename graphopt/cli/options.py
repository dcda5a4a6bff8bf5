"""Options that several commands share, and the kinds of values they take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from graphopt.errors import SaveError, UsageError
from graphopt.pipeline import spec

__all__ = [
    "CUSTOM_OPS",
    "MODEL",
    "OUTPUT",
    "SHAPE",
    "Sectioned",
    "Shapes",
    "calibration",
    "channels",
    "keep_apart",
    "names",
    "one_output",
    "reporting",
    "running",
    "verification",
]

Command = TypeVar("Command", bound=Callable[..., Any])
Shapes = dict[str, tuple[int, ...]]

MODEL = click.Path(path_type=Path)
"""A model to read; :func:`graphopt.load` says what is wrong with it, better than click could."""

OUTPUT = click.Path(path_type=Path)


class Sectioned(click.Command):
    """A command of many options, which its help shows under headings.

    Args:
        sections: Names of parameters by heading; those that are in none come last.
        defaults: Gives the defaults of options that leave theirs to the library, by parameter; asked for help only.
    """

    def __init__(
        self,
        *args: Any,
        sections: Mapping[str, Sequence[str]],
        defaults: Callable[[], Mapping[str, object]] = dict,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.sections = sections
        self._defaults = defaults

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        defaults = self._defaults()
        records = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, click.Option) and record is not None:
                own = defaults.get(str(param.name))
                unsaid = own in (None, "", ()) or isinstance(own, bool) or "[default: " in record[1]
                records[str(param.name)] = (record[0], record[1] + ("" if unsaid else f"  [default: {own}]"))
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([records.pop(name) for name in names])
        with formatter.section("Other options"):
            formatter.write_dl(list(records.values()))


def _input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Reads ``name:1,3,224,224``; the last colon counts, because names made by torch and TensorFlow contain some."""
    name, _, dims = text.rpartition(":")
    sizes = [dim.strip() for dim in dims.split(",")] if dims.strip() else []
    if not name or not all(size.isdecimal() for size in sizes):
        raise click.BadParameter(f"'{text}' is no input shape; write NAME:1,3,224,224 (a scalar: NAME:)")
    return name, tuple(int(size) for size in sizes)


def _byte_size(text: str) -> int:
    """Reads ``6GB``, ``512M`` or plain bytes."""
    try:
        size = spec.size(text)
    except ValueError:
        size = 0
    if size <= 0:
        raise click.BadParameter(f"'{text}' is no size; write 6GB, 512MB or a number of bytes")
    return size


def _gather(ctx: click.Context, param: click.Parameter, pairs: Sequence[tuple[str, tuple[int, ...]]]) -> Shapes:
    shapes: Shapes = {}
    for name, shape in pairs:
        if shapes.setdefault(name, shape) != shape:
            raise click.BadParameter(f"input '{name}' is given two shapes", ctx, param)
    return shapes


_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout, and no tables.")
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Print errors only; the exit code tells the rest.")
_VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Print each step.")
_PROVIDER = click.option(
    "--provider", default="cpu", metavar="EP", show_default=True, help="cpu, cuda, auto, or any that ONNX Runtime has."
)
SHAPE = click.option(
    "--input-shape",
    "shapes",
    type=_input_shape,
    metavar="NAME:DIMS",
    multiple=True,
    callback=_gather,
    help="Concrete shape of an input, for example x:1,3,224,224. Repeatable.",
)
_GRANULARITY = click.option(
    "--granularity",
    type=click.Choice(["heads", "head-dim"]),
    default="heads",
    show_default=True,
    help="What of attention is free: whole heads, or a channel of all heads alike.",
)
_SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of generated inputs.")
_FEEDS = click.option("--inputs", type=MODEL, metavar="NPZ", help="Run on these inputs, not on generated ones.")
_TIME = click.option(
    "--time-limit", type=click.FloatRange(min=0, min_open=True), default=600.0, metavar="SECONDS", show_default=True,
    help="For verification.",
)  # fmt: skip
_MEMORY = click.option("--memory-limit", type=_byte_size, metavar="SIZE", help="For verification, for example 6GB.")
_CALIBRATION = click.option(
    "--calibration",
    metavar="SPEC",
    help="Data to calibrate on: PATH[:KEY=VALUE...] of arrays, IDX, images or text; or module:function, or digits.",
)
_PREPROCESS = click.option(
    "--preprocess", default="", metavar="KEY=VALUE[:...]", help="For these data, such as scale=255:layout=nchw."
)
_SAMPLES = click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many to draw; else up to 2,048 (to quantize: 512), or 256 MiB.",
)
CUSTOM_OPS = click.option(
    "--custom-ops", type=click.Path(), multiple=True, metavar="LIBRARY", help="Custom-operator library. Repeatable."
)


def keep_apart(written: Iterable[Path], read: Iterable[str | None]) -> None:
    """That nothing of what is written replaces data that are read.

    Args:
        written: Files that will be.
        read: Specs of data; None where there are none.

    Raises:
        UsageError: A spec is none.
        SaveError: A file would be replaced.
    """
    from graphopt.datasets.options import parse_spec

    sources = [Path(parse_spec(spec)[0]).resolve() for spec in read if spec is not None]
    for one in written:
        if one.resolve() in sources and one.exists():
            raise SaveError(f"{one} would be replaced, and holds data that are read", hint="Name another file.")


def reporting(command: Command) -> Command:
    """Adds ``--json``, ``-q`` and ``-v``."""
    return _JSON(_QUIET(_VERBOSE(command)))


def running(command: Command) -> Command:
    """Adds what every command that runs a model takes: shapes, provider, seed."""
    return SHAPE(_PROVIDER(_SEED(command)))


def verification(command: Command) -> Command:
    """Adds what verification takes."""
    return running(_FEEDS(_TIME(_MEMORY(CUSTOM_OPS(command)))))


def calibration(command: Command) -> Command:
    """Adds what chooses data: ``calibration`` and ``samples`` (None where not given), and ``preprocess``."""
    return _CALIBRATION(_PREPROCESS(_SAMPLES(command)))


def channels(command: Command) -> Command:
    """Adds what decides which channels are free: granularity, and what of the interface may shrink."""
    interface = click.option(
        "--allow-interface",
        multiple=True,
        callback=names,
        metavar="PATTERN",
        help="Inputs and outputs that may shrink too, such as 'past_*'. Repeatable.",
    )
    return _GRANULARITY(interface(command))


def names(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> list[str]:
    """Callback of options that are repeatable or comma-separated."""
    found = spec.split(value)
    if value and not found:
        raise click.BadParameter("it names nothing; leave it out for the default", ctx, param)
    return found


def one_output(given: Path | None, option: Path | None) -> Path:
    """The output path, named as an argument or with ``-o``; checked now, so that no work is lost to a mistyped folder.

    Raises:
        UsageError: Neither, or both.
        SaveError: It cannot be written.
    """
    from graphopt.io import check_target

    if (given is None) == (option is None):
        problem = "the output is named twice" if given else "no output is named"
        raise UsageError(problem, hint="Write 'in.onnx out.onnx', or 'in.onnx -o out.onnx'.")
    path = given or option
    assert path is not None
    check_target(path)
    return path
