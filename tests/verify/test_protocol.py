"""Messages between verifier and worker arrive as they were sent, or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphopt.verify import mapped
from graphopt.verify.protocol import FileSlice, receive, send


def _there(message: dict[str, Any]) -> dict[str, Any]:
    stream = io.BytesIO()
    send(stream, message)
    stream.seek(0)
    return receive(stream)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.array(1.5, np.float16),
        np.zeros((0, 3), np.float32),
        np.array([True, False]),
        np.array([1, 2, 3]).astype(ml_dtypes.bfloat16),
        np.array([1, -2, 3]).astype(ml_dtypes.int4),
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays(array: np.ndarray[Any, Any]) -> None:
    got = _there({"nested": [{"array": array}]})["nested"][0]["array"]
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    assert np.array_equal(got, array)


def test_strings_and_plain_values() -> None:
    message = {"a": None, "b": [1, 2.5, "ü"], "c": {"d": True}, "e": np.array([["x", "yy"]], object)}
    got = _there(message)
    assert got.pop("e").tolist() == [["x", "yy"]]
    message.pop("e")
    assert got == message


def test_several_arrays_keep_their_places() -> None:
    got = _there({"b": np.full(3, 1), "a": [np.full(2, 2), None, np.full(1, 3)]})
    assert got["b"].tolist() == [1, 1, 1]
    assert [None if part is None else part.tolist() for part in got["a"]] == [[2, 2], None, [3]]


def test_half_a_message_is_the_end() -> None:
    stream = io.BytesIO()
    send(stream, {"a": np.zeros(100)})
    for cut in (0, 4, 20, len(stream.getvalue()) - 1):
        with pytest.raises(EOFError):
            receive(io.BytesIO(stream.getvalue()[:cut]))


def test_file_slice(tmp_path: Path) -> None:
    values = np.arange(10, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(b"12345678" + values.tobytes())
    got = _there({"w": FileSlice(str(tmp_path / "w.bin"), 16, "float32", (2, 4))})["w"]
    assert got.tolist() == values[2:].reshape(2, 4).tolist()
    empty = _there({"w": FileSlice(str(tmp_path / "w.bin"), 16, "float32", (0, 4))})["w"]
    assert empty.shape == (0, 4)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_mapped_arrays_go_by_reference(tmp_path: Path) -> None:
    path = tmp_path / "file with spaces.bin"
    np.arange(100_000, dtype=np.float32).tofile(path)
    whole = np.memmap(path, np.float32, "r")
    part = np.asarray(whole[70_000:70_010])
    in_memory = np.zeros(4)
    found = mapped.by_reference({"part": part, "memory": in_memory})
    assert found["memory"] is in_memory
    assert found["part"] == FileSlice(str(path), 280_000, "float32", (10,))
    assert _there({"part": found["part"]})["part"].tolist() == part.tolist()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("what", ["replaced", "deleted"])
def test_what_is_no_longer_that_file_is_sent(tmp_path: Path, what: str) -> None:
    path = tmp_path / "w.bin"
    np.arange(1000, dtype=np.float32).tofile(path)
    array = np.asarray(np.memmap(path, np.float32, "r"))
    if what == "replaced":
        np.zeros(1000, np.float32).tofile(tmp_path / "new.bin")
        (tmp_path / "new.bin").replace(path)
    else:
        path.unlink()
    assert mapped.by_reference({"w": array})["w"] is array
