"""Fetching MNIST and its like: from the web, going on after a break, checked, or from a folder."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import parse

from graphopt.datasets import bind, open_dataset
from graphopt.datasets import fetch as module
from graphopt.datasets.fetch import COLLECTIONS, Collection, fetch, load
from graphopt.errors import EnvironmentProblem, ModelError, SaveError, UsageError

RNG = np.random.default_rng(0)
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def _idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


PIXELS = RNG.integers(0, 256, (500, 28, 28), np.uint8)
TRUTH = RNG.integers(0, 10, 500).astype(np.uint8)
FILES = {
    IMAGES: _idx(PIXELS),
    LABELS: _idx(TRUTH),
    "t10k-images-idx3-ubyte": _idx(PIXELS[:7]),
    "t10k-labels-idx1-ubyte": _idx(TRUTH[:7]),
}


class Server:
    """A web server on this machine.

    Attributes:
        files: Path -> contents.
        cut: How many more answers break off after a third.
        ranges: Whether it knows range requests.
        asked: (path, range) of each request.
    """

    def __init__(self) -> None:
        self.files = {f"/{name}.gz": gzip.compress(contents, mtime=0) for name, contents in FILES.items()}
        self.cut = 0
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}/"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        contents = self.files.get(request.path)
        if contents is None:
            request.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if start >= len(contents):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(contents) - 1}/{len(contents)}")
        request.send_header("Content-Length", str(len(contents) - start))
        request.end_headers()
        body = contents[start:]
        if self.cut:
            self.cut -= 1
            body = body[: len(body) // 3]
        request.wfile.write(body)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    files = {name: (hashlib.sha256(contents).hexdigest(), len(contents)) for name, contents in FILES.items()}
    collection = Collection((server.address,), files, "a friend has them")
    monkeypatch.setattr(module, "COLLECTIONS", {"mnist": collection})


def check(folder: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_the_real_table() -> None:
    assert set(COLLECTIONS) == {"mnist", "fashion-mnist"}
    for collection in COLLECTIONS.values():
        assert set(collection.files) == set(FILES)
        assert collection.bytes == 16 + 60_000 * 784 + 8 + 60_000 + 16 + 10_000 * 784 + 8 + 10_000
        assert all(len(checksum) == 64 for checksum, _ in collection.files.values())
        assert all(address.endswith("/") for address in collection.addresses)


def test_fetched_once(tmp_path: Path, server: Server) -> None:
    fractions: list[float] = []
    folder = fetch("mnist", tmp_path / "a" / "m", progress=lambda what, fraction: fractions.append(fraction))
    check(folder)
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len(server.asked) == 4
    fetch("mnist", folder)
    assert len(server.asked) == 4
    (folder / LABELS).write_bytes(FILES[LABELS][:-1] + b"\xff")
    fetch("mnist", folder)
    check(folder)
    assert server.asked[4:] == [(f"/{LABELS}.gz", None)]


def test_what_it_gives(tmp_path: Path) -> None:
    found = load("mnist", folder=tmp_path)
    assert (found["x"].dtype, found["x"].shape) == (np.float32, (500, 1, 28, 28))
    assert (found["x"] == PIXELS[:, None] / np.float32(255)).all()
    assert found["y"].dtype == np.int64
    assert (found["y"] == TRUTH).all()
    raw = load("mnist", "test", tmp_path, scale=None)
    assert raw["x"].dtype == np.uint8
    assert (raw["x"][:, 0] == PIXELS[:7]).all()
    with pytest.raises(UsageError, match="split"):
        load("mnist", "validation", tmp_path)


def test_the_readers_take_it(tmp_path: Path) -> None:
    model = parse("agraph (float[N,1,28,28] image) => (float[N,1,28,28] b) { b = Identity(image) }")
    found = load("mnist", folder=tmp_path)
    by_arrays = bind(found, model, samples=None)
    by_folder = bind(open_dataset(f"{tmp_path}:scale=255"), model, samples=None)
    assert by_arrays.digest == by_folder.digest
    assert by_arrays.labels is not None
    assert (by_arrays.labels == TRUTH).all()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_break_in_a_run(tmp_path: Path, server: Server, ranges: bool) -> None:
    server.cut, server.ranges = 2, ranges
    check(fetch("mnist", tmp_path))
    wanted = [asked for path, asked in server.asked if path == f"/{IMAGES}.gz"]
    third = len(server.files[f"/{IMAGES}.gz"]) // 3
    assert wanted[:2] == [None, f"bytes={third}-"]
    assert len(wanted) == 3


def test_a_break_of_a_run_is_gone_on_from_in_the_next(tmp_path: Path, server: Server) -> None:
    server.cut = 3
    with pytest.raises(EnvironmentProblem, match="it breaks off"):
        fetch("mnist", tmp_path)
    parts = [path for path in tmp_path.iterdir() if path.suffix == ".part"]
    have = parts[0].stat().st_size
    assert have > 2 * len(server.files[f"/{IMAGES}.gz"]) // 3
    assert not (tmp_path / IMAGES).exists()
    server.asked.clear()
    check(fetch("mnist", tmp_path))
    assert server.asked[0] == (f"/{IMAGES}.gz", f"bytes={have}-")


@pytest.mark.parametrize("length", [10, 10**6])
def test_a_part_that_is_wrong_is_fetched_anew(tmp_path: Path, server: Server, length: int) -> None:
    server.cut = 3
    with pytest.raises(EnvironmentProblem):
        fetch("mnist", tmp_path)
    part = next(path for path in tmp_path.iterdir() if path.suffix == ".part")
    part.write_bytes(bytes(length))
    check(fetch("mnist", tmp_path))


def test_the_next_address(tmp_path: Path, server: Server) -> None:
    other = Server()
    other.files = {f"/{LABELS}.gz": gzip.compress(b"something else"), f"/{IMAGES}.gz": b"no gzip, no idx"}
    check(fetch("mnist", tmp_path, addresses=[other.address, server.address]))
    assert len(other.asked) == 4
    other.close()
    other.asked.clear()
    gone = f"http://127.0.0.1:{_free_port()}/"
    check(fetch("mnist", tmp_path / "again", addresses=[gone, server.address]))


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_wrong_checksum_names_both(tmp_path: Path, server: Server) -> None:
    wrong = FILES[IMAGES][:-1] + bytes([FILES[IMAGES][-1] ^ 1])
    server.files[f"/{IMAGES}.gz"] = gzip.compress(wrong)
    with pytest.raises(ModelError) as caught:
        fetch("mnist", tmp_path)
    assert hashlib.sha256(wrong).hexdigest() in caught.value.message
    assert hashlib.sha256(FILES[IMAGES]).hexdigest() in caught.value.message
    assert "a friend has them" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-9], lambda raw: raw[:50] + bytes(50) + raw[100:], lambda raw: gzip.compress(bytes(1 << 26))],
    ids=["cut", "changed", "bomb"],
)
def test_damaged_archives(tmp_path: Path, server: Server, damage: Callable[[bytes], bytes]) -> None:
    server.files[f"/{IMAGES}.gz"] = damage(server.files[f"/{IMAGES}.gz"])
    with pytest.raises(ModelError, match=f"{IMAGES} cannot be had"):
        fetch("mnist", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("packed", [True, False])
def test_a_local_folder_is_the_last_source(tmp_path: Path, server: Server, packed: bool) -> None:
    local = tmp_path / "local"
    local.mkdir()
    for name, contents in FILES.items():
        (local / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(contents) if packed else contents)
    before = sorted(path.name for path in local.iterdir())
    server.files.clear()
    check(fetch("mnist", tmp_path / "a", local=local))
    assert len(server.asked) == 4
    check(fetch("mnist", tmp_path / "b", local=local, addresses=()))
    assert len(server.asked) == 4
    assert sorted(path.name for path in local.iterdir()) == before


def test_no_source(tmp_path: Path, server: Server) -> None:
    server.files.clear()
    with pytest.raises(EnvironmentProblem, match=rf"404 Not Found; {tmp_path}/none: it is not there"):
        fetch("mnist", tmp_path / "a", local=tmp_path / "none")
    with pytest.raises(EnvironmentProblem, match="there is no source"):
        fetch("mnist", tmp_path / "a", addresses=())


def test_what_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no collection 'mnits'"):
        fetch("mnits", tmp_path)
    with pytest.raises(UsageError, match="no address on the web"):
        fetch("mnist", tmp_path, addresses=["file:///etc/"])
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError):
        fetch("mnist", tmp_path / "file" / "m")
