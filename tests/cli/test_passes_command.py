"""``graphopt passes``, and the generated page of the pass library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphopt_passes import CATALOGUE

from graphopt.cli.main import main
from graphopt.pipeline import catalogue


def test_table_lists_every_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in CATALOGUE)
    assert "default" in out


def test_one_pass_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes", "fuse-conv-batchnorm"]) == 0
    out = capsys.readouterr().out
    assert "Does not apply when" in out
    assert "``" not in out
    assert "eliminate-identity" not in out


def test_unknown_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes", "fuse-conv-batchnrm"]) == 2
    assert "fuse-conv-batchnorm" in capsys.readouterr().err


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert [card["name"] for card in cards] == list(CATALOGUE)
    assert all(card["safety"] in ("exact", "numeric", "lossy") and card["summary"] for card in cards)


def test_markdown_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes", "--markdown"]) == 0
    page = tmp_path / "README.md"
    page.write_text(capsys.readouterr().out, "utf-8")
    assert main(["passes", "--check", str(page)]) == 0
    page.write_text(page.read_text("utf-8") + "more", "utf-8")
    assert main(["passes", "--check", str(page)]) == 2
    assert "make passes" in capsys.readouterr().err


def test_page_has_what_a_newcomer_needs() -> None:
    page = catalogue.to_markdown(catalogue.cards(list(CATALOGUE)))
    assert "## Add a pass in five steps" in page
    assert all(f"### {name}\n" in page and f"(#{name})" in page for name in CATALOGUE)
    assert "``" not in page.replace("```", "")
