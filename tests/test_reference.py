"""The page of the Python API: fresh, complete, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import griffe
import pytest
import reference

import graphopt
from graphopt import channels

PAGE = Path(graphopt.__file__).with_name("API.md")
SHOWN = {name for _, names in reference.SECTIONS.values() for name in names}


def exported(package: str) -> set[str]:
    path = PAGE.parent / package / "__init__.py"
    exports = griffe.visit(package, path, path.read_text("utf-8")).exports
    return {str(name) for name in exports or ()}


def test_it_is_the_page_of_this_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert reference.main(["--check", str(PAGE)]) == 0, "run 'make api'"
    assert reference.main([]) == 0
    assert capsys.readouterr().out == PAGE.read_text("utf-8")
    stale = tmp_path / "API.md"
    stale.write_text(PAGE.read_text("utf-8") + "\n", "utf-8")
    assert reference.main(["--check", str(stale)]) == 1
    assert reference.main(["--check", str(tmp_path / "none")]) == 1
    assert "make api" in capsys.readouterr().err


def test_every_public_name_is_on_it() -> None:
    own = {name for name in graphopt.__all__ if name not in ("GraphoptError", "__version__", "channels", "torch")}
    assert {f"graphopt.{name}" for name in own} <= SHOWN
    for package, names in (("channels", set(channels.__all__)), ("torch", exported("torch"))):
        assert {name if name[0].isupper() else f"graphopt.{package}.{name}" for name in names} <= SHOWN
    assert exported("channels") == set(channels.__all__)


def test_its_links_lead_somewhere() -> None:
    text = PAGE.read_text("utf-8")
    headings = [reference.anchor(found) for found in re.findall(r"^#{2,4} (.+)$", text, re.MULTILINE)]
    assert len(headings) == len(set(headings)), "two headings would share an anchor"
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 100
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (PAGE.parent / link).is_file(), link


def test_nothing_of_the_markup_of_docstrings_is_left() -> None:
    outside = re.sub(r"```.*?```", "", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert not re.findall(r":(?:class|func|meth|mod|attr|data|exc):`|``|^\s*(?:Args|Raises|Returns):", outside)


@pytest.mark.parametrize("name", [one for one in sorted(SHOWN) if one.startswith("graphopt.")])
def test_every_argument_of_a_function_is_explained(name: str) -> None:
    entry = PAGE.read_text("utf-8").partition(f"### {name}\n")[2].partition("\n### ")[0]
    signature = entry.partition("```python\n")[2].partition("```")[0]
    arguments = re.findall(r"(?:^    |[(] ?|, )(\w+)(?=: )", signature, re.MULTILINE)
    told = set(re.findall(r"^\| `(\w+)` \|", entry, re.MULTILINE))
    assert arguments
    assert set(arguments) <= told, set(arguments) - told
