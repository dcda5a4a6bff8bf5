"""Tensors over computed arrays."""

from __future__ import annotations

import mmap
import tempfile

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from graphopt.analysis import constants


@pytest.mark.parametrize(
    "contents",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.array(3, np.int64),
        np.zeros((0, 4), np.float16),
        np.arange(4).astype(ml_dtypes.bfloat16),
        np.arange(4).astype(ml_dtypes.int4),
        np.arange(6, dtype=">i4"),
        np.array([True, False]),
    ],
)
def test_every_layout_keeps_type_shape_and_contents(contents: np.ndarray) -> None:
    tensor = constants.tensor(contents, "t")
    assert tensor.name == "t"
    assert tensor.dtype == ir.DataType.from_numpy(contents.dtype.newbyteorder("="))
    assert tensor.numpy().shape == contents.shape
    np.testing.assert_array_equal(tensor.numpy(), contents)


def test_large_array_moves_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "_SPILL_FROM", 1000)
    contents = np.random.default_rng(0).standard_normal((100, 10)).astype(np.float32)
    tensor = constants.tensor(contents)
    array = tensor.numpy()
    np.testing.assert_array_equal(array, contents)
    while isinstance(array.base, np.ndarray):
        array = array.base
    assert isinstance(array.base, memoryview)
    assert isinstance(array.base.obj, mmap.mmap)


def test_large_array_stays_in_memory_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(constants, "_SPILL_FROM", 1000)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    contents = np.ones(1000, np.float32)
    np.testing.assert_array_equal(constants.tensor(contents).numpy(), contents)
