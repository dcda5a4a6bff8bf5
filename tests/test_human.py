"""Figures, names and bars."""

from __future__ import annotations

import pytest

from graphopt.human import bar, byte_size, count, duration, energy, printable, shorten, shorten_all, times


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9995, "10.0 kB"), (999_499, "999 kB"), (999_500, "1.00 MB"),
     (4_970_000, "4.97 MB"), (3 * 10**9, "3.00 GB"), (10**19, "10000 PB"), (None, "-")],
)  # fmt: skip
def test_byte_size(number: int | None, text: str) -> None:
    assert byte_size(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (9999, "9999"), (10_000, "10.0 k"), (1_235_496, "1.24 M"), (4_082_116_200, "4.08 G")]
)
def test_count(number: int, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.00689, "0.00689 ms"), (0.5, "0.500 ms"), (31.24, "31.2 ms"), (1004.0, "1.00 s"), (12_480, "12.5 s"),
     (600_000, "10 min")],
)  # fmt: skip
def test_duration(milliseconds: float, text: str) -> None:
    assert duration(milliseconds) == text


@pytest.mark.parametrize(
    ("millijoules", "text"),
    [(0.01234, "0.0123 mJ"), (31.24, "31.2 mJ"), (999.4, "999 mJ"), (1000, "1.00 J"), (4200, "4.20 J"), (None, "-")],
)
def test_energy(millijoules: float | None, text: str) -> None:
    assert energy(millijoules) == text


def test_times() -> None:
    assert [times(1.336), times(12.34), times(534.1)] == ["1.34x", "12.3x", "534x"]


@pytest.mark.parametrize(("share", "text"), [(0, ""), (1e-9, "▏"), (0.5, "████"), (0.53, "████▎"), (1, "████████")])
def test_bar(share: float, text: str) -> None:
    assert bar(share, 8) == text


def test_ascii_bar() -> None:
    assert [bar(share, 8, ascii_only=True) for share in (0, 0.01, 0.5, 2)] == ["", "#", "####", "########"]


def test_shorten_keeps_both_ends() -> None:
    assert shorten("conv", 4) == "conv"
    assert shorten("/model/layer4/conv2/Conv", 12) == "/mod…v2/Conv"
    assert all(len(shorten("x" * 50, width)) <= width for width in range(60))


def test_shorten_all_keeps_names_apart() -> None:
    names = ["export_of_resnet_before_optimization_fp32", "export_of_resnet_after_optimization_fp32"]
    assert shorten_all(names, 20) == ["…before…", "…after…"]
    assert shorten_all(["a" * 30], 10) == ["aaa…aaaaaa"]
    assert shorten_all(["same" * 9, "same" * 9], 9) == ["sam…esame", "sam…esame"]
    assert shorten_all([], 10) == []


def test_printable_hides_escapes() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c"
    assert printable("naïve 模型") == "naïve 模型"
