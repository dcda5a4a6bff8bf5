"""Pass specs as users type them."""

from __future__ import annotations

import dataclasses
import enum

import onnx_ir as ir
import pytest

from graphopt.errors import UsageError
from graphopt.pipeline import spec
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety


class Mode(enum.StrEnum):
    FAST = "fast"
    SMALL = "small"


@dataclasses.dataclass(frozen=True)
class Example(GraphPass):
    name = "example"
    safety = Safety.EXACT

    max_bytes: int = 10
    ratio: float = 0.5
    deep: bool = False
    mode: Mode = Mode.FAST

    def run(self, model: ir.Model, context: Context) -> Outcome:
        return Outcome()


def make(text: str) -> Example:
    _, raw = spec.parse(text)
    return Example(**spec.options(Example, raw))


def test_options_take_the_type_of_their_field() -> None:
    assert make("example:max-bytes=4KiB:ratio=1e-2:deep=yes:mode=small") == Example(4096, 0.01, True, Mode.SMALL)


def test_underscores_and_dashes_mean_the_same() -> None:
    assert make("example:max_bytes=1MiB") == make("example:max-bytes=1048576")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("example:max-bytes", "no option"),
        ("example:=3", "no option"),
        ("example:ratio=1:ratio=2", "twice"),
        ("example:ration=1", "has no option 'ration'"),
        ("example:max-bytes=1.5", "cannot be '1.5'"),
        ("example:max-bytes=lots", "cannot be 'lots'"),
        ("example:deep=perhaps", "cannot be 'perhaps'"),
        ("example:mode=huge", "one of fast, small"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(text)
    assert words in str(caught.value)


def test_lists_split_at_commas_and_lose_blanks() -> None:
    assert spec.split(["a, b:x=1", "", "c,"]) == ["a", "b:x=1", "c"]


def test_close_names_are_suggested() -> None:
    assert spec.close_match("fold-constant", ["fold-constants", "fold-if"]) == "Did you mean 'fold-constants'?"


def test_description_for_the_catalogue() -> None:
    assert spec.describe(Example)[:2] == [
        ("max-bytes", "an integer (K, M, G allowed)", "10"),
        ("ratio", "a number", "0.5"),
    ]
