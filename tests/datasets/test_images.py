"""Folders of images: sizes, colours, classes, and what is decoded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import parse

from graphopt.datasets import bind, open_dataset
from graphopt.errors import EnvironmentProblem, ModelError, UsageError

Image = pytest.importorskip("PIL.Image")

HALVES = np.zeros((8, 16, 3), np.uint8)
HALVES[:, :8] = (250, 0, 0)
HALVES[:, 8:] = (0, 0, 100)
"""Red on the left, blue on the right; twice as wide as high."""


def model(*shape: int | str, kind: str = "float") -> ir.Model:
    dims = ",".join(map(str, shape))
    return parse(f"agraph ({kind}[{dims}] i) => ({kind}[{dims}] b) {{ b = Identity(i) }}")


def save(path: Path, pixels: np.ndarray[Any, Any] = HALVES) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def one(spec: str, into: ir.Model) -> np.ndarray[Any, Any]:
    (feeds,) = bind(spec, into).batches()
    made: np.ndarray[Any, Any] = feeds["i"]
    return made


def test_size_and_layout_are_the_models(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    first = one(f"{tmp_path}:scale=250", model("N", 3, 8, 16))
    assert np.allclose(first[0], HALVES.transpose(2, 0, 1) / 250)
    assert (one(f"{tmp_path}:scale=250", model("N", 8, 16, 3)) == first.transpose(0, 2, 3, 1)).all()
    raw = one(str(tmp_path), model("N", 8, 16, 3, kind="uint8"))
    assert raw.dtype == np.uint8
    assert (raw[0] == HALVES).all()
    assert one(f"{tmp_path}:scale=250:size=4x8", model("N", "C", "H", "W")).shape == (1, 3, 4, 8)
    assert one(f"{tmp_path}:scale=250:size=4:layout=nhwc", model("N", "H", "W", "C")).shape == (1, 4, 4, 3)


def test_squeezed_or_cropped(tmp_path: Path) -> None:
    """A crop shows the middle: four columns of red, four of blue; so does squeezing. A larger resize shows less."""
    save(tmp_path / "a.png")
    cropped = one(f"{tmp_path}:scale=1:crop=yes", model("N", 3, 8, 8))[0]
    assert (cropped == HALVES[:, 4:12].transpose(2, 0, 1)).all()
    stripes = np.zeros((8, 16, 3), np.uint8)
    stripes[:, :4] = 200
    save(tmp_path / "a.png", stripes)
    assert one(f"{tmp_path}:scale=1:crop=yes", model("N", 3, 8, 8)).max() == 0
    assert one(f"{tmp_path}:scale=1", model("N", 3, 8, 8)).max() == 200
    save(tmp_path / "a.png")
    near = one(f"{tmp_path}:scale=1:resize=16", model("N", 3, 8, 8))[0]
    assert (near[0, :, 0] == 250).all()
    assert (near[2, :, -1] == 100).all()
    padded = one(f"{tmp_path}:scale=1:resize=4", model("N", 3, 8, 8))[0]
    assert padded[:, 0].max() == 0  # smaller than the crop: black around it
    assert padded[0, 4, 1] == 250


def test_colours(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    rgb = one(f"{tmp_path}:scale=1", model("N", 3, 8, 16))
    assert (one(f"{tmp_path}:scale=1:channels=bgr", model("N", 3, 8, 16)) == rgb[:, ::-1]).all()
    gray = one(f"{tmp_path}:scale=1", model("N", 1, 8, 16))
    assert gray.shape == (1, 1, 8, 16)
    assert gray[0, 0, 0, 0] == 75  # ITU-R 601: 0.299 of red
    save(tmp_path / "a.png", HALVES[..., 0])
    assert (one(f"{tmp_path}:scale=1", model("N", 3, 8, 16))[0] == HALVES[..., 0]).all()
    with pytest.raises(UsageError, match="takes 5 channels"):
        one(f"{tmp_path}:scale=1", model("N", 5, 8, 16))
    with pytest.raises(ModelError, match=r"\[1, 1, 8, 16\], the model takes \[N, 3, 8, 16\]"):
        one(f"{tmp_path}:scale=1:channels=gray", model("N", 3, 8, 16))


def test_classes(tmp_path: Path) -> None:
    for name, value in (("dog", 10), ("cat", 20), ("eel", 30)):
        for number in range(3):
            save(tmp_path / name / f"{number}.png", np.full((4, 4, 3), value, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    bound = bind(f"{tmp_path}:scale=1", model("N", 3, 4, 4), samples=5)
    values = np.concatenate([feeds["i"][:, 0, 0, 0] for feeds in bound.batches(2)])
    assert bound.labels is not None
    assert len(values) == 5
    assert (np.array([20, 10, 30])[bound.labels] == values).all()
    save(tmp_path / "loose.png")
    with pytest.raises(ModelError, match="both in it and in its folders"):
        open_dataset(tmp_path)


def test_only_what_is_taken_is_decoded(tmp_path: Path) -> None:
    for number in range(8):
        save(tmp_path / f"{number}.png")
    taken = set(bind(f"{tmp_path}:scale=1", model("N", 3, 8, 16), samples=3)._rows.tolist())
    for number in set(range(8)) - taken:
        (tmp_path / f"{number}.png").write_text("damaged")
    assert len(bind(f"{tmp_path}:scale=1", model("N", 3, 8, 16), samples=3)) == 3
    with pytest.raises(ModelError, match=r"\d\.png: cannot be read as an image"):
        bind(f"{tmp_path}:scale=1", model("N", 3, 8, 16))


def test_what_must_be_said(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(ModelError, match="pixels in uint8"):
        one(str(tmp_path), model("N", 3, 8, 16))
    with pytest.raises(UsageError, match="images of any size"):
        one(f"{tmp_path}:scale=1", model("N", 3, "H", "W"))


def test_deep_pixels_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.full((4, 4), 40000, np.uint16))
    with pytest.raises(ModelError, match="more than 8 bits"):
        one(f"{tmp_path}:scale=1", model("N", 1, 4, 4))


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(EnvironmentProblem, match="Pillow") as caught:
        open_dataset(tmp_path)
    assert "graphopt[data]" in caught.value.hint
