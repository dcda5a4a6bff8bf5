"""Downloads a file over HTTP, going on where an earlier attempt broke off (RFC 9110, range requests)."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["Unreachable", "download"]

_CHUNK: Final = 1 << 18
_TIMEOUT: Final = 20.0  # seconds without a byte
_TRIES: Final = 3  # each going on where the last one broke off


class Unreachable(Exception):
    """An address that does not give a file; ``for_good`` if the next file will fare no better."""

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


def download(url: str, part: Path, share: Callable[[float], None]) -> None:
    """Fetches a file to ``part``, going on behind what is there; what breaks off stays.

    Args:
        url: Of the file, ``http`` or ``https``.
        part: Where to; it may hold the beginning.
        share: Told the share of the file that is there, 0 to 1.

    Raises:
        Unreachable: The address does not give the file, or breaks off again and again.
        OSError: ``part`` cannot be written.
    """
    for _ in range(_TRIES):
        have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                part.unlink()  # it is no shorter than the file
                continue
            raise Unreachable(f"{url}: {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise Unreachable(f"{url}: {error.reason}", for_good=True) from error
        except (OSError, http.client.HTTPException):
            continue
        with response:
            starts = have if response.headers.get("Content-Range", "").startswith(f"bytes {have}-") else 0
            length = response.headers.get("Content-Length")
            whole = starts + int(length) if length is not None and length.isdecimal() else None
            with part.open("ab" if starts else "wb") as file:
                for block in _received(response):
                    file.write(block)
                    share(min(1.0, file.tell() / whole) if whole else 0.0)
                if whole is None or file.tell() == whole:
                    return
    raise Unreachable(f"{url}: it breaks off")


def _received(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What comes until the connection ends, well or not."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        while block := response.read(_CHUNK):
            yield block
