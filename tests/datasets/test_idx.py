"""IDX files, packed and not, alone and by the names of MNIST."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import parse

from graphopt.datasets import bind
from graphopt.errors import ModelError, UsageError

MODEL = parse("agraph (float[N,1,5,6] image) => (float[N,1,5,6] b) { b = Identity(image) }")
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 5, 6), np.uint8)


def write(path: Path, array: np.ndarray[Any, Any], kind: int = 8) -> Path:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    contents = head + array.tobytes()
    path.write_bytes(gzip.compress(contents) if path.suffix == ".gz" else contents)
    return path


@pytest.mark.parametrize("end", ["", ".gz"])
def test_folder(tmp_path: Path, end: str) -> None:
    write(tmp_path / f"train-images-idx3-ubyte{end}", IMAGES)
    write(tmp_path / f"train-labels-idx1-ubyte{end}", np.arange(9, dtype=np.uint8))
    write(tmp_path / f"t10k-images-idx3-ubyte{end}", IMAGES[:2])
    bound = bind(f"{tmp_path}:scale=255", MODEL, samples=4)
    assert bound.labels is not None
    expected = IMAGES[bound.labels][:, None] / np.float32(255)
    assert (next(bound.batches())["image"] == expected).all()
    test = bind(f"{tmp_path}:scale=1:split=test", MODEL)
    assert len(test) == 2
    assert test.labels is None
    assert (next(test.batches())["image"][:, 0] == IMAGES[:2]).all()


def test_one_file_and_the_labels_beside(tmp_path: Path) -> None:
    path = write(tmp_path / "my-images.idx3-ubyte", IMAGES)
    assert bind(f"{path}:scale=1", MODEL).labels is None
    write(tmp_path / "my-labels.idx1-ubyte.gz", np.arange(9, dtype=np.uint8))
    labels = bind(f"{path}:scale=1", MODEL).labels
    assert labels is not None
    assert labels.tolist() == list(range(9))
    with pytest.raises(UsageError, match="no split"):
        bind(f"{path}:scale=1:split=test", MODEL)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_other_types(tmp_path: Path, end: str) -> None:
    values = np.random.default_rng(1).standard_normal((3, 5, 6)).astype(">f4")
    path = write(tmp_path / f"a.idx{end}", values, 0x0D)
    assert (next(bind(path, MODEL).batches())["image"][:, 0] == values).all()


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        (b"\0\0\x08\x03\0\0\0\x09\0\0\0\x05\0\0\0\x06abc", "shorter|ends in sample 0 of 9"),
        (b"\1\0\x08\x03", "not an IDX file"),
        (b"\0\0\x99\x03", "not an IDX file"),
        (b"\0\0\x08\x03\0\0", "ends within its head"),
        (b"", "not an IDX file"),
    ],
    ids=["short", "magic", "type", "head", "empty"],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_damage(tmp_path: Path, contents: bytes, match: str, end: str) -> None:
    path = tmp_path / f"a-idx3-ubyte{end}"
    path.write_bytes(gzip.compress(contents) if end else contents)
    with pytest.raises(ModelError, match=match):
        bind(f"{path}:scale=1", MODEL)


def test_gz_that_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a-idx3-ubyte.gz", IMAGES)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ModelError, match=r"a-idx3-ubyte\.gz"):
        bind(f"{path}:scale=1", MODEL)
    path.write_text("plain")
    with pytest.raises(ModelError, match=r"a-idx3-ubyte\.gz"):
        bind(f"{path}:scale=1", MODEL)


def test_labels_of_another_number(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx3-ubyte", IMAGES)
    write(tmp_path / "train-labels-idx1-ubyte", np.arange(8, dtype=np.uint8))
    with pytest.raises(ModelError, match=r"9 samples and labels of the shape \[8\]"):
        bind(f"{tmp_path}:scale=1", MODEL)


def test_folder_without_the_split(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx3-ubyte", IMAGES)
    with pytest.raises(ModelError, match="there are no test images"):
        bind(f"{tmp_path}:scale=1:split=test", MODEL)
