"""What needs room: 3 GB in 6 GB of memory, a save that is killed, a disk that is full."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.graphs import many_bytes

import graphopt
from graphopt.errors import SaveError

ROOT = Path(__file__).parents[1]
GIB = 2**30
LIMIT = 6 * 10**9


def _start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "passes")])},
    )


def _tree(pid: int) -> Iterator[int]:
    """The process and all that descend from it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))


def _anonymous(pid: int) -> int:
    """Bytes of memory, file pages left out: the system can drop those at any time."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return sum(int(fields.get(key, "0").split()[0]) for key in ("RssAnon", "RssShmem")) * 1024


def _peak(process: subprocess.Popen[str]) -> int:
    """The most memory of the process and its children together until it ends."""
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, sum(_anonymous(pid) for pid in _tree(process.pid)))
        except (FileNotFoundError, ProcessLookupError):
            continue  # one of them ended while we looked
        time.sleep(0.02)
    return peak


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured through /proc")
def test_three_gigabytes_in_six(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    if shutil.disk_usage(tmp_path).free < 8 * GIB:
        pytest.skip("needs 8 GB of disk")
    source, result = tmp_path / "large.onnx", tmp_path / "result.onnx"
    many_bytes(source, 3072, external=True, width=4096)
    code = (
        "import sys, graphopt\n"
        "model, report = graphopt.optimize(sys.argv[1], with_report=True)\n"
        "graphopt.save(model, sys.argv[2])\n"
        "print(report.status, report.before.nodes, report.after.nodes, [one.name for one in report.dropped])"
    )
    process = _start(code, source, result)
    peak = _peak(process)
    assert process.stdout is not None
    said = process.stdout.read()
    record_property("figures", {"3 GB model: peak MB of anonymous memory": peak // 10**6})
    assert process.returncode == 0, said
    assert said.startswith("proven")
    assert said.rstrip().endswith("[]")
    assert peak < LIMIT
    assert graphopt.load(result).graph.num_nodes() < graphopt.load(source).graph.num_nodes()


def _digest(path: Path) -> str:
    """Of everything the model holds, wherever its data lie."""
    digest = hashlib.sha256()
    for value in graphopt.load(path).graph.initializers.values():
        assert value.const_value is not None
        digest.update(value.const_value.tobytes())
    return digest.hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
def test_kill_in_the_middle_of_a_save(tmp_path: Path, external: bool) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    old = graphopt.load(many_bytes(tmp_path / "old.onnx", 32, external=False))
    new = many_bytes(tmp_path / "new.onnx", 256, external=True, seed=1)
    target = folder / "model.onnx"
    code = f"import sys, graphopt\ngraphopt.save(graphopt.load(sys.argv[1]), sys.argv[2], external_data={external})"
    killed_early = 0
    for attempt in range(6):
        graphopt.save(old, target, external_data=external)
        before = _digest(target)
        process = _start(code, new, target)
        while process.poll() is None and not any(path.name.endswith(".tmp") for path in folder.iterdir()):
            time.sleep(0.001)
        time.sleep(0.03 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = _digest(target)
        killed_early += after == before
        assert after in {before, _digest(new)}
    assert killed_early, "every save was done before it was killed"
    graphopt.save(old, target, external_data=external)
    assert _digest(target) == _digest(tmp_path / "old.onnx")
    assert len(list(folder.iterdir())) == 1 + external, sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
def test_full_disk(small_disk: Path, tmp_path: Path, external: bool) -> None:
    target = small_disk / "model.onnx"
    small = graphopt.load(many_bytes(tmp_path / "small.onnx", 1, external=False, width=512))
    graphopt.save(small, target, external_data=external)
    before = {path.name: path.read_bytes() for path in small_disk.iterdir()}
    large = graphopt.load(many_bytes(tmp_path / "large.onnx", 16, external=False, width=1024))
    with pytest.raises(SaveError, match="space"):
        graphopt.save(large, target, external_data=external)
    assert {path.name: path.read_bytes() for path in small_disk.iterdir()} == before
