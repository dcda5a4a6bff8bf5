"""``graphopt compress``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphopt.cli.main import main
from graphopt.errors import ExitCode


@pytest.fixture
def command(digits: Path, tmp_path: Path) -> list[str]:
    """The words of a quick compression; its output is ``out.onnx`` in a folder with a space."""
    (tmp_path / "a folder").mkdir()
    words = ["compress", str(digits / "model.onnx"), "--data", str(digits / "train.npz")]
    words += ["--eval", str(digits / "test.npz"), "--skip", "distill,quantize,sensitivity,refine", "--threads", "1"]
    return [*words, "-o", str(tmp_path / "a folder" / "out.onnx")]


def test_writes_the_model_and_reports(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a folder"
    reports = [str(folder / f"report{kind}") for kind in (".html", ".md", ".json")]
    options = [word for report in reports for word in ("--report", report)]
    assert main([*command, "--goal", "macs=0.5", "--max-drop", "5", *options]) == ExitCode.OK
    assert sorted(path.name for path in folder.iterdir()) == ["out.onnx", "report.html", "report.json", "report.md"]
    shown = capsys.readouterr().out
    for word in ("x as fast", "samples to learn from", "worst class", "out.onnx", "report.html"):
        assert word in shown
    assert json.loads(Path(reports[2]).read_text())["verdict"]["met"] is True
    assert "<html" in Path(reports[0]).read_text()


def test_json_is_all_that_is_on_stdout(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--goal", "macs=0.5", "--json"]) == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert found["after"]["macs"] <= 0.5 * found["before"]["macs"]
    assert found["output"] == command[-1]


def test_what_is_infeasible_is_not_written(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a folder"
    options = ["--goal", "macs=0.001", "--keep", "0.5"]
    assert main([*command, *options, "--report", str(folder / "why.md")]) == ExitCode.INFEASIBLE
    assert {path.name for path in folder.iterdir()} == {"out.onnx.run", "why.md"}
    assert "infeasible" in capsys.readouterr().out
    assert main([*command, *options, "--best-effort"]) == ExitCode.INFEASIBLE  # from the same folder, at once
    assert (folder / "out.onnx").is_file()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], ExitCode.USAGE, "neither a goal nor a limit"),
        (["--goal", "macs=0.5", "--report", "page.pdf"], ExitCode.USAGE, "page.pdf is no report"),
        (["--goal", "macs=0.5", "--report", "nowhere/page.html"], ExitCode.SAVE, "nowhere"),
        (["--goal", "macs=0.5", "--skip", "lunch"], ExitCode.USAGE, "no stage 'lunch'"),
        (["--max-drop", "a lot"], ExitCode.USAGE, "max-drop=a lot is no drop"),
        (["--goal", "macs=0.5", "--class-drop", "-1"], ExitCode.USAGE, "class-drop"),
        (["--goal", "macs=0.5", "--quantization-aware"], ExitCode.USAGE, "where distill is skipped"),
        (["--goal", "macs=0.5", "--tune", "3"], ExitCode.USAGE, "tune is of the stage distill"),
        (["--goal", "macs=0.5", "--loss", "kd"], ExitCode.USAGE, "loss is of the stage distill"),
    ],
)
def test_mistakes_are_told_at_once(
    options: list[str], code: ExitCode, message: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *options]) == code
    assert message in capsys.readouterr().err
    assert not Path(command[-1]).with_name("out.onnx.run").exists() or code == ExitCode.USAGE


def test_a_report_may_not_replace_the_model(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--goal", "macs=0.5", "--report", "./x.html", "--report", "x.html"]) == ExitCode.SAVE
    assert "would be replaced" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-o", "--report", "--latency-table"])
def test_data_are_not_replaced(option: str, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(command[command.index("--data") + 1])
    copy = Path(command[-1]).with_name("data.json")
    copy.write_bytes(data.read_bytes())
    words = [str(copy) if word == str(data) else word for word in command]
    words = [*words[:-1], str(copy)] if option == "-o" else [*words, option, str(copy)]
    assert main([*words, "--goal", "macs=0.5"]) == ExitCode.SAVE
    assert "holds data that are read" in capsys.readouterr().err
    assert copy.read_bytes() == data.read_bytes()


def test_the_latency_table_is_no_other_file(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--goal", "macs=0.5", "--latency-table", command[-1]]) == ExitCode.SAVE
    assert "would be replaced" in capsys.readouterr().err
    assert not Path(command[-1]).exists()


def test_only_its_own_files_are_removed_after_a_run(command: list[str]) -> None:
    folder = Path(f"{command[-1]}.run")
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work", "utf-8")
    assert main([*command, "--goal", "macs=0.5", "-q"]) == ExitCode.OK
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_quiet_says_what_is_infeasible_and_best_effort_goes_on(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command, "--goal", "macs=0.001", "--keep", "0.5", "-q"]
    assert main(words) == ExitCode.INFEASIBLE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "infeasible" in captured.err
    assert main([*words, "--best-effort"]) == ExitCode.INFEASIBLE
    assert len(list(Path(f"{command[-1]}.run").iterdir())) == 1
