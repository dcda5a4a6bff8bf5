"""What fits a model and what does not: axes, names, dtypes, symbols, numbers of samples, values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import parse, run

from graphopt.datasets import Dataset, bind, open_dataset
from graphopt.datasets.arrays import KEYS, from_arrays
from graphopt.datasets.options import Options, parse_pairs
from graphopt.errors import GraphoptError, ModelError, UsageError

FREE = parse("agraph (float[N,4] a) => (float[N,4] b) { b = Identity(a) }")
A = np.arange(80, dtype=np.float32).reshape(20, 4)


def shapes(source: Any, model: ir.Model, batch: int = 32, **options: Any) -> list[dict[str, tuple[int, ...]]]:
    bound = bind(source, model, **options)
    return [{name: np.shape(value) for name, value in feeds.items()} for feeds in bound.batches(batch)]


def refused(source: Any, model: ir.Model, match: str, kind: type[GraphoptError] = ModelError, **options: Any) -> str:
    with pytest.raises(kind, match=match) as caught:
        bind(source, model, **options)
    return caught.value.hint


def test_open_leading_dimension_takes_any_batch() -> None:
    assert [feed["a"][0] for feed in shapes({"a": A}, FREE, 8)] == [8, 8, 4]


def test_fixed_leading_dimension_decides() -> None:
    model = parse("agraph (float[8,4] a) => (float[8,4] b) { b = Identity(a) }")
    bound = bind({"a": A, "y": np.arange(20)}, model)
    assert [feeds["a"].shape for feeds in bound.batches(3)] == [(8, 4), (8, 4)]
    assert bound.notes == (
        "arrays has 20 samples, fewer than the 256 asked for",
        "4 of 20 samples are left out: the model takes 8 at once",
    )
    assert bound.labels is not None
    assert len(bound.labels) == len(bound) == 16
    refused({"a": A[:7]}, model, "takes 8 samples at once, and there are 7")
    one = parse("agraph (float[1,4] a) => (float[1,4] b) { b = Identity(a) }")
    assert shapes({"a": A}, one) == [{"a": (1, 4)}] * 20


def test_state_and_rate_of_a_recurrent_model() -> None:
    model = parse(
        "agraph (float[batch,4] a, float[2,batch,3] state, int64 rate) => (float[batch,4] b) { b = Identity(a) }"
    )
    state = np.arange(20 * 6, dtype=np.float32).reshape(20, 2, 1, 3)
    rate = np.array(16000)
    bound = bind({"a": A, "state": state, "rate": rate}, model, samples=5)
    feeds = list(bound.batches(32))
    assert len(feeds) == 5
    for feed, row in zip(feeds, bound._rows, strict=True):
        assert (feed["a"] == A[row : row + 1]).all()
        assert (feed["state"] == state[row]).all()
        assert feed["rate"].shape == ()
        assert feed["rate"] == 16000
    hint = refused({"a": A, "state": state[:, :, 0], "rate": rate}, model, "leading dimension|'state'")
    assert "one more axis" in hint
    refused({"a": A, "state": np.zeros((2, 20, 3), "f4"), "rate": rate}, model, "'a' has 20 samples and 'state' has 2")
    wide = np.zeros((20, 2, 5, 3), np.float32)
    refused({"a": A, "state": wide, "rate": rate}, model, "'batch' is 1 for input 'a' and 5 for 'state'")


def test_a_rate_for_each_sample() -> None:
    model = parse("agraph (float[N,4] a, int64 rate) => (float[N,4] b) { b = Identity(a) }")
    feeds = list(bind({"a": A, "rate": np.arange(20)}, model).batches())
    assert [feed["rate"].item() for feed in feeds] == list(range(20))


def test_whole_feeds_by_an_axis_more() -> None:
    model = parse("agraph (float[8,4] a, float[8] m) => (float[8,4] b) { b = Identity(a) }")
    stacked = np.zeros((3, 8, 4), np.float32)
    assert shapes({"a": stacked, "m": np.zeros((3, 8), np.float32)}, model) == [{"a": (8, 4), "m": (8,)}] * 3
    hint = refused({"a": stacked, "m": np.zeros(3, np.float32)}, model, r"'m' has the shape \[3\]")
    assert "one axis more" in hint


def test_batches_that_disagree() -> None:
    model = parse("agraph (float[8,4] a, float[2] m) => (float[8,4] b) { b = Identity(a) }")
    refused(
        {"a": np.zeros((8, 4), "f4"), "m": np.zeros(8, "f4")}, model, "do not agree on a batch: 8 for 'a', 2 for 'm'"
    )


def test_unknown_rank() -> None:
    model = parse("agraph (float a) => (float b) { b = Identity(a) }")
    model.graph.inputs[0].shape = None
    assert shapes({"a": np.zeros((5, 2, 2), np.float32)}, model, 3) == [{"a": (3, 2, 2)}, {"a": (2, 2, 2)}]


def test_defaults_are_optional() -> None:
    model = parse(
        "agraph (float[N,4] a, float[4] w) => (float[N,4] b) { b = Mul(a, w) }", {"w": np.ones(4, np.float32)}
    )
    (feeds,) = bind({"x": A}, model).batches()
    assert list(feeds) == ["a"]
    assert (run(model, feeds)[0] == A).all()


@pytest.mark.parametrize(
    ("arrays", "match", "hint"),
    [
        ({}, "'a' is missing", "takes a; the data give nothing"),
        ({"a": A, "z": A}, "no input 'z'", "takes a; the data give a, z"),
        ({"a": A[:, :3]}, r"'a' has the shape \[20, 3\], the model takes \[N, 4\]", ""),
        ({"a": A[:, 0]}, r"shape \[20\], the model takes \[N, 4\]", "Give 2 axes, samples first, or 3"),
        ({"a": A[:0]}, "there are no samples", ""),
        ({"a": A.astype(np.float16)}, "is float16, the model takes float32", "array.astype('float32')"),
        ({"a": A.astype(np.int64)}, "is int64, the model takes float32", "array.astype('float32')"),
        ({"a": A.astype(np.uint8)}, "pixels in uint8", "scale=255"),
        ({"a": np.array(1.0, np.float32)}, "has the shape", ""),
        ({"a": A, "y": np.arange(19)}, r"20 samples and labels of the shape \[19\]", "one entry a sample"),
    ],
    ids=["none", "stranger", "shape", "rank", "empty", "half", "int", "pixels", "scalar", "labels"],
)  # fmt: skip
def test_what_does_not_fit(arrays: dict[str, Any], match: str, hint: str) -> None:
    assert hint in refused(arrays, FREE, f"arrays: .*{match}")


def test_silent_conversions() -> None:
    ids = parse("agraph (int64[N] a) => (int64[N] b) { b = Identity(a) }")
    (feeds,) = bind({"a": np.arange(5, dtype=np.int32)}, ids).batches()
    assert feeds["a"].dtype == np.int64
    (feeds,) = bind({"a": A.astype(np.float64)}, FREE).batches()
    assert feeds["a"].dtype == np.float32
    assert (feeds["a"] == A).all()
    narrow = parse("agraph (int32[N] a) => (int32[N] b) { b = Identity(a) }")
    refused({"a": np.arange(5)}, narrow, "is int64, the model takes int32")


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "an infinity"), (-np.inf, "an infinity")])
def test_values_that_are_no_numbers(bad: float, word: str) -> None:
    spoiled = A.copy()
    spoiled[13, 2] = spoiled[17, 0] = bad
    refused({"a": spoiled}, FREE, f"arrays: input 'a' has {word} in sample 13\n")
    refused([{"a": A}, {"a": spoiled}], FREE, f"feeds: feed 1: input 'a' has {word}")
    wide = A.astype(np.float64)
    wide[3] = 1e300
    refused({"a": wide}, FREE, "an infinity in sample 3")


def test_symbols_that_inputs_share() -> None:
    model = parse("agraph (float[N,T] a, float[N,T] m) => (float[N,T] b) { b = Mul(a, m) }")
    refused({"a": A, "m": A[:, :2]}, model, "'T' is 4 for input 'a' and 2 for 'm'")
    assert len(bind({"a": A, "m": A}, model)) == 20
    model.graph.inputs[1].shape = ir.Shape(["N", "T + 1"])
    refused({"a": A, "m": A}, model, r"'T \+ 1' of input 'm' should be 5 and is 4")
    assert len(bind({"a": A[:, :3], "m": A}, model)) == 20


def test_a_leading_symbol_that_is_no_batch() -> None:
    model = parse("agraph (float[V,4] a, float[V,V] edges) => (float[V,4] b) { b = Identity(a) }")
    hint = refused({"a": A, "edges": np.zeros((20, 20), np.float32)}, model, "'edges'")
    assert "'V'" in hint
    stacked = {"a": np.zeros((3, 5, 4), np.float32), "edges": np.zeros((3, 5, 5), np.float32)}
    assert shapes(stacked, model) == [{"a": (5, 4), "edges": (5, 5)}] * 3


def test_whole_feeds() -> None:
    model = parse("agraph (float[N,T] a, float[N,T] m) => (float[N,T] b) { b = Mul(a, m) }")
    feeds = [{"a": A[:n], "m": A[:n], "y": np.arange(n)} for n in (3, 5, 2)]
    bound = bind(feeds, model)
    assert [feed["a"].shape[0] for feed in bound.batches(1)] == [3, 5, 2]
    assert bound.labels is not None
    assert bound.labels.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1]
    refused([{"a": A, "m": A[:, :3]}], model, "feed 0: 'T' is 4 for input 'a' and 3 for 'm'")
    refused([{"a": A}], model, "feed 0: input 'm' is missing")
    refused([{"a": A[0], "m": A}], model, r"feed 0: input 'a' has the shape \[4\]")
    refused([], model, "no samples")
    refused([feeds[0], {"a": A, "m": A}], model, "1 of 2 feeds have labels")


def test_sequences_come_as_whole_feeds() -> None:
    model = parse("agraph (seq(float[N]) s) => (float[M] b) { b = ConcatFromSequence<axis=0>(s) }")
    refused({"s": np.zeros((4, 3), np.float32)}, model, "is a sequence, no tensor")
    feed = {"s": [np.zeros(3, np.float32), np.ones(2, np.float32)]}
    bound = bind([feed], model)
    assert len(run(model, next(bound.batches()))[0]) == 5
    assert bound.digest == bind([feed], model).digest
    assert bound.digest != bind([{"s": feed["s"][:1]}], model).digest


def test_strings() -> None:
    model = parse("agraph (string[N] s) => (string[N] t) { t = Identity(s) }")
    (feeds,) = bind({"s": ["a", "bb"]}, model).batches()
    assert run(model, feeds)[0].tolist() == ["a", "bb"]
    assert bind({"s": ["a", "bb"]}, model).digest == bind({"s": np.array(["a", "bb"], object)}, model).digest


def test_drawing() -> None:
    first, again, other = (bind({"a": A}, FREE, samples=9, seed=seed) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    assert len(set(first._rows.tolist())) == 9
    assert len(bind({"a": A}, FREE, samples=None)) == 20
    refused({"a": A}, FREE, "0 samples are none", UsageError, samples=0)


def test_indices_out_of_range_are_for_the_model_to_refuse() -> None:
    model = parse("agraph (int64[N] k) => (float[N,2] b) { b = Gather(table, k) }", {"table": np.ones((3, 2), "f4")})
    (feeds,) = bind({"k": np.array([99])}, model).batches()
    assert feeds["k"].tolist() == [99]


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), np.uint8)


def image_model(*shape: int | str, kind: str = "float") -> ir.Model:
    dims = ",".join(map(str, shape))
    return parse(f"agraph ({kind}[{dims}] i) => ({kind}[{dims}] b) {{ b = Identity(i) }}")


def opened(array: np.ndarray[Any, Any], preprocess: str) -> Dataset:
    return from_arrays({"x": array}, "arrays", Options.of(parse_pairs(preprocess), "arrays", KEYS))


def image(model: ir.Model, array: np.ndarray[Any, Any], preprocess: str) -> np.ndarray[Any, Any]:
    (feeds,) = bind(opened(array, preprocess), model).batches()
    made: np.ndarray[Any, Any] = feeds["i"]
    return made


def test_arithmetic() -> None:
    made = image(image_model("N", 3, 5, 7), IMAGES, "scale=255:mean=0.4,0.5,0.6:std=0.1,0.2,0.3:layout=nchw")
    expected = (IMAGES / 255 - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.3]
    assert made.dtype == np.float32
    assert np.allclose(made, expected.transpose(0, 3, 1, 2), atol=1e-5)
    half = image(image_model("N", 3, 5, 7, kind="float16"), IMAGES, "scale=255:layout=nchw")
    assert half.dtype == np.float16


@pytest.mark.parametrize(
    ("shape", "layout", "turned"),
    [
        (("N", 3, 5, 7), "nchw", True),
        (("N", 5, 7, 3), "nhwc", False),
        (("N", "C", "H", "W"), "nchw", True),
        (("N", "H", "W", "C"), "nhwc", False),
    ],
)
def test_layout(shape: tuple[int | str, ...], layout: str, turned: bool) -> None:
    made = image(image_model(*shape), IMAGES, f"scale=1:layout={layout}")
    assert (made == (IMAGES.transpose(0, 3, 1, 2) if turned else IMAGES)).all()
    back = image(image_model(*shape), np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2)), f"scale=1:layout={layout}")
    assert (back == made).all()


def test_layout_of_whole_feeds() -> None:
    made = [
        feeds["i"] for feeds in bind(opened(IMAGES[:, None], "scale=1:layout=nchw"), image_model(1, 3, 5, 7)).batches()
    ]
    assert (np.concatenate(made) == IMAGES.transpose(0, 3, 1, 2)).all()


def test_layout_that_cannot_be_told() -> None:
    cube = np.zeros((2, 3, 3, 3), np.uint8)
    with pytest.raises(UsageError, match="layout of 'i' cannot be told"):
        image(image_model("N", "C", "H", "W"), cube, "scale=1:layout=nchw")
    with pytest.raises(ModelError, match="the model takes") as caught:
        image(image_model("N", 3, 5, 7), IMAGES, "scale=1")
    assert "layout=" in caught.value.hint


def test_channel_axis_of_gray_images() -> None:
    gray = IMAGES[..., 0]
    assert (image(image_model("N", 1, 5, 7), gray, "scale=1")[:, 0] == gray).all()
    assert (image(image_model("N", 5, 7, 1), gray, "scale=1")[..., 0] == gray).all()
    for shape in (("N", 3, 5, 7), ("N", "C", 5, 7), ("N", 1, 5, 1)):
        with pytest.raises(ModelError, match="has the shape"):
            image(image_model(*shape), gray, "scale=1")


def test_arithmetic_that_makes_no_sense() -> None:
    with pytest.raises(UsageError, match=r"mean has 2 values, and 'i' .* has 3 channels"):
        image(image_model("N", 3, 5, 7), IMAGES, "scale=1:mean=1,2:layout=nchw")
    with pytest.raises(UsageError, match="takes uint8, which scale, mean and std cannot give"):
        image(image_model("N", 5, 7, 3, kind="uint8"), IMAGES, "scale=255")
    with pytest.raises(ModelError, match="pixels in uint8"):
        image(image_model("N", 5, 7, 3), IMAGES, "mean=1")


def test_which_input_the_options_are_for() -> None:
    model = parse("agraph (float[N,3,2,2] i, float[N,4] a) => (float[N,4] b) { b = Identity(a) }")
    arrays = {"i": np.full((20, 3, 2, 2), 50, np.uint8), "a": A}
    (feeds,) = bind(from_arrays(arrays, "arrays", Options(scale=100)), model).batches()
    assert (feeds["i"] == 0.5).all()
    assert (feeds["a"] == A).all()
    two = parse("agraph (float[N,4] a, float[N,4] m) => (float[N,4] b) { b = Mul(a, m) }")
    both = {"a": A, "m": A}
    with pytest.raises(UsageError, match="which input are the options for"):
        bind(from_arrays(both, "arrays", Options(scale=2)), two)
    (feeds,) = bind(from_arrays(both, "arrays", Options(scale=2, input="m")), two).batches()
    assert (feeds["m"] == A / 2).all()
    assert (feeds["a"] == A).all()
    with pytest.raises(UsageError, match="no input 'z'"):
        bind(from_arrays(both, "arrays", Options(scale=2, input="z")), two)


def test_options_come_once(tmp_path: Any) -> None:
    np.savez(tmp_path / "d.npz", x=IMAGES)
    dataset = open_dataset(f"{tmp_path / 'd.npz'}:scale=1", preprocess={"mean": [1, 2, 3], "layout": "nhwc"})
    (feeds,) = bind(dataset, image_model("N", 5, 7, 3)).batches()
    assert (feeds["i"] == IMAGES - np.array([1, 2, 3], np.float32)).all()
    with pytest.raises(UsageError, match="'scale' is given twice"):
        open_dataset(f"{tmp_path / 'd.npz'}:scale=1", preprocess="scale=2")
