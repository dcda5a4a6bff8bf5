"""Text, one sample a line; with a tokenizer for models that take tokens."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from graphopt.datasets.column import LABELS, Array, Column, Dataset, Rows
from graphopt.datasets.extras import missing
from graphopt.datasets.options import Options
from graphopt.errors import ModelError, UsageError
from graphopt.verify.feedfile import UNREADABLE

if TYPE_CHECKING:
    from graphopt.verify.feeds import Input

__all__ = ["open_text"]

_TOKENS: Final[Mapping[str, str]] = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
"""What models call their inputs, and the tokenizers library the attribute."""

_LENGTH: Final = 128
_PADS: Final = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>")


def open_text(path: Path, pairs: Mapping[str, str]) -> Dataset:
    """Lines of a ``.txt`` file (empty ones are none), or the field ``text=`` of JSON lines with labels in ``label=``.

    With ``tokenizer=``, the columns are those of input_ids, attention_mask and token_type_ids that the model takes;
    without, it is one column of texts.

    Raises:
        ModelError: It cannot be read, a line is no JSON object, or lacks the field.
        UsageError: Unknown options.
        EnvironmentProblem: The library tokenizers is not installed.
    """
    options = Options.of(pairs, str(path), ("tokenizer", "max_length", "text", "label"))
    lines = _Lines(path, options)
    count, labels = lines.survey()
    tokenizer = _tokenizer(options, str(path)) if options.tokenizer else None

    def columns(inputs: Sequence[Input]) -> Mapping[str, Column]:
        found = _texts(lines, count) if tokenizer is None else _tokens(lines, count, tokenizer, inputs, options)
        if labels is not None:
            found[LABELS] = Column.of(labels)
        return found

    return Dataset(path.name, str(path), columns, options)


class _Lines:
    """The samples of a file; each reading is a pass over it, and keeps only what is asked for."""

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self.options = options
        self.is_json = ".jsonl" in [suffix.lower() for suffix in path.suffixes]

    def survey(self) -> tuple[int, Array | None]:
        """How many there are, and the labels where all have one."""
        count, labels = 0, []
        for number, text in self._lines():
            count += 1
            if self.is_json:
                labels.append(self._record(number, text).get(self.options.label))
        given = [label for label in labels if label is not None]
        if not given:
            return count, None
        if len(given) < count or not all(isinstance(label, (int, float, str)) for label in given):
            raise ModelError(f"{self.path}: the label '{self.options.label}' is not a number or text in every line")
        return count, np.array(given)

    def texts(self, rows: Rows) -> list[str]:
        """The texts of these samples."""
        wanted = set(rows.tolist())
        last = max(wanted, default=-1)
        found = []
        for row, (number, text) in enumerate(self._lines()):
            if row > last:
                break
            if row in wanted:
                found.append(self._text(number, text) if self.is_json else text)
        return found

    def _lines(self) -> Iterator[tuple[int, str]]:
        opener: Any = gzip.open if self.path.suffix.lower() == ".gz" else open
        with self._readable(), opener(self.path, "rt", encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except UNREADABLE as error:  # UnicodeDecodeError is a ValueError
            raise ModelError(f"{self.path}: cannot be read as text in UTF-8: {error}") from error

    def _record(self, number: int, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{self.path}: line {number} is no JSON: {error}") from error
        if not isinstance(record, dict):
            raise ModelError(f"{self.path}: line {number} is no JSON object")
        if not isinstance(record.get(self.options.text), str):
            raise ModelError(
                f"{self.path}: line {number} has no text in the field '{self.options.text}', "
                f"only {', '.join(record) or 'nothing'}",
                hint="Name the field with text=NAME.",
            )
        return record

    def _text(self, number: int, line: str) -> str:
        return str(self._record(number, line)[self.options.text])


def _texts(lines: _Lines, count: int) -> dict[str, Column]:
    def read(rows: Rows) -> Array:
        return np.array(lines.texts(rows), object)

    return {"x": Column((count,), np.dtype(object), read, once=True)}


def _tokenizer(options: Options, where: str) -> Any:
    path = Path(options.tokenizer)
    if not path.is_file():
        raise ModelError(f"{path}: there is no such tokenizer", hint="Give the tokenizer.json of the model.")
    try:
        import tokenizers
    except ImportError as error:
        raise missing(where, "tokenizers", error) from error
    try:
        text = path.read_text("utf-8")
        parsed = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as a tokenizer: {error}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("model"), dict):
        raise ModelError(f"{path}: not a tokenizer: it has no 'model'", hint="Give the tokenizer.json of the model.")
    return tokenizers.Tokenizer.from_str(text)


def _tokens(lines: _Lines, count: int, tokenizer: Any, inputs: Sequence[Input], options: Options) -> dict[str, Column]:
    wanted = [entry for entry in inputs if entry.name in _TOKENS]
    if not wanted:
        raise UsageError(
            f"{lines.path}: the model has none of the inputs that a tokenizer fills: {', '.join(_TOKENS)}",
            hint=f"Its inputs are: {', '.join(entry.name for entry in inputs)}. Prepare arrays for them.",
        )
    length = options.max_length or _length(wanted, tokenizer)
    _pad(tokenizer, length)
    found: dict[str, Array] = {}
    key = b""

    def read(rows: Rows, name: str) -> Array:
        nonlocal key
        if not found or key != rows.tobytes():  # the columns are read one after another: tokenize once for all
            encoded = tokenizer.encode_batch(lines.texts(rows))
            for entry in wanted:
                ids = [getattr(one, _TOKENS[entry.name]) for one in encoded]
                found[entry.name] = np.array(ids, np.int64).reshape(len(rows), length)
            key = rows.tobytes()
        return found[name]

    shape, kind = (count, length), np.dtype(np.int64)
    return {
        entry.name: Column(shape, kind, functools.partial(read, name=entry.name), once=True, derived=True)
        for entry in wanted
    }


def _length(inputs: Sequence[Input], tokenizer: Any) -> int:
    for entry in inputs:
        if entry.shape is not None and len(entry.shape) > 1 and isinstance(entry.shape[-1], int):
            return entry.shape[-1]
    given = tokenizer.truncation
    return int(given["max_length"]) if given else _LENGTH


def _pad(tokenizer: Any, length: int) -> None:
    """Every sample gets ``length`` tokens; how, where the tokenizer says so, as it says."""
    cut = tokenizer.truncation or {}
    tokenizer.enable_truncation(length, **{key: cut[key] for key in ("strategy", "direction") if key in cut})
    filled = tokenizer.padding
    if not filled:
        token = next((token for token in _PADS if tokenizer.token_to_id(token) is not None), None)
        filled = {} if token is None else {"pad_token": token, "pad_id": tokenizer.token_to_id(token)}
    kept = ("pad_id", "pad_type_id", "pad_token", "direction")
    tokenizer.enable_padding(length=length, **{key: filled[key] for key in kept if key in filled})
