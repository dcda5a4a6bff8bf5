"""Recipes, through ``graphopt run``."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from harness import parse

import graphopt
from graphopt.cli import recipes, run
from graphopt.cli.main import COMMANDS, cli, main
from graphopt.errors import ModelError, UsageError

TWO_STEPS = """
[[steps]]
command = "optimize"
model = "model.onnx"
output = "fast.onnx"
no-validate = true

[[steps]]
command = "extract"
model = "fast.onnx"
output = "part.onnx"
outputs = ["b"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a recipe, which is not the current one, with a model."""
    found = tmp_path / "its folder"
    found.mkdir()
    graphopt.save(
        parse("agraph (float[N,4] x) => (float[N,4] y) { a = Identity (x) b = Relu (a) y = Neg (b) }"),
        found / "model.onnx",
    )
    return found


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, "utf-8")
    return path


def lines(folder: Path, text: str, *settings: str) -> list[list[str]]:
    """The words of each step, without what they start with."""
    given = [recipes.Setting.parse(one) for one in settings]
    return [[step.name, *step.words] for step in recipes.read(write(folder, text), given)]


def ran(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    assert main(["run", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_steps_see_what_earlier_ones_wrote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = ran(capsys, write(folder, TWO_STEPS))
    assert sorted(path.name for path in folder.iterdir()) == ["fast.onnx", "model.onnx", "part.onnx", "recipe.toml"]
    assert [node.op_type for node in graphopt.load(folder / "part.onnx").graph] == ["Relu"]
    shown = [line.removeprefix("$ ") for line in out.splitlines() if line.startswith("$ ")]
    assert shown == [
        "graphopt optimize model.onnx fast.onnx --no-validate",
        "graphopt extract fast.onnx part.onnx --outputs b",
    ]
    assert out.index("wrote fast.onnx") < out.index("$ graphopt extract")
    assert err == ""


def test_quiet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, write(folder, TWO_STEPS), "-q") == ("", "")
    assert (folder / "part.onnx").is_file()


def test_json_of_several_steps_is_one_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = ran(capsys, write(folder, TWO_STEPS), "--json", "-v")
    first, second = json.loads(out)
    assert (first["output"], second["output"]) == ("fast.onnx", "part.onnx")
    assert first["after"]["nodes"] == 2
    assert "extract" in err.splitlines()


def test_json_of_one_step_is_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = ran(capsys, write(folder, 'command = "inspect"\nmodel = "model.onnx"\n'), "--json")
    assert main(["inspect", str(folder / "model.onnx"), "--json"]) == 0
    assert json.loads(out)["operators"] == json.loads(capsys.readouterr().out)["operators"]


def test_json_holds_what_is_no_json_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '[[steps]]\ncommand = "passes"\nmarkdown = true\n[[steps]]\ncommand = "passes"\nnames = ["eliminate-cast"]\n'
    page, (card,) = json.loads(ran(capsys, write(folder, text), "--json")[0])
    assert page.startswith("#")
    assert card["name"] == "eliminate-cast"


def test_the_first_that_fails_is_the_last_that_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TWO_STEPS.replace('"fast.onnx"\noutput', '"lost.onnx"\noutput') + TWO_STEPS.replace("fast", "third")
    path = write(folder, text)
    out, err = ran(capsys, path, "--json", code=3)
    assert [one["output"] for one in json.loads(out)] == ["fast.onnx"]
    assert err.startswith(f"error: {path}, step 2 (extract): ")
    assert "lost.onnx" in err
    assert not (folder / "third.onnx").exists()


def test_a_step_that_ends_with_a_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphopt.save(parse("agraph (float[N,4] x) => (float[N,4] y) { y = Abs (x) }"), folder / "other.onnx")
    text = '[[steps]]\ncommand = "validate"\noriginal = "model.onnx"\ncandidate = "other.onnx"\nsamples = 1\n'
    path = write(folder, text + TWO_STEPS)
    out, err = ran(capsys, path, "--json", code=5)
    assert [one["status"] for one in json.loads(out)] == ["different"]
    assert err == f"error: {path}, step 1 (validate): it ended with exit code 5, not equivalent\n"
    assert not (folder / "fast.onnx").exists()


def test_all_is_checked_before_anything_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ('outputz = "b"', 'part = "b"\ncommand = "explain"'):
        text = TWO_STEPS.replace('command = "extract"', "" if "command" in wrong else 'command = "extract"')
        _, err = ran(capsys, write(folder, f"{text}{wrong}\n"), code=2)
        assert "step 2" in err
        assert not (folder / "fast.onnx").exists()
    text = TWO_STEPS.replace("no-validate = true", 'input-shape = "x=1"')
    _, err = ran(capsys, write(folder, text), code=2)
    assert "step 1 (optimize): 'input-shape': 'x=1' is no input shape" in err
    assert "hint: See 'graphopt optimize --help'." in err


def test_dry_run_prints_what_a_shell_would_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        TWO_STEPS + '[[steps]]\ncommand = "prune"\nmodel = "-odd.onnx"\noutput = "p.onnx"\nexclude = ["-x", "a b*"]\n'
    )
    path = write(folder, text)
    out, _ = ran(capsys, path, "--dry-run", "--set", "goal=macs=0.5")
    assert out.splitlines() == [
        f"cd {shlex.quote(str(folder))}",
        "graphopt optimize model.onnx fast.onnx --no-validate",
        "graphopt extract fast.onnx part.onnx --outputs b",
        "graphopt prune --exclude=-x --exclude 'a b*' --goal macs=0.5 -- -odd.onnx p.onnx",
    ]
    assert sorted(one.name for one in folder.iterdir()) == ["model.onnx", "recipe.toml"]
    out, _ = ran(capsys, path, "--dry-run", "--json", "--set", "goal=macs=0.5")
    assert json.loads(out)[1] == ["extract", "fast.onnx", "part.onnx", "--outputs", "b", "--json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('max-drop = 0.5\ngoal = ["latency=0.5", "bytes=2MB"]', "--max-drop 0.5 --goal latency=0.5 --goal bytes=2MB"),
        ('max_drop = "rel:0.5%"\ngoal = "macs=0.5"', "--max-drop rel:0.5% --goal macs=0.5"),
        ("learning-rate = 3e-4\nkeep = 1\nseed = 0", "--learning-rate 0.0003 --keep 1 --seed 0"),
        ("external-data = true\nbest-effort = true", "--external-data --best-effort"),
        ("external-data = false\nbest_effort = false", "--no-external-data"),
        ("no-external-data = true", "--no-external-data"),
        ("no-external-data = false", "--external-data"),
        ('eval = "digits:split=test"\ndata = "mine:load"', "--eval digits:split=test --data mine:load"),
        ('judge-output = "y"\nprecision = ["int8"]', "--judge-output y --precision int8"),
    ],
)
def test_values(text: str, words: str, tmp_path: Path) -> None:
    (found,) = lines(tmp_path, f'command = "compress"\nmodel = "m.onnx"\n{text}\n')
    assert found == ["compress", "m.onnx", *words.split()]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeffcommand = "doctor"')
    assert [step.name for step in recipes.read(path)] == ["doctor"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["seed=3"], "--seed 3"),
        (["external-data=false", "best_effort=True"], "--no-external-data --best-effort"),
        (["skip=distill", "skip=quantize"], "--skip distill --skip quantize"),
        (["compress.goal=bytes=0.5", "1.seed=1", "seed=2"], "--goal bytes=0.5 --seed 2"),
    ],
)
def test_settings_go_before_the_recipe(settings: list[str], words: str, tmp_path: Path) -> None:
    text = '[[steps]]\ncommand = "compress"\nmodel = "m.onnx"\n[[steps]]\ncommand = "bench"\nmodels = ["a", "b"]\n'
    first, second = lines(tmp_path, text, *settings)
    assert first == ["compress", "m.onnx", *words.split()]
    assert second == ["bench", "a", "b", *(["--seed", words[-1]] if "seed=" in settings[-1] else [])]
    replaced, _ = lines(
        tmp_path, text.replace('"m.onnx"', '"m.onnx"\nskip = "prune"\nseed = 9'), *settings, "skip=prune"
    )
    assert replaced.count("--seed") == 1
    assert replaced.count("prune") == 1


def test_a_module_beside_the_recipe_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {"w": np.eye(16, dtype=np.float32)}
    graphopt.save(parse("agraph (float[N,16] x) => (float[N,16] y) { y = MatMul (x, w) }", weights), folder / "m.onnx")
    (folder / "beside_the_recipe.py").write_text(
        "import numpy\n\ndef load():\n    return {'x': numpy.ones((8, 16), 'float32')}\n"
    )
    text = 'command = "quantize"\nmodel = "m.onnx"\noutput = "q.onnx"\ncalibration = "beside_the_recipe:load"\n'
    ran(capsys, write(folder, f"{text}no-time = true\n"))
    assert "QuantizeLinear" in {node.op_type for node in graphopt.load(folder / "q.onnx").graph}


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("", "'command' is missing", "compress"),
        ('model = "m.onnx"', "'command' is missing", "compress"),
        ('command = "compres"', "no command 'compres'", "'compress'"),
        ("command = 3", "no command 3", ""),
        ('command = "run"\nrecipe = "r.toml"', "cannot run a recipe", "into this one"),
        ('command = "prune"', "(prune): 'model' is missing", "a path"),
        ('command = "bench"\nseed = 1', "(bench): 'models' is missing", "a path, or a list of such"),
        ('command = "prune"\nmodel = "m"\noutptu = "o"', "no key 'outptu'", "'output'"),
        ('command = "prune"\nmodel = "m"\njson = true', "no key 'json'", "graphopt run --json"),
        ('command = "prune"\nmodel = "m"\nmax-drop = 1\nmax_drop = 2', "no key 'max-drop'", ""),
        ('command = "compress"\nmodel = "m"\nmax-drop = 1\nmax_drop = 2', "'max_drop' is there twice", "one"),
        ('command = "compress"\nmodel = "m"\nexternal-data = true\nno-external-data = true', "there twice", "one"),
        ('command = "compress"\nmodel = ["a", "b"]', "'model' cannot be ['a', 'b']", "It takes a path."),
        ('command = "compress"\nmodel = " "', "'model' cannot be ' '", "a path"),
        ('command = "compress"\nmodel = "a\\u0000"', "'model' cannot be 'a\\x00'", "a path"),
        ('command = "compress"\nmodel = "m"\nepochs = "3"', "'epochs' cannot be '3'", "a whole number"),
        ('command = "compress"\nmodel = "m"\nepochs = true', "'epochs' cannot be True", "a whole number"),
        ('command = "compress"\nmodel = "m"\nepochs = 2.5', "'epochs' cannot be 2.5", "a whole number"),
        ('command = "compress"\nmodel = "m"\nkeep = "all"', "'keep' cannot be 'all'", "a number"),
        ('command = "compress"\nmodel = "m"\nbest-effort = 1', "'best-effort' cannot be 1", "true or false"),
        ('command = "compress"\nmodel = "m"\ngoal = []', "'goal' cannot be []", "a list of such"),
        ('command = "compress"\nmodel = "m"\n[goal]\nmacs = 0.5', "'goal' cannot be {'macs': 0.5}", "a text"),
        ('command = "compress"\nmodel = "m"\ndata = 2026-01-01', "'data' cannot be", "a text"),
        ('command = "prune"\n[[steps]]\ncommand = "bench"', "'command' is beside the steps", "into the steps"),
        ("steps = 3", "'command' is missing", "compress"),
        ("steps = [3]", "'steps' are no tables", "[[steps]]"),
        ("steps = []", "'steps' are no tables", "[[steps]]"),
        ('[[steps]]\ncommand = "bench"\nmodels = "m"\n[[steps]]\n', ", step 2: 'command' is missing", "compress"),
    ],
)
def test_what_makes_no_sense(text: str, words: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        recipes.read(path)
    assert caught.value.message.startswith(str(path))
    assert words in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("setting", "words", "hint"),
    [
        ("seed", "cannot be 'seed'", "KEY=VALUE"),
        ("=3", "cannot be '=3'", "KEY=VALUE"),
        ("seed=", "cannot be 'seed='", "KEY=VALUE"),
        ("sed=3", "no step has the key 'sed'", "'seed'"),
        ("bench.goal=macs=0.5", "no step has the key 'goal'", ""),
        ("3.seed=1", "no step '3'", ""),
        ("prunes.seed=1", "no step 'prunes'", "'prune'"),
        ("no-optimize=maybe", "'no-optimize' cannot be 'maybe'", "true or false"),
        ("json=true", "no step has the key 'json'", ""),
    ],
)
def test_settings_that_make_no_sense(setting: str, words: str, hint: str, tmp_path: Path) -> None:
    text = '[[steps]]\ncommand = "prune"\nmodel = "m.onnx"\n[[steps]]\ncommand = "bench"\nmodels = "m.onnx"\n'
    with pytest.raises(UsageError) as caught:
        lines(tmp_path, text, setting)
    assert words in caught.value.message
    assert hint in caught.value.hint


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the recipe"):
        recipes.read(tmp_path / "no.toml")
    with pytest.raises(ModelError, match="cannot read the recipe"):
        recipes.read(tmp_path)
    with pytest.raises(ModelError, match=r"is no TOML: .*line 1"):
        recipes.read(write(tmp_path, "command = prune"))
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="is no TOML"):
        recipes.read(tmp_path / "recipe.toml")


def test_those_of_docstring_and_help(tmp_path: Path) -> None:
    shown = re.search(r"toml\n\n(.*?)\n\n\S", recipes.__doc__ or "", re.DOTALL)
    assert shown is not None
    assert [line[0] for line in lines(tmp_path, re.sub("^ +", "", shown[1], flags=re.MULTILINE))] == [
        "optimize",
        "bench",
    ]
    told = re.findall(r"^  (\[\[steps\]\]|[a-z-]+ = .*)$", run.command.epilog or "", re.MULTILINE)
    assert [line[0] for line in lines(tmp_path, "\n".join(told))] == ["compress", "bench"]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "run"])
def test_every_option_of_every_command_can_be_said(name: str, tmp_path: Path) -> None:
    """Whatever the command line takes, a recipe takes, and gives to the same parameter."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    required = "".join(f'{one.name} = "m.onnx"\n' for one in command.params if one.required)
    for param in command.params:
        if param.name in ("as_json", "quiet", "verbose") or param.required:
            continue
        key = next((one[2:] for one in param.opts if one.startswith("--")), str(param.name))
        value = json.dumps(_example(param))
        (step,) = recipes.read(write(tmp_path, f'command = "{name}"\n{required}{key} = {value}\n'))
        words = step.words[sum(one.required for one in command.params) :]
        is_argument = any(isinstance(one, click.Argument) and one.name == key for one in command.params)
        assert words[0] == ("text" if is_argument else f"--{key}")


def _example(param: click.Parameter) -> Any:
    if isinstance(param, click.Option) and param.is_flag:
        return True
    if isinstance(param.type, click.types.IntParamType | click.types.FloatParamType):
        return 1
    return "text"
