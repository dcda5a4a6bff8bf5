"""The inverse by halves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from graphopt.pruning.inverse import inverse


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 5e-3)])
@pytest.mark.parametrize("shape", [(3,), (2, 7), (500,), (2, 801)])
def test_it_is_the_inverse(shape: tuple[int, ...], dtype: npt.DTypeLike, tolerance: float) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((*shape, 2 * shape[-1])).astype(dtype)
    matrix = x @ x.swapaxes(-1, -2) / x.shape[-1] + np.asarray(0.1 * np.eye(shape[-1]), dtype)
    found = inverse(matrix)
    assert found.dtype == dtype
    np.testing.assert_allclose(found @ matrix, np.broadcast_to(np.eye(shape[-1]), matrix.shape), atol=tolerance)
