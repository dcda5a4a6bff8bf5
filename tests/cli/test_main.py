"""The command group: help, usage errors, the error boundary, start-up time, completion."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from graphopt.cli import main as cli_main
from graphopt.cli.main import COMMANDS, main
from graphopt.errors import (
    EnvironmentProblem,
    ExitCode,
    Infeasible,
    LimitReached,
    ModelError,
    NotEquivalent,
    SaveError,
    UsageError,
)
from graphopt.version import __version__


def graphopt(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphopt", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> object:
    """Makes ``graphopt doctor`` raise what it is given."""

    def install(error: BaseException) -> None:
        @click.command("doctor")
        def command() -> None:
            raise error

        class Module:
            pass

        module = Module()
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setattr(importlib, "import_module", lambda _: module)

    return install


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"graphopt {__version__}\n"


def test_start_imports_nothing_heavy() -> None:
    code = (
        "import sys; from graphopt.cli.main import main; main(['--version']); main(['--help']);"
        "print([name for name in ('numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'torch', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
    assert all(f"{code} " in out for code in ExitCode)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: graphopt {name}")
    assert "--json" in out
    assert "--quiet" in out


def test_every_command_has_a_file() -> None:
    helpers = {"__init__", "main", "options", "recipes", "terminal"}
    assert {path.stem for path in Path(cli_main.__file__).parent.glob("*.py")} - helpers == set(COMMANDS)


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optmize"], "did you mean 'optimize'"),
        (["model.onnx"], "did you mean 'graphopt optimize model.onnx"),
        (["xyz"], "there is no command 'xyz'"),
        (["optimize"], "See 'graphopt optimize --help'"),
        (["bench"], "See 'graphopt bench --help'"),
        (["inspect", "--nonsense"], "--nonsense"),
    ],
)
def test_usage_errors(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("error: ")
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("m", hint="h"), 2),
        (ModelError("m", hint="h"), 3),
        (SaveError("m", hint="h"), 4),
        (NotEquivalent("m", hint="h"), 5),
        (LimitReached("m", hint="h"), 7),
        (EnvironmentProblem("m", hint="h"), 8),
        (Infeasible("m", hint="h"), 9),
    ],
)
def test_errors_have_their_exit_code_and_hint(
    error: Exception, code: int, raising: object, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error)  # type: ignore[operator]
    assert main(["doctor"]) == code
    assert capsys.readouterr().err == "error: m\nhint: h\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 7, "out of memory"),
        (ModuleNotFoundError("No module named 'onnx'", name="onnx"), 8, "graphopt doctor"),
    ],
)
def test_what_is_nobodys_fault(
    error: BaseException, code: int, words: str, raising: object, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error)  # type: ignore[operator]
    assert main(["doctor"]) == code
    assert words in capsys.readouterr().err


def test_bugs_propagate(raising: object) -> None:
    raising(ZeroDivisionError("oops"))  # type: ignore[operator]
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_a_bug_ends_the_process_with_a_traceback_and_code_1() -> None:
    code = (
        "import sys, graphopt.cli.main as m, graphopt.cli.doctor as d\n"
        "d._look = lambda: 1 / 0\n"
        "sys.exit(m.main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "This is a bug in graphopt" in done.stderr


def test_reader_that_leaves_is_no_error() -> None:
    command = (
        f"{shlex.quote(sys.executable)} -m graphopt passes --json | head -c 10 >/dev/null; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "0\n"
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_full_disk_behind_stdout() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "graphopt", "passes", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr.startswith("error: cannot write the result to standard output")


def test_interrupt_ends_quietly(root: Path) -> None:
    model = root / "models" / "basic_pitch.onnx"
    command = [sys.executable, "-m", "graphopt", "bench", str(model), "--min-time", "60", "-v"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    lines = iter(running.stderr.readline, "")
    assert any("timing" in line for line in lines)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("interrupted\n")
    assert out == ""


def test_no_color_where_nobody_wants_it() -> None:
    assert "\x1b" not in graphopt("nonsense").stderr
    assert "\x1b" not in graphopt("passes").stdout


def test_completion_knows_commands_and_options() -> None:
    def complete(line: str) -> str:
        words = str(len(line.split(" ")) - 1)
        return graphopt(_GRAPHOPT_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=words).stdout

    assert "optimize" in complete("graphopt opt")
    assert "--input-shape" in complete("graphopt optimize --inp")
