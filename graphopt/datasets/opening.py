"""Finds the reader for what the user named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from graphopt.datasets import arrays, code, digits, fetch, idx, images, text
from graphopt.datasets.column import Dataset
from graphopt.datasets.options import Options, parse_pairs, parse_spec
from graphopt.errors import ModelError, UsageError

__all__ = ["open_dataset"]

_FUNCTION: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def open_dataset(source: str | Path, *, preprocess: str | Mapping[str, object] = "") -> Dataset:
    """Open data by its spec, ``PATH[:key=value...]``; nothing is read that is not needed to know what is there.

    ====================================  =============================================================================
    what                                  how it is read
    ====================================  =============================================================================
    ``data.npz``                          arrays named as the inputs (``x`` does for a single one), ``y`` the labels;
                                          or ``x_train``, ``y_train``, ``x_test``, ``y_test`` and ``split=``
    folder of ``.npy``                    likewise, one file an array; mapped into memory
    folder of ``.npz``                    each file one whole call of the model
    IDX file, or folder of them           MNIST's format, ``.gz`` too; ``split=`` chooses
    folder of images                      needs Pillow; subfolders are classes, labelled in sorted order
    ``.txt``, ``.jsonl``, ``.jsonl.gz``   one sample a line; ``tokenizer=`` for models that take tokens
    ``module:function``                   **runs that code**: called without arguments, it gives a mapping of arrays or
                                          an iterable of feeds; modules in the current folder are found too
    ``digits``                            8x8 images of digits that come with scikit-learn, (1797, 1, 8, 8) in [0, 1];
                                          ``split=train`` are 70 % of them, ``split=test`` the others
    ``mnist``, ``fashion-mnist``          28x28 images in [0, 1], fetched once; ``split=test``; ``local=`` names a
                                          folder that has the files, should the web not
    ====================================  =============================================================================

    Args:
        source: The spec, or a path without options.
        preprocess: More options, as ``key=value:key=value`` or a mapping; see
            :class:`~graphopt.datasets.options.Options`.

    Raises:
        UsageError: An option that does not exist, or not for this kind of data.
        ModelError: The data cannot be found or read.
        EnvironmentProblem: A reader needs the extra ``graphopt[data]``, or a collection cannot be fetched.
    """
    path, pairs = (str(source), {}) if isinstance(source, Path) else parse_spec(source)
    for key, value in _more(preprocess).items():
        if key in pairs:
            raise UsageError(f"option '{key.replace('_', '-')}' is given twice for the data")
        pairs[key] = value
    if path == "digits":
        return digits.open_digits(pairs)
    if path in fetch.COLLECTIONS:
        return _open_collection(path, pairs)
    found = Path(path)
    if found.exists():
        return _open_folder(found, pairs) if found.is_dir() else _open_file(found, pairs)
    if _FUNCTION.fullmatch(path):
        return code.open_function(path, pairs)
    raise ModelError(
        f"{path}: there are no such data",
        hint=f"Give a file, a folder, module:function, digits, {', '.join(fetch.COLLECTIONS)}.",
    )


def _more(preprocess: str | Mapping[str, object]) -> dict[str, str]:
    if isinstance(preprocess, str):
        return parse_pairs(preprocess)
    return {key.replace("-", "_"): _text(value) for key, value in preprocess.items()}


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _open_collection(name: str, pairs: Mapping[str, str]) -> Dataset:
    """A split of MNIST or its like."""
    options = {"scale": "255", **pairs}
    return idx.open_folder(fetch.fetch(name, local=options.pop("local", None)), options)


def _open_file(path: Path, pairs: Mapping[str, str]) -> Dataset:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".npz":
        return arrays.open_npz(path, pairs)
    if kind == ".npy":
        return arrays.open_npy([path], path, pairs)
    if kind in (".txt", ".jsonl"):
        return text.open_text(path, pairs)
    if idx.is_idx(path):
        return idx.open_idx(path, pairs)
    raise ModelError(
        f"{path}: not a kind of data that graphopt reads", hint="It reads .npz, .npy, IDX, .txt, .jsonl and folders."
    )


def _open_folder(folder: Path, pairs: Mapping[str, str]) -> Dataset:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if found := [path for path in files if path.suffix == ".npy"]:
        return arrays.open_npy(found, folder, pairs)
    if found := [path for path in files if path.suffix == ".npz"]:
        Options.of(pairs, str(folder), ["input"])  # whole feeds are taken as they are
        return arrays.open_calls(found, folder)
    if any(idx.is_idx(path) for path in files):
        return idx.open_folder(folder, pairs)
    return images.open_images(folder, pairs)
