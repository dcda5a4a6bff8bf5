"""What must not work, as commands: the documented exit code, a clear message, no traceback, and nothing left behind."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.cli.main import main

PROGRAM = [sys.executable, "-m", "graphopt"]


@dataclasses.dataclass(frozen=True)
class Place:
    """A folder with ``in.onnx``, and an empty one for the output."""

    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "in.onnx"

    @property
    def output(self) -> Path:
        return self.folder / "out" / "out.onnx"

    def left(self) -> list[str]:
        """What is in the output folder."""
        return sorted(path.name for path in self.output.parent.iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "out").mkdir()
    return Place(tmp_path)


def value(name: str, shape: list[int | str] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4] if shape is None else shape)


def model(*nodes: onnx.NodeProto, opset: int | None = 21, **weights: Any) -> onnx.ModelProto:
    """x -> y, both float[N, 4], with initializers."""
    held = [numpy_helper.from_array(np.asarray(weight), name) for name, weight in weights.items()]
    graph = helper.make_graph(list(nodes), "g", [value("x")], [value("y")], held)
    opsets = [] if opset is None else [helper.make_opsetid("", opset)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if opset is None:
        del made.opset_import[:]
    return made


def node(text: str, **attributes: Any) -> onnx.NodeProto:
    """``a, b = Op(c, d)``."""
    outputs, _, call = text.partition(" = ")
    op, _, inputs = call.rstrip(")").partition("(")
    return helper.make_node(op, inputs.split(", "), outputs.split(", "), **attributes)


RELU = model(node("y = Relu(x)"))
GOOD = RELU.SerializeToString()


def changed(change: Callable[[onnx.ModelProto], object], start: onnx.ModelProto = RELU) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(start)
    change(copy)
    return copy


def deep(levels: int) -> bytes:
    """If in If; written by hand, because protobuf cannot write what it cannot read."""

    def record(field: int, payload: bytes) -> bytes:
        size, count = len(payload), bytearray([field << 3 | 2])
        while size > 127:
            count.append(size & 127 | 128)
            size >>= 7
        return bytes(count) + bytes([size]) + payload

    graph = helper.make_graph([node("o = Relu(x)")], "g", [], [value("o")]).SerializeToString()
    for _ in range(levels):
        branch = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH).SerializeToString()
        inner = node("o = If(c)").SerializeToString() + record(5, branch + record(6, graph))
        graph = record(1, inner)
    return record(7, graph)


REFUSED: dict[str, tuple[bytes | onnx.ModelProto, str]] = {
    "truncated": (GOOD[:-3], "cut short"),
    "empty": (b"", "the file is empty"),
    "text": (b"hello, I am a text\n" * 100, "not an ONNX model"),
    "zeros": (bytes(4096), "not an ONNX model"),
    "no graph": (changed(lambda m: m.ClearField("graph")), "there is no graph"),
    "nested too deeply": (deep(60), "nested"),
    "cyclic": (model(node("a = Add(x, b)"), node("b = Relu(a)"), node("y = Relu(b)")), "cycle"),
    "two values": (model(node("y = Relu(x)"), node("y = Neg(x)")), "'y' is defined twice"),
    "two inputs": (changed(lambda m: m.graph.input.append(value("x"))), "'x' is defined twice"),
    "two initializers": (
        changed(
            lambda m: m.graph.initializer.append(m.graph.initializer[0]), model(node("y = Add(x, w)"), w=np.ones(4))
        ),
        "two initializers of the same name",
    ),
    "dangling": (model(node("y = Add(x, nowhere)")), "'nowhere', which nothing in the graph defines"),
    "no output": (model(node("z = Relu(x)")), "output 'y' of graph 'g' is produced by nothing"),
    "negative extent": (
        changed(lambda m: m.graph.initializer[0].dims.__setitem__(0, -4), model(node("y = Add(x, w)"), w=np.ones(4))),
        "negative dimension",
    ),
    "absurd extent": (
        changed(
            lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**62), model(node("y = Add(x, w)"), w=np.ones(4))
        ),
        "needs",
    ),
}

UNPROVEN: dict[str, onnx.ModelProto] = {
    "unknown domain": model(helper.make_node("Foo", ["x"], ["y"], domain="my.own")),
    "newer opset": model(node("y = Relu(x)"), opset=99),
    "no nodes, no outputs": changed(lambda m: (m.graph.ClearField("node"), m.graph.ClearField("output"))),
    "extents": changed(lambda m: m.graph.input[0].CopyFrom(value("x", [2**40, 2**40]))),
    "ConstantOfShape": model(node("b = ConstantOfShape(s)"), node("y = Add(x, b)"), s=np.array([10**6, 10**6])),
    "Expand": model(node("b = Expand(x, s)"), node("y = Add(x, b)"), s=np.array([10**6, 10**6, 1, 4])),
    "Tile": model(node("b = Tile(x, s)"), node("y = Add(x, b)"), s=np.array([10**6, 10**6])),
    "smallest by -1": model(
        node("c = Div(a, b)"),
        node("d = Cast(c)", to=1),
        node("y = Add(x, d)"),
        a=np.array([-(2**63)]),
        b=np.array([-1]),
    ),
}


def endless() -> onnx.ModelProto:
    """A Loop of 1e9 trips."""
    body = helper.make_graph(
        [node("d = Identity(c)"), node("w = Add(v, one)")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", 9, []),
            value("v"),
        ],
        [helper.make_tensor_value_info("d", 9, []), value("w")],
        [numpy_helper.from_array(np.ones(4, np.float32), "one")],
    )
    return model(node("y = Loop(n, c0, x)", body=body), n=np.array(10**9), c0=np.array(True))


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("flags", [[], ["--no-validate"]])
def test_refused(name: str, flags: list[str], place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    content, words = REFUSED[name]
    place.source.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    place.output.write_bytes(b"old")
    assert main(["optimize", str(place.source), str(place.output), "--json", *flags]) == 3
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert words in said.err
    assert str(place.source) in said.err
    assert said.out == ""
    assert place.left() == ["out.onnx"]
    assert place.output.read_bytes() == b"old"


@pytest.mark.parametrize("name", UNPROVEN)
def test_unproven(name: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.source.write_bytes(UNPROVEN[name].SerializeToString())
    assert main(["optimize", str(place.source), str(place.output), "--json"]) == 6
    assert json.loads(capsys.readouterr().out)["status"] == "unproven"
    assert place.left() == ["out.onnx"]
    assert main(["optimize", str(place.source), str(place.output), "-q", "--no-validate"]) == 0


def test_no_opset(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.source.write_bytes(model(node("y = Relu(x)"), opset=None).SerializeToString())
    assert main(["optimize", str(place.source), str(place.output)]) == 3
    assert "imports no usable version" in capsys.readouterr().err
    assert place.left() == []


def test_endless_loop_ends(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.source.write_bytes(endless().SerializeToString())
    start = time.monotonic()
    assert main(["optimize", str(place.source), str(place.output), "--time-limit", "1"]) == 7
    assert time.monotonic() - start < 10
    assert "--time-limit" in capsys.readouterr().err
    assert place.left() == []


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched on Linux only")
def test_memory_bomb_is_stopped(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [node("c0 = Concat(x, x)", axis=0), *(node(f"c{n + 1} = Concat(c{n}, c{n})", axis=0) for n in range(40))]
    place.source.write_bytes(model(*nodes, node("y = ReduceMax(c40)", keepdims=1)).SerializeToString())
    assert main(["optimize", str(place.source), str(place.output), "--memory-limit", "300MB"]) == 7
    assert "more than 300 MB of memory" in capsys.readouterr().err
    assert place.left() == []


def calling(*bodies: str, inputs: str = "x") -> onnx.ModelProto:
    """y = f0(x); each body says what f0, f1, ... compute."""
    made = model(helper.make_node("f0", inputs.split(), ["y"], domain="own"))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    made.opset_import.append(opsets[1])
    for index, body in enumerate(bodies):
        nodes = [node(line) for line in body.splitlines()]
        for call in nodes:
            call.domain = "own" if call.op_type.startswith("f") else ""
        made.functions.append(helper.make_function("own", f"f{index}", ["a"], ["b"], nodes, opsets))
    return made


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (calling("b = f0(a)"), 3, "calls itself"),
        (calling("b = f1(a)", "b = f0(a)"), 3, "calls itself"),
        (calling("b = Relu(a)", inputs="x x"), 3, "more operands"),
        (calling(*(f"c = f{n + 1}(a)\nb = f{n + 1}(c)" for n in range(40)), "b = Relu(a)"), 7, "nodes, more than"),
    ],
    ids=["recursive", "mutually", "operands", "exponential"],
)
def test_inspecting_functions(
    made: onnx.ModelProto, code: int, words: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.source.write_bytes(made.SerializeToString())
    assert main(["inspect", str(place.source)]) == code
    assert words in capsys.readouterr().err


# External data


def external(place: Place, location: str = "w.bin") -> None:
    made = model(node("y = Mul(x, w)"), w=np.ones(4, np.float32))
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    place.source.write_bytes(made.SerializeToString())


@pytest.mark.parametrize("command", ["optimize", "validate", "inspect", "bench"])
@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("../w.bin", "leads out of the model's folder"),
        ("a/../../w.bin", "leads out of the model's folder"),
        ("/etc/passwd", "an absolute path"),
        ("w.bin", "cannot be read"),
        (".", "no regular file"),
    ],
)
def test_external_data(
    command: str, location: str, words: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    external(place, location)
    second = {"optimize": [str(place.output)], "validate": [str(place.source)]}.get(command, [])
    assert main([command, str(place.source), *second]) == 3
    assert words in capsys.readouterr().err
    assert place.left() == []


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "outside of the model's folder"),
        (lambda path: os.mkfifo(path), "no regular file"),
    ],
    ids=["loop", "outside", "pipe"],
)
def test_external_data_that_is_no_file(
    make: Callable[[Path], None], words: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    external(place)
    make(place.folder / "w.bin")
    assert main(["optimize", str(place.source), str(place.output)]) == 3
    assert words in capsys.readouterr().err


def test_output_over_the_own_weights(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    external(place)
    weights = place.folder / "w.bin"
    weights.write_bytes(np.ones(4, np.float32).tobytes())
    assert main(["optimize", str(place.source), str(weights)]) == 4
    assert "the weights of the model lie in that file" in capsys.readouterr().err
    assert weights.read_bytes() == np.ones(4, np.float32).tobytes()


# Options


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--passes", ""], 2),
        (["--passes", "fold-constant"], 2),
        (["--skip", "nothing-of-that-name"], 2),
        (["--target", "gpu"], 2),
        (["--seed", "-1"], 2),
        (["--time-limit", "0"], 2),
        (["--time-limit", "nan"], 2),
        (["--time-limit", "0.001"], 7),
        (["--memory-limit", "0"], 2),
        (["--memory-limit", "1"], 7),
        (["--input-shape", "x"], 2),
        (["--input-shape", "x:-1,4"], 2),
        (["--input-shape", "z:1,4"], 2),
        (["--input-shape", "x:1,4,4"], 2),
        (["--provider", "nonsense"], 8),
        (["--custom-ops", "missing.so"], 2),
        (["--custom-ops", __file__], 2),
    ],
    ids=str,
)
def test_options(flags: list[str], code: int, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.source.write_bytes(GOOD)
    assert main(["optimize", str(place.source), str(place.output), *flags]) == code
    assert capsys.readouterr().err.startswith("error: ")
    assert place.left() == []


@pytest.mark.parametrize("tolerance", ["--rtol", "--atol"])
def test_no_tolerance_is_a_usage_error(tolerance: str, place: Place) -> None:
    place.source.write_bytes(GOOD)
    place.output.write_bytes(model(node("y = Neg(x)")).SerializeToString())
    assert main(["validate", str(place.source), str(place.output), tolerance, "nan"]) == 2
    assert main(["validate", str(place.source), str(place.output), "-q"]) == 5


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("unpickled"),))


def _archive(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.npy", content)
    return packed.getvalue()


def _arrays(**arrays: Any) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        pickle.dumps(_Evil()),
        _arrays(x=np.array([[_Evil()] * 4])),
        _arrays(x=np.ones((2, 4), np.float32))[:150],
        _arrays(x=np.ones((2, 4))),
        _arrays(x=np.ones((2, 5), np.float32)),
        _arrays(z=np.ones((2, 4), np.float32)),
        _arrays(),
        _archive(b"no array"),
        _archive(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"{'descr': [(('(".ljust(117) + b"\n"),
    ],
    ids=["empty", "text", "pickle", "objects", "cut", "dtype", "shape", "name", "nothing", "bytes", "header"],
)
def test_inputs(
    content: bytes, place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    place.source.write_bytes(GOOD)
    (place.folder / "feeds.npz").write_bytes(content)
    assert main(["optimize", "in.onnx", "out/out.onnx", "--inputs", "feeds.npz"]) == 3
    assert "feeds.npz: " in capsys.readouterr().err
    assert place.left() == []
    assert not Path("unpickled").exists()


# The process


@pytest.mark.skipif(os.name != "posix", reason="POSIX shells close streams so")
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_closed_streams(closed: str, place: Place) -> None:
    place.source.write_bytes(GOOD)
    command = f'exec "$@" {closed}'
    done = subprocess.run(
        ["bash", "-c", command, "-", *PROGRAM, "optimize", str(place.source), str(place.output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    onnx.checker.check_model(onnx.load(place.output))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_nothing(number: signal.Signals, place: Place) -> None:
    place.source.write_bytes(endless().SerializeToString())
    scratch = place.folder / "scratch"
    scratch.mkdir()
    tag = f"ROBUSTNESS_{place.folder.name}_{number}"
    running = subprocess.Popen(
        [*PROGRAM, "bench", str(place.source), "-v"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch), tag: "1"},
    )
    deadline = time.monotonic() + 30
    while not list(scratch.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(scratch.iterdir()), "the benchmark has something to clean up"
    running.send_signal(number)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert said.endswith("interrupted\n")
    assert list(scratch.iterdir()) == []
    while (orphans := _processes_with(tag)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert orphans == []


def _processes_with(variable: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


def test_onnx_runtime_leaves_no_file(place: Place) -> None:
    place.source.write_bytes(GOOD)
    command = [*PROGRAM, "validate", str(place.source), str(place.source), "-q"]
    environment = {**os.environ, "TMPDIR": str(place.output.parent)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert place.left() == []
