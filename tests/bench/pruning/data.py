"""Data for the scoreboard of pruning: images as ``(N, 1, H, W)`` floats, mails as ``(N, 128)`` token ids, and labels.

scikit-learn's digits come with that package. The others are files that the project does not ship: MNIST and
Fashion-MNIST as ``npz`` (``x_train``, ``y_train``, ``x_test``, ``y_test``),
SpamAssassin's mails as gzipped JSON lines (``text``, ``spam``).
"""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from graphopt.errors import EnvironmentProblem

__all__ = ["FOLDER", "LENGTH", "SOURCES", "VOCABULARY", "Data"]

Array = np.ndarray[Any, Any]

FOLDER: Final = Path(__file__).parents[3].parent / "shared" / "data"
"""Where the files lie: beside the repository."""

LENGTH: Final = 128
"""Tokens of a mail; 0 pads."""

VOCABULARY: Final = 4096

_HELD_OUT_DIGITS: Final = 0.4
_HELD_OUT_MAILS: Final = 0.2
_CHARACTERS: Final = 2000  # of a mail; more than 128 tokens need


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Samples to train with, and others to judge by."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def _digits(folder: Path, seed: int) -> Data:
    """1,797 images, upsampled from 8x8 to 16x16; which 40 % are held out depends on the seed."""
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise EnvironmentProblem("scikit-learn, whose digits are wanted, is missing", hint="Install it.") from error
    bunch = datasets.load_digits()
    images = np.asarray(bunch.images, np.float32).repeat(2, axis=1).repeat(2, axis=2)[:, None] / 16
    return _parted((images - 0.305) / 0.376, np.asarray(bunch.target, np.int64), _HELD_OUT_DIGITS, seed)


def _images(file: str, mean: float, deviation: float) -> Callable[[Path, int], Data]:
    def read(folder: Path, seed: int) -> Data:
        with np.load(_existing(folder / file)) as arrays:
            images = [(arrays[f"x_{part}"][:, None].astype(np.float32) / 255 - mean) / deviation for part in _PARTS]
            labels = [arrays[f"y_{part}"].astype(np.int64) for part in _PARTS]
        return Data(images[0], labels[0], images[1], labels[1])

    return read


_PARTS: Final = ("train", "test")


def _mails(folder: Path, seed: int) -> Data:
    """Subjects and bodies without the other headers, which would give the class away; equal ones are kept once."""
    with gzip.open(_existing(folder / "spamassassin.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    spam = {_words(row["text"]): int(row["spam"]) for row in rows}
    texts, labels = np.array(list(spam), object), np.array(list(spam.values()), np.int64)
    parted = _parted(texts, labels, _HELD_OUT_MAILS, seed)
    encode = _tokenizer(parted.x_train)
    return dataclasses.replace(parted, x_train=encode(parted.x_train), x_test=encode(parted.x_test))


def _words(mail: str) -> str:
    header, _, body = mail.partition("\n\n")
    subject = next((line[8:].strip() for line in header.splitlines() if line.lower().startswith("subject:")), "")
    return f"{subject}\n{body}"[:_CHARACTERS]


def _tokenizer(texts: Array) -> Callable[[Array], Array]:
    """A byte-level BPE learned from ``texts``."""
    tokenizers = importlib.import_module("tokenizers")
    tokenizer = tokenizers.ByteLevelBPETokenizer(lowercase=True)
    options = {"vocab_size": VOCABULARY, "min_frequency": 2, "special_tokens": ["<pad>"], "show_progress": False}
    tokenizer.train_from_iterator(list(texts), **options)

    def encode(texts: Array) -> Array:
        ids = np.zeros((len(texts), LENGTH), np.int64)
        for row, text in zip(ids, texts, strict=True):
            found = tokenizer.encode(text).ids[:LENGTH]
            row[: len(found)] = found
        return ids

    return encode


def _parted(x: Array, y: Array, held_out: float, seed: int) -> Data:
    """The same share of each class held out."""
    random = np.random.default_rng(seed)
    test = np.zeros(len(y), bool)
    for members in _classes(y):
        test[random.permutation(members)[: round(len(members) * held_out)]] = True
    return Data(x[~test], y[~test], x[test], y[test])


def _classes(labels: Array) -> Iterator[Array]:
    for label in np.unique(labels):
        yield np.flatnonzero(labels == label)


def _existing(path: Path) -> Path:
    if path.exists():
        return path
    hint = "The project does not ship it. Put it there, or say where it is: models.py --data FOLDER."
    raise EnvironmentProblem(f"{path} is missing", hint=hint)


SOURCES: Final[Mapping[str, Callable[[Path, int], Data]]] = {
    "digits": _digits,
    "mnist": _images("mnist.npz", 0.1307, 0.3081),
    "fashion": _images("fashion.npz", 0.2860, 0.3530),
    "mails": _mails,
}
"""Each takes the folder of the files and a seed for the split, where there is no official one."""
