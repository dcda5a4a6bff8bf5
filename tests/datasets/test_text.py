"""Lines of text, with and without a tokenizer."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import parse

from graphopt.datasets import bind, open_dataset
from graphopt.errors import EnvironmentProblem, ModelError, UsageError

STRINGS = parse("agraph (string[N] s) => (string[N] t) { t = Identity(s) }")
WORDS = ["the", "cat", "sat", "on", "mat"]


def model(
    kind: str = "int64", length: int | str = "T", names: tuple[str, ...] = ("input_ids", "attention_mask")
) -> ir.Model:
    inputs = ", ".join(f"{kind}[N,{length}] {name}" for name in names)
    return parse(f"agraph ({inputs}) => ({kind}[N,{length}] b) {{ b = Identity({names[0]}) }}")


def tokenizer(folder: Path, **extra: Any) -> Path:
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {word: index for index, word in enumerate(WORDS, 2)}
    contents = {
        "version": "1.0",
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        **extra,
    }
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(contents))
    return path


def lines(folder: Path, texts: list[str]) -> Path:
    path = folder / "a.txt"
    path.write_text("\n".join(texts))
    return path


def records(path: Path, found: list[Any]) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in found)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_lines_are_samples(tmp_path: Path) -> None:
    path = lines(tmp_path, ["the cat", "", "  ", "sat\u2028on", "mät\r"])
    (feeds,) = bind(path, STRINGS).batches()
    assert feeds["s"].tolist() == ["the cat", "sat\u2028on", "mät"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    path = records(tmp_path / name, [{"text": f"text {number}", "label": number % 3} for number in range(9)])
    bound = bind(path, STRINGS, samples=4)
    (feeds,) = bound.batches()
    assert bound.labels is not None
    assert [int(text.split()[1]) % 3 for text in feeds["s"]] == bound.labels.tolist()
    other = records(tmp_path / name, [{"body": "b", "spam": True}])
    bound = bind(f"{other}:text=body:label=spam", STRINGS)
    assert bound.labels is not None
    assert bound.labels.tolist() == [True]
    assert next(bound.batches())["s"].tolist() == ["b"]


@pytest.mark.parametrize(
    ("found", "match"),
    [
        ([{"text": "a"}, {"body": "a"}], "line 2 has no text in the field 'text', only body"),
        ([{"text": "a"}, ["b"]], "line 2 is no JSON object"),
        ([{"text": "a", "label": 1}, {"text": "a"}], "'label' is not a number or text in every line"),
        ([{"text": "a", "label": [1]}], "'label' is not a number or text in every line"),
        ([], "there are no samples"),
    ],
)
def test_json_that_does_not_fit(tmp_path: Path, found: list[Any], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        bind(records(tmp_path / "a.jsonl", found), STRINGS)


def test_damage(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": ')
    (tmp_path / "b.jsonl.gz").write_text("plain")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xff")
    for name, match in (("a.jsonl", "line 2 is no JSON"), ("b.jsonl.gz", "cannot be read"), ("c.txt", "UTF-8")):
        with pytest.raises(ModelError, match=match) as caught:
            open_dataset(tmp_path / name)
        assert name in caught.value.message


@pytest.mark.parametrize("kind", ["int64", "int32"])
def test_tokens(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("tokenizers")
    path = lines(tmp_path, ["the cat sat", "dog on", "the mat sat on the cat"])
    bound = bind(f"{path}:tokenizer={tokenizer(tmp_path)}:max-length=4", model(kind))
    (feeds,) = bound.batches()
    assert feeds["input_ids"].dtype == np.dtype(kind)
    assert feeds["input_ids"].tolist() == [[2, 3, 4, 0], [1, 5, 0, 0], [2, 6, 4, 5]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert bound.digest == bind(f"{path}:tokenizer={tokenizer(tmp_path)}:max-length=4", model(kind)).digest


def test_columns_and_length_are_the_models(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    path = lines(tmp_path, ["the cat"])
    spec = f"{path}:tokenizer={tokenizer(tmp_path)}"
    (feeds,) = bind(spec, model(length=6, names=("token_type_ids", "input_ids"))).batches()
    assert sorted(feeds) == ["input_ids", "token_type_ids"]
    assert feeds["input_ids"].shape == (1, 6)
    assert next(bind(spec, model()).batches())["input_ids"].shape == (1, 128)
    with pytest.raises(ModelError, match=r"\[1, 3\], the model takes \[N, 6\]"):
        bind(f"{spec}:max-length=3", model(length=6))
    with pytest.raises(UsageError, match="none of the inputs that a tokenizer fills"):
        bind(spec, model(names=("ids",)))
    with pytest.raises(ModelError, match="'position_ids' is missing"):
        bind(spec, model(names=("input_ids", "position_ids")))


def test_the_tokenizer_says_how_to_pad(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    padding = {
        "strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0,
        "pad_token": "[UNK]",
    }  # fmt: skip
    cut = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    made = tokenizer(tmp_path, padding=padding, truncation=cut)
    path = lines(tmp_path, ["the", "the cat sat on the mat"])
    (feeds,) = bind(f"{path}:tokenizer={made}", model()).batches()
    assert feeds["input_ids"].tolist() == [[1, 1, 1, 1, 2], [3, 4, 5, 2, 6]]


def test_tokenizers_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path, ["the cat"])
    (tmp_path / "t.json").write_text("{}")
    (tmp_path / "u.json").write_text("no json")
    for name, match in (("t.json", "has no 'model'"), ("u.json", "cannot be read"), ("v.json", "no such tokenizer")):
        with pytest.raises(ModelError, match=match):
            open_dataset(f"{path}:tokenizer={tmp_path / name}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(EnvironmentProblem, match="needs tokenizers"):
        open_dataset(f"{path}:tokenizer={tokenizer(tmp_path)}")
