"""The Markdown report."""

from __future__ import annotations

import re
from typing import Any

import pytest
from reporting.samples import NAMES, digits, hostile

from graphopt.reporting.markdown import markdown

CELLS = re.compile(r"(?<!\\)\|")


def tables(text: str) -> list[list[str]]:
    return [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]


def test_the_real_one() -> None:
    text = markdown(digits())
    assert text.startswith("# digits-resnet.onnx\n\n**✅ Goal met**: 2.20x as fast")
    assert "| File size | 82.7 kB | 314 kB | 3.80x smaller |" in text
    assert "| accuracy | ✓ passed | +0.56 | 0.6 | 99.86% | 99.30% |  |" in text
    assert "| /stem/stem.0/Conv | 8 | 16 | 50% |" in text
    assert "```sh\ngraphopt compress digits-resnet.onnx" in text
    assert re.findall("^## (.*)", text, re.M)[:3] == ["Safety gates", "Candidates", "Kept channels"]
    assert "Importance" not in text, "there is nothing but pictures"
    assert text.endswith("|\n")


def test_nothing_to_say() -> None:
    assert markdown({}) == "# Compression report\n"
    assert markdown(dict.fromkeys(digits())) == "# Compression report\n"


@pytest.mark.parametrize("data", [digits(), hostile(60)], ids=["digits", "hostile"])
def test_every_row_has_the_columns_of_its_table(data: dict[str, Any]) -> None:
    found = tables(markdown(data))
    assert len(found) > 9
    for table in found:
        assert re.fullmatch(r"\| (-+:?( \| )?)+ \|", table[1])
        assert len({len(CELLS.findall(line)) for line in table}) == 1


def test_hostile_names_are_text() -> None:
    text = markdown(hostile(60))
    body = text[: text.index("To make it again")]
    assert not re.search(r"(?<!\\)[<>`\[*_]", body.replace("**❌ Goal not met**", ""))
    assert len(re.findall("^# ", body, re.M)) == 1
    assert text.encode("utf-8")
    assert "\n- \\- nested\n- 1\\. one\n- 1.5 and\n- \\# a\n" in markdown(
        {"verdict": {"reasons": ["- nested", "1. one", "1.5 and", "# a"]}}
    )


def test_a_fence_that_the_command_cannot_close() -> None:
    text = markdown({"provenance": {"command": "a\n````\n<b>"}})
    assert text.endswith("\n`````sh\na\n````\n<b>\n`````\n")


def test_thousands_of_layers() -> None:
    text = markdown(hostile(5000))
    assert "… and 4,960 more, all faster; the JSON report has all." in text
    assert text == markdown(hostile(5000))
    assert NAMES[3] not in text
