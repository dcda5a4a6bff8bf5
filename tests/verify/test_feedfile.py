"""The user's own inputs: what fits is used as it is, what does not is refused with the input's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import parse

from graphopt.errors import ModelError
from graphopt.verify import Verifier, feedfile
from graphopt.verify.feeds import Plan

MODEL = parse("agraph (float[N,4] x, int64[N] k) => (float[N,4] y) { y = Identity(x) }")
GOOD: dict[str, Any] = {"x": np.ones((2, 4), np.float32), "k": np.zeros(2, np.int64)}


def _save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_used_as_they_are(tmp_path: Path) -> None:
    with Verifier(MODEL, feeds_file=_save(tmp_path / "a.npz", **GOOD)) as verifier:
        verdict = verifier.check(MODEL)
    assert verdict.identical
    assert verdict.samples == ({"x": (2, 4), "k": (2,)},)


def test_they_decide(tmp_path: Path) -> None:
    """Two models that differ for negative numbers only."""
    a = parse("agraph (float[N] x) => (float[N] y) { y = Relu(x) }")
    b = parse("agraph (float[N] x) => (float[N] y) { y = Identity(x) }")
    for sign, status in ((1, "equal"), (-1, "different")):
        path = _save(tmp_path / f"{sign}.npz", x=np.full(3, sign, np.float32))
        with Verifier(a, feeds_file=path) as verifier:
            assert verifier.check(b).status == status


def test_directory_and_list(tmp_path: Path) -> None:
    first = _save(tmp_path / "a.npz", **GOOD)
    second = _save(tmp_path / "b.npz", x=np.ones((5, 4), np.float32), k=np.zeros(5, np.int64))
    plan = Plan.of(MODEL)
    for source in (tmp_path, [first, second]):
        read = list(feedfile.read(source, plan, with_truth=False))
        assert [feeds["x"].shape[0] for _, feeds, _ in read] == [2, 5]


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"x": GOOD["x"]}, "input 'k' is missing"),
        ({**GOOD, "z": GOOD["x"]}, "no input 'z'"),
        ({**GOOD, "x": np.ones((2, 4))}, "'x' is float64, the model takes float32"),
        ({**GOOD, "x": np.ones((2, 5), np.float32)}, r"'x' has the shape \[2, 5\], the model takes \[N, 4\]"),
        ({**GOOD, "x": np.ones(4, np.float32)}, "shape"),
    ],
    ids=["missing", "stranger", "dtype", "shape", "rank"],
)
def test_what_does_not_fit(tmp_path: Path, arrays: dict[str, Any], match: str) -> None:
    path = _save(tmp_path / "a.npz", **arrays)
    with Verifier(MODEL, feeds_file=path) as verifier, pytest.raises(ModelError, match=match) as caught:
        verifier.check(MODEL)
    assert "a.npz" in caught.value.message


def test_inputs_the_original_refuses(tmp_path: Path) -> None:
    model = parse("agraph (float[2,4] x, int64[N] k) => (float[M,4] y) { y = Gather(x, k) }")
    path = _save(tmp_path / "a.npz", x=GOOD["x"], k=np.array([99]))
    with Verifier(model, feeds_file=path) as verifier, pytest.raises(ModelError, match="does not run on these inputs"):
        verifier.check(model)


def test_files_that_are_none(tmp_path: Path) -> None:
    plan = Plan.of(MODEL)
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "half.npz").write_bytes(_save(tmp_path / "whole.npz", **GOOD).read_bytes()[:100])
    np.save(tmp_path / "one.npy", GOOD["x"])
    (tmp_path / "empty").mkdir()
    for name in ("none.npz", "text.npz", "half.npz", "one.npy", "empty"):
        with pytest.raises(ModelError, match=name):
            list(feedfile.read(tmp_path / name, plan, with_truth=False))


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"run": "me"}], object), k=GOOD["k"])
    with pytest.raises(ModelError, match=r"a\.npz"):
        list(feedfile.read(tmp_path / "a.npz", Plan.of(MODEL), with_truth=False))


def test_strings(tmp_path: Path) -> None:
    model = parse("agraph (string[N] s) => (string[N] t) { t = Identity(s) }")
    with Verifier(model, feeds_file=_save(tmp_path / "a.npz", s=np.array(["a", "bb"]))) as verifier:
        assert verifier.check(model).identical
