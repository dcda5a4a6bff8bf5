"""The HTML report: self-contained, well-formed, safe, and the same each time."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reporting.samples import NAMES, NUMBERS, Page, digits, hostile

from graphopt.errors import EnvironmentProblem
from graphopt.human import printable
from graphopt.reporting.page import page

PARTS = {
    "checks": "gates", "points": "candidates", "groups": "kept", "layers": "latency", "classes": "classes",
    "slices": "slices", "flips": "flips", "history": "training", "stages": "stages", "notes": "notes",
    "provenance": "provenance",
}  # fmt: skip
"""Each part of the data, and its section."""


def sections(text: str) -> list[str | None]:
    return [one["id"] for one in Page(text).all("section")]


def check(text: str) -> Page:
    """What must hold of any page."""
    found = Page(text)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "base", "b1"}
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert "src" not in attributes
        if (target := attributes.get("href")) is not None:
            assert target == "data:," or target.removeprefix("#") in ids
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
        if tag == "svg" and attributes.get("role") == "img":
            assert attributes.get("aria-label")
    (style,) = (data for tag, data in found.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"\b(nan|inf)(x|%|\b)", text), "a number that is none"
    return found


def test_the_real_one() -> None:
    found = check(page(digits()))
    assert found.all("html") == [{"lang": "en"}]
    assert any("default-src 'none'" in (one.get("content") or "") for one in found.all("meta"))
    assert [one["id"] for one in found.all("section")] == [
        "gates", "candidates", "kept", "curves", "latency", "classes", "slices", "flips", "training", "stages",
        "operators", "notes", "provenance",
    ]  # fmt: skip
    words = found.words
    for text in ("✓ Goal met", "3.80x smaller", "2.20x faster", "−0.56 points", "was 99.86%", "limit 99.26%"):
        assert text in words
    assert "--max-drop 0.6 --batch 8" in words
    assert [text for tag, text in found.texts if tag == "h1"] == ["digits-resnet.onnx"]


def test_nothing_to_say() -> None:
    found = check(page({}))
    assert not found.all("section")
    assert not found.all("nav")
    assert "Goal" not in found.words
    assert sections(page(dict.fromkeys(digits()))) == []


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("nothing", ["missing", "none", "empty"])
def test_what_is_not_there_has_no_section(part: str, nothing: str) -> None:
    data = digits()
    whole = sections(page(data))
    value = data.pop(part)
    if nothing != "missing":
        data[part] = None if nothing == "none" else type(value)()
    gone = {PARTS[part], *(["curves"] if part == "groups" else [])}
    assert sections(page(data)) == [one for one in whole if one not in gone]


@pytest.mark.parametrize(("met", "words"), [(True, "✓ Goal met"), (False, "✗ Goal not met"), (None, "")])
def test_the_verdict_needs_no_colours(met: bool | None, words: str) -> None:
    found = check(page({"verdict": {"met": met, "text": "so it is", "reasons": ["because", ""]}}))
    assert [text for tag, text in found.texts if tag == "strong"] == [words][: met is not None]
    assert "so it is" in found.words
    assert [text for tag, text in found.texts if tag == "li"] == ["because"]


def test_hostile_names_are_text() -> None:
    found = check(page(hostile(60)))
    reference = {tag for tag, _ in check(page(digits())).elements}
    assert {tag for tag, _ in found.elements} <= reference
    reasons = "\n".join(text for tag, text in found.texts if tag == "li")
    for name in NAMES:
        if name and len(name) < 100:
            assert printable(" ".join(name.split())) in reasons
    assert "x" * 700 not in found.words
    page(hostile(60)).encode("utf-8")


def test_thousands_of_layers() -> None:
    text = page(hostile(5000))
    found = check(text)
    assert len(text) < 600_000
    assert len(found.all("tr")) < 1_500
    assert "… and 4,960 more, all faster; the JSON report has all." in found.words
    assert len(found.all("circle")) < 400


@pytest.mark.parametrize("seed", range(20))
def test_any_numbers(seed: int) -> None:
    """Numbers that are missing, not finite or absurd, wherever a number stands."""
    chance = random.Random(seed)

    def shaken(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shaken(one) for key, one in value.items() if chance.random() > 0.02}
        if isinstance(value, list):
            return [shaken(one) for one in value if chance.random() > 0.05]
        if isinstance(value, int | float) and not isinstance(value, bool) and chance.random() < 0.3:
            return chance.choice(NUMBERS)
        return value

    data = shaken(digits()) | {"provenance": None}  # which is shown as it is
    check(page(data | {"metric_is_share": chance.random() < 0.5, "higher_is_better": chance.random() < 0.5}))


def test_less_is_better() -> None:
    data = {"metric": "mae", "metric_is_share": False, "higher_is_better": False}
    worse = data | {"before": {"score": 2.0}, "after": {"score": 2.5}, "slices": {"a": [{"before": 1, "after": 0.5}]}}
    found = check(page(worse))
    assert {"class": "change bad"} in found.all("dd")
    assert "+0.5" in found.words
    assert {"class": "number good"} in found.all("td")
    assert "Less is better." in found.words


def test_the_same_bytes_each_time() -> None:
    data = hostile(30)
    assert page(data) == page(copy.deepcopy(data))
    code = "import sys; from reporting.samples import digits; from graphopt.reporting.page import page; "
    code += "sys.stdout.buffer.write(page(digits()).encode())"
    folder = Path(__file__).parents[1]
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] == page(digits()).encode()


def test_without_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(EnvironmentProblem, match="Jinja") as caught:
        page({})
    assert "graphopt[report]" in caught.value.hint


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("there is no Chromium here")
    return found


def opened(browser: str, text: str, width: int, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Opens a page in a frame of that width: what was measured in it, and what the console says."""
    measure = (
        "const f = document.createElement('iframe'); f.width = %d; f.height = 800; f.srcdoc = %s; f.onload = () => {"
        "const d = f.contentDocument, w = f.contentWindow; document.body.textContent = 'found'"
        "+ ' scroll=' + d.documentElement.scrollWidth + ' width=' + d.documentElement.clientWidth"
        "+ ' requests=' + w.performance.getEntriesByType('resource').length"
        "+ ' sections=' + d.querySelectorAll('section').length; }; document.body.append(f);"
    )
    script = measure % (width, json.dumps(text).replace("</", "<\\/"))
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!DOCTYPE html><meta charset=utf-8><body><script>{script}</script>", "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--enable-logging=stderr"]
    command = [browser, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    numbers = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", done.stdout.partition("found")[2])}
    return numbers, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_in_chromium(width: int, tmp_path: Path) -> None:
    """No word in the console, no request, and nothing that makes the page scroll sideways."""
    browser = chromium()
    for number, data in enumerate((digits(), hostile(60))):
        folder = tmp_path / str(number)
        folder.mkdir()
        found, console = opened(browser, page(data), width, folder)
        assert console == []
        assert found["requests"] == 0
        assert found["sections"] == 13
        assert found["scroll"] <= found["width"] <= width
    folder = tmp_path / "control"
    folder.mkdir()
    wide = '<p style="width:2000px"><img src="http://127.0.0.1:9/x.png"></p>'
    found, console = opened(browser, page(digits()).replace("<main>", f"<main>{wide}"), width, folder)
    assert "Content Security Policy" in "".join(console), "else the above could not fail"
    assert found["scroll"] > width
