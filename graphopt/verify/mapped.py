"""Which file an array is mapped from, so that another process can map it too instead of being sent a copy."""

from __future__ import annotations

import bisect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from graphopt.verify.protocol import FileSlice

__all__ = ["by_reference"]


class _Region(NamedTuple):
    start: int
    end: int
    offset: int
    inode: int
    path: str


def by_reference(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any] | FileSlice]:
    """Each array, or where it lies in a file. Linux only; elsewhere, and for what is in memory, the array itself."""
    if not arrays:
        return {}
    regions = _regions()
    return {name: _located(array, regions) or array for name, array in arrays.items()}


def _located(array: np.ndarray[Any, Any], regions: list[_Region]) -> FileSlice | None:
    from graphopt.verify.protocol import FileSlice

    start = array.ctypes.data
    index = bisect.bisect_right(regions, start, key=lambda region: region.start) - 1
    if index < 0 or not array.flags.c_contiguous:
        return None
    region = regions[index]
    if start + array.nbytes > region.end or not _is_still(region):
        return None
    return FileSlice(region.path, region.offset + start - region.start, array.dtype.name, array.shape)


def _is_still(region: _Region) -> bool:
    """Whether the path leads to the file that was mapped; it may have been replaced."""
    try:
        return Path(region.path).stat().st_ino == region.inode
    except OSError:
        return False


def _regions() -> list[_Region]:
    """Read-only file mappings of this process, in the order of their addresses."""
    if sys.platform != "linux":
        return []
    found: list[_Region] = []
    for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
        address, permissions, offset, _, inode, *path = line.split(maxsplit=5)
        if not path or not permissions.startswith("r-") or inode == "0":
            continue
        start, end = (int(bound, 16) for bound in address.split("-"))
        found.append(_Region(start, end, int(offset, 16), int(inode), path[0]))
    return found
