"""Option values: shapes with awkward names, sizes, lists, outputs."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from graphopt.cli import options
from graphopt.errors import SaveError, UsageError


@click.command()
@options.verification
@click.option("--passes", multiple=True, callback=options.names)
@click.pass_context
def command(context: click.Context, /, **_: object) -> None:
    click.echo(repr({name: context.params[name] for name in ("shapes", "memory_limit", "passes")}))


def values(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    found: dict[str, object] = eval(done.output)
    return found


def problem(*arguments: str) -> str:
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    return done.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x:1,3,224,224", {"x": (1, 3, 224, 224)}),
        ("serving_default_input_2:0:1,43844,1", {"serving_default_input_2:0": (1, 43844, 1)}),
        ("gpu_0/data:0:2", {"gpu_0/data:0": (2,)}),
        ("sr:", {"sr": ()}),
        ("x: 1, 2", {"x": (1, 2)}),
        ("x:0,4", {"x": (0, 4)}),
    ],
)
def test_input_shape(text: str, expected: object) -> None:
    assert values("--input-shape", text)["shapes"] == expected


@pytest.mark.parametrize("text", ["1,3,224,224", ":1,2", "x:1,a", "x:-1,3", "x:1,,2", "x:1.5"])
def test_input_shape_refuses(text: str) -> None:
    assert "is no input shape" in problem("--input-shape", text)


def test_input_shapes_gather_and_do_not_contradict() -> None:
    assert values("--input-shape", "x:1", "--input-shape", "y:2")["shapes"] == {"x": (1,), "y": (2,)}
    assert "'x' is given two shapes" in problem("--input-shape", "x:1", "--input-shape", "x:2")


@pytest.mark.parametrize(
    ("text", "size"), [("6GB", 6 * 10**9), ("512M", 512 * 10**6), ("4096", 4096), ("64KiB", 64 << 10)]
)
def test_size(text: str, size: int) -> None:
    assert values("--memory-limit", text)["memory_limit"] == size


@pytest.mark.parametrize("text", ["6XB", "", "-1", "0", "1.5G"])
def test_size_refuses(text: str) -> None:
    assert "is no size" in problem("--memory-limit", text)


def test_lists_are_repeatable_and_comma_separated() -> None:
    assert values("--passes", "a,b:max=1", "--passes", " c ")["passes"] == ["a", "b:max=1", "c"]


def test_one_output(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert options.one_output(a, None) == a
    assert options.one_output(None, b) == b
    with pytest.raises(UsageError, match="no output"):
        options.one_output(None, None)
    with pytest.raises(UsageError, match="twice"):
        options.one_output(a, b)


def test_output_is_checked_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="no folder"):
        options.one_output(tmp_path / "missing" / "new.onnx", None)
    with pytest.raises(SaveError, match="folder"):
        options.one_output(tmp_path, None)
    with pytest.raises(SaveError, match="no regular file"):
        options.one_output(Path(os.devnull), None)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SaveError, match="read-only"):
        options.one_output(tmp_path / "new.onnx", None)


def test_calibration() -> None:
    @click.command()
    @options.calibration
    def calibrated(calibration: str | None, preprocess: str, samples: int | None) -> None:
        click.echo(repr((calibration, preprocess, samples)))

    runner = CliRunner()
    assert runner.invoke(calibrated, []).output == "(None, '', None)\n"
    given = ["--calibration", "a.npz:scale=255", "--preprocess", "layout=nchw", "--samples", "8"]
    assert runner.invoke(calibrated, given).output == "('a.npz:scale=255', 'layout=nchw', 8)\n"
    assert runner.invoke(calibrated, ["--samples", "0"]).exit_code == 2
