"""The protobuf wire format: write records, and cut big tensor payloads out of a model's bytes.

Reading a model through protobuf copies every weight into memory. :func:`cut` walks the wire format instead, which
is a handful of bytes a record, and hands protobuf a skeleton in which each big ``raw_data`` is replaced by an
external-data marker; where the payload lies in the file is returned beside it, so it can stay memory-mapped.
Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Buffer", "Skeleton", "Truncated", "cut", "head", "number", "record", "text", "varint"]

Buffer = bytes | memoryview

_WORTH_CUTTING = 1024  # payloads below this many bytes go through protobuf
_MAX_DEPTH = 100  # protobuf's own limit

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _FUNCTION = range(6)
_PAYLOAD = -1  # raw_data, or packed floats or doubles, which are the same bytes
_CHILDREN: tuple[dict[int, int], ...] = (
    {7: _GRAPH, 25: _FUNCTION},
    {1: _NODE, 5: _TENSOR},
    {5: _ATTRIBUTE},
    {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH},
    {4: _PAYLOAD, 9: _PAYLOAD, 10: _PAYLOAD},
    {7: _NODE},
)

_VARINTS = [bytes((n,)) if n < 128 else bytes((n & 127 | 128, n >> 7)) for n in range(2048)]


_TAGS: list[bytes] = []  # of length-delimited fields, by number


class Truncated(ValueError):
    """A record reaches past the end of what contains it."""


class _Unusual(Exception):
    """A deprecated wire type: protobuf itself shall read (or refuse) this file whole."""


class Skeleton(NamedTuple):
    """A model without its big payloads.

    ``content`` is what protobuf shall parse; ``payloads`` maps the location of a marker to its (field, start, end)
    in the original bytes.
    """

    content: bytes
    payloads: dict[str, tuple[int, int, int]]


def varint(n: int) -> bytes:
    """The base-128 encoding of ``n``; a negative number takes ten bytes, as an int64 does."""
    if 0 <= n < 2048:
        return _VARINTS[n]
    n &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


_TAGS += [varint(field << 3 | 2) for field in range(32)]


def head(field: int, size: int) -> bytes:
    """Tag and length that come before ``size`` bytes of a length-delimited field."""
    return _TAGS[field] + varint(size)


def record(field: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    size = len(payload)
    return _TAGS[field] + (_VARINTS[size] if size < 2048 else varint(size)) + payload


def text(field: int, content: str | bytes) -> bytes:
    """A string field."""
    payload = content.encode() if isinstance(content, str) else content  # bytes: text that came as invalid UTF-8
    size = len(payload)
    return _TAGS[field] + (_VARINTS[size] if size < 2048 else varint(size)) + payload


def number(field: int, content: int) -> bytes:
    """An integer field."""
    return varint(field << 3) + varint(content)


def cut(data: Buffer, token: str) -> Skeleton:
    """Separate a serialized ModelProto from its big tensor payloads.

    Args:
        data: The whole file.
        token: What the marker locations start with; nothing in the file may guess it.

    Raises:
        Truncated: A record reaches past the end of the file or of its parent.
    """
    payloads: dict[str, tuple[int, int, int]] = {}
    try:
        parts = _cut(data, 0, len(data), _MODEL, token, payloads, 0)
    except IndexError:
        raise Truncated("a record is cut short") from None
    except _Unusual:
        return Skeleton(bytes(data), {})
    return Skeleton(b"".join(parts) if parts else bytes(data), payloads)


def _read_varint(data: Buffer, at: int) -> tuple[int, int]:
    n = shift = 0
    while True:
        byte = data[at]
        at += 1
        n |= (byte & 127) << shift
        if byte < 128:
            return n, at
        shift += 7
        if shift > 63:
            raise Truncated("a number is longer than ten bytes")


def _cut(
    data: Buffer, start: int, end: int, kind: int, token: str, payloads: dict[str, tuple[int, int, int]], depth: int
) -> list[Buffer]:
    """The rewritten parts of one message; empty when there is nothing to cut in it."""
    children = _CHILDREN[kind]
    parts: list[Buffer] = []
    copied = at = start
    found: tuple[int, int, int] | None = None
    while at < end:
        begin = at
        tag = data[at]
        at += 1
        if tag > 127:
            tag, at = _read_varint(data, begin)
        wire = tag & 7
        if wire == 2:
            size = data[at]
            at += 1
            if size > 127:
                size, at = _read_varint(data, at - 1)
            body = at
            at += size
            if at > end:
                raise Truncated(f"a record of {size} bytes has only {max(0, end - body)}")
            if size < _WORTH_CUTTING or (child := children.get(tag >> 3)) is None:
                continue
            if child == _PAYLOAD:
                if found:
                    return []  # data in several pieces
                found = (tag >> 3, body, at)
                parts.append(data[copied:begin])
                copied = at
            elif depth < _MAX_DEPTH and (inner := _cut(data, body, at, child, token, payloads, depth + 1)):
                parts += (data[copied:begin], head(tag >> 3, sum(map(len, inner))), *inner)
                copied = at
        elif wire == 0:
            while data[at] > 127:
                at += 1
            at += 1
        elif wire == 5:
            at += 4
        elif wire == 1:
            at += 8
        else:
            raise _Unusual
    if at != end:
        raise Truncated("a record reaches past the end")
    if not parts:
        return parts
    parts.append(data[copied:end])
    if found:
        # The marker comes last, so that it wins over a data_location of the tensor itself.
        location = f"{token}{len(payloads)}"
        payloads[location] = found
        parts.append(record(13, text(1, "location") + text(2, location)) + number(14, 1))
    return parts
