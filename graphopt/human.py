"""Figures, names and bars as people read them; nothing here imports a terminal library."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "bar",
    "byte_size",
    "count",
    "decimals",
    "duration",
    "energy",
    "percent",
    "printable",
    "shorten",
    "shorten_all",
    "times",
]

_EIGHTHS = " ▏▎▍▌▋▊▉"


def byte_size(number: int | None) -> str:
    """Bytes in decimal units: ``4.97 MB``; a dash for ``None``."""
    if number is None:
        return "-"
    return f"{number} B" if abs(number) < 1000 else _scaled(number, ("kB", "MB", "GB", "TB", "PB"))


def count(number: int | None) -> str:
    """A number of things: ``1.24 M``; a dash for ``None``."""
    if number is None:
        return "-"
    return str(number) if abs(number) < 10_000 else _scaled(number, ("k", "M", "G", "T", "P"))


def decimals(number: float) -> int:
    """The decimals that show three significant digits of ``number``, at most five of them."""
    return next((digits for digits, bound in enumerate((100, 10, 1, 0.1, 0.01)) if abs(number) >= bound), 5)


def duration(milliseconds: float) -> str:
    """``31.2 ms``, ``4.20 s``, ``12 min``: three significant digits, in the unit that suits."""
    if milliseconds < 999.5:
        return f"{milliseconds:.{decimals(milliseconds)}f} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.{decimals(seconds)}f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def energy(millijoules: float | None) -> str:
    """``31.2 mJ``, ``4.20 J``: three significant digits, in the unit that suits; a dash for ``None``."""
    if millijoules is None:
        return "-"
    value, unit = (millijoules, "mJ") if millijoules < 999.5 else (millijoules / 1000, "J")
    return f"{value:.{decimals(value)}f} {unit}"


def times(ratio: float) -> str:
    """A ratio: ``1.34x``, ``12.5x``, ``534x``."""
    return f"{ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}x"


def percent(share: float) -> str:
    """A share of 0 to 1; empty for nothing, so that the eye finds what is there."""
    return "" if not share else "<1%" if share < 0.005 else f"{share:.0%}"


def printable(text: str) -> str:
    """``text`` with what would move the cursor or break a line made visible: names come from files of any origin."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters, its middle left out: names differ at their ends."""
    if len(text) <= width:
        return text
    if width < 5:
        return text[:width]
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def shorten_all(names: Sequence[str], width: int) -> list[str]:
    """``names`` in at most ``width`` characters each; two that differ still do, where that can be helped."""
    short = [shorten(name, width) for name in names]
    if len(set(short)) == len(set(names)):
        return short
    head = _shared(names)
    tail = _shared([name[:head:-1] for name in names])
    cut = [f"{'…' if head else ''}{name[head : len(name) - tail]}{'…' if tail else ''}" for name in names]
    return [shorten(name, width) for name in cut]


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """A horizontal bar, ``share`` (0 to 1) of ``width`` cells long, in eighths of a cell; something above 0 shows."""
    share = min(1.0, max(0.0, share))
    if ascii_only:
        return "#" * (max(1, round(share * width)) if share else 0)
    eighths = max(1, round(share * width * 8)) if share else 0
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def _shared(names: Sequence[str]) -> int:
    """How many characters all ``names`` begin with."""
    return next((index for index, chars in enumerate(zip(*names, strict=False)) if len(set(chars)) > 1), 0)


def _scaled(number: float, units: tuple[str, ...]) -> str:
    value, unit = number / 1000, units[0]
    for unit in units:
        if abs(value) < 999.5 or unit == units[-1]:
            break
        value /= 1000
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"
