"""The command group and the one error boundary.

Nothing heavy is imported here: a command's module loads when the command runs, so that ``graphopt --version`` and
``graphopt --help`` answer at once.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import TracebackType

import click

from graphopt.errors import ExitCode, GraphoptError

__all__ = ["COMMANDS", "cli", "complain", "main"]

COMMANDS = {
    "optimize": "Rewrite a model, prove that it does the same job, save it.",
    "compress": "Prune, distil and quantize until a goal is met, and prove it.",
    "prune": "Remove the channels that matter least, refit what is left.",
    "quantize": "Keep weights and activations in few bits, as far as outputs stay.",
    "distill": "Train a student on what its teachers say.",
    "run": "Carry out a recipe: commands and their options in a file.",
    "validate": "Prove that two models do the same job.",
    "bench": "Time models against each other.",
    "inspect": "Say what a model is made of.",
    "explain": "Say why channels go together, or stay.",
    "extract": "Cut a part out of a model.",
    "passes": "List the passes.",
    "doctor": "Check this installation.",
}
"""Command name to its line in ``--help``; the command lives in the module of that name."""

_EPILOG = """\b
Exit codes:  0 done           4 cannot write      8 broken environment
             1 bug            5 not equivalent    9 goal out of reach
             2 wrong usage    6 unproven         10 harmful
             3 bad model      7 limit reached   130 interrupted
\b
Completion:  eval "$(_GRAPHOPT_COMPLETE=bash_source graphopt)"   in ~/.bashrc
             likewise with zsh_source or fish_source
"""

_FULL = {errno.ENOSPC, errno.EFBIG, errno.EIO}


class _LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"graphopt.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(_unknown_command(args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _give_up_stdout()
            return ExitCode.OK


def _unknown_command(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    if near:
        return f"there is no command '{name}'; did you mean '{near[0]}'?"
    if name.endswith(".onnx"):
        return f"there is no command '{name}'; did you mean 'graphopt optimize {name} ...'?"
    return f"there is no command '{name}'"


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from graphopt.version import __version__

        click.echo(f"graphopt {__version__}")
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    epilog=_EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Make any ONNX model smaller and faster, and prove that it still does the same job."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(ExitCode.USAGE)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    What is not a :class:`GraphoptError` propagates: it is a bug, and the process ends with a traceback and code 1.

    Args:
        args: Arguments without the program name; those of the process if not given.
    """
    sys.excepthook = _show_bug
    try:
        result = cli.main(args=args, prog_name="graphopt", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        return complain(error.format_message(), _usage_hint(error), error.exit_code)
    except GraphoptError as error:
        return complain(error.message, error.hint, error.exit_code)
    except ImportError as error:
        if (error.name or "graphopt").startswith("graphopt"):
            raise
        return complain(str(error), "See 'graphopt doctor'.", ExitCode.ENVIRONMENT)
    except BrokenPipeError:
        _give_up_stdout()
        return ExitCode.OK
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        _give_up_stdout()
        return complain(f"cannot write the result to standard output: {error.strerror}", "", ExitCode.SAVE)
    except MemoryError:
        return complain("out of memory", "", ExitCode.LIMIT)
    return result if isinstance(result, int) else ExitCode.OK


def complain(message: str, hint: str, code: int) -> int:
    """Says on stderr what is wrong, and what to do about it where that is known; returns the exit code."""
    color = False if os.environ.get("NO_COLOR") else None
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True, color=color)
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {hint}", err=True, color=color)
    return code


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"See '{context.command_path} --help'." if context else ""


def _give_up_stdout() -> None:
    # Whoever read our output has left; the interpreter's own flush at exit must not complain about it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_bug(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    from graphopt.version import __version__

    sys.__excepthook__(kind, error, where)
    click.echo(
        f"\nThis is a bug in graphopt {__version__}, not in your use of it. Please report it with the lines above, "
        "the command, and what 'graphopt doctor' prints.",
        err=True,
    )
