"""The cache of a teacher's outputs: right, complete or refused, whatever happens while it is filled."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import parse

from graphopt import io
from graphopt.distillation import filling
from graphopt.distillation.batch import TopK
from graphopt.distillation.cache import Cache, Contents
from graphopt.distillation.sparse import top_k
from graphopt.distillation.storage import Header
from graphopt.distillation.teacher import Teacher
from graphopt.errors import GraphoptError, LimitReached, ModelError, SaveError, UsageError

COUNT, CLASSES = 700, 9
RNG = np.random.default_rng(0)
W = RNG.standard_normal((4, CLASSES)).astype(np.float32)
X = RNG.standard_normal((COUNT, 4)).astype(np.float32)
MODEL = parse(f"agraph (float[N,4] x) => (float[N,{CLASSES}] y) {{ h = MatMul(x, w)\n y = Relu(h) }}", {"w": W})


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(MODEL, ["y", "h"], threads=1)


def feed(ids: Any, view: int) -> dict[str, Any]:
    return {"x": X[ids] + np.float32(view)}


def contents(teacher: Teacher, **more: Any) -> Contents:
    return Contents.of(teacher, "data", COUNT, **more)


def truth(teacher: Teacher, ids: Any, view: int = 0) -> dict[str, torch.Tensor]:
    return teacher.tensors(feed(ids, view))


def test_whole_outputs_of_every_view(teacher: Teacher, tmp_path: Path) -> None:
    of = contents(teacher, views=3)
    cache = Cache.fill(tmp_path / "a" / "cache", of, teacher, feed, batch=100)
    ids = np.array([699, 0, 5, 5, 256, 255])
    for opened in (cache, Cache.open(tmp_path / "a" / "cache", of)):
        for view in range(3):
            found = opened.targets(ids, view, {})
            assert list(found) == ["y", "h"]
            for name, value in truth(teacher, ids, view).items():
                assert isinstance(found[name], torch.Tensor)
                torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
    assert cache.bytes == 3 * COUNT * CLASSES * 4 * 2
    for ids, view in ((np.array([COUNT]), 0), (np.array([-1]), 0), (np.array([0]), 3)):
        with pytest.raises(IndexError):
            cache.targets(ids, view)


def test_the_same_bits_as_online(teacher: Teacher, tmp_path: Path) -> None:
    cache = Cache.fill(tmp_path / "c", contents(teacher), teacher, feed, batch=100)
    ids = np.arange(100, 200)
    for name, value in truth(teacher, ids).items():
        assert torch.equal(cache.targets(ids, 0)[name], value)  # type: ignore[arg-type]


def test_half(teacher: Teacher, tmp_path: Path) -> None:
    cache = Cache.fill(tmp_path / "c", contents(teacher, half=True), teacher, feed)
    found = cache.targets(np.arange(COUNT), 0)["h"]
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float32
    assert torch.equal(found, truth(teacher, np.arange(COUNT))["h"].half().float())
    assert cache.bytes == COUNT * CLASSES * 2 * 2


@pytest.mark.parametrize("half", [False, True])
def test_top_k(teacher: Teacher, tmp_path: Path, half: bool) -> None:
    of = contents(teacher, k=3, temperature=4.0, half=half)
    assert of.classes == ("y",)
    Cache.fill(tmp_path / "c", of, teacher, feed)
    found = Cache.open(tmp_path / "c", of).targets(np.arange(COUNT), 0)
    assert isinstance(found["h"], torch.Tensor)
    kept = found["y"]
    assert isinstance(kept, TopK)
    expected = top_k(truth(teacher, np.arange(COUNT))["y"], "logits", 3, 4.0)
    assert torch.equal(kept.indices, expected.indices)
    assert kept.indices.dtype == torch.int64
    torch.testing.assert_close(kept.probabilities, expected.probabilities, rtol=1e-3 if half else 1e-6, atol=1e-7)
    torch.testing.assert_close(kept.rest, expected.rest, rtol=1e-3 if half else 1e-6, atol=1e-7)
    torch.testing.assert_close(kept.probabilities.sum(-1) + kept.rest, torch.ones(COUNT))
    assert kept.temperature == 4.0


def test_top_k_of_named_outputs(teacher: Teacher, tmp_path: Path) -> None:
    of = contents(teacher, k=2, classes=["h"])
    found = Cache.fill(tmp_path / "c", of, teacher, feed).targets(np.arange(3), 0)
    assert isinstance(found["h"], TopK)
    assert isinstance(found["y"], torch.Tensor)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"k": 0}, "are none"),
        ({"k": 2, "temperature": 0.0}, "are none"),
        ({"k": 2, "classes": ["q"]}, r"gives no \['q'\]"),
        ({"views": 0}, "nothing to keep"),
    ],
)
def test_contents_that_make_no_sense(teacher: Teacher, more: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        contents(teacher, **more)


def test_k_without_classes() -> None:
    with pytest.raises(UsageError, match="none looks like one"):
        contents(Teacher(MODEL, ["h"]), k=2)


def test_it_is_filled_once(teacher: Teacher, tmp_path: Path) -> None:
    of = contents(teacher)
    fractions: list[float] = []
    Cache.fill(tmp_path, of, teacher, feed, progress=lambda what, fraction: fractions.append(fraction))
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)

    def never(ids: Any, view: int) -> dict[str, Any]:
        raise AssertionError

    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    Cache.fill(tmp_path, of, teacher, never)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


# -- stale and damaged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": "other"},
        {"data": "other"},
        {"count": COUNT - 1},
        {"views": 2},
        {"half": True},
        {"k": 2, "classes": ("y",)},
        {"outputs": ("y",)},
        {"temperature": 2.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_stale(teacher: Teacher, tmp_path: Path, change: dict[str, Any]) -> None:
    of = contents(teacher)
    Cache.fill(tmp_path, of, teacher, feed)
    other = dataclasses.replace(of, **change)
    with pytest.raises(UsageError, match=f"stale: {next(iter(change))} is") as caught:
        Cache.open(tmp_path, other)
    assert "filled anew" in caught.value.hint


def test_stale_is_filled_anew_when_allowed_and_readers_keep_theirs(teacher: Teacher, tmp_path: Path) -> None:
    old = Cache.fill(tmp_path, contents(teacher), teacher, feed)
    before = old.targets(np.arange(COUNT), 0)["h"]
    assert isinstance(before, torch.Tensor)
    before = before.clone()
    of = contents(teacher, half=True)
    with pytest.raises(UsageError, match="half is False, not True"):
        Cache.fill(tmp_path, of, teacher, feed)
    found = Cache.fill(tmp_path, of, teacher, feed, refill=True)
    assert found.contents.half
    assert torch.equal(old.targets(np.arange(COUNT), 0)["h"], before)  # type: ignore[arg-type]


def cut(folder: Path) -> None:
    os.truncate(folder / "1.bin", 1000)


def flip(folder: Path) -> None:
    raw = bytearray((folder / "0.bin").read_bytes())
    raw[-3] ^= 1
    (folder / "0.bin").write_bytes(raw)


def lose(folder: Path) -> None:
    (folder / "0.bin").unlink()


def cut_header(folder: Path) -> None:
    path = folder / "header.json"
    path.write_bytes(path.read_bytes()[:-20])


def change_header(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "header.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (cut, "1.bin: it has 1,000 bytes, not 25,200"),
        (flip, r"0.bin: samples from 512 on \(view 0\) are damaged"),
        (lose, "0.bin: cannot be read: No such file"),
        (cut_header, "header.json: it is no header"),
        (change_header(version=2), "has version 2, this graphopt reads 1"),
        (change_header(format="other"), "its format is 'other'"),
        (change_header(files=[{"output": "y", "part": "values", "dtype": "object", "shape": [1]}]), "make no sense"),
        (change_header(files=[{"output": "y", "part": "values", "dtype": "float32", "shape": [-1]}]), "make no sense"),
        (change_header(finished=[[0, 1, 0, 0]]), "claims blocks that are none"),
        (change_header(contents=3), "no header"),
    ],
    ids=["cut", "flipped", "lost", "header-cut", "version", "format", "dtype", "shape", "block", "contents"],
)
def test_damaged(teacher: Teacher, tmp_path: Path, damage: Any, match: str) -> None:
    of = contents(teacher)
    Cache.fill(tmp_path, of, teacher, feed)
    damage(tmp_path)
    with pytest.raises(ModelError, match=match):
        Cache.open(tmp_path, of)
    with pytest.raises(ModelError, match=match):
        Cache.fill(tmp_path, of, teacher, feed)
    found = Cache.fill(tmp_path, of, teacher, feed, refill=True).targets(np.arange(COUNT), 0)["h"]
    torch.testing.assert_close(found, truth(teacher, np.arange(COUNT))["h"])
    Cache.open(tmp_path, of)


def test_nothing_there(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no teacher's cache in it"):
        Cache.open(tmp_path / "none", contents(teacher))


def test_another_folder_is_left_alone(teacher: Teacher, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for refill in (False, True):
        with pytest.raises(UsageError, match="not empty"):
            Cache.fill(tmp_path, contents(teacher), teacher, feed, refill=refill)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_teacher_is_not_asked(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another teacher"):
        Cache.fill(tmp_path, contents(teacher), Teacher(MODEL, ["y"]), feed)


# -- what a teacher may not say --------------------------------------------------------------------------------------


def test_nan_is_named(teacher: Teacher, tmp_path: Path) -> None:
    def bad(ids: Any, view: int) -> dict[str, Any]:
        x = X[ids].copy()
        x[ids == 300] = np.nan
        return {"x": x}

    with pytest.raises(ModelError, match="of the teacher is NaN in the samples 256 to 355"):
        Cache.fill(tmp_path, contents(teacher), teacher, bad, batch=100)
    with pytest.raises(ModelError, match="not complete"):
        Cache.open(tmp_path, contents(teacher))


def test_half_overflow(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exceeds float16"):
        Cache.fill(tmp_path, contents(teacher, half=True), teacher, lambda ids, view: {"x": X[ids] * np.float32(1e6)})


def test_no_axis_of_samples(tmp_path: Path) -> None:
    model = parse("agraph (float[N,4] x) => (float s) { s = ReduceMean<keepdims = 0>(x) }")
    teacher = Teacher(model)
    with pytest.raises(UsageError, match="cannot be kept by sample"):
        Cache.fill(tmp_path, contents(teacher), teacher, feed)


def test_shapes_that_change(tmp_path: Path) -> None:
    teacher = Teacher(parse("agraph (float[N,T] x) => (float[N,T] y) { y = Relu(x) }"))

    def growing(ids: Any, view: int) -> dict[str, Any]:
        return {"x": np.ones((len(ids), 3 if ids[0] < 300 else 4), np.float32)}

    with pytest.raises(ModelError, match=r"float32 \[3\] for some samples, float32 \[4\] for others"):
        Cache.fill(tmp_path, contents(teacher), teacher, growing, batch=100)


# -- kills, disks, and other processes -------------------------------------------------------------------------------

SCRIPT = """
import sys, time
import numpy as np
from graphopt.distillation.cache import Cache, Contents
from graphopt.distillation.teacher import Teacher
folder, model, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
x = np.random.default_rng(1).standard_normal((3000, 4)).astype("f")
def feed(ids, view):
    time.sleep(pause)
    print(ids[0], flush=True)
    return {"x": x[ids] + np.float32(view)}
teacher = Teacher(model, ["y", "h"], threads=1)
cache = Cache.fill(folder, Contents.of(teacher, "data", 3000, views=2), teacher, feed, batch=64)
print("sum", float(sum(cache.targets(np.arange(3000), v)["h"].double().sum() for v in range(2))), flush=True)
"""


@contextlib.contextmanager
def process(folder: Path, pause: float) -> Iterator[subprocess.Popen[str]]:
    model = folder.parent / "t.onnx"
    if not model.exists():
        io.save(MODEL, model)
    command = [sys.executable, "-c", SCRIPT, str(folder), str(model), str(pause)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path) -> None:
    sums, kills, asked = [], 0, 0
    for n in (9, 31, 60, None):
        with process(tmp_path / "c", 0.002) as running:
            assert running.stdout is not None
            lines: list[str] = []
            for line in running.stdout:
                lines.append(line)
                if len(lines) == n:
                    running.send_signal(signal.SIGKILL)
                    kills += 1
                    break
            asked += sum("sum" not in line for line in lines)
            sums += [line for line in lines if "sum" in line]
    assert kills == 3
    assert asked < 94 + 3 * 5 + 9  # the whole, a block and what was on its way for each kill, and the first looks
    with process(tmp_path / "d", 0) as running:
        assert running.stdout is not None
        assert sums == [line for line in running.stdout if "sum" in line]
    for name in ("0.bin", "1.bin"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "d" / name).read_bytes()


def test_what_is_not_marked_is_asked_again(teacher: Teacher, tmp_path: Path) -> None:
    of = contents(teacher)
    Cache.fill(tmp_path, of, teacher, feed)
    header = Header.load(tmp_path)
    assert header is not None
    del header.finished[0, 256]
    header.save(tmp_path)
    with (tmp_path / "1.bin").open("r+b") as file:  # what a kill may leave of a block
        file.seek(300 * CLASSES * 4)
        file.write(bytes(64))
    with pytest.raises(ModelError, match="not complete"):
        Cache.open(tmp_path, of)
    asked: list[int] = []

    def counting(ids: Any, view: int) -> dict[str, Any]:
        asked.extend(ids)
        return feed(ids, view)

    found = Cache.fill(tmp_path, of, teacher, counting).targets(np.arange(COUNT), 0)["h"]
    torch.testing.assert_close(found, truth(teacher, np.arange(COUNT))["h"])
    assert asked == list(range(256, 512))


@pytest.mark.slow
def test_two_processes(teacher: Teacher, tmp_path: Path) -> None:
    with process(tmp_path / "c", 0.02) as first, process(tmp_path / "c", 0.02) as second:
        assert first.stdout is not None
        assert second.stdout is not None
        outputs = [first.stdout.read(), second.stdout.read()]
    sums = [[line for line in text.splitlines() if "sum" in line] for text in outputs]
    assert sums[0] == sums[1] != []
    assert sorted(len(text.splitlines()) > 1 for text in outputs) == [False, True]  # one asked, the other waited


def test_a_lock_is_respected_while_its_process_lives(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with process(folder, 0.2) as running:
        assert running.stdout is not None
        running.stdout.readline()
        teacher = Teacher(tmp_path / "t.onnx", ["y", "h"])
        of = Contents.of(teacher, "data", 3000, views=2)
        with pytest.raises(LimitReached, match=f"process {running.pid} on .* is at work"):
            Cache.fill(folder, of, teacher, feed, wait=0)
        said: list[str] = []
        start = time.monotonic()
        with pytest.raises(LimitReached):
            Cache.fill(folder, of, teacher, feed, wait=0.3, progress=lambda what, _: said.append(what))
        assert time.monotonic() - start >= 0.3
        assert said == [f"waiting for {(folder / 'lock').read_text()}"]
        running.kill()
        running.wait()
        x = np.random.default_rng(1).standard_normal((3000, 4)).astype("f")
        Cache.fill(folder, of, teacher, lambda ids, view: {"x": x[ids] + np.float32(view)}, wait=0)


def test_a_disk_that_is_too_small(teacher: Teacher, tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, hard))
    try:
        with pytest.raises(SaveError, match="cannot be written: File too large") as caught:
            Cache.fill(tmp_path, contents(teacher), teacher, feed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "It needs 50,400 bytes in all" in caught.value.hint
    assert not list(tmp_path.glob("*.bin"))
    Cache.fill(tmp_path, contents(teacher), teacher, feed)


def test_a_disk_that_fills_up(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def write(file: Any, raw: bytes) -> None:
        nonlocal written
        written += 1
        if written > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.write(raw)

    of = contents(teacher)
    monkeypatch.setattr(filling, "_write_all", write)
    with pytest.raises(SaveError, match="No space left on device"):
        Cache.fill(tmp_path, of, teacher, feed, batch=100)
    header = Header.load(tmp_path)
    assert header is not None
    assert list(header.finished) == [(0, 0)]
    header.check(tmp_path)
    monkeypatch.undo()
    found = Cache.fill(tmp_path, of, teacher, feed, batch=100).targets(np.arange(COUNT), 0)["h"]
    torch.testing.assert_close(found, truth(teacher, np.arange(COUNT))["h"])


def test_a_folder_that_cannot_be_made(teacher: Teacher, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((SaveError, ModelError)) as caught:
        Cache.fill(tmp_path / "file" / "c", contents(teacher), teacher, feed)
    assert isinstance(caught.value, GraphoptError)
    assert str(tmp_path / "file") in caught.value.message


# -- speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_reading_a_batch_is_cheap(tmp_path: Path) -> None:
    model = parse("agraph (float[N,1000] x) => (float[N,1000] y) { y = Relu(x) }")
    teacher = Teacher(model)
    count = 20_000
    row = RNG.random((1, 1000)).astype(np.float32)
    cache = Cache.fill(
        tmp_path,
        Contents.of(teacher, "data", count, half=True),
        teacher,
        lambda ids, view: {"x": np.repeat(row, len(ids), 0)},
        batch=1000,
    )
    ids = RNG.integers(0, count, 128)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        cache.targets(ids, 0)
        times.append(time.perf_counter() - start)
    assert sorted(times)[25] < 2e-3
