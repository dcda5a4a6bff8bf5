"""Files: paths, external data, memory, and saves that leave the old file or the new one, whatever happens."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from graphopt import atomic, io
from graphopt.errors import ModelError, SaveError, UsageError
from graphopt.proto.tensors import BufferTensor

ROOT = Path(__file__).parents[1]
WEIGHTS = np.arange(1 << 18, dtype=np.float32).reshape(512, 512)  # 1 MiB: enough to be mapped


def example(path: Path, *, weights: np.ndarray[Any, Any] = WEIGHTS, location: str | None = None, **entry: Any) -> Path:
    """Write x @ w; with a ``location``, w refers to external data there (which is not written)."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)
    if location is not None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, content in ({"location": location} | entry).items():
            tensor.external_data.add(key=key, value=str(content))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weights.shape[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", weights.shape[1]])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="n")], "g", [x], [y], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def external_example(folder: Path) -> Path:
    (folder / "w.bin").write_bytes(bytes(64) + WEIGHTS.tobytes())
    return example(folder / "in.onnx", location="w.bin", offset=64, length=WEIGHTS.nbytes)


def weights_of(model: ir.Model) -> np.ndarray[Any, Any]:
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    array: np.ndarray[Any, Any] = tensor.numpy()
    return array


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Loading


def test_relative_paths_are_resolved_at_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a folder").mkdir()
    example(tmp_path / "a folder" / "in put.onnx")
    monkeypatch.chdir(tmp_path)
    model = io.load("a folder/in put.onnx")
    assert model.meta["graphopt.path"] == str(tmp_path / "a folder" / "in put.onnx")
    monkeypatch.chdir(tmp_path / "a folder")
    io.save(model, "out.onnx")
    assert names(tmp_path / "a folder") == ["in put.onnx", "out.onnx"]


def test_bytes_and_messages_load_too(tmp_path: Path) -> None:
    path = example(tmp_path / "in.onnx")
    for source in (path.read_bytes(), onnx.load(path), str(path), path):
        np.testing.assert_array_equal(weights_of(io.load(source)), WEIGHTS)
    assert "graphopt.path" not in io.load(path.read_bytes()).meta


@pytest.mark.parametrize("change", ["replaced", "deleted"])
@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
def test_a_loaded_model_does_not_change_with_its_files(tmp_path: Path, external: bool, change: str) -> None:
    path = external_example(tmp_path) if external else example(tmp_path / "in.onnx")
    model = io.load(path)
    for file in tmp_path.iterdir():
        if change == "deleted":
            file.unlink()
        else:
            (tmp_path / "new").write_bytes(bytes(file.stat().st_size))
            (tmp_path / "new").replace(file)
    np.testing.assert_array_equal(weights_of(model), WEIGHTS)


def test_weights_stay_in_their_file(tmp_path: Path) -> None:
    for path in (example(tmp_path / "embedded.onnx"), external_example(tmp_path)):
        tensor = io.load(path).graph.initializers["w"].const_value
        assert isinstance(tensor, BufferTensor)
        assert type(memoryview(tensor.raw).obj).__name__ == "mmap"
        assert not tensor.numpy().flags.owndata


def make(path: Path, content: bytes | None) -> Path:
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (None, "directory"),
        (b"hello, this is a text file and no model at all\n" * 3, "not an ONNX model"),
        (b"\x08\x08", "no graph"),
    ],
    ids=["empty", "folder", "text", "no graph"],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = make(tmp_path / "in.onnx", content)
    with pytest.raises(ModelError, match=f"(?i){message}") as caught:
        io.load(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx.*No such file"):
        io.load(tmp_path / "none.onnx")
    with pytest.raises(ModelError):
        io.load("nul\0byte")


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = example(tmp_path / "in.onnx")
    whole = path.read_bytes()
    for size in (1, 10, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            io.load(path)


@pytest.mark.parametrize(
    ("location", "entry", "message"),
    [
        ("../w.bin", {}, "out of the model's folder"),
        ("a/../../w.bin", {}, "out of the model's folder"),
        ("/etc/passwd", {}, "absolute"),
        ("C:\\w.bin", {}, "absolute"),
        ("", {}, "no usable name"),
        ("missing.bin", {}, r"missing\.bin.*No such file"),
        ("link.bin", {}, "outside of the model's folder"),
        (".", {}, "no regular file"),
        ("w.bin", {"offset": 128, "length": WEIGHTS.nbytes}, "only"),
        ("w.bin", {"offset": 1 << 62, "length": 1}, "only"),
        ("w.bin", {"offset": "-1"}, "no byte count"),
        ("w.bin", {"length": "many"}, "no byte count"),
        ("w.bin", {"length": 8}, "needs"),
    ],
)
def test_bad_external_data_are_refused(tmp_path: Path, location: str, entry: dict[str, Any], message: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "w.bin").write_bytes(bytes(64) + WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    path = example(folder / "in.onnx", location=location, **entry)
    with pytest.raises(ModelError, match=message) as caught:
        io.load(path)
    assert "'w'" in str(caught.value)


def test_links_inside_the_folder_and_model_hub_caches_load(tmp_path: Path) -> None:
    """A hub's snapshot holds links to files that lie together in another folder."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    path = external_example(blobs)
    path.rename(blobs / "1234")
    (blobs / "w.bin").rename(blobs / "5678")
    (snapshot / "in.onnx").symlink_to(blobs / "1234")
    (snapshot / "w.bin").symlink_to(blobs / "5678")
    np.testing.assert_array_equal(weights_of(io.load(snapshot / "in.onnx")), WEIGHTS)


def test_external_data_without_a_length(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes() + b"more")
    model = io.load(example(tmp_path / "in.onnx", location="w.bin"))
    np.testing.assert_array_equal(weights_of(model), WEIGHTS)


# Saving


def test_saving_over_the_input(tmp_path: Path) -> None:
    path = example(tmp_path / "in.onnx")
    before = path.read_bytes()
    model = io.load(path)
    for _ in range(2):
        io.save(model, path)
        np.testing.assert_array_equal(weights_of(model), WEIGHTS)
    assert onnx.load_from_string(path.read_bytes()) == onnx.load_from_string(before)
    assert names(tmp_path) == ["in.onnx"]


def test_external_data_on_request(tmp_path: Path) -> None:
    model = io.load(example(tmp_path / "in.onnx"))
    io.save(model, tmp_path / "out.onnx", external_data=True)
    assert names(tmp_path) == ["in.onnx", "out.onnx", "out.onnx.data"]
    assert (tmp_path / "out.onnx").stat().st_size < 1000
    onnx.checker.check_model(tmp_path / "out.onnx")
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(onnx.load(tmp_path / "out.onnx").graph.initializer[0]), WEIGHTS
    )
    assert weights_of(io.load(tmp_path / "out.onnx")).flags.aligned


def test_external_stays_external_unless_asked(tmp_path: Path) -> None:
    model = io.load(external_example(tmp_path))
    assert model.meta["graphopt.external"] == {str(tmp_path / "w.bin"): 64 + WEIGHTS.nbytes}
    io.save(model, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").exists()
    io.save(model, tmp_path / "one.onnx", external_data=False)
    assert not (tmp_path / "one.onnx.data").exists()
    np.testing.assert_array_equal(weights_of(io.load(tmp_path / "one.onnx")), WEIGHTS)


def test_small_weights_stay_inside(tmp_path: Path) -> None:
    model = io.load(example(tmp_path / "in.onnx"))
    io.save(model, tmp_path / "out.onnx", external_data=True, size_threshold=WEIGHTS.nbytes + 1)
    assert names(tmp_path) == ["in.onnx", "out.onnx"]


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    model = io.load(example(tmp_path / "in.onnx"))
    model.graph.initializers.add(ir.Value(name="v", const_value=model.graph.initializers["w"].const_value))
    io.save(model, tmp_path / "out.onnx", external_data=True)
    assert (tmp_path / "out.onnx.data").stat().st_size == WEIGHTS.nbytes
    tensors = onnx.load(tmp_path / "out.onnx").graph.initializer
    assert [tensor.name for tensor in tensors] == ["w", "v"]


def test_saving_external_data_over_the_input(tmp_path: Path) -> None:
    """The old data file keeps its name until the new model is in place, and then goes."""
    path = tmp_path / "net.onnx"
    io.save(io.load(example(tmp_path / "in.onnx")), path, external_data=True)
    for expected in ("net.onnx.1.data", "net.onnx.data", "net.onnx.1.data"):
        model = io.load(path)
        io.save(model, path)
        assert names(tmp_path) == ["in.onnx", "net.onnx", expected]
        np.testing.assert_array_equal(weights_of(io.load(path)), WEIGHTS)
        np.testing.assert_array_equal(weights_of(model), WEIGHTS)
    io.save(io.load(path), path, external_data=False)
    assert names(tmp_path) == ["in.onnx", "net.onnx"]


def test_data_files_of_others_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    others = ["net.onnx.data", "net.onnx.5.data", "net.onnx.backup.data", ".net.onnx.x.tmp", "net.onnx.0.tmp"]
    for name in others:
        (tmp_path / name).write_bytes(b"precious")
    model = io.load(example(tmp_path / "in.onnx"))
    io.save(model, path, external_data=True)
    io.save(model, path, external_data=False)
    assert all((tmp_path / name).read_bytes() == b"precious" for name in others)


def test_links_and_permissions_are_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = example(tmp_path / "real" / "net.onnx")
    real.chmod(0o640)
    (tmp_path / "link.onnx").symlink_to(real)
    model = io.load(tmp_path / "link.onnx")
    io.save(model, tmp_path / "link.onnx", external_data=True)
    assert (tmp_path / "link.onnx").is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    np.testing.assert_array_equal(weights_of(io.load(tmp_path / "link.onnx")), WEIGHTS)


def test_new_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    io.save(io.load(example(tmp_path / "in.onnx")), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    model = io.load(example(tmp_path / "in.onnx"))
    os.mkfifo(tmp_path / "pipe")
    for target, message in (
        (tmp_path, "folder"),
        (tmp_path / "none" / "out.onnx", "there is no folder"),
        (tmp_path / "in.onnx" / "out.onnx", "in.onnx"),
        (tmp_path / "pipe", "no regular file"),
        ("nul\0byte", "null"),
    ):
        with pytest.raises(SaveError, match=message):
            io.save(model, target)
    assert names(tmp_path) == ["in.onnx", "pipe"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_targets(tmp_path: Path) -> None:
    path = example(tmp_path / "in.onnx")
    model = io.load(path)
    path.chmod(0o400)
    with pytest.raises(SaveError, match="read-only"):
        io.save(model, path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SaveError, match="Permission"):
            io.save(model, tmp_path / "out.onnx")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_failed_saves_leave_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, failing: str, external: bool
) -> None:
    path = tmp_path / "net.onnx"
    model = io.load(example(path))
    io.save(model, path, external_data=external)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    def fail(*_: Any) -> Any:
        raise error

    holder: Any = Path if failing == "replace" else os
    monkeypatch.setattr(holder, failing, fail)
    with pytest.raises((SaveError, KeyboardInterrupt)):
        io.save(model, path, external_data=external)
    monkeypatch.undo()
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_models_of_other_kinds_are_saved_too(tmp_path: Path) -> None:
    path = example(tmp_path / "in.onnx")
    message = onnx.load(path)
    untouched = message.SerializeToString()
    io.save(message, tmp_path / "out.onnx", external_data=True)
    assert message.SerializeToString() == untouched
    np.testing.assert_array_equal(weights_of(io.load(tmp_path / "out.onnx")), WEIGHTS)
    graphsurgeon = pytest.importorskip("onnx_graphsurgeon")
    graph = graphsurgeon.import_onnx(message)
    io.save(graph, tmp_path / "surgeon.onnx")
    np.testing.assert_array_equal(weights_of(io.load(graph)), WEIGHTS)
    np.testing.assert_array_equal(weights_of(io.load(tmp_path / "surgeon.onnx")), WEIGHTS)


def test_a_loaded_model_is_another_one(tmp_path: Path) -> None:
    model = io.load(example(tmp_path / "in.onnx"))
    copy = io.load(model)
    assert copy.meta["graphopt.path"] == model.meta["graphopt.path"]
    copy.graph.initializers.clear()
    np.testing.assert_array_equal(weights_of(model), WEIGHTS)
    given: Any = 5
    with pytest.raises(UsageError, match="int is no model"):
        io.load(given)


def test_what_is_no_model_is_not_saved(tmp_path: Path) -> None:
    given: Any
    for given, words in (
        (b"", "a builtins.bytes is no model"),
        (None, "no model"),
        (tmp_path / "in.onnx", "is a path"),
    ):
        with pytest.raises(UsageError, match=words):
            io.save(given, tmp_path / "out.onnx")
    assert names(tmp_path) == []


def test_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = io.load(example(tmp_path / "in.onnx"))

    def fail(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(SaveError, match=r"out\.onnx.*No space left") as caught:
        io.save(model, tmp_path / "out.onnx")
    assert "Free some room" in caught.value.hint


# Killed saves

_SAVE = """
import os, signal, sys
from graphopt import atomic, io
step, source, target, external = sys.argv[1:]
model = io.load(source)

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def die_after(call):
    def called(*args, **options):
        call(*args, **options)
        die()
    return called

if step == "data fsync" or step == "fsync":
    atomic.os.fsync = die
elif step == "link":
    io._link = die_after(io._link)
elif step == "replace":
    atomic.Path.replace = die_after(atomic.Path.replace)
elif step == "remove":
    io._remove = die
io.save(model, target, external_data=external == "True")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("step", "external"),
    [("fsync", False), ("replace", False), ("fsync", True), ("link", True), ("replace", True), ("remove", True)],
)
def test_killed_saves_leave_a_working_model(tmp_path: Path, step: str, external: bool) -> None:
    source = example(tmp_path / "in.onnx", weights=WEIGHTS + 1)
    path = tmp_path / "net.onnx"
    io.save(io.load(example(path)), path, external_data=external)
    command = [sys.executable, "-c", _SAVE, step, str(source), str(path), str(external)]
    died = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert died.returncode == -signal.SIGKILL
    expected = WEIGHTS + 1 if step in {"replace", "remove"} else WEIGHTS
    np.testing.assert_array_equal(weights_of(io.load(path)), expected)
    io.save(io.load(source), path, external_data=external)
    np.testing.assert_array_equal(weights_of(io.load(path)), WEIGHTS + 1)
    left = [name for name in names(tmp_path) if name.startswith(".") or name.endswith(".data")]
    assert len(left) == external, left


def test_a_save_in_progress_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    model = io.load(example(tmp_path / "in.onnx"))
    target = tmp_path / "out.onnx"
    with atomic.Replacement(target) as other:
        other.write([b"unfinished"])
        io.save(model, target)
        io.save(model, target, external_data=True)
        assert other.path.read_bytes() == b"unfinished"
    assert names(tmp_path) == ["in.onnx", "out.onnx", "out.onnx.data"]


def test_many_runs_at_once(tmp_path: Path) -> None:
    """Runs that save to one target all the while leave one whole model, and it is never broken in between."""
    source = example(tmp_path / "in.onnx")
    path = tmp_path / "net.onnx"
    io.save(io.load(source), path, external_data=True)
    program = textwrap.dedent(
        """
        import sys
        from graphopt import io
        model = io.load(sys.argv[1])
        for turn in range(15):
            io.save(model, sys.argv[2], external_data=turn % 3 > 0)
        """
    )
    command = [sys.executable, "-c", program, str(source), str(path)]
    runs = [subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) for _ in range(3)]
    while any(run.poll() is None for run in runs):
        np.testing.assert_array_equal(weights_of(io.load(path)), WEIGHTS)
    assert [run.returncode for run in runs] == [0, 0, 0]
    np.testing.assert_array_equal(weights_of(io.load(path)), WEIGHTS)
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    io.save(io.load(path), path, external_data=False)
    assert names(tmp_path) == ["in.onnx", "net.onnx"]


# Memory

_PEAK = """
import sys, threading, time
from graphopt import io, proto
proto.to_buffers(io.load(sys.argv[3]))  # imports and caches

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024

start, peak, done = anonymous(), [0], threading.Event()

def watch():
    while not done.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
io.save(io.load(sys.argv[1]), sys.argv[2])
done.set()
thread.join()
print(peak[0] - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(("kind", "megabytes"), [("embedded", 400), ("external", 400), ("external", 3000)])
def test_memory_stays_flat(tmp_path: Path, kind: str, megabytes: int) -> None:
    """Loading and saving takes at most a tenth of the model in anonymous memory (it takes next to none)."""
    size = megabytes << 20
    path = big_model(tmp_path / "big.onnx", size, external=kind == "external")
    command = [sys.executable, "-c", _PEAK, str(path), str(tmp_path / "out.onnx"), str(ROOT / "models/surf_gbr.onnx")]
    run = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True
    )
    assert int(run.stdout) < size // 10
    written = sum(file.stat().st_size for file in tmp_path.glob("out.onnx*"))
    assert abs(written - size) < 1 << 20


def big_model(path: Path, size: int, *, external: bool) -> Path:
    """A model of 32 equal weights, written without holding it in memory: its weights are a sparse file's zeros."""
    rows = size // 32 // 4096
    tensors = []
    for index in range(32):
        tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[rows, 1024])
        if external:
            tensor.data_location = TensorProto.EXTERNAL
            for key, content in ("location", "big.bin"), ("offset", index * rows * 4096), ("length", rows * 4096):
                tensor.external_data.add(key=key, value=str(content))
        else:
            tensor.raw_data = bytes(rows * 4096)
        tensors.append(tensor)
    if external:
        (path.parent / "big.bin").touch()
        os.truncate(path.parent / "big.bin", 32 * rows * 4096)
    nodes = [helper.make_node("Identity", [tensor.name], [f"y{tensor.name}"]) for tensor in tensors]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes]
    graph = helper.make_graph(nodes, "g", [], outputs, tensors)
    path.write_bytes(helper.make_model(graph, ir_version=10).SerializeToString())
    return path


@pytest.mark.slow
def test_more_than_two_gigabytes_become_external(tmp_path: Path) -> None:
    model = io.load(big_model(tmp_path / "big.onnx", 2200 << 20, external=True))
    with pytest.raises(SaveError, match="holds at most"):
        io.save(model, tmp_path / "out.onnx", external_data=False)
    del model.meta["graphopt.external"]
    io.save(model, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").stat().st_size == 2200 << 20
    assert names(tmp_path) == ["big.bin", "big.onnx", "out.onnx", "out.onnx.data"]
