"""Data specs: where the path ends, and what the options may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphopt.datasets.options import Options, parse_pairs, parse_spec
from graphopt.errors import UsageError


@pytest.mark.parametrize(
    ("spec", "path", "pairs"),
    [
        ("data.npz", "data.npz", {}),
        ("images/:size=224:layout=nchw", "images/", {"size": "224", "layout": "nchw"}),
        ("C:\\data:scale=255", "C:\\data", {"scale": "255"}),
        ("package.module:function", "package.module:function", {}),
        ("module:function:scale=2", "module:function", {"scale": "2"}),
        ("a.txt:tokenizer=C:\\t.json:max-length=8", "a.txt", {"tokenizer": "C:\\t.json", "max_length": "8"}),
        ("a:b:c", "a:b:c", {}),
    ],
)
def test_where_the_path_ends(spec: str, path: str, pairs: dict[str, str]) -> None:
    assert parse_spec(spec) == (path, pairs)


def test_what_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run:scale=2").write_text("")
    assert parse_spec("run:scale=2") == ("run:scale=2", {})
    assert parse_spec("jog:scale=2") == ("jog", {"scale": "2"})


@pytest.mark.parametrize("spec", ["", " ", "scale=2", ":scale=2"])
def test_no_path(spec: str) -> None:
    with pytest.raises(UsageError, match="names no data"):
        parse_spec(spec)


def test_pairs() -> None:
    assert parse_pairs("") == {}
    with pytest.raises(UsageError, match="'nonsense' is no option"):
        parse_pairs("nonsense")
    with pytest.raises(UsageError, match="'scale' is given twice"):
        parse_pairs("scale=2:scale=3")


def test_values() -> None:
    pairs = {"scale": "255", "mean": "0.5,1", "std": "2", "size": "32x48", "crop": "yes", "layout": "NHWC"}
    read = Options.of(pairs, "here")
    assert (read.scale, read.mean, read.std, read.size) == (255.0, (0.5, 1.0), (2.0,), (32, 48))
    assert (read.crop, read.layout) == (True, "nhwc")
    assert Options.of({"size": "224"}, "here").size == (224, 224)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("scale", "0"), ("scale", "nan"), ("scale", "x"), ("std", "1,0"), ("mean", "1,,2"), ("layout", "nch"),
        ("size", "0"), ("size", "1x2x3"), ("crop", "maybe"), ("channels", "cmyk"), ("max_length", "-1"), ("input", ""),
    ],
)  # fmt: skip
def test_refused_values(key: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"here: option '{key.replace('_', '-')}' cannot be '{text}'") as caught:
        Options.of({key: text}, "here")
    assert caught.value.hint.startswith("It takes ")


def test_unknown_and_unused() -> None:
    with pytest.raises(UsageError, match="no such option for data 'scael'") as caught:
        Options.of({"scael": "2"}, "here")
    assert "'scale'" in caught.value.hint
    with pytest.raises(UsageError, match="does not use the option 'max-length'"):
        Options.of({"max_length": "2"}, "here", ["scale"])
